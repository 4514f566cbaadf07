"""What ``svcagent cname`` prints about records. Problems always go to standard error."""

import sys
from collections.abc import Mapping, Sequence

from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_table, show_trouble
from agent.cname import Outcome, Result, Seen, Wanted, exit_code

NO_RECORDS = "no definition has a CNAME"


def show_results(results: Sequence[Result], *, is_plan: bool, late: Mapping[str, Sequence[str]] | None = None) -> int:
    """Print all records of a plan, or those that a sync changed or could not keep; return the exit code.

    ``late`` names the servers that do not show a record yet, by record.
    """
    late = late or {}
    if current().as_json:
        show_document(results_document(results, is_plan=is_plan, late=late))
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
        show_line(NO_RECORDS)
    elif not rows and sys.stdout.isatty():
        show_line(f"{sum(one.outcome is Outcome.IN_PLACE for one in results)} in place")
    return exit_code(one.outcome for one in results)


def results_document(
    results: Sequence[Result], *, is_plan: bool, late: Mapping[str, Sequence[str]] | None = None
) -> dict[str, object]:
    late = late or {}
    return {
        "dry_run": is_plan,
        "records": [_document(one) | {"unverified": list(late.get(one.place.name, ()))} for one in results],
    }


def _outcome(result: Result, is_plan: bool) -> str:
    return f"to be {result.outcome}" if is_plan and result.outcome.is_write else str(result.outcome)


def _document(result: Result) -> dict[str, object]:
    return {
        "record": result.place.name,
        "zone": result.place.zone,
        **wanted_document(result.wanted),
        "outcome": str(result.outcome),
        "why": result.why,
        "is_done": result.is_done,
        "seen": _seen(result.seen),
    }


def wanted_document(wanted: Wanted | None) -> dict[str, object]:
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
