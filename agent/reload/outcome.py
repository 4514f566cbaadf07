"""The outcome of a reload, from its last state and its failures. Pure."""

import signal
from collections.abc import Callable, Sequence
from typing import TypeAlias

from agent.engine.swap import ReplacementState
from agent.errors import (
    CommandFailed,
    Interrupted,
    NotReady,
    RateLimited,
    SvcagentError,
    UnexpectedError,
    Unreachable,
)
from agent.outcomes import Outcome
from agent.reload.ready import is_of_startup
from agent.reload.record import ReloadResult
from agent.reload.steps import Blame, State, Step

Failure: TypeAlias = SvcagentError | Interrupted

SAME_AGAIN = "the same failure again"


def conclude(
    result: ReloadResult, state: State, failures: Sequence[Failure], log_tail: str, pending: int | None
) -> ReloadResult:
    """Fill in outcome, kind, error, exit code and log tail.

    ``log_tail``: the last output of a failed container. ``pending``: the signal that was received, even if it came too
    late to interrupt a step.
    """
    result.outcome = _outcome(result, state, failures)
    if failures:
        result.exit_code = failures[0].exit_code
        if isinstance(failures[0], RateLimited):
            result.retry_after = failures[0].retry_after or 0.0
    elif pending is not None:
        result.error = (
            f"{_signal_name(pending)} was received after the last step that can be undone, so the reload was finished"
        )
        result.exit_code = Interrupted(pending).exit_code
    _finish(result, state, failures, log_tail)
    if state.blame is Blame.ENVIRONMENT:
        result.error = f"{result.error}. {_ENVIRONMENT}"
    return result


def conclude_recovery(
    result: ReloadResult, state: State, failures: Sequence[Failure], log_tail: str, _pending: int | None
) -> ReloadResult:
    """Fill in the same for a recovery. The exit code shows whether the instance is back in service."""
    result.outcome = Outcome.STRANDED if state.is_out or state.is_stranded else Outcome.RECOVERED
    _finish(result, state, failures, log_tail)
    return result


def _finish(result: ReloadResult, state: State, failures: Sequence[Failure], log_tail: str) -> None:
    result.is_settled = state.is_settled
    tails = (one.log_tail for one in failures if isinstance(one, CommandFailed))
    result.log_tail = log_tail or next(filter(None, tails), "")
    if failures:
        result.kind = failures[0].kind
        result.error = _chained(failures, lambda failure: _failure_text(failure, state))
    if any(isinstance(failure, UnexpectedError) for failure in failures):
        result.exit_code = UnexpectedError.exit_code
    if result.outcome is Outcome.STRANDED:
        _set_stranded(result, state, failures)


def with_report_failures(result: ReloadResult, failures: Sequence[SvcagentError]) -> ReloadResult:
    """Add failures outside the steps: of the report, the journal's removal, the output.

    They never change the outcome, and the exit code only if one of them is a bug.
    """
    if failures:
        result.error = "; then: ".join(filter(None, (result.error, *dict.fromkeys(map(str, failures)))))
    if not result.exit_code and any(isinstance(failure, UnexpectedError) for failure in failures):
        result.exit_code = UnexpectedError.exit_code
    return result


_ENVIRONMENT = (
    "The old version failed in the same way when it was started again. So the new version may not be the cause: it "
    "is not quarantined, and the next reload tries it again. Check what both versions depend on"
)


def summary_of(failure: BaseException) -> str:
    """Return an error's text for publication: without a command's output, which may contain anything."""
    return failure.summary if isinstance(failure, CommandFailed) else str(failure)


def _chained(failures: Sequence[Failure], text_of: Callable[[Failure], str]) -> str:
    """Return all failures in one text, each once: the old version often fails like the new one."""
    texts: list[str] = []
    seen: set[str] = set()
    for failure in failures:
        signature = failure.signature if isinstance(failure, NotReady) else ""
        # A refused connection has one signature for all checks, so the text distinguishes them.
        key = text_of(failure) if not signature or is_of_startup(signature) else signature
        texts.append(SAME_AGAIN if key in seen else text_of(failure))
        seen.add(key)
    return "; then: ".join(dict.fromkeys(texts))


def _set_stranded(result: ReloadResult, state: State, failures: Sequence[Failure]) -> None:
    why = result.error or "its own maintenance is still enabled"
    if result.exit_code != UnexpectedError.exit_code:
        last = failures[-1] if failures else None
        result.exit_code = (Unreachable if isinstance(last, Unreachable) else SvcagentError).exit_code
    how = "is still out of service" if state.is_out else "could not be restored"
    result.error = (
        f"{result.service} {how} on {result.node}: {why}. The daemon, register and reload try again. When the cause is "
        f"corrected, run: svcagent recover {result.service}"
    )


def _outcome(result: ReloadResult, state: State, failures: Sequence[Failure]) -> Outcome:
    if state.is_out or state.is_stranded:
        return Outcome.STRANDED
    if state.is_cleaned and state.container is ReplacementState.NEW:
        return Outcome.RELOADED
    if not failures:
        return Outcome.UP_TO_DATE
    if state.blame is Blame.ENVIRONMENT:
        return Outcome.ENVIRONMENT
    outcome = Outcome.of_error(failures[0])
    was_rolled_back = any(step["step"] == Step.ROLL_BACK for step in result.steps)
    if outcome is Outcome.FAILED and was_rolled_back and state.container is ReplacementState.OLD:
        return Outcome.ROLLED_BACK
    return outcome


def _failure_text(failure: Failure, state: State) -> str:
    if not isinstance(failure, Interrupted):
        return summary_of(failure)
    if state.is_cleaned and state.container is ReplacementState.NEW:
        done = (
            "the new version stays in service, but did not complete reload.settle: the next host treats itself as the "
            "first host"
        )
    elif state.is_confirmed:
        done = "the service was restored as it was"
    else:
        done = "nothing was changed"
    return f"{_signal_name(failure.signum)} ended the reload; {done}"


def _signal_name(signum: int) -> str:
    return signal.Signals(signum).name
