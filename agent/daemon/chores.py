"""The verbs that the daemon runs on its own account: what dead reloads left is put right, CNAMEs are kept."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.daemon.children import Ended, Launcher, Record
from agent.errors import Unreachable
from agent.logs import log, reemit

if TYPE_CHECKING:  # slow to import, and large
    from agent.daemon.metrics import Metrics

RECOVER_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between two attempts to put right what is left while Consul or the engine does not answer; the last one for good."""
STOP_SECONDS = 75.0
"""For one of them to end, once it is asked to."""


class Chores:
    """Each verb one at a time. Its warnings are told when they are others than last time."""

    def __init__(self, launcher: Launcher, metrics: "Metrics | None") -> None:
        self._launcher = launcher
        self._metrics = metrics
        self._said: dict[str, list[str]] = {}
        self.are_cnames_due = asyncio.Event()

    async def recover(self, is_consul_there: asyncio.Event) -> None:
        """Until it is over, or there is something that a person has to see to."""
        for seconds in itertools.chain(RECOVER_SECONDS, itertools.repeat(RECOVER_SECONDS[-1])):
            ended = await self._run("recover")
            if ended.status != Unreachable.exit_code:
                break
            if is_consul_there.is_set():
                await asyncio.sleep(seconds)
            else:  # at the start it may come sooner
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_consul_there.wait(), seconds)
        if self._metrics is not None and isinstance(ended.document, list):
            for result in ended.document:
                self._metrics.reload_ended(result)

    async def keep_cnames(self) -> None:
        """Whenever they are due, for ever; wishes that come while it is done are one."""
        while True:
            await self.are_cnames_due.wait()
            self.are_cnames_due.clear()
            ended = await self._run("cname", "sync")
            if self._metrics is not None and isinstance(ended.document, dict):
                self._metrics.cnames(ended.document)

    async def _run(self, *verb: str) -> Ended:
        name, said = " ".join(verb), list[Record]()
        ended = await self._run_to_its_end(verb, said)
        warnings = [record for record in said if record.get("level") != "info"]
        before, self._said[name] = self._said.get(name, []), [str(one.get("text")) for one in warnings]
        if self._said[name] != before:
            for record in warnings:
                reemit(record)
            if not warnings:
                log("all is well again", verb=name)
        return ended

    async def _run_to_its_end(self, verb: Sequence[str], said: list[Record]) -> Ended:
        """If nobody wants it any more, it is asked to end, and waited for all the same."""
        try:
            child = await self._launcher.start(verb, said.append)
        except OSError as error:
            said.append({"level": "warning", "text": f"svcagent {' '.join(verb)} cannot be started: {error}"})
            return Ended(Unreachable.exit_code)
        ending = asyncio.create_task(child.ended())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            child.stop()
            await asyncio.wait({ending}, timeout=STOP_SECONDS)
            raise
