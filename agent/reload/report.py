"""What a reload publishes to the fleet: the state of its host, and at the end an entry of the history.

The state protects other hosts: while this host takes a version, its document names the version and the lock's session,
so that a version that takes its host down is noticed (`agent.fleet`). It must be written before the drain. Everything
after that is best effort: a failure to publish fails no reload, and is noted once.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent.errors import SvcagentError
from agent.fleet import (
    HostState,
    HostStatus,
    Past,
    history,
    is_first,
    note_running,
    observe,
    remove_departed,
    remove_old_claims,
    write_host_state,
)
from agent.outcomes import UNCHANGED, WANTED_RAN, Outcome
from agent.reload.dependencies import ReloadContext
from agent.reload.record import ReloadResult
from agent.reload.steps import Blame, State

VERDICT_SECONDS = timedelta(hours=1)
"""How long an earlier verdict "environment" counts. The second one about a version within this time quarantines it."""

_STATUSES = {
    Outcome.RELOADED: HostStatus.RUNNING,
    Outcome.RECOVERED: HostStatus.RUNNING,
    Outcome.INTERRUPTED: HostStatus.RUNNING,
    Outcome.ROLLED_BACK: HostStatus.ROLLED_BACK,
    Outcome.ENVIRONMENT: HostStatus.ROLLED_BACK,
    Outcome.STRANDED: HostStatus.STRANDED,
}


class HostStateReport:
    def __init__(self, context: ReloadContext) -> None:
        self._deps = context.deps
        self._entry = context.entry
        # A recovery is about the reload that crashed, which began with an earlier definition perhaps.
        record = context.entry.record
        self._service, self._service_id = record.service, record.service_id
        _repository, _, self._tag = record.image.rpartition(":")
        self._note = context.progress.note
        self._is_silent = False
        self._is_published = False
        self._had_verdict = False

    def publish_queueing(self) -> None:
        """Publish that this host waits for the lock."""
        with suppress(SvcagentError):
            # The documents of this host from now on replace the one that has its earlier verdict.
            self._had_verdict = self.had_environment_verdict()
        self._write(self._under_way(HostStatus.QUEUEING, "acquire"))

    def publish_step(self, step: str, *, is_required: bool) -> None:
        """Publish that this host takes a version, and at which step; the old digest still runs.

        :raises SvcagentError: it could not be written, and ``is_required``.
        """
        self._is_published = False
        state = self._under_way(HostStatus.RELOADING, step)
        if is_required:
            write_host_state(self._deps.consul, self._service, self._deps.agent.node, state)
            self._is_silent = False
        elif not self._is_silent:
            self._write(state)

    def publish(self, result: ReloadResult, state: State, digest: str) -> None:
        """Publish how the reload ended, with ``digest`` running, before the lock is released to the next host."""
        deps, record = self._deps, self._entry.record
        if result.outcome in UNCHANGED:
            # If each were published, they would look like progress.
            with self._published():
                note_running(
                    deps.consul, self._service, deps.agent.node, self._service_id, digest, self._tag, self._now()
                )
                self._is_published = True
            return
        has_failed = result.outcome not in (*WANTED_RAN, Outcome.INTERRUPTED)
        ended = replace(
            self._state(_STATUSES.get(result.outcome or Outcome.FAILED, HostStatus.FAILED), record.step, digest),
            error=result.error or "",
            wanted=record.digest if has_failed else "",
            is_settled=state.is_settled is True and bool(digest),
            verdict=str(Blame.ENVIRONMENT) if state.blame is Blame.ENVIRONMENT else "",
        )
        # Also if an earlier write failed: without an outcome the version is suspect for every other host.
        self._is_published = self._write(ended)

    def ended(self, result: ReloadResult, state: State, digest: str) -> None:
        """Publish how the reload ended, unless that is done, and add it to the history, also on disk."""
        if not self._is_published:
            self.publish(result, state, digest)
        if result.outcome in UNCHANGED:
            return
        deps, record = self._deps, self._entry.record
        past = Past(
            id=record.reload_id,
            node=deps.agent.node,
            began=_moment(record.since) or self._now(),
            outcome=result.outcome or "",
            image=record.image,
            before=record.digest_before,
            after=record.digest,
            steps=tuple((step["step"], step["seconds"]) for step in result.steps),
            error=result.error or "",
            running=digest,
        )
        try:
            history.write_to_disk(deps.state_dir, self._service, past)
        except SvcagentError as error:
            self._note(f"this reload is missing from the host's own history: {error}")
        if self._is_silent:
            return
        with self._published():
            history.publish(deps.consul, self._service, past)
            remove_departed(deps.consul, self._service, deps.agent.node, self._now())
            remove_old_claims(deps.consul, self._service, self._now())

    def is_first(self) -> bool:
        """True unless another host is known to have run the version through its settle step."""
        with suppress(SvcagentError):
            view = observe(self._deps.consul, self._service, self._now())
            return is_first(view, self._entry.record.digest, (self._deps.agent.node, self._service_id))
        return True

    def had_environment_verdict(self) -> bool:
        """True if the old version failed like this one on some host within the last hour. Raise `SvcagentError`."""
        if self._had_verdict:
            return True
        view = observe(self._deps.consul, self._service, self._now())
        return any(
            host.verdict == Blame.ENVIRONMENT
            and host.wanted == self._entry.record.digest
            and host.since is not None
            and abs(self._now() - host.since) < VERDICT_SECONDS
            for host in view.hosts.values()
        )

    def _under_way(self, status: HostStatus, step: str) -> HostState:
        record = self._entry.record
        verdict = str(Blame.ENVIRONMENT) if self._had_verdict else ""
        state = self._state(status, step, record.digest_before)
        return replace(state, session=record.session, wanted=record.digest, verdict=verdict)

    def _state(self, status: HostStatus, step: str, digest: str) -> HostState:
        now, reload_id = self._now(), self._entry.record.reload_id
        return HostState(digest, status, now, self._tag, reload_id, step, service_id=self._service_id, seen=now)

    def _write(self, state: HostState) -> bool:
        with self._published():
            write_host_state(self._deps.consul, self._service, self._deps.agent.node, state)
            self._is_silent = False
            return True
        return False

    @contextmanager
    def _published(self) -> Iterator[None]:
        try:
            yield
        except SvcagentError as error:
            if not self._is_silent:
                self._note(f"the state of this reload could not be published to the fleet: {error}")
            self._is_silent = True

    def _now(self) -> datetime:
        return self._deps.clock.now()


def _moment(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text).astimezone(UTC)
    return None
