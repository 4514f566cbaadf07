"""A thread that repeats one kind of work on request. Requests during the work count as one."""

import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """``work`` runs in the thread, and so does ``report_result`` with its result or exception."""

    def __init__(self, name: str, work: Callable[[], Any], report_result: Callable[[Any], None]) -> None:
        self._work = work
        self._report_result = report_result
        self._is_wanted = threading.Event()
        self._is_over = False
        # A daemon thread, so that process exit does not wait for a slow response of Consul.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def want(self) -> None:
        """Request the work, from any thread. If it is running, it runs once more."""
        self._is_wanted.set()

    def stop(self, seconds: float) -> None:
        """Start no more work, and wait up to ``seconds`` for the current one."""
        self._is_over = True
        self._is_wanted.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._is_wanted.wait()
            self._is_wanted.clear()
            if self._is_over:
                return
            try:
                found = self._work()
            except Exception as error:  # noqa: BLE001 - handed to the one handler, in the main thread
                found = error
            self._report_result(found)
