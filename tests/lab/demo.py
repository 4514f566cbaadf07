"""The demo: a service rolls from one image to the next on several hosts, under load, and every request is counted.

    python -m tests.lab.demo --hosts 3 --load-seconds 0.2 --compare

Run by ``scripts/demo``. Real servers, real clients; ``--compare`` runs the shell script that svcagent replaces on the
same fleet before it. The exit code says whether svcagent lost a request.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.lab.ground import LabError, wait_until
from tests.lab.lab import LOCK, Lab
from tests.lab.origin import run_origin
from tests.lab.rollout import HostReport, Rollout, holder_of
from tests.lab.traffic import Load, Snapshot, Summary

NAME = "keyword-suggest"
SETTLED = 200
"""Requests that go well before a rollout starts and after it has ended."""


@dataclass
class Report:
    """One rollout as it was measured."""

    title: str
    before: str
    after: dict[str, str | None]
    seconds: float
    load: Summary
    exit_codes: list[int]
    hosts: list[HostReport] = field(default_factory=list)

    @property
    def is_lossless(self) -> bool:
        """Did every request go well, and every host end with the new version?"""
        return self.load.failures == 0 and not any(self.exit_codes) and len(set(self.after.values())) == 1


def main() -> int:
    """Run it; 0 when svcagent lost no request, 1 when it did, 2 when the lab could not do its part."""
    options = _options()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        reports = _run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted; the fleet is gone")
        return 130
    except LabError as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    _summarise(reports, options, console)
    return 0 if reports[-1].is_lossless else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=2, metavar="N", help="hosts of the fleet, 2 to 9 (default 2)")
    parser.add_argument(
        "--load-seconds", type=float, default=3.0, metavar="S", help="how long a container loads its index (default 3)"
    )
    parser.add_argument("--rate", type=float, default=400.0, metavar="R", help="requests per second (default 400)")
    parser.add_argument("--compare", action="store_true", help="first the shell script that svcagent replaces")
    parser.add_argument("--json", action="store_true", help="the measurements as one JSON document, without the view")
    options = parser.parse_args()
    if not 2 <= options.hosts <= 9:
        parser.error("--hosts must be 2 to 9: with fewer nobody is left to answer, with more the machine is the limit")
    if not 0 <= options.load_seconds <= 60:
        parser.error("--load-seconds must be 0 to 60")
    return options


def _run(options: argparse.Namespace, console: Console) -> list[Report]:
    say: Callable[[str], None] = (lambda _text: None) if options.json else (lambda text: console.print(text))
    say(f"starting a fleet of {options.hosts} hosts: a Consul agent and a Docker Engine each, a registry, a server …")
    reports = []
    with Lab(options.hosts) as lab:
        lab.push("1")
        for host in lab.hosts:
            lab.write_definition(host, drain={"min": "0s"})
            lab.run_service(host, options.load_seconds)
        for host in lab.hosts:
            registered = lab.svcagent(host, "register")
            if registered.wait(60):
                raise LabError(f"svcagent register on {host.name}: {_errors_of(registered)}")
        lab.wait_passing(seconds=60)
        say(f"{NAME} is registered and passing on all of them: version 1")
        view = View(lab, console, is_silent=options.json)
        if options.compare:
            reports.append(_under_the_script(lab, options, view))
            lab.wait_passing(seconds=60)
        reports.append(_under_svcagent(lab, options, view, "3" if options.compare else "2"))
        say("stopping the fleet …")
    return reports


def _under_svcagent(lab: Lab, options: argparse.Namespace, view: "View", version: str) -> Report:
    before = str(int(version) - 1)
    with Load(lab, rate=options.rate) as load:
        load.wait_for(requests=SETTLED)
        lab.push(version)
        began = time.monotonic()
        rollout = Rollout(lab, NAME)
        view.follow("svcagent reload", load, rollout.states, lambda: rollout.is_over)
        seconds = time.monotonic() - began
        load.wait_for(requests=SETTLED)
        summary = load.stop()
    hosts = rollout.reports(options.load_seconds)
    exit_codes = [host.exit_code for host in hosts]
    return Report("svcagent", before, lab.versions(), seconds, summary, exit_codes, hosts)


def _under_the_script(lab: Lab, options: argparse.Namespace, view: "View") -> Report:
    with Load(lab, rate=options.rate) as load:
        load.wait_for(requests=SETTLED)
        lab.push("2")
        began = time.monotonic()
        with view.showing("consul lock … check_and_reload", load, dict) as tick:
            runs = run_origin(lab, load_seconds=options.load_seconds, tick=tick)
        seconds = time.monotonic() - began
        load.wait_for(requests=SETTLED)
        summary = load.stop()
    wait_until(lambda: set(lab.versions().values()) == {"2"}, 60, "the script has brought every host to version 2")
    return Report("shell script", "1", lab.versions(), seconds, summary, [run.exit_code for run in runs])


class View:
    """The live view on a terminal; elsewhere a line whenever something has changed."""

    def __init__(self, lab: Lab, console: Console, *, is_silent: bool) -> None:
        self._lab = lab
        self._console = console
        self._is_silent = is_silent
        self._last: dict[str, str] = {}

    def follow(self, title: str, load: Load, states: Callable[[], dict[str, str]], is_over: Callable[[], bool]) -> None:
        """Show until ``is_over``."""
        with self.showing(title, load, states) as tick:
            while not is_over():
                tick()
                time.sleep(0.2)
            tick()

    @contextmanager
    def showing(self, title: str, load: Load, states: Callable[[], dict[str, str]]) -> Iterator[Callable[[], None]]:
        """A block in which each call of its value draws anew."""
        is_live = self._console.is_terminal and not self._is_silent
        live = Live(console=self._console, auto_refresh=False, transient=True) if is_live else None
        began = time.monotonic()

        def tick() -> None:
            self._draw(live, title, began, load.snapshot(), states())

        with live or nullcontext():
            yield tick

    def _draw(self, live: Live | None, title: str, began: float, snapshot: Snapshot, states: dict[str, str]) -> None:
        """One picture."""
        holder = holder_of(self._lab, LOCK) or "nobody"
        if live is not None:
            live.update(self._picture(title, began, snapshot, states, holder), refresh=True)
            return
        now = {**states, "lock": holder}
        for what, state in now.items():
            if not self._is_silent and self._last.get(what) != state:
                self._console.print(
                    f"{time.monotonic() - began:6.2f} s  {what:<6} {state:<28} {snapshot.requests} requests, "
                    f"{snapshot.failures} failed",
                    highlight=False,
                )
        self._last = now

    def _picture(self, title: str, began: float, snapshot: Snapshot, states: dict[str, str], holder: str) -> Table:
        table = Table(title=f"{title}   {time.monotonic() - began:.1f} s   lock: {holder}", title_justify="left")
        for column in ("host", "version", "in service", "step"):
            table.add_column(column, min_width=10)
        versions, passing = self._lab.versions(), set(self._lab.consul().passing())
        for host in self._lab.hosts:
            is_in = host.name in passing
            table.add_row(
                host.name,
                versions[host.name] or "-",
                "yes" if is_in else "out",
                states.get(host.name, ""),
                style=None if is_in else "yellow",
            )
        failures = f"[bold red]{snapshot.failures} failed[/]" if snapshot.failures else "[green]0 failed[/]"
        table.caption = f"{snapshot.per_second:.0f} requests/s   {snapshot.requests} requests   {failures}"
        return table


def _errors_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.read()


def _summarise(reports: list[Report], options: argparse.Namespace, console: Console) -> None:
    if options.json:
        print(json.dumps([_document(report) for report in reports], indent=2))
        return
    table = Table(title=f"{options.hosts} hosts, {options.load_seconds:g} s of index loading", title_justify="left")
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
        ("seconds per host", lambda r: f"{r.seconds / options.hosts:.2f}"),
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


def _document(report: Report) -> dict[str, Any]:
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
    }


if __name__ == "__main__":
    sys.exit(main())
