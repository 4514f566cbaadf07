"""Apply decisions to one record at a time: read, decide, write on condition of what was read, read back.

Any number of hosts may do this concurrently. A host that loses a race reads again, and so does one whose write has an
unknown outcome: each write depends on what was read, so repeating it is harmless.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from agent.cname.conflicts import Conflicts
from agent.cname.plan import RecordDecision, RecordOutcome, decide, decide_adoption, decide_removal, definition_conflict
from agent.cname.provider import NOTHING, Provider, Raced, RecordPlace, ZoneView
from agent.cname.record import WantedRecord
from agent.consul import AgentSelf, ask_dns
from agent.data import dataclass
from agent.errors import (
    BadDefinition,
    ConsulUnreachable,
    Denied,
    DnsUnreachable,
    OutcomeUnknown,
    Rejected,
    SvcagentError,
    Unreachable,
)
from agent.logs import log_bug

ATTEMPTS = 5
"""Attempts per record before svcagent reports that it does not settle."""


@dataclass(frozen=True)
class SyncResult:
    """The result for one record. ``is_done`` is True if it was written."""

    place: RecordPlace
    outcome: RecordOutcome
    why: str
    wanted: WantedRecord | None = None
    is_done: bool = False
    seen: ZoneView | None = None
    """The state before, if it could be read."""
    is_definition_conflict: bool = False
    """True if another definition of the same generation is published."""


@dataclass(frozen=True)
class _Task:
    place: RecordPlace
    provider: str
    decide: Callable[[ZoneView], RecordDecision]
    wanted: WantedRecord | None

    def result(self, outcome: RecordOutcome, why: str, **fields: Any) -> SyncResult:
        return SyncResult(self.place, outcome, why, self.wanted, **fields)


class CnameSync:
    """Plans and syncs records. ``provider_of`` opens each provider when it is first needed.

    ``has_instances`` is True if Consul DNS returns instances for a target, and raises `ConsulUnreachable` if that is
    unknown. ``conflicts`` is None for a host without Consul.
    """

    def __init__(
        self,
        provider_of: Callable[[str], Provider],
        has_instances: Callable[[str], bool],
        conflicts: Conflicts | None = None,
    ) -> None:
        self._provider_of = provider_of
        self._has_instances = has_instances
        self._conflicts = conflicts
        self._silent: dict[str, str] = {}
        """Errors of providers that did not answer, for the duration of one call."""

    def plan(self, wanted: Iterable[WantedRecord], *, is_forced: bool = False) -> tuple[SyncResult, ...]:
        """Return what `sync` would do now, including a check of permissions. Change nothing."""
        return self._sync_all(wanted, is_forced=is_forced, is_plan=True)

    def sync(self, wanted: Iterable[WantedRecord], *, is_forced: bool = False) -> tuple[SyncResult, ...]:
        """Publish what is wanted. An error of one record does not stop the others.

        ``is_forced`` publishes a target even if Consul DNS does not answer for it.
        """
        return self._sync_all(wanted, is_forced=is_forced, is_plan=False)

    def adopt(self, wanted: Iterable[WantedRecord]) -> tuple[SyncResult, ...]:
        """Mark existing correct records as ours."""
        self._silent = {}
        return tuple(self._sync(_Task(one.place, one.provider, partial(decide_adoption, one), one)) for one in wanted)

    def remove(self, place: RecordPlace, provider: str, owner: str | None, wanted: WantedRecord | None) -> SyncResult:
        """Remove a record of ours; see `decide_removal`."""
        self._silent = {}
        return self._sync(_Task(place, provider, partial(decide_removal, place.name, owner, wanted), wanted))

    def _sync_all(self, wanted: Iterable[WantedRecord], *, is_forced: bool, is_plan: bool) -> tuple[SyncResult, ...]:
        self._silent = {}
        tasks = (_Task(one.place, one.provider, partial(decide, one), one) for one in wanted)
        results = (self._sync(task, is_forced=is_forced, is_plan=is_plan) for task in tasks)
        return tuple(self._with_conflicts(result, is_reading=is_plan) for result in results)

    def _sync(self, task: _Task, *, is_forced: bool = False, is_plan: bool = False) -> SyncResult:
        """Sync one record and convert errors to outcomes. A provider that did not answer is not tried again."""
        if task.provider in self._silent:
            return task.result(RecordOutcome.UNREACHABLE, self._silent[task.provider])
        try:
            return self._sync_or_raise(task, is_forced=is_forced, is_plan=is_plan)
        except BadDefinition:
            raise  # faulty settings affect every record
        except OutcomeUnknown as error:
            return task.result(RecordOutcome.UNKNOWN, str(error))
        except Unreachable as error:
            if isinstance(error, DnsUnreachable):
                self._silent[task.provider] = str(error)
            return task.result(RecordOutcome.UNREACHABLE, str(error))
        except SvcagentError as error:
            return task.result(RecordOutcome.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 - a bug that one record triggers must not stop the others
            log_bug(f"{task.place.name}: cannot sync the CNAME", error)
            return task.result(
                RecordOutcome.UNKNOWN, f"unexpected {type(error).__name__}: {error}; the log has the traceback"
            )

    def _sync_or_raise(self, task: _Task, *, is_forced: bool, is_plan: bool) -> SyncResult:
        """Read, decide and write; a plan only checks the right to write. Repeat after a lost race or response.

        :raises OutcomeUnknown: the last writes got no response.
        """
        provider = self._provider_of(task.provider)
        lost: tuple[SyncResult, OutcomeUnknown] | None = None
        trouble: Raced | OutcomeUnknown | None = None
        for _ in range(ATTEMPTS):
            try:
                seen = provider.read(task.place)
                decision = task.decide(seen)
                if is_plan and decision.outcome.is_write:
                    provider.preflight(task.place)
                decision = decision if is_forced else self._held_back(decision, task.wanted)
                result = task.result(
                    decision.outcome,
                    decision.why,
                    seen=seen,
                    is_definition_conflict=decision.is_definition_conflict,
                )
                if is_plan or not decision.outcome.is_write:
                    return _read_back(result, lost[0]) if lost else result
                result = replace(result, is_done=True)
                try:
                    provider.write(task.place, seen, _state_after(decision.outcome, seen, task.wanted))
                except OutcomeUnknown as error:
                    lost, trouble = (result, error), error
                else:
                    return result
            except Raced as error:
                trouble = error
            except DnsUnreachable as error:
                if lost is not None:
                    raise lost[1] from error
                raise
        if isinstance(trouble, OutcomeUnknown):
            raise trouble
        return task.result(
            RecordOutcome.CONFLICT,
            f"{ATTEMPTS} attempts failed: {trouble}. Check whether another program writes the record",
        )

    def _with_conflicts(self, result: SyncResult, *, is_reading: bool) -> SyncResult:
        """Publish a conflict that this host lost, or report claims against the record that it won.

        Without Consul, only the hosts that lost know.
        """
        wanted, conflicts = result.wanted, self._conflicts
        if wanted is None or conflicts is None:
            return result
        try:
            if result.is_definition_conflict and not is_reading:
                conflicts.claim(wanted)
            elif result.outcome is RecordOutcome.IN_PLACE and (
                others := conflicts.others(wanted, is_reading=is_reading)
            ):
                decision = definition_conflict(wanted, others)
                return replace(result, outcome=decision.outcome, why=decision.why)
        except (Unreachable, Denied, Rejected) as error:
            return replace(result, why=f"{result.why} (unknown whether other hosts define another record: {error})")
        return result

    def _held_back(self, decision: RecordDecision, wanted: WantedRecord | None) -> RecordDecision:
        """Refuse to publish a name that Consul DNS does not answer for: clients would find nothing."""
        if not decision.is_publication or wanted is None or not wanted.is_in_consul:
            return decision
        target = wanted.record.target
        if self._has_instances(target):
            return decision
        why = (
            f"Consul DNS returns no instance for {target}. Start one (with ACLs, the Consul agent needs its own token, "
            "acl.tokens.default, that can read the service), or publish the record anyway with --force"
        )
        return RecordDecision(RecordOutcome.NOT_NOW, why)


def has_instances(agent: AgentSelf, target: str) -> bool:
    """True if the local agent's DNS returns any instance. Raise `ConsulUnreachable` if it is disabled or silent."""
    if agent.dns is None:
        raise ConsulUnreachable(
            f"the DNS of the local Consul agent is disabled, so it is unknown whether {target} has instances. Enable "
            "it (ports.dns), or publish the record anyway with --force"
        )
    return bool(ask_dns(agent.dns, target).instances)


def _state_after(outcome: RecordOutcome, seen: ZoneView, wanted: WantedRecord | None) -> ZoneView:
    if wanted is None or outcome is RecordOutcome.REMOVED:
        return NOTHING
    # An adopted record keeps its TTL.
    record = seen.record if outcome is RecordOutcome.ADOPTED else wanted.record
    return ZoneView(record, markers=(wanted.marker,))


def _read_back(now: SyncResult, lost: SyncResult) -> SyncResult:
    """Return the result of a write without a response if the current state shows that it was applied."""
    if now.outcome not in (RecordOutcome.IN_PLACE, RecordOutcome.ABSENT):
        return now
    return replace(lost, why=f"{lost.why} (the server's answer was lost; read back)")
