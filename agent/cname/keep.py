"""Carrying decisions out, one record at a time: read, decide, write on exactly what was read, read again.

Any number of hosts may do this at once, each for itself. Whoever loses a race reads again, and so does whoever does
not know what became of a write: every write is bound to what was seen, so doing it again is harmless.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.cname.contest import Contests
from agent.cname.plan import Decision, Outcome, contested, decide, decide_adoption, decide_removal
from agent.cname.provider import Place, Provider, Raced, Record, Seen
from agent.cname.record import Wanted
from agent.data import dataclass
from agent.errors import BadDefinition, Denied, DnsUnreachable, OutcomeUnknown, Rejected, SvcagentError, Unreachable
from agent.logs import log_bug

ATTEMPTS = 5
"""How often one record is read and written before svcagent says that it does not settle."""

Answers = Callable[[str], bool]
"""Does Consul DNS name instances for this target? Raises `ConsulUnreachable` when that cannot be told."""


@dataclass(frozen=True)
class Result:
    """What became of one record. ``is_done``: it was written; without it, a plan, or nothing to write."""

    place: Place
    outcome: Outcome
    why: str
    wanted: Wanted | None = None
    is_done: bool = False
    seen: Seen | None = None
    """What stood there before, where it could be read."""
    is_contested: bool = False
    """Does another definition of the same generation stand there?"""


@dataclass(frozen=True)
class _Task:
    """One record, what to decide by, and how to write what was decided."""

    place: Place
    decide: Callable[[Seen], Decision]
    write: Callable[[Seen], None]
    wanted: Wanted | None = None

    def result(self, outcome: Outcome, why: str, seen: Seen | None = None) -> Result:
        return Result(self.place, outcome, why, self.wanted, seen=seen)

    def decided(self, decision: Decision, seen: Seen, *, is_done: bool = False) -> Result:
        is_contested = decision.is_contested
        return Result(self.place, decision.outcome, decision.why, self.wanted, is_done, seen, is_contested)


class _Lost(Exception):
    """A write was sent, and nobody knows what became of it."""

    def __init__(self, decision: Decision, seen: Seen, unknown: OutcomeUnknown) -> None:
        super().__init__(str(unknown))
        self.decision = decision
        self.seen = seen
        self.unknown = unknown


class Keeper:
    """Plans and keeps records through their providers, which are opened by ``provider_of`` when first needed."""

    def __init__(
        self, provider_of: Callable[[str], Provider], answers: Answers, contests: Contests | None = None
    ) -> None:
        """``contests``: None for a host that hears of no other."""
        self._provider_of = provider_of
        self._answers = answers
        self._contests = contests
        self._silent: dict[str, str] = {}
        """What is known of providers that did not answer, for the length of one call."""

    def plan(self, wanted: Iterable[Wanted], *, is_forced: bool = False) -> tuple[Result, ...]:
        """What `sync` would do now, permissions included; nothing is changed."""
        self._silent = {}
        found = (self._planned(self._publication(one), one.provider, is_forced=is_forced) for one in wanted)
        return tuple(self._heard(one, is_reading=True) for one in found)

    def sync(self, wanted: Iterable[Wanted], *, is_forced: bool = False) -> tuple[Result, ...]:
        """Make the zones say what is wanted, as far as they are ours. One record's trouble does not stop the others.

        ``is_forced``: publish a target also if Consul DNS does not answer it.
        """
        self._silent = {}
        found = (self._kept(self._publication(one), one.provider, is_forced=is_forced) for one in wanted)
        return tuple(self._heard(one, is_reading=False) for one in found)

    def adopt(self, wanted: Iterable[Wanted]) -> tuple[Result, ...]:
        """Mark records as ours that stand there as they should."""
        self._silent = {}
        return tuple(self._kept(self._adoption(one), one.provider) for one in wanted)

    def remove(self, place: Place, provider: str, owner: str | None, wanted: Wanted | None) -> Result:
        """Take a record of ours away; see `decide_removal`."""
        task = _Task(
            place,
            lambda seen: decide_removal(place.name, owner, wanted, seen),
            lambda seen: self._provider_of(provider).remove(place, seen),
            wanted,
        )
        self._silent = {}
        return self._kept(task, provider)

    def _publication(self, wanted: Wanted) -> _Task:
        def write(seen: Seen) -> None:
            self._provider_of(wanted.provider).ensure(wanted.place, seen, wanted.record, wanted.marker)

        return _Task(wanted.place, lambda seen: decide(wanted, seen), write, wanted)

    def _adoption(self, wanted: Wanted) -> _Task:
        def write(seen: Seen) -> None:
            record: Record = seen.record or wanted.record
            self._provider_of(wanted.provider).ensure(wanted.place, seen, record, wanted.marker)

        return _Task(wanted.place, lambda seen: decide_adoption(wanted, seen), write, wanted)

    def _planned(self, task: _Task, provider: str, *, is_forced: bool) -> Result:
        def once() -> Result:
            seen = self._provider_of(provider).read(task.place)
            decision = task.decide(seen)
            if decision.outcome.is_write:
                self._provider_of(provider).preflight(task.place)
            return self._held_back(task, decision, seen, is_forced) or task.decided(decision, seen)

        return self._guarded(task, provider, once)

    def _kept(self, task: _Task, provider: str, *, is_forced: bool = False) -> Result:
        return self._guarded(task, provider, lambda: self._settled(task, provider, is_forced))

    def _settled(self, task: _Task, provider: str, is_forced: bool) -> Result:
        lost: _Lost | None = None
        trouble: Raced | OutcomeUnknown | None = None
        for _ in range(ATTEMPTS):
            try:
                return self._attempt(task, provider, lost, is_forced=is_forced)
            except Raced as error:
                trouble = error
            except _Lost as error:
                lost, trouble = error, error.unknown
            except DnsUnreachable as error:
                if lost is not None:
                    raise lost.unknown from error
                raise
        if isinstance(trouble, OutcomeUnknown):
            raise trouble
        return task.result(Outcome.CONFLICT, f"it does not settle: {trouble}. Is something else writing it?")

    def _attempt(self, task: _Task, provider: str, lost: "_Lost | None", *, is_forced: bool) -> Result:
        """Read, decide, write. ``lost``: the write of an earlier attempt of which no answer came."""
        seen = self._provider_of(provider).read(task.place)
        decision = task.decide(seen)
        if not decision.outcome.is_write:
            if lost is not None and decision.outcome in (Outcome.IN_PLACE, Outcome.ABSENT):
                why = f"{lost.decision.why} (the server's answer was lost; read back)"
                return replace(task.decided(lost.decision, lost.seen, is_done=True), why=why)
            return task.decided(decision, seen)
        if held_back := self._held_back(task, decision, seen, is_forced):
            return held_back
        try:
            task.write(seen)
        except OutcomeUnknown as error:
            raise _Lost(decision, seen, error) from error
        return task.decided(decision, seen, is_done=True)

    def _heard(self, result: Result, *, is_reading: bool) -> Result:
        """Tell other hosts of a contest that this one lost, and hear of those that it won.

        Where Consul does not take part, hosts that lost are the only ones who know.
        """
        wanted, contests = result.wanted, self._contests
        if wanted is None or contests is None:
            return result
        try:
            if result.is_contested and not is_reading:
                contests.claim(wanted)
            elif result.outcome is Outcome.IN_PLACE and (others := contests.others(wanted, is_reading=is_reading)):
                decision = contested(wanted, others)
                return replace(result, outcome=decision.outcome, why=decision.why)
        except (Unreachable, Denied, Rejected) as error:
            return replace(result, why=f"{result.why} (whether other hosts want something else is unknown: {error})")
        return result

    def _held_back(self, task: _Task, decision: Decision, seen: Seen, is_forced: bool) -> Result | None:
        """A first publication of a name that nobody answers to would send clients nowhere."""
        if not decision.is_publication or is_forced or task.wanted is None or not task.wanted.is_in_consul:
            return None
        target = task.wanted.record.target
        if self._answers(target):
            return None
        why = (
            f"Consul DNS names no instance for {target}; start one (with ACLs, Consul's agent needs a token of "
            "its own, acl.tokens.default, that reads the service), or publish it all the same with --force"
        )
        return task.result(Outcome.NOT_NOW, why, seen)

    def _guarded(self, task: _Task, provider: str, work: Callable[[], Result]) -> Result:
        """Errors as outcomes. A provider that was silent once is not waited for again for every other record."""
        if provider in self._silent:
            return task.result(Outcome.UNREACHABLE, self._silent[provider])
        try:
            return work()
        except (Denied, Rejected) as error:
            return task.result(Outcome.REFUSED, str(error))
        except OutcomeUnknown as error:
            return task.result(Outcome.UNKNOWN, str(error))
        except Raced as error:
            return task.result(Outcome.CONFLICT, str(error))
        except DnsUnreachable as error:
            self._silent[provider] = str(error)
            return task.result(Outcome.UNREACHABLE, str(error))
        except Unreachable as error:
            return task.result(Outcome.UNREACHABLE, str(error))
        except BadDefinition:
            raise  # of the settings, which is so for every record
        except SvcagentError as error:
            return task.result(Outcome.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 - a bug that one record triggers must not stop the others
            log_bug(f"{task.place.name}: the CNAME could not be synced", error)
            return task.result(Outcome.UNKNOWN, f"an unexpected {type(error).__name__}: {error}; the log has its trace")
