"""What ``svcagent cname status`` prints: the answers of servers. Slow to import, like everything that queries DNS."""

from collections.abc import Sequence
from dataclasses import asdict

from agent.cli.cname_output import NO_RECORDS, wanted_document
from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_table, show_trouble
from agent.cname.verify import Report


def show_reports(reports: Sequence[Report]) -> None:
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
            show_trouble(f"{report.wanted.name}: {problem}")


def _report(report: Report) -> dict[str, object]:
    return {
        "record": report.wanted.name,
        "zone": report.wanted.zone,
        **wanted_document(report.wanted),
        "servers": [asdict(one) for one in report.servers],
        "resolver": asdict(report.clients),
        "passing": list(report.passing),
        "problems": list(report.problems),
    }
