"""A lock that `consul lock -n 1` takes part in: key, flags, session and order of release as its Go client has them.

Source: Consul's ``api/lock.go`` and ``command/lock`` (1.8). The key is ``<prefix>/.lock``; the session's behaviour is
``release``. The value is ours to fill: Consul's own holders leave it empty and ignore it.
"""

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from types import TracebackType
from typing import Any

from agent.clock import Clock, Deadline
from agent.consul.client import Consul
from agent.errors import Conflict, Denied, LockBusy, LockLost, Unreachable

LOCK_FLAGS = 0x2DDCCBC058A50C18
SESSION_TTL = 15
# Three renewals may fail before the session can end.
RENEW_SECONDS = SESSION_TTL / 4
# After its holder died, Consul refuses the free key for the lock-delay (15 s): asked again at this pace.
REFUSED_RETRY_SECONDS = 1.0
WAIT_SECONDS = 15.0


class Lock:
    """One attempt to hold ``<prefix>/.lock``; a context manager that leaves neither lock nor session behind.

    A thread with its own connection renews the session and watches the key, so that `is_lost` is known within the
    time that Consul needs to tell it.
    """

    def __init__(
        self,
        consul: Consul,
        prefix: str,
        command: str,
        details: dict[str, Any],
        clock: Clock,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``details`` become the lock's value; ``waiting`` is entered around every wait, and may cut it short."""
        self._consul = consul
        self._prefix = prefix
        self._key = f"{prefix}/.lock"
        self._name = f"Consul lock for '{command}' at '{prefix}'"
        self._value = json.dumps(details, separators=(",", ":"))
        self._clock = clock
        self._waiting = waiting
        self._session: str | None = None
        self._keeper: _Keeper | None = None
        self._is_held = False

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def is_lost(self) -> bool:
        """Was it held, and is it known to be held no longer?"""
        return self._keeper is not None and self._keeper.is_lost

    def acquire(self, deadline: Deadline) -> None:
        """Wait for the lock.

        :raises LockBusy: the deadline is over; names the holder.
        :raises Conflict: the key is there but is not such a lock (a semaphore of ``consul lock -n 2``, or foreign).
        """
        index: int | None = None
        while True:
            with self._waiting():
                index, pair = self._consul.kv_get(self._key, index, min(WAIT_SECONDS, deadline.remaining))
            if pair is not None and pair.flags != LOCK_FLAGS:
                raise Conflict(
                    f"the key {self._key} is in use as something other than a lock of one holder (`consul lock -n N` "
                    "with N above 1?). Use the same -n everywhere, or give this definition a reload.lock of its own"
                )
            if pair is not None and pair.session is not None and pair.session != self._session:
                if deadline.is_over:
                    raise LockBusy(
                        f"the lock {self._prefix} is held by {self._describe(pair.session, pair.value)}. Try again "
                        "later, or wait longer with --lock-timeout"
                    )
                continue
            if self._try_to_take():
                return
            if deadline.is_over:
                raise LockBusy(
                    f"the lock {self._prefix} is free but Consul refuses it for up to 15 s after its holder died. "
                    "Try again later, or wait longer with --lock-timeout"
                )
            index = None
            if not self._is_taken():
                with self._waiting():
                    self._clock.sleep(min(REFUSED_RETRY_SECONDS, deadline.remaining))

    def ask(self) -> None:
        """Ask the leader whether the lock is still ours, right now.

        :raises LockLost: it is not.
        :raises ConsulUnreachable: nobody knows; treat it as not.
        """
        _index, pair = self._consul.kv_get(self._key, consistent=True)
        if self.is_lost or pair is None or pair.session != self._session:
            raise LockLost(f"the lock {self._prefix} is no longer held by this reload")

    def release(self) -> None:
        """Hand over: free the key first, so that the next waiter starts at once; then the session, then the key.

        Consul's lock-delay counts after a session's end, not after a release. If Consul does not answer, the
        session ends by itself within twice its time to live.
        """
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        if self._session is None:
            return
        session, self._session = self._session, None
        try:
            if self._is_held:
                self._is_held = False
                self._consul.kv_put(self._key, "", flags=LOCK_FLAGS, release=session)
            self._consul.destroy_session(session)
            _index, pair = self._consul.kv_get(self._key)
            if pair is not None and pair.session is None and pair.flags == LOCK_FLAGS:
                self._consul.kv_delete(self._key, cas=pair.modify_index)
        except (Unreachable, Denied) as error:
            raise Unreachable(
                f"the lock {self._prefix} could not be given back ({error}); it ends by itself within "
                f"{2 * SESSION_TTL} s"
            ) from error

    def _try_to_take(self) -> bool:
        if self._session is None:
            self._session = self._consul.create_session(self._name, SESSION_TTL)
            self._keeper = _Keeper(self._consul.another(), self._session, self._key, self._clock)
            self._keeper.start()
        self._is_held = self._consul.kv_put(self._key, self._value, flags=LOCK_FLAGS, acquire=self._session)
        if self._is_held and self._keeper is not None:
            self._keeper.watch()
        return self._is_held

    def _is_taken(self) -> bool:
        _index, pair = self._consul.kv_get(self._key, consistent=True)
        return pair is not None and pair.session is not None

    def _describe(self, session: str, value: bytes) -> str:
        return describe_holder(value) or self._consul.session_holder(session) or f"session {session}"


def describe_holder(value: bytes) -> str | None:
    """A holder that left its details in the lock's value, in words; None if it left none."""
    try:
        details = json.loads(value)
        since = datetime.fromisoformat(details["since"])
        return f"{details['node']} ({details['command']}, pid {details['pid']}, since {since:%H:%M:%S} UTC)"
    except (ValueError, KeyError, TypeError):
        return None


class _Keeper(threading.Thread):
    """Renews a session, and once told to `watch`, blocks on the key to learn of its loss."""

    def __init__(self, consul: Consul, session: str, key: str, clock: Clock) -> None:
        super().__init__(name="lock-keeper", daemon=True)
        self._consul = consul
        self._session = session
        self._key = key
        self._clock = clock
        self._stopping = threading.Event()
        self._watching = threading.Event()
        self._lost = threading.Event()

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    def watch(self) -> None:
        self._watching.set()

    def stop(self) -> None:
        """Ask the thread to end; it does so within one renewal, on a connection of its own."""
        self._stopping.set()

    def run(self) -> None:
        end = Deadline.after(self._clock, SESSION_TTL)
        index: int | None = None
        try:
            while not self._stopping.is_set() and not self._lost.is_set():
                try:
                    if not self._consul.renew_session(self._session):
                        self._lost.set()
                        return
                    end = Deadline.after(self._clock, SESSION_TTL)
                    index = self._wait(index)
                except (Unreachable, Denied):
                    # A token that is being replaced is refused for a moment, too.
                    if end.is_over:
                        self._lost.set()
                        return
                    self._stopping.wait(1.0)
        finally:
            self._consul.close()

    def _wait(self, index: int | None) -> int | None:
        """One renewal interval, spent watching the key if told so."""
        if not self._watching.is_set():
            self._stopping.wait(RENEW_SECONDS)
            return None
        index, pair = self._consul.kv_get(self._key, index, RENEW_SECONDS)
        if pair is None or pair.session != self._session:
            self._lost.set()
        return index
