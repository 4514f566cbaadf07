"""Delivery of notifications: each batch in its own process, so that a hanging endpoint delays nothing.

The process, ``svcagent notify deliver``, reads the endpoints from the settings, because their URLs contain secrets.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import IO

from agent import logs
from agent.cli.options import current
from agent.cli.output import show_warning
from agent.clock import Clock, Deadline, poll
from agent.data import dataclass
from agent.errors import SvcagentError
from agent.fleet.notices import Notice
from agent.text import clean, printable

WAIT_SECONDS = 5.0
"""How long a verb that is otherwise finished waits for the results of its notifications."""

POLL_SECONDS = 0.05

SVCAGENT = (sys.executable, "-P", "-m", "agent")
"""This svcagent. -P, because a directory called agent may exist in the current directory."""


def assert_possible() -> None:
    """Check, before a notice is recorded as sent, that this host can send it: another host may be able to.

    :raises SvcagentError: Apprise is not installed.
    """
    if importlib.util.find_spec("apprise") is None:
        from agent.cli.endpoints import MISSING

        raise SvcagentError(f"{MISSING}; or take urls out of [notify]")


@dataclass
class _Delivery:
    """A running process. Its output is in memory, because it could block on a pipe, and others could wait for one."""

    notices: Sequence[Notice]
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    @classmethod
    def start(cls, notices: Sequence[Notice]) -> "_Delivery":
        """Start the process.

        :raises OSError: there are no processes or no memory left.
        """
        config = ("--config", str(current().config)) if current().config else ()
        output = _memory()
        with _memory() as message:
            messages = [{"title": clean(one.title), "body": printable(one.body), "tone": one.tone} for one in notices]
            message.write(json.dumps(messages).encode())
            message.seek(0)
            process = subprocess.Popen(  # noqa: S603 - svcagent itself, without a shell
                [*SVCAGENT, *config, "notify", "deliver"],
                stdin=message,
                stdout=output,
                stderr=subprocess.DEVNULL,
                # Neither Ctrl-C on the terminal nor the end of this process reaches it.
                start_new_session=True,
            )
        return cls(notices, process, output)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def titles(self) -> str:
        return "; ".join(one.title for one in self.notices)

    def problems(self) -> Iterator[str]:
        """Yield what an ended delivery could not send, and to which endpoint."""
        self.output.seek(0)
        try:
            outcomes = json.load(self.output)
        except ValueError:
            yield f"its process ended with {self.process.returncode}"
            return
        for one in outcomes:
            if one["problem"]:
                yield f"notify.urls[{one['position']}] {one['name']}: {one['problem']}"

    def leave(self) -> None:
        # Popen remembers a process whose end it has not seen, and warns of it.
        self.process.returncode = self.process.returncode or 0
        self.output.close()


@dataclass
class Deliveries:
    """Deliveries of one verb for one service. ``is_hurried`` returns True when it must not wait any more."""

    service: str
    clock: Clock
    is_hurried: Callable[[], bool] = lambda: False
    _under_way: list[_Delivery] = field(default_factory=list)

    def send(self, notices: Sequence[Notice]) -> None:
        """Start a delivery without waiting for it."""
        if not notices:
            return
        try:
            delivery = _Delivery.start(notices)
        except OSError as error:
            show_warning(f"{self.service}: no notification is sent: {error.strerror}", service=self.service)
            return
        self._under_way.append(delivery)
        for one in notices:
            logs.log(f"telling: {one.title}", service=self.service, notice=one.kind)

    def wait(self) -> None:
        """Wait up to `WAIT_SECONDS` for all deliveries, and warn of what was not sent by then. Late ones continue."""
        limit = Deadline.after(self.clock, WAIT_SECONDS)
        poll(lambda: self.is_hurried() or all(one.has_ended for one in self._under_way), limit, POLL_SECONDS)
        for one in self._under_way:
            late = f"not known after {WAIT_SECONDS:.0f} s whether it arrived; process {one.process.pid} goes on with it"
            for problem in one.problems() if one.has_ended else [late]:
                text = f'{self.service}: notification "{one.titles}": {problem}. To try all: svcagent notify test'
                show_warning(text, service=self.service)
            one.leave()
        self._under_way.clear()


def _memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("svcagent"), "w+b")
