"""A thread that does one kind of work again and again, whenever it is wanted; wishes that come meanwhile are one."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """``work`` runs in the thread, and so does ``tell`` with what it returned, or with what it raised."""

    def __init__(self, name: str, work: Callable[[], T], tell: Callable[[T | BaseException], None]) -> None:
        self._work = work
        self._tell = tell
        self._is_wanted = threading.Event()
        self._is_over = False
        # Not waited for at the end of the process: an answer of Consul may be long in coming.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Wait for the first wish."""
        self._thread.start()

    def want(self) -> None:
        """Do it as soon as may be, once more if it is just being done. From any thread."""
        self._is_wanted.set()

    def stop(self, seconds: float) -> None:
        """Begin nothing any more, and wait so long for what was begun."""
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
                found: T | BaseException = self._work()
            except Exception as error:  # noqa: BLE001 - handed to the one handler, in the main thread
                found = error
            self._tell(found)
