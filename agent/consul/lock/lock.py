"""A lock that is compatible with both forms of `consul lock`, with a fair queue."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from agent.clock import Clock, Deadline
from agent.consul.client import Consul
from agent.consul.lock.forms import LockHolders, Single, consul_lock
from agent.consul.lock.holder import encode, session_name
from agent.consul.lock.queue import (
    Queue,
    QueueMessages,
    QueuePlace,
    find_dead_end,
    find_place,
    order,
    queue_for,
    queue_of,
    turn_of,
)
from agent.consul.lock.session_renewer import SESSION_TTL, SessionRenewer
from agent.errors import Conflict, ConsulUnreachable, Denied, LockBusy, LockLost, OutcomeUnknown, Unreachable

# After its holder crashed, Consul refuses the free key for the lock-delay (15 s). The lock is tried again at this
# interval. The leader refuses such attempts without writing to its Raft log.
REFUSED_RETRY_SECONDS = 1.0
# Interval in which one of the first ten waiters reads the queue again. Later waiters read it less often, which keeps
# the load of a long queue low.
WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 60.0
NEAR_PLACES = 10


class Lock:
    """One attempt to hold ``<prefix>/.lock``. The context manager leaves no lock, queue entry or session behind.

    A thread with its own connection renews the session and watches the lock. `is_lost` is therefore current within the
    time that Consul takes to report a loss.
    """

    def __init__(
        self,
        consul: Consul,
        prefix: str,
        command: str,
        details: dict[str, Any],
        clock: Clock,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        limit: int = 1,
        queue: str | None = None,
        on_session: Callable[[str], None] | None = None,
        report_place: Callable[[int, str], None] | None = None,
    ) -> None:
        """``command`` (``svcagent …``) names the session; others can read ``details``.

        Unless ``details`` has ``since``, it is the time of joining the queue, later the time of acquisition.
        ``waiting`` is entered around every wait and may interrupt it. ``limit`` is how many sessions may hold the lock;
        all hosts must agree. ``queue`` is the prefix of the queue entries, by default ``svcagent/<service>/queue``.
        ``on_session`` is called with each new session before it holds anything. ``report_place`` is called when the
        queue position (1 is next) or the holder's description changes, with a delay for waiters far behind.
        """
        self._consul = consul
        self._prefix = prefix
        self._name = session_name(command, prefix)
        self._details = details
        self._clock = clock
        self._waiting = waiting
        self._limit = limit
        folder = queue or (queue_of(str(details["service"])) if details.get("service") else queue_for(prefix))
        self._lock = consul_lock(consul, prefix, limit)
        self._queue = Queue(consul, folder, prefix)
        self._messages = QueueMessages(consul, prefix, report_place)
        self._turn_key = turn_of(folder)
        self._turn = Single(consul, self._turn_key)
        self._on_session = on_session
        self._session: str | None = None
        self._renewer: SessionRenewer | None = None
        # True from before the request until it is known that nothing is held, so that nothing is left unreleased.
        self._may_hold = self._may_queue = self._may_have_turn = False
        self._is_held = False

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    @property
    def session(self) -> str | None:
        return self._session

    @property
    def is_lost(self) -> bool:
        """True if the lock was held, and is lost or may be lost because Consul has not answered for too long."""
        return self._is_held and self._renewer is not None and self._renewer.is_lost

    def acquire(self, deadline: Deadline) -> None:
        """Wait for the lock. If it is free and has no waiters, take it without queueing.

        A waiter in the queue also waits while the agent is unreachable.

        :raises LockBusy: the deadline passed; the error names the holder and the queue position.
        :raises Conflict: the key is not a lock of this form, or has another limit.
        """
        with self._waiting():
            found = self._lock.read()
            entries = self._queue.entries()
        waiters = len(order(entries))
        if found.is_free and not waiters:
            self._open_session()
            if self._take():
                for entry in find_dead_end(entries):
                    self._queue.clear(entry)
                return
            found = self._lock.read()
        if deadline.is_over:
            raise self._messages.busy(found, waiters + 1)
        self._wait_in_queue(deadline)

    def _wait_in_queue(self, deadline: Deadline) -> None:
        place, found = None, None
        while True:
            try:
                with self._waiting():
                    found = self._lock.read()
                if found.is_held_by(self._session):  # acquired by a request whose response was lost
                    self._hold()
                    return
                place = self._find_place()
                self._messages.place(place.number, found)
                if place.before is not None:
                    with self._waiting():
                        self._queue.await_change(place.before, min(_patience(place.number), deadline.remaining))
                elif self._contend(place, found, deadline):
                    return
            except (ConsulUnreachable, OutcomeUnknown):
                if deadline.is_over:
                    raise
                self._pause(deadline)
            if deadline.is_over:
                raise self._messages.busy(found or self._lock.read(), place.number if place else 0)

    def _find_place(self) -> QueuePlace:
        """Return the queue position. If the entry is missing, join the queue, with a new session if needed."""
        while True:
            with self._waiting():
                entries = self._queue.entries()
            place = find_place(entries, self._session)
            if place is not None:
                for entry in place.dead:
                    self._queue.clear(entry)
                return place
            session = self._open_session()
            self._may_queue = True
            self._queue.enter(session, self._described())

    def _contend(self, place: QueuePlace, found: LockHolders, deadline: Deadline) -> bool:
        """Try to take the lock at the head of the queue. False if the queue must be read again."""
        while True:
            if found.is_free:
                if self._take():
                    return True
                with self._waiting():
                    found = self._lock.read()
                if found.is_free:
                    # Either the holder's session has just ended, or our own.
                    self._messages.place(place.number, found)
                    self._pause(deadline)
                    return False
            if deadline.is_over:
                return False
            before = found
            with self._waiting():
                found = self._lock.read(found.index, min(WAIT_SECONDS, deadline.remaining))
            if found == before:
                return False
            if not found.is_free:
                self._messages.place(place.number, found)

    def _open_session(self) -> str:
        if self._session is not None:
            if self._consul.renew_session(self._session):
                return self._session
            self._close_session()
        created = self._clock.monotonic()
        self._session = self._consul.create_session(self._name, SESSION_TTL, behaviour=self._lock.behaviour)
        self._renewer = SessionRenewer(self._consul.another(), self._session, created, self._clock)
        self._renewer.start()
        if self._on_session is not None:
            self._on_session(self._session)
        return self._session

    def _close_session(self) -> None:
        if self._renewer is not None:
            self._renewer.stop()
        self._renewer = self._session = None
        self._may_hold = self._may_queue = self._may_have_turn = self._is_held = False

    def _take(self) -> bool:
        if self._session is None:
            return False
        self._may_hold = True
        queue_key = self._queue.key(self._session) if self._may_queue else None
        if not self._lock.acquire(self._session, self._value(), queue_key):
            self._may_hold = False
            return False
        self._hold()
        return True

    def _hold(self) -> None:
        self._may_hold = self._is_held = True
        self._may_queue = False
        if self._renewer is None or self._session is None:
            return
        session = self._session
        self._renewer.watch(lambda consul: partial(consul_lock(consul, self._prefix, self._limit).watch, session))

    def _pause(self, deadline: Deadline) -> None:
        with self._waiting():
            self._clock.sleep(min(REFUSED_RETRY_SECONDS, deadline.remaining))

    def check_held(self) -> None:
        """Ask the leader whether this session still holds the lock.

        :raises LockLost: it does not.
        :raises ConsulUnreachable: the answer is unknown; treat the lock as lost.
        """
        session, renewer = self._session, self._renewer
        if session is None or renewer is None or renewer.is_known_lost or not self._lock.watch(session)[1]:
            raise self._lost()
        if renewer.is_lost:  # not renewed for so long that it may end at any moment
            sent = self._clock.monotonic()
            try:
                is_alive = self._consul.renew_session(session)
            except OutcomeUnknown as error:
                raise ConsulUnreachable(str(error)) from error
            if not is_alive:
                raise self._lost()
            renewer.confirm(sent)

    def update(self, **details: Any) -> None:
        """Publish changed details (``step``, ``digest``) by one write. Without the lock, nothing is written.

        :raises LockLost: another session holds the lock, or none.
        """
        self._details = {**self._details, **details}
        if not self._is_held or self._session is None:
            return
        if not self._lock.rewrite(self._session, self._value()):
            raise self._lost()

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Exclude the other holders of this lock. With a limit of 1 there are none.

        Two holders must not count the instances in service and drain at the same time.

        :raises LockBusy: the deadline passed.
        :raises LockLost: the lock itself was lost.
        """
        if self._limit == 1:
            yield
            return
        self._await_turn(deadline)
        try:
            yield
        finally:
            # What cannot be released now is released with the lock, or expires with the session.
            with suppress(Unreachable):
                self._release_turn()

    def _await_turn(self, deadline: Deadline) -> None:
        found: LockHolders | None = None
        while True:
            if self._session is None or self.is_lost:
                raise self._lost()
            with self._waiting():
                found = self._turn.read(found.index if found else None, min(WAIT_SECONDS, deadline.remaining))
            if found.is_free:
                self._may_have_turn = True
                self._may_have_turn = self._turn.acquire(self._session, self._value())
                if self._may_have_turn:
                    return
                found = self._turn.read()
                if found.is_free:
                    self._pause(deadline)
            if deadline.is_over:
                raise LockBusy(
                    f"the turn to go out of service ({self._turn_key}) is held by {self._messages.holders(found)}. Try "
                    "again later, or wait longer with --lock-timeout",
                    kind="turn-busy",
                )

    def _release_turn(self) -> None:
        if self._session is not None and self._may_have_turn:
            self._turn.release(self._session)
            self._may_have_turn = False

    def release(self) -> None:
        """Release the lock first, so that the next waiter can start; then turn, queue entry and session.

        Consul applies the lock-delay after a session's end, not after a release. If Consul does not answer, the session
        expires within twice its TTL and releases everything it holds.
        """
        session = self._session
        may_hold, may_queue, may_have_turn = self._may_hold, self._may_queue, self._may_have_turn
        self._close_session()
        if session is None:
            return
        try:
            # If Consul refuses, or the key has changed, the end of the session releases the lock.
            with suppress(Conflict, Denied):
                if may_hold:
                    self._lock.release(session)
            with suppress(Denied):
                if may_have_turn:
                    self._turn.release(session)
                if may_queue:
                    self._queue.leave(session)
            self._consul.destroy_session(session)
        except (Unreachable, Denied) as error:
            raise Unreachable(
                f"the lock {self._prefix} could not be released ({error}); it ends by itself within {2 * SESSION_TTL} s"
            ) from error

    def _described(self) -> dict[str, Any]:
        return {"since": self._clock.now().isoformat(timespec="seconds"), **self._details}

    def _value(self) -> str:
        return encode(self._described())

    def _lost(self) -> LockLost:
        return LockLost(f"the lock {self._prefix} was lost: this reload no longer holds it")


def _patience(number: int) -> float:
    return min(LONGEST_WAIT_SECONDS, WAIT_SECONDS * max(1.0, number / NEAR_PLACES))
