"""Delivery of notifications: each batch in its own process, so that a hanging endpoint delays nothing.

The process, ``svcagent notify deliver``, reads the endpoints from the settings, because their URLs contain secrets.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import IO, Any

from agent import logs
from agent.clock import Clock, Deadline, poll
from agent.data import dataclass
from agent.errors import ConsulUnreachable, SvcagentError
from agent.notify.notices import Notice
from agent.text import clean, printable

WAIT_SECONDS = 5.0
"""How long a verb that is otherwise finished waits for the results of its notifications."""

POLL_SECONDS = 0.05

SVCAGENT = (sys.executable, "-P", "-m", "agent")
"""This svcagent. -P, because a directory called agent may exist in the current directory."""


@dataclass
class _Delivery:
    """A running process. Its output is in memory, because it could block on a pipe, and others could wait for one."""

    notices: Sequence[Notice]
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    @classmethod
    def start(cls, notices: Sequence[Notice], config: str | None) -> "_Delivery":
        output = _memory()
        with _memory() as message:
            messages = [{"title": clean(one.title), "body": printable(one.body), "tone": one.tone} for one in notices]
            message.write(json.dumps(messages).encode())
            message.seek(0)
            process = subprocess.Popen(  # noqa: S603 - svcagent itself, without a shell
                [*SVCAGENT, *(("--config", config) if config else ()), "notify", "deliver"],
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

    def problems(self) -> Iterator[str]:
        """Yield what an ended delivery could not send, and to which endpoint."""
        self.output.seek(0)
        try:
            outcomes = json.load(self.output)
        except ValueError:
            yield f"the delivery process failed with exit code {self.process.returncode}"
            return
        for one in outcomes:
            if one["problem"]:
                yield f"notify.urls[{one['position']}] {one['name']}: {one['problem']}"

    def abandon(self) -> None:
        # Popen remembers a process whose end it has not seen, and warns of it.
        self.process.returncode = self.process.returncode or 0
        self.output.close()


@dataclass
class Deliveries:
    """Deliveries of one verb for one service.

    ``config`` is the settings file, if not the default one. ``warn`` prints a warning. ``is_hurried`` returns True when
    it must not wait any more.
    """

    service: str
    clock: Clock
    config: str | None
    warn: Callable[..., None]
    is_hurried: Callable[[], bool] = lambda: False
    _running: list[_Delivery] = field(default_factory=list)

    @contextlib.contextmanager
    def failures_reported(self, problem: str, **fields: Any) -> Iterator[None]:
        """Enclose the decision which notices are due. ``problem``: what a failure prevents; it fails no verb."""
        try:
            yield
        except ConsulUnreachable as error:
            logs.log(f"due notifications not determined: {error}", **fields)
        except SvcagentError as error:
            self.warn(f"{problem}: {error}", **fields)

    def send(self, notices: Sequence[Notice]) -> None:
        """Start a delivery without waiting for it."""
        if not notices:
            return
        try:
            self._running.append(_Delivery.start(notices, self.config))
        except OSError as error:
            self.warn(f"{self.service}: notification not sent: {error.strerror}", service=self.service)
            return
        for one in notices:
            logs.log(f"notifying: {one.title}", service=self.service, notice=one.kind)

    def wait(self) -> None:
        """Wait up to `WAIT_SECONDS` for all deliveries, and warn of what was not sent by then. Late ones continue."""
        limit = Deadline.after(self.clock, WAIT_SECONDS)
        poll(lambda: self.is_hurried() or all(one.has_ended for one in self._running), limit, POLL_SECONDS)
        for one in self._running:
            late = f"not delivered after {WAIT_SECONDS:.0f} s; process {one.process.pid} continues to send it"
            titles = "; ".join(notice.title for notice in one.notices)
            for problem in one.problems() if one.has_ended else [late]:
                text = f'{self.service}: notification "{titles}": {problem}. To try all: svcagent notify test'
                self.warn(text, service=self.service)
            one.abandon()
        self._running.clear()


def _memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("svcagent"), "w+b")
