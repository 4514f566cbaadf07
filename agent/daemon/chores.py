"""The verbs that the daemon runs for itself: recovery of crashed reloads, and CNAME sync."""

import asyncio
import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.daemon.children import Ended, Launcher, Record
from agent.errors import Unforeseen, Unreachable
from agent.logs import log, log_bug, reemit

if TYPE_CHECKING:  # slow to import, and large
    from agent.daemon.metrics import Metrics

LOOK_SECONDS = 10.0
"""How often the state directory is checked for a crashed reload of any process."""
RECOVER_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses between attempts to recover; the last one repeats. It is short, because an instance is out of service."""
LEAST_JITTER = 0.75
STOP_SECONDS = 75.0
"""How long a verb may take to end after SIGTERM."""


class Chores:
    """Runs each verb, one process at a time. Its warnings are logged if they differ from last time.

    ``jitter`` returns a number from 0 to 1, by which pauses differ from host to host.
    """

    def __init__(
        self,
        launcher: Launcher,
        metrics: "Metrics | None",
        pauses: Sequence[float] = RECOVER_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._launcher = launcher
        self._metrics = metrics
        self._pauses = pauses
        self._look_seconds = look_seconds
        self._jitter = jitter
        self._said: dict[str, list[str]] = {}
        self.are_cnames_due = asyncio.Event()
        self.unrecovered: Mapping[str, str] = {}
        """Services whose crashed reload is not recovered yet, and why."""

    async def recover(self, is_consul_there: asyncio.Event) -> None:
        """Run recovery until Consul and Docker answer; `keep_recovered` retries after other failures."""
        for pause in self._pauses_between():
            ended = await self._recover_once()
            if ended.status != Unreachable.exit_code:
                break
            if is_consul_there.is_set():
                await asyncio.sleep(pause)
            else:  # at the start Consul may answer sooner
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_consul_there.wait(), pause)

    async def keep_recovered(self, left_behind: Callable[[], frozenset[str]], recovered: Callable[[str], None]) -> None:
        """Recover every crashed reload, and retry until that has succeeded.

        ``left_behind`` returns the services whose reload crashed. ``recovered`` is called with each recovered one.
        """
        pauses = self._pauses_between()
        while True:
            if before := left_behind():
                await self._recover_once()
                after = left_behind()
                for service_id in sorted(before - after):
                    recovered(service_id)
                pause = next(pauses) if after else self._look_seconds
            else:
                self.unrecovered, pauses, pause = {}, self._pauses_between(), self._look_seconds
            await asyncio.sleep(pause)

    def _pauses_between(self) -> "itertools.chain[float]":
        last = self._pauses[-1]
        pauses = itertools.chain(self._pauses, itertools.repeat(last))
        return itertools.chain(pause * (1 - (1 - LEAST_JITTER) * self._jitter()) for pause in pauses)

    async def _recover_once(self) -> Ended:
        ended, is_news = await self._run("recover")
        results = ended.document if isinstance(ended.document, list) else []
        results = [one for one in results if isinstance(one, dict)]
        failed = {str(one.get("service")): one for one in results if one.get("exit_code")}
        self.unrecovered = {service: str(one.get("error") or "").partition("\n")[0] for service, one in failed.items()}
        if self._metrics is not None and is_news:
            for result in results:
                self._metrics.reload_ended(result)
        return ended

    async def keep_cnames(self) -> None:
        """Sync CNAMEs whenever they are due; requests during a sync count as one."""
        while True:
            await self.are_cnames_due.wait()
            self.are_cnames_due.clear()
            ended, _is_news = await self._run("cname", "sync")
            if self._metrics is not None and isinstance(ended.document, dict):
                self._metrics.cnames(ended.document)

    async def _run(self, *verb: str) -> tuple[Ended, bool]:
        """Run a verb; True if its warnings differ from last time. They are logged then."""
        name, said = " ".join(verb), list[Record]()
        ended = await self._run_to_its_end(verb, said)
        warnings = [record for record in said if record.get("level") != "info"]
        before, self._said[name] = self._said.get(name), [_reason(str(one.get("text"))) for one in warnings]
        is_news = self._said[name] != (before or [])
        if is_news:
            for record in warnings:
                reemit(record)
            if not warnings:
                log("succeeds again", verb=name)
        return ended, is_news or before is None or not warnings

    async def _run_to_its_end(self, verb: Sequence[str], said: list[Record]) -> Ended:
        """Run a verb. If this is cancelled, the verb gets SIGTERM and is waited for."""
        try:
            child = await self._launcher.start(verb, said.append)
        except OSError as error:
            said.append({"level": "warning", "text": f"svcagent {' '.join(verb)} cannot be started: {error}"})
            return Ended(Unreachable.exit_code)
        except Exception as error:  # noqa: BLE001 - a bug in one chore must not end the daemon
            log_bug(f"svcagent {' '.join(verb)}: a bug in svcagent; please report it", error)
            return Ended(Unforeseen.exit_code)
        ending = asyncio.create_task(child.ended())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            child.stop()
            await asyncio.wait({ending}, timeout=STOP_SECONDS)
            raise


def _reason(text: str) -> str:
    """Return the text by which warnings are compared: without times, ports and counts."""
    return re.sub(r"\d+", "0", text.partition("\n")[0])
