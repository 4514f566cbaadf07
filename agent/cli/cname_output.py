"""What ``svcagent cname`` prints about records. Problems always go to standard error."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_problem, show_table
from agent.cname import RecordOutcome, SyncResult, WantedRecord, ZoneView, exit_code

if TYPE_CHECKING:  # slow to import, like everything that queries DNS
    from agent.cname.verify import VerificationReport

NO_RECORDS = "no definition has a CNAME"


def show_results(
    results: Sequence[SyncResult], *, is_plan: bool, late: Mapping[str, Sequence[str]] | None = None
) -> int:
    """Print all records of a plan, or those that a sync changed or could not keep; return the exit code.

    ``late`` names the servers that do not show a record yet, by record.
    """
    late = late or {}
    if current().as_json:
        show_document(results_document(results, is_plan=is_plan, late=late))
    rows = [
        (_outcome(one, is_plan), one.place.name, one.why)
        for one in results
        if not one.outcome.exit_code and (is_plan or one.outcome is not RecordOutcome.IN_PLACE)
    ]
    if rows:
        show_table(("OUTCOME", "RECORD", "WHY"), rows)
    for one in results:
        if one.outcome.exit_code:
            show_problem(f"{one.place.name}: {one.outcome}: {one.why}")
    for name, servers in late.items():
        show_problem(f"{name}: not on all servers yet: {'; '.join(servers)}. To check later: svcagent cname status")
    if not results:
        show_line(NO_RECORDS)
    elif not rows and sys.stdout.isatty():
        show_line(f"{sum(one.outcome is RecordOutcome.IN_PLACE for one in results)} in place")
    return exit_code(one.outcome for one in results)


def results_document(
    results: Sequence[SyncResult], *, is_plan: bool, late: Mapping[str, Sequence[str]] | None = None
) -> dict[str, object]:
    late = late or {}
    return {
        "dry_run": is_plan,
        "records": [_document(one) | {"unverified": list(late.get(one.place.name, ()))} for one in results],
    }


def _outcome(result: SyncResult, is_plan: bool) -> str:
    return f"to be {result.outcome}" if is_plan and result.outcome.is_write else str(result.outcome)


def _document(result: SyncResult) -> dict[str, object]:
    return {
        "record": result.place.name,
        "zone": result.place.zone,
        **_wanted(result.wanted),
        "outcome": str(result.outcome),
        "why": result.why,
        "is_done": result.is_done,
        "seen": _seen(result.seen),
    }


def _wanted(wanted: WantedRecord | None) -> dict[str, object]:
    if wanted is None:
        return {}
    return {
        "target": wanted.record.target,
        "ttl": wanted.record.ttl,
        "owner": wanted.owner,
        "gen": wanted.gen,
        "provider": wanted.provider,
        "file": str(wanted.file),
        "path": wanted.path,
    }


def _seen(seen: ZoneView | None) -> dict[str, object] | None:
    if seen is None:
        return None
    record = None if seen.record is None else {"target": seen.record.target, "ttl": seen.record.ttl}
    return {"cname": record, "others": list(seen.others), "markers": list(seen.markers)}


def show_reports(reports: Sequence["VerificationReport"]) -> None:
    if current().as_json:
        show_document([_report(one) for one in reports])
    rows = []
    for report in reports:
        for server in report.servers:
            record = f"{server.record.target} (TTL {server.record.ttl})" if server.record else "-"
            serial = "-" if server.serial is None else str(server.serial)
            rows.append((report.wanted.name, f"{server.name} {server.address}".strip(), serial, record))
        clients = report.clients
        seen = ", ".join(clients.addresses) or "-"
        rows.append((report.wanted.name, f"resolver {clients.resolver}", "-", f"{clients.target or '-'} → {seen}"))
    if rows:
        show_table(("RECORD", "ASKED", "SERIAL", "ANSWER"), rows)
    else:
        show_line(NO_RECORDS)
    for report in reports:
        for problem in report.problems:
            show_problem(f"{report.wanted.name}: {problem}")


def _report(report: "VerificationReport") -> dict[str, object]:
    return {
        "record": report.wanted.name,
        "zone": report.wanted.zone,
        **_wanted(report.wanted),
        "servers": [asdict(one) for one in report.servers],
        "resolver": asdict(report.clients),
        "passing": list(report.passing),
        "problems": list(report.problems),
    }
