"""What a reload tells the fleet of itself: its host's state while it runs, and a page of history when it has ended.

Nobody's safety rests on it, so that it could not be told fails no reload: that is noted, once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from agent.errors import SvcagentError
from agent.fleet import (
    HostStanding,
    HostState,
    Past,
    history,
    remove_departed,
    remove_old_claims,
    tell_running,
    write_host_state,
)
from agent.reload.edges import Edges
from agent.reload.journal import Record
from agent.reload.record import Result

_STANDINGS = {
    "reloaded": HostStanding.RUNNING,
    "recovered": HostStanding.RUNNING,
    "interrupted": HostStanding.RUNNING,
    "rolled back": HostStanding.ROLLED_BACK,
    "stranded": HostStanding.STRANDED,
}


class Report:
    """Of one reload, or of one recovery."""

    def __init__(self, edges: Edges, service: str, tag: str, note: Callable[[str], None]) -> None:
        self._edges = edges
        self._service = service
        self._tag = tag
        self._note = note
        self._is_silent = False

    def is_under_way(self, standing: HostStanding, step: str, record: Record) -> None:
        """Queueing or reloading, and at which step; what runs is still the old digest."""
        now = self._now()
        self._write(
            HostState(
                digest=record.digest_before,
                state=standing,
                since=now,
                tag=self._tag,
                reload=record.reload_id,
                step=step,
                service_id=record.service_id,
                session=record.session,
                wanted=record.digest,
                seen=now,
            )
        )

    def ended(self, result: Result, record: Record, digest: str) -> None:
        """How it ended, with ``digest`` running; also where nothing was to be done, if that is news."""
        edges = self._edges
        if result.outcome in ("up to date", "refused"):
            # Cron repeats these; told each time, they would look like progress, and be all that history is.
            with self._told():
                tell_running(
                    edges.consul,
                    self._service,
                    edges.agent.node,
                    record.service_id,
                    digest,
                    self._tag,
                    self._now(),
                )
            return
        standing = _STANDINGS.get(result.outcome, HostStanding.FAILED)
        now = self._now()
        self._write(
            HostState(
                digest=digest,
                state=standing,
                since=now,
                tag=self._tag,
                reload=record.reload_id,
                step=record.step,
                error=result.error or "",
                service_id=record.service_id,
                wanted=record.digest,
                seen=now,
            )
        )
        past = Past(
            id=record.reload_id,
            node=edges.agent.node,
            began=_moment(record.since) or self._now(),
            outcome=result.outcome,
            image=record.image,
            before=record.digest_before,
            after=record.digest,
            steps=tuple((step["step"], step["seconds"]) for step in result.steps),
            error=result.error or "",
        )
        try:
            history.write_to_disk(edges.state_dir, self._service, past)
        except SvcagentError as error:
            self._note(f"not in this host's history: {error}")
        if self._is_silent:
            return
        with self._told():
            history.tell(edges.consul, self._service, past)
            remove_departed(edges.consul, self._service, edges.agent.node, now)
            remove_old_claims(edges.consul, self._service, now)

    def _write(self, state: HostState) -> None:
        if self._is_silent:
            return
        with self._told():
            write_host_state(self._edges.consul, self._service, self._edges.agent.node, state)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except SvcagentError as error:
            self._note(f"the fleet is not told of this: {error}")
            self._is_silent = True

    def _now(self) -> datetime:
        return self._edges.clock.now()


def _moment(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text).astimezone(UTC)
    return None
