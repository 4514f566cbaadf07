"""Notices at once that the local Consul agent has lost what it held, or is back.

It asks the agent alone, which costs no server anything: a blocking query for one of svcagent's own services, the canary
(``GET /v1/agent/service/:id?hash=``). An agent that forgets its services forgets that one too and the query ends; one
that ends takes the connection with it, and is asked until it is back.
"""

import threading
from collections.abc import Callable

from agent.consul import Consul
from agent.errors import ConsulUnreachable, SvcagentError

WAIT_SECONDS = 60.0
RETRY_SECONDS = 0.2
"""While the agent does not answer: a refused connection on loopback costs next to nothing."""
SLOW_RETRY_SECONDS = 30.0
"""While it answers and does not let the canary be seen."""


class AgentWatch:
    """``wake`` is called in this one's own thread."""

    def __init__(self, consul: Consul, wake: Callable[[], None]) -> None:
        self._consul = consul
        self._wake = wake
        self._canary: str | None = None
        self._has_canary = threading.Event()
        self._is_over = threading.Event()
        # Not waited for at the end of the process: it sits in a blocking query.
        self._thread = threading.Thread(target=self._run, name="agent-watch", daemon=True)

    def start(self) -> None:
        """Watch, as soon as there is a canary."""
        self._thread.start()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._is_over.set()
        self._has_canary.set()

    def follow(self, canary: str | None) -> None:
        """The id of a service that the agent holds now; None if it holds none of ours."""
        if canary != self._canary or not self._has_canary.is_set():
            self._canary = canary
            (self._has_canary.set if canary else self._has_canary.clear)()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._has_canary.wait()
            if self._canary is not None and not self._is_over.is_set():
                self._follow(self._canary)

    def _follow(self, canary: str) -> None:
        """Until it is gone or another one is to be followed."""
        content: str | None = ""
        while canary == self._canary and self._has_canary.is_set() and not self._is_over.is_set():
            try:
                found = self._consul.service_hash(canary, content or "", WAIT_SECONDS)
            except ConsulUnreachable:
                if content is not None:
                    self._wake()  # so that it is said now
                content = None
                self._is_over.wait(RETRY_SECONDS)
                continue
            except SvcagentError:
                content = ""
                self._is_over.wait(SLOW_RETRY_SECONDS)
                continue
            if found is None or content is None:
                # Whoever is woken says what to follow next.
                self._has_canary.clear()
                self._wake()
                return
            if content and found != content:
                self._wake()
            content = found
