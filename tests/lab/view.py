"""What a demo shows while a rollout runs: a live table on a terminal, elsewhere a line whenever something changes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.lab.lab import Lab
from tests.lab.rollout import holder_of
from tests.lab.traffic import Load, Snapshot


@dataclass(frozen=True)
class Subject:
    """The service that is shown: its lock, what it needs to load, its version and passing instances by host."""

    lock: str
    load_seconds: float
    versions: Callable[[], Mapping[str, str | None]]
    passing: Callable[[], tuple[str, ...]]


class View:
    """The live view on a terminal; elsewhere a line whenever something has changed."""

    def __init__(self, lab: Lab, subject: Subject, console: Console, *, is_silent: bool) -> None:
        self._lab = lab
        self.subject = subject
        self._console = console
        self._is_silent = is_silent
        self._last: dict[str, str] = {}

    def follow(self, title: str, load: Load, states: Callable[[], dict[str, str]], is_over: Callable[[], bool]) -> None:
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
        holder = holder_of(self._lab, self.subject.lock) or "free"
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
        versions, passing = self.subject.versions(), set(self.subject.passing())
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
