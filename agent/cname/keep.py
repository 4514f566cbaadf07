"""Apply decisions to one record at a time: read, decide, write on condition of what was read, read back.

Any number of hosts may do this concurrently. A host that loses a race reads again, and so does one whose write has an
unknown outcome: each write depends on what was read, so repeating it is harmless.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from agent.cname.conflicts import Conflicts
from agent.cname.plan import RecordDecision, RecordOutcome, contested, decide, decide_adoption, decide_removal
from agent.cname.provider import Provider, Raced, RecordPlace, ZoneView
from agent.cname.record import WantedRecord
from agent.data import dataclass
from agent.errors import BadDefinition, Denied, DnsUnreachable, OutcomeUnknown, Rejected, SvcagentError, Unreachable
from agent.logs import log_bug

ATTEMPTS = 5
"""Attempts per record before svcagent reports that it does not settle."""

Answers = Callable[[str], bool]
"""True if Consul DNS returns instances for this target. Raises `ConsulUnreachable` if that is unknown."""


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
    is_contested: bool = False
    """True if another definition of the same generation is published."""


@dataclass(frozen=True)
class _Task:
    place: RecordPlace
    provider: str
    decide: Callable[[ZoneView], RecordDecision]
    wanted: WantedRecord | None

    def result(self, outcome: RecordOutcome, why: str, seen: ZoneView | None = None) -> SyncResult:
        return SyncResult(self.place, outcome, why, self.wanted, seen=seen)

    def decided(self, decision: RecordDecision, seen: ZoneView, *, is_done: bool = False) -> SyncResult:
        is_contested = decision.is_contested
        return SyncResult(self.place, decision.outcome, decision.why, self.wanted, is_done, seen, is_contested)


@dataclass(frozen=True)
class _Lost:
    """A write without a response: the decision, the state that it was based on, and the error."""

    decision: RecordDecision
    seen: ZoneView
    unknown: OutcomeUnknown


class CnameSync:
    """Plans and syncs records. ``provider_of`` opens each provider when it is first needed."""

    def __init__(
        self, provider_of: Callable[[str], Provider], answers: Answers, contests: Conflicts | None = None
    ) -> None:
        """``contests`` is None for a host without Consul."""
        self._provider_of = provider_of
        self._answers = answers
        self._contests = contests
        self._silent: dict[str, str] = {}
        """Errors of providers that did not answer, for the duration of one call."""

    def plan(self, wanted: Iterable[WantedRecord], *, is_forced: bool = False) -> tuple[SyncResult, ...]:
        """Return what `sync` would do now, including a check of permissions. Change nothing."""
        return self._each(wanted, is_forced=is_forced, is_plan=True)

    def sync(self, wanted: Iterable[WantedRecord], *, is_forced: bool = False) -> tuple[SyncResult, ...]:
        """Publish what is wanted. An error of one record does not stop the others.

        ``is_forced`` publishes a target even if Consul DNS does not answer for it.
        """
        return self._each(wanted, is_forced=is_forced, is_plan=False)

    def adopt(self, wanted: Iterable[WantedRecord]) -> tuple[SyncResult, ...]:
        """Mark existing correct records as ours."""
        self._silent = {}
        return tuple(self._kept(_Task(one.place, one.provider, partial(decide_adoption, one), one)) for one in wanted)

    def remove(self, place: RecordPlace, provider: str, owner: str | None, wanted: WantedRecord | None) -> SyncResult:
        """Remove a record of ours; see `decide_removal`."""
        self._silent = {}
        return self._kept(_Task(place, provider, partial(decide_removal, place.name, owner, wanted), wanted))

    def _each(self, wanted: Iterable[WantedRecord], *, is_forced: bool, is_plan: bool) -> tuple[SyncResult, ...]:
        self._silent = {}
        tasks = (_Task(one.place, one.provider, partial(decide, one), one) for one in wanted)
        kept = (self._kept(task, is_forced=is_forced, is_plan=is_plan) for task in tasks)
        return tuple(self._with_conflicts(result, is_reading=is_plan) for result in kept)

    def _kept(self, task: _Task, *, is_forced: bool = False, is_plan: bool = False) -> SyncResult:
        """Sync one record and convert errors to outcomes. A provider that did not answer is not tried again."""
        if task.provider in self._silent:
            return task.result(RecordOutcome.UNREACHABLE, self._silent[task.provider])
        try:
            return self._settled(task, is_forced=is_forced, is_plan=is_plan)
        except (Denied, Rejected) as error:
            return task.result(RecordOutcome.REFUSED, str(error))
        except OutcomeUnknown as error:
            return task.result(RecordOutcome.UNKNOWN, str(error))
        except DnsUnreachable as error:
            self._silent[task.provider] = str(error)
            return task.result(RecordOutcome.UNREACHABLE, str(error))
        except Unreachable as error:
            return task.result(RecordOutcome.UNREACHABLE, str(error))
        except BadDefinition:
            raise  # faulty settings affect every record
        except SvcagentError as error:
            return task.result(RecordOutcome.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 - a bug that one record triggers must not stop the others
            log_bug(f"{task.place.name}: the CNAME could not be synced", error)
            return task.result(
                RecordOutcome.UNKNOWN, f"an unexpected {type(error).__name__}: {error}; the log has its trace"
            )

    def _settled(self, task: _Task, *, is_forced: bool, is_plan: bool) -> SyncResult:
        """Read, decide and write; a plan only checks the right to write. Repeat after a lost race or response.

        :raises OutcomeUnknown: the last writes got no response.
        """
        provider = self._provider_of(task.provider)
        lost: _Lost | None = None
        trouble: Raced | OutcomeUnknown | None = None
        for _ in range(ATTEMPTS):
            try:
                seen = provider.read(task.place)
                decision = task.decide(seen)
                if is_plan and decision.outcome.is_write:
                    provider.preflight(task.place)
                if held_back := self._held_back(task, decision, seen, is_forced):
                    return held_back
                if is_plan or not decision.outcome.is_write:
                    return _read_back(task, decision, lost) or task.decided(decision, seen)
                try:
                    _write(provider, task, decision, seen)
                except OutcomeUnknown as error:
                    lost, trouble = _Lost(decision, seen, error), error
                    continue
                return task.decided(decision, seen, is_done=True)
            except Raced as error:
                trouble = error
            except DnsUnreachable as error:
                if lost is not None:
                    raise lost.unknown from error
                raise
        if isinstance(trouble, OutcomeUnknown):
            raise trouble
        return task.result(RecordOutcome.CONFLICT, f"it does not settle: {trouble}. Is something else writing it?")

    def _with_conflicts(self, result: SyncResult, *, is_reading: bool) -> SyncResult:
        """Publish a contest that this host lost, or report claims against the record that it won.

        Without Consul, only the hosts that lost know.
        """
        wanted, contests = result.wanted, self._contests
        if wanted is None or contests is None:
            return result
        try:
            if result.is_contested and not is_reading:
                contests.claim(wanted)
            elif result.outcome is RecordOutcome.IN_PLACE and (
                others := contests.others(wanted, is_reading=is_reading)
            ):
                decision = contested(wanted, others)
                return replace(result, outcome=decision.outcome, why=decision.why)
        except (Unreachable, Denied, Rejected) as error:
            return replace(result, why=f"{result.why} (whether other hosts want something else is unknown: {error})")
        return result

    def _held_back(self, task: _Task, decision: RecordDecision, seen: ZoneView, is_forced: bool) -> SyncResult | None:
        """Refuse to publish a name that Consul DNS does not answer for: clients would find nothing."""
        if not decision.is_publication or is_forced or task.wanted is None or not task.wanted.is_in_consul:
            return None
        target = task.wanted.record.target
        if self._answers(target):
            return None
        why = (
            f"Consul DNS names no instance for {target}; start one (with ACLs, Consul's agent needs a token of "
            "its own, acl.tokens.default, that reads the service), or publish it all the same with --force"
        )
        return task.result(RecordOutcome.NOT_NOW, why, seen)


def _write(provider: Provider, task: _Task, decision: RecordDecision, seen: ZoneView) -> None:
    if task.wanted is None or decision.outcome is RecordOutcome.REMOVED:
        provider.remove(task.place, seen)
        return
    # An adopted record keeps its TTL.
    adopted = seen.record if decision.outcome is RecordOutcome.ADOPTED else None
    provider.ensure(task.place, seen, adopted or task.wanted.record, task.wanted.marker)


def _read_back(task: _Task, decision: RecordDecision, lost: _Lost | None) -> SyncResult | None:
    """Return the result of a write without a response if the current state shows that it was applied."""
    if lost is None or decision.outcome not in (RecordOutcome.IN_PLACE, RecordOutcome.ABSENT):
        return None
    why = f"{lost.decision.why} (the server's answer was lost; read back)"
    return replace(task.decided(lost.decision, lost.seen, is_done=True), why=why)
