"""How a demo measures a rollout under load, and what it measured: tables for people, and a document."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.lab.lab import Lab
from tests.lab.rollout import HostReport, Rollout
from tests.lab.traffic import Load, Summary
from tests.lab.view import View

SETTLED = 200
"""Requests that go well before a rollout starts and after it has ended."""


@dataclass
class Report:
    title: str
    before: str
    after: dict[str, str | None]
    seconds: float
    load: Summary
    exit_codes: list[int]
    hosts: list[HostReport] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """What else there is to tell, for ``--json``."""

    @property
    def is_lossless(self) -> bool:
        """Did every request go well, and every host end with the new version?"""
        versions = set(self.after.values())
        is_new = len(versions) == 1 and self.before not in versions
        return self.load.failures == 0 and not any(self.exit_codes) and is_new


def measured(lab: Lab, name: str, load: Load, push: Callable[[str], Any], view: View, before: str) -> Report:
    """Push the version after ``before`` and reload the service everywhere, under a load that starts and ends here."""
    version = str(int(before) + 1)
    with load:
        load.wait_for(requests=SETTLED)
        push(version)
        began = time.monotonic()
        rollout = Rollout(lab, name)
        view.follow(f"svcagent reload {name}", load, rollout.states, lambda: rollout.is_over)
        seconds = time.monotonic() - began
        load.wait_for(requests=SETTLED)
        summary = load.stop()
    hosts = rollout.reports(view.subject.load_seconds)
    after = dict(view.subject.versions())
    return Report("svcagent", before, after, seconds, summary, [host.exit_code for host in hosts], hosts)


def document(report: Report) -> dict[str, Any]:
    return {
        "title": report.title,
        "before": report.before,
        "after": report.after,
        "seconds": round(report.seconds, 3),
        "requests": report.load.requests,
        "failures": report.load.failures,
        "exit_codes": report.exit_codes,
        "is_lossless": report.is_lossless,
        "hosts": [
            {"name": h.name, "steps": h.steps, "share": h.share, "inevitable": h.inevitable, "error": h.error}
            for h in report.hosts
        ],
        **report.more,
    }


def summarise(reports: list[Report], title: str, console: Console) -> None:
    """Tables, failures, and the verdict on the last one."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for report in reports:
        table.add_column(report.title, justify="right")
    rows: list[tuple[str, Callable[[Report], str]]] = [
        (
            "versions before → after",
            lambda r: f"{r.before} → {', '.join(sorted({v or '?' for v in r.after.values()}))}",
        ),
        ("requests", lambda r: str(r.load.requests)),
        ("requests failed", lambda r: str(r.load.failures)),
        ("seconds in all", lambda r: f"{r.seconds:.1f}"),
        ("seconds per host", lambda r: f"{r.seconds / len(r.after):.2f}"),
        ("exit codes", lambda r: " ".join(map(str, r.exit_codes))),
    ]
    for name, cell in rows:
        table.add_row(name, *(cell(report) for report in reports))
    console.print(table)
    report = reports[-1]
    console.print(_steps_table(report))
    for failure in report.load.failed:
        console.print(f"failed after {failure.t:.2f} s: {failure.address} {failure.what}", style="red", markup=False)
    for host in report.hosts:
        if host.error:
            console.print(f"{host.name}: {host.error}", style="red", markup=False)
    verdict = "no request was lost" if report.is_lossless else "THE ROLLOUT WAS NOT CLEAN"
    console.print(verdict, style="bold green" if report.is_lossless else "bold red")


def _steps_table(report: Report) -> Table:
    table = Table(title="svcagent, seconds by host and step", title_justify="left")
    table.add_column("step")
    for host in report.hosts:
        table.add_column(host.name, justify="right")
    names = list(dict.fromkeys(name for host in report.hosts for name in host.steps))
    for name in names:
        table.add_row(name, *(f"{host.steps.get(name, 0.0):.3f}" for host in report.hosts))
    table.add_section()
    table.add_row("share of the rollout", *(f"{host.share:.3f}" for host in report.hosts))
    table.add_row("stop + create + start + loading", *(f"{host.inevitable:.3f}" for host in report.hosts))
    table.add_row("what svcagent adds", *(f"{host.share - host.inevitable:.3f}" for host in report.hosts), style="bold")
    return table
