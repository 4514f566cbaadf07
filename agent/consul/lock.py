"""A lock that `consul lock` takes part in, in both its forms, with a fair line before it.

What stands here is one attempt to hold it: session, place in the line, holding, turn, giving back. What each form
writes is in `lock_single` and `lock_semaphore`, the line in `lock_queue`, the thread that keeps it in `lock_keeper`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Any

from agent.clock import Clock, Deadline
from agent.consul.client import Consul
from agent.consul.lock_form import Form, Look
from agent.consul.lock_holder import encode
from agent.consul.lock_keeper import SESSION_TTL, Keeper
from agent.consul.lock_names import form_of, queue_for, queue_of, session_name, turn_of
from agent.consul.lock_queue import Place, Queue, find_dead_end, find_place, order
from agent.consul.lock_telling import Telling
from agent.consul.lock_turn import Turn
from agent.errors import Conflict, ConsulUnreachable, Denied, LockLost, OutcomeUnknown, Unreachable

# After its holder died, Consul refuses the free key for the lock-delay (15 s): asked again at this pace. Those
# refusals are the leader's alone, they are not written to its log.
REFUSED_RETRY_SECONDS = 1.0
# How long a waiter in the first ten places waits before it reads the queue again; those further behind read it more
# rarely, so that a long queue does not read itself all the time.
WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 60.0
NEAR_PLACES = 10


class Lock:
    """One attempt to hold ``<prefix>/.lock``; a context manager that leaves neither lock, queue entry nor session.

    A thread with its own connection renews the session and watches the lock, so that `is_lost` is known within the
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
        *,
        limit: int = 1,
        queue: str | None = None,
        on_session: Callable[[str], None] | None = None,
        tell_place: Callable[[int, str], None] | None = None,
    ) -> None:
        """``command`` (``svcagent …``) names the session, ``details`` are left for others to read.

        Without a ``since`` among the details it is when the line was joined, then when the lock was taken.
        ``waiting`` is entered around every wait, and may cut it short. ``limit``: how many may hold the lock at a
        time, the same for everybody. ``queue``: where the line's entries stand, ``svcagent/<service>/queue`` if left
        out. ``on_session`` is told each session made, before it holds anything. ``tell_place`` is told when the place
        in the line (1: next) or the holder, in words, changes; those far behind hear of it late.
        """
        self._consul = consul
        self._prefix = prefix
        self._name = session_name(command, prefix)
        self._details = details
        self._clock = clock
        self._waiting = waiting
        self._limit = limit
        folder = queue or (queue_of(str(details["service"])) if details.get("service") else queue_for(prefix))
        self._form: Form = form_of(consul, prefix, limit)
        self._queue = Queue(consul, folder, prefix)
        self._telling = Telling(consul, prefix, tell_place)
        self._turn = Turn(consul, turn_of(folder), self._telling)
        self._on_session = on_session
        self._session: str | None = None
        self._keeper: Keeper | None = None
        # What may be there to be given back: true from before it is asked for until it is known not to be.
        self._may_hold = self._may_queue = False
        self._is_held = False

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def session(self) -> str | None:
        """The session that holds the lock or waits for it."""
        return self._session

    @property
    def is_lost(self) -> bool:
        """Was it held, and is it held no longer, or not certainly, since Consul has been silent for too long?"""
        return self._is_held and self._keeper is not None and self._keeper.is_lost

    # ------------------------------------------------------------ getting it

    def acquire(self, deadline: Deadline) -> None:
        """Wait for the lock. If it is free and nobody waits, it is taken without standing in the line.

        Once in the line, an agent that cannot be reached for a while is waited for, too.

        :raises LockBusy: the deadline is over; names the holder and the place in the line.
        :raises Conflict: the key is there but is not such a lock, or one with another limit.
        """
        with self._waiting():
            look = self._form.look()
            entries = self._queue.entries()
        waiters = len(order(entries))
        if look.is_free and not waiters:
            self._open_session()
            if self._take():
                for entry in find_dead_end(entries):
                    self._queue.clear(entry)
                return
            look = self._form.look()
        if deadline.is_over:
            raise self._telling.busy(look, waiters + 1)
        self._stand_in_line(deadline)

    def _stand_in_line(self, deadline: Deadline) -> None:
        place, look = None, None
        while True:
            try:
                with self._waiting():
                    look = self._form.look()
                if look.is_held_by(self._session):  # taken by a request whose answer was lost
                    self._hold()
                    return
                place = self._find_place()
                self._telling.place(place.number, look)
                if place.before is not None:
                    with self._waiting():
                        self._queue.await_change(place.before, min(_patience(place.number), deadline.remaining))
                elif self._contend(place, look, deadline):
                    return
            except (ConsulUnreachable, OutcomeUnknown):
                if deadline.is_over:
                    raise
                self._pause(deadline)
            if deadline.is_over:
                raise self._telling.busy(look or self._form.look(), place.number if place else 0)

    def _find_place(self) -> Place:
        """Where in the line this one stands, joined anew if the entry is gone, with its session or without."""
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

    def _contend(self, place: Place, look: Look, deadline: Deadline) -> bool:
        """At the head of the line: take the lock when it is free. False: time to look around."""
        while True:
            if look.is_free:
                if self._take():
                    return True
                with self._waiting():
                    look = self._form.look()
                if look.is_free:
                    # Its holder has just died, or our own session has.
                    self._telling.place(place.number, look)
                    self._pause(deadline)
                    return False
            if deadline.is_over:
                return False
            before = look
            with self._waiting():
                look = self._form.look(look.index, min(WAIT_SECONDS, deadline.remaining))
            if look == before:
                return False
            if not look.is_free:
                self._telling.place(place.number, look)

    def _open_session(self) -> str:
        """The session, made anew if there is none or it has ended."""
        if self._session is not None:
            if self._consul.renew_session(self._session):
                return self._session
            self._close_session()
        created = self._clock.monotonic()
        self._session = self._consul.create_session(self._name, SESSION_TTL, behaviour=self._form.behaviour)
        self._keeper = Keeper(self._consul.another(), self._session, created, self._clock)
        self._keeper.start()
        if self._on_session is not None:
            self._on_session(self._session)
        return self._session

    def _close_session(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
        self._keeper = self._session = None
        self._may_hold = self._may_queue = self._is_held = False

    def _take(self) -> bool:
        if self._session is None:
            return False
        self._may_hold = True
        spent = self._queue.key(self._session) if self._may_queue else None
        if not self._form.take(self._session, self._value(), spent):
            self._may_hold = False
            return False
        self._hold()
        return True

    def _hold(self) -> None:
        self._may_hold = self._is_held = True
        self._may_queue = False
        if self._keeper is None or self._session is None:
            return
        session = self._session
        self._keeper.watch(lambda consul: partial(form_of(consul, self._prefix, self._limit).watch, session))

    def _pause(self, deadline: Deadline) -> None:
        with self._waiting():
            self._clock.sleep(min(REFUSED_RETRY_SECONDS, deadline.remaining))

    # ------------------------------------------------------------ holding it

    def ask(self) -> None:
        """Ask the leader whether the lock is still ours, right now.

        :raises LockLost: it is not.
        :raises ConsulUnreachable: nobody knows; treat it as not.
        """
        session, keeper = self._session, self._keeper
        if session is None or keeper is None or keeper.is_known_lost or not self._form.is_held(session):
            raise self._lost()
        if keeper.is_lost:  # not renewed for so long that it may end at any moment
            sent = self._clock.monotonic()
            try:
                is_alive = self._consul.renew_session(session)
            except OutcomeUnknown as error:
                raise ConsulUnreachable(str(error)) from error
            if not is_alive:
                raise self._lost()
            keeper.confirm(sent)

    def update(self, **details: Any) -> None:
        """Change what others read of this holder: ``step``, ``digest``. One write; none while it is not held.

        :raises LockLost: somebody else holds it, or nobody.
        """
        self._details = {**self._details, **details}
        if not self._is_held or self._session is None:
            return
        if not self._form.rewrite(self._session, self._value()):
            raise self._lost()

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Among those who hold this lock, one at a time; with a limit of 1 that is so anyway.

        For what two of them must not do at once: count who is in service and go out of it.

        :raises LockBusy: the deadline is over.
        :raises LockLost: the lock, which it needs, was lost.
        """
        if self._limit == 1:
            yield
            return
        self._await_turn(deadline)
        try:
            yield
        finally:
            # What cannot be given back now is given back with the lock, or ends with the session.
            with suppress(Unreachable):
                if self._session is not None:
                    self._turn.give_back(self._session)

    def _await_turn(self, deadline: Deadline) -> None:
        look: Look | None = None
        while True:
            if self._session is None or self.is_lost:
                raise self._lost()
            with self._waiting():
                look = self._turn.look(look, deadline)
            if look.is_free:
                if self._turn.take(self._session, self._value()):
                    return
                look = self._turn.look(None, deadline)
                if look.is_free:
                    self._pause(deadline)
            if deadline.is_over:
                raise self._turn.busy(look)

    def release(self) -> None:
        """Hand over: free the lock first, so that the next waiter starts at once; then the rest, then the session.

        Consul's lock-delay counts after a session's end, not after a release. If Consul does not answer, the
        session ends by itself within twice its time to live, and with it all that it holds.
        """
        session = self._session
        may_hold, may_queue = self._may_hold, self._may_queue
        self._close_session()
        if session is None:
            return
        try:
            # Refused, or something else there by now: then the end of the session is what frees it.
            with suppress(Conflict, Denied):
                if may_hold:
                    self._form.give_back(session)
            with suppress(Denied):
                self._turn.give_back(session)
                if may_queue:
                    self._queue.leave(session)
            self._consul.destroy_session(session)
        except (Unreachable, Denied) as error:
            raise Unreachable(
                f"the lock {self._prefix} could not be given back ({error}); it ends by itself within "
                f"{2 * SESSION_TTL} s"
            ) from error

    def _described(self) -> dict[str, Any]:
        return {"since": self._clock.now().isoformat(timespec="seconds"), **self._details}

    def _value(self) -> str:
        return encode(self._described())

    def _lost(self) -> LockLost:
        return LockLost(f"the lock {self._prefix} is no longer held by this reload")


def _patience(number: int) -> float:
    """Return how many seconds the waiter at that place waits before it reads the queue again."""
    return min(LONGEST_WAIT_SECONDS, WAIT_SECONDS * max(1.0, number / NEAR_PLACES))
