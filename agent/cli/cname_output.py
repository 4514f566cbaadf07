"""What ``svcagent cname`` prints. What needs a person goes to standard error, also in quiet and in ``--json``."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_table, show_trouble
from agent.cname import Outcome, Result, Seen, Wanted, exit_code
from agent.cname.doctor import Advice
from agent.cname.verify import Report


def show_results(results: Sequence[Result], *, is_plan: bool, late: Mapping[str, Sequence[str]] | None = None) -> int:
    """All records, or, when they are kept, those that were not in place; the exit code.

    ``late``: the servers, by record, that do not show it yet.
    """
    late = late or {}
    if current().as_json:
        show_document(
            {
                "dry_run": is_plan,
                "records": [_document(one) | {"unverified": list(late.get(one.place.name, ()))} for one in results],
            }
        )
    rows = [
        (_outcome(one, is_plan), one.place.name, one.why)
        for one in results
        if not one.outcome.exit_code and (is_plan or one.outcome is not Outcome.IN_PLACE)
    ]
    if rows:
        show_table(("OUTCOME", "RECORD", "WHY"), rows)
    for one in results:
        if one.outcome.exit_code:
            show_trouble(f"{one.place.name}: {one.outcome}: {one.why}")
    for name, servers in late.items():
        show_trouble(f"{name}: unverified secondary: {'; '.join(servers)}. Look later: svcagent cname status")
    if not results:
        show_line("no definition has a CNAME")
    elif not rows and sys.stdout.isatty():
        show_line(f"{sum(one.outcome is Outcome.IN_PLACE for one in results)} in place")
    return exit_code(one.outcome for one in results)


def show_reports(reports: Sequence[Report]) -> None:
    """What every server and the resolver say of each record, and every problem."""
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
        show_line("no definition has a CNAME")
    for report in reports:
        for problem in report.problems:
            show_trouble(f"{report.wanted.name}: {problem}")


def show_advice(found: Sequence[Advice]) -> None:
    """Every examination, and the lines to write."""
    if current().as_json:
        show_document([asdict(one) for one in found])
    if found:
        show_table(
            ("", "EXAMINED", "FOUND"), [("ok" if one.is_well else "bad", one.subject, one.found) for one in found]
        )
    else:
        show_line("no definition has a CNAME")
    for one in found:
        if not one.is_well:
            show_trouble(f"{one.subject}: {one.found}" + (f"\n    {one.remedy}" if one.remedy else ""))


def _outcome(result: Result, is_plan: bool) -> str:
    return f"to be {result.outcome}" if is_plan and result.outcome.is_write else str(result.outcome)


def _document(result: Result) -> dict[str, object]:
    return {
        "record": result.place.name,
        "zone": result.place.zone,
        **_wanted(result.wanted),
        "outcome": str(result.outcome),
        "why": result.why,
        "is_done": result.is_done,
        "seen": _seen(result.seen),
    }


def _wanted(wanted: Wanted | None) -> dict[str, object]:
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


def _seen(seen: Seen | None) -> dict[str, object] | None:
    if seen is None:
        return None
    record = None if seen.record is None else {"target": seen.record.target, "ttl": seen.record.ttl}
    return {"cname": record, "others": list(seen.others), "markers": list(seen.markers)}


def _report(report: Report) -> dict[str, object]:
    return {
        "record": report.wanted.name,
        "zone": report.wanted.zone,
        **_wanted(report.wanted),
        "servers": [asdict(one) for one in report.servers],
        "resolver": asdict(report.clients),
        "passing": list(report.passing),
        "problems": list(report.problems),
    }
