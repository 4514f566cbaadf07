"""The commands that the daemon runs for itself: recovery of crashed reloads, and CNAME sync."""

import asyncio
import itertools
import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.daemon.subprocesses import EndedProcess, Launcher
from agent.errors import UnexpectedError, Unreachable
from agent.logs import WARNING, log, log_bug

if TYPE_CHECKING:  # slow to import, and large
    from agent.metrics.exposition import Metrics

RECOVER_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses between recovery attempts; the last one repeats. It is short, because an instance is out of service."""
LEAST_JITTER = 0.75
STOP_SECONDS = 75.0
"""How long a command may take to end after SIGTERM."""


class Housekeeping:
    """Runs each command, one process at a time. Its standard error is logged if it differs from last time.

    ``jitter`` returns a number from 0 to 1, by which pauses differ between hosts.
    """

    def __init__(
        self,
        launcher: Launcher,
        metrics: "Metrics | None",
        pauses: Sequence[float] = RECOVER_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._launcher = launcher
        self._metrics = metrics
        self._pauses = pauses
        self._jitter = jitter
        self._errors: dict[str, str] = {}
        self.are_cnames_due = asyncio.Event()
        self.is_recovery_due = asyncio.Event()

    async def recover_at_start(self, is_consul_there: asyncio.Event) -> None:
        """Run recovery until Consul and Docker answer; `recover_crashed` retries after other failures."""
        for pause in self._pauses_between():
            ended = await self._run("recover")
            if ended.status != Unreachable.exit_code:
                break
            if is_consul_there.is_set():
                await asyncio.sleep(pause)
            else:  # at the start Consul may answer sooner
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_consul_there.wait(), pause)

    async def recover_crashed(self, crashed: Callable[[], frozenset[str]], recovered: Callable[[str], None]) -> None:
        """Recover crashed reloads whenever that is due, and retry until it succeeds.

        ``crashed`` returns the services whose reload crashed. ``recovered`` is called with each recovered one.
        """
        while True:
            await self.is_recovery_due.wait()
            self.is_recovery_due.clear()
            pauses = self._pauses_between()
            while before := crashed():
                await self._run("recover")
                after = crashed()
                for service_id in sorted(before - after):
                    recovered(service_id)
                if after:
                    await asyncio.sleep(next(pauses))

    async def sync_cnames(self) -> None:
        """Sync CNAMEs whenever they are due. Requests during a sync count as one."""
        while True:
            await self.are_cnames_due.wait()
            self.are_cnames_due.clear()
            ended = await self._run("cname", "sync")
            if self._metrics is not None and isinstance(ended.document, dict):
                self._metrics.cnames(ended.document)

    def _pauses_between(self) -> "itertools.chain[float]":
        pauses = itertools.chain(self._pauses, itertools.repeat(self._pauses[-1]))
        return itertools.chain(pause * (1 - (1 - LEAST_JITTER) * self._jitter()) for pause in pauses)

    async def _run(self, *verb: str) -> EndedProcess:
        """Run a command, and log its standard error if that differs from last time."""
        name = " ".join(verb)
        ended = await self._run_captured(verb)
        before, errors = self._errors.get(name, ""), _without_numbers(ended.errors)
        self._errors[name] = errors
        if errors != before:
            for line in ended.errors.splitlines():
                log(line.removeprefix("svcagent: "), level=WARNING, verb=name)
            if not errors:
                log("succeeds again", verb=name)
        return ended

    async def _run_captured(self, verb: Sequence[str]) -> EndedProcess:
        """Run a command. On cancellation, send it SIGTERM and wait for it."""
        try:
            child = await self._launcher.start_captured(verb)
        except OSError as error:
            return EndedProcess(Unreachable.exit_code, errors=f"cannot start svcagent {' '.join(verb)}: {error}")
        except Exception as error:  # noqa: BLE001 - a bug in one chore must not end the daemon
            log_bug(f"svcagent {' '.join(verb)}: a bug in svcagent; please report it", error)
            return EndedProcess(UnexpectedError.exit_code)
        ending = asyncio.create_task(child.ended())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            child.stop()
            await asyncio.wait({ending}, timeout=STOP_SECONDS)
            raise


def _without_numbers(text: str) -> str:
    """Return the text without times, ports and counts, for comparison."""
    return re.sub(r"\d+", "0", text)
