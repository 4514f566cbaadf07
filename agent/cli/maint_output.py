"""What ``svcagent maint`` prints, and what other verbs print about expired maintenance.

Times are readable on a terminal, and ISO 8601 in UTC in pipes and ``--json``.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_table, show_warning
from agent.consul import CheckState
from agent.maintenance import (
    ExpiredMaintenance,
    Maintenance,
    MaintenanceDecision,
    MaintenanceTarget,
    OwnerKind,
    iso,
    length,
    local_time,
)
from agent.text import clean


def shown(moment: datetime) -> str:
    """Return a time for standard output: short on a terminal, ISO 8601 in a pipe."""
    return local_time(moment, datetime.now(UTC)) if sys.stdout.isatty() else iso(moment)


def described(maintenance: Maintenance) -> str:
    return maintenance.describe(shown)


def show_enabled(decisions: Iterable[MaintenanceDecision]) -> None:
    for one in decisions:
        if one.held is None:
            show_line(f"{one.target}: in maintenance{_until(one.wanted)}")
        elif one.held == one.wanted:
            show_line(f"{one.target}: already in maintenance, enabled {described(one.held)}")
        else:
            show_line(
                f"{one.target}: in maintenance{_until(one.wanted)}; it replaces the one enabled {described(one.held)}"
            )


def show_decisions(decisions: Sequence[MaintenanceDecision]) -> None:
    """Print all decisions as a document with --json; else only what was disabled (`show_enabled` prints the rest)."""
    if current().as_json:
        show_document([_document(one.target, one.wanted) | {"was": details(one.held)} for one in decisions])
        return
    for one in decisions:
        if one.wanted is None:
            state = (
                "not in maintenance"
                if one.held is None
                else f"maintenance disabled; it was enabled {described(one.held)}"
            )
            show_line(f"{one.target}: {state}")


def show_status(found: Sequence[tuple[MaintenanceTarget, Maintenance | None]], now: datetime) -> None:
    if current().as_json:
        show_document([_document(target, maintenance, now) for target, maintenance in found])
        return
    rows = [(str(target), *_row(maintenance, now)) for target, maintenance in found if maintenance is not None]
    if rows:
        show_table(("TARGET", "OWNER", "AGE", "SINCE", "UNTIL", "REASON"), rows)
    else:
        show_line("nothing is in maintenance")


def show_expired_maintenance(ended: Sequence[ExpiredMaintenance], *, is_document: bool = False) -> None:
    """Print what expired and was disabled, and what remains and why. ``is_document``: also with --json."""
    if is_document and current().as_json:
        show_document(
            [
                _document(one.target, one.maintenance)
                | {"disabled": one.may_be_disabled, "failing": {check.id: check.status for check in one.failing}}
                for one in ended
            ]
        )
    for one in ended:
        if one.may_be_disabled:
            show_line(
                f"{one.target}: maintenance expired and was disabled; it was enabled {described(one.maintenance)}"
            )
        else:
            show_warning(
                f"{one.target} stays in maintenance, although it has expired, because its checks do not pass: "
                f"{'; '.join(map(_check_text, one.failing))}. Correct that, or disable maintenance anyway: "
                f"svcagent maint disable {one.target.argument}"
            )


def _check_text(check: CheckState) -> str:
    output = clean(check.output, 200)
    return f"check {check.id} is {check.status}" + (f" ({output})" if output else "")


def _until(maintenance: Maintenance | None) -> str:
    return f" until {shown(maintenance.until)}" if maintenance is not None and maintenance.until is not None else ""


def _row(maintenance: Maintenance, now: datetime) -> tuple[str, ...]:
    since = shown(maintenance.since) if maintenance.since else "-"
    age = length(now - maintenance.since) if maintenance.since else "-"
    until = shown(maintenance.until) if maintenance.until else "-"
    return maintenance.whose, age, since, f"{until} (expired)" if maintenance.is_over(now) else until, maintenance.why


def _document(
    target: MaintenanceTarget, maintenance: Maintenance | None, now: datetime | None = None
) -> dict[str, object]:
    found = details(maintenance)
    if found is not None and maintenance is not None and now is not None:
        age = now - maintenance.since if maintenance.since else None
        found |= {"age_seconds": age and int(age.total_seconds()), "is_over": maintenance.is_over(now)}
    return {"target": target.service_id or target.node, "is_node": not target.service_id, "maintenance": found}


def details(maintenance: Maintenance | None) -> dict[str, object] | None:
    if maintenance is None:
        return None
    is_known = maintenance.kind is not OwnerKind.UNKNOWN
    return {
        "kind": str(maintenance.kind),
        "owner": maintenance.owner if is_known else "unknown",
        "host": maintenance.host if is_known else None,
        "reason": maintenance.why,
        "since": iso(maintenance.since) if maintenance.since else None,
        "until": iso(maintenance.until) if maintenance.until else None,
    }
