"""How a reload ended, from its last state and what went wrong on the way. Pure."""

import signal
from collections.abc import Sequence
from typing import TypeAlias

from agent.errors import Interrupted, NotNow, SvcagentError, Unreachable
from agent.reload.record import Result
from agent.reload.steps import Container, State, Step

Trouble: TypeAlias = SvcagentError | Interrupted


def conclude(result: Result, state: State, troubles: Sequence[Trouble], last_words: str, pending: int | None) -> Result:
    """Fill in outcome, error and exit code.

    ``last_words``: what a failed container printed last. ``pending``: the signal that came, if any, though nothing
    may have been left to interrupt.
    """
    result.outcome = _outcome(result, state, troubles)
    if troubles:
        result.error = "; then: ".join(_words(trouble, state) for trouble in troubles)
        result.exit_code = troubles[0].exit_code
    elif pending is not None:
        result.error = f"{_signal_name(pending)} came when the reload was nearly done, so it was finished"
        result.exit_code = Interrupted(pending).exit_code
    if result.outcome == "stranded":
        _strand(result, state, troubles)
    return _with_last_words(result, last_words)


def conclude_recovery(
    result: Result, state: State, troubles: Sequence[Trouble], last_words: str, _pending: int | None
) -> Result:
    """The same for a recovery. What failed on the way is told; the exit code says whether the instance is back."""
    result.outcome = "stranded" if state.is_out or state.is_stranded else "recovered"
    if troubles:
        result.error = "; then: ".join(str(trouble) for trouble in troubles)
    if result.outcome == "stranded":
        _strand(result, state, troubles)
    return _with_last_words(result, last_words)


def _strand(result: Result, state: State, troubles: Sequence[Trouble]) -> None:
    result.exit_code = (Unreachable if isinstance(troubles[-1], Unreachable) else SvcagentError).exit_code
    how = "IS STILL OUT OF SERVICE" if state.is_out else "could not be put in order"
    result.error = (
        f"{result.service} {how} on {result.node}: {result.error}. Every register and reload tries "
        f"again; when the cause is repaired, run: svcagent recover {result.service}"
    )


def _with_last_words(result: Result, last_words: str) -> Result:
    if last_words:
        result.error = f"{result.error}\nThe last lines of the container that failed:\n{last_words.rstrip()}"
    return result


def _outcome(result: Result, state: State, troubles: Sequence[Trouble]) -> str:
    if state.is_out:
        return "stranded"
    if not troubles:
        return "reloaded" if state.is_cleaned else "up to date"
    if isinstance(troubles[0], Interrupted):
        return "interrupted"
    if isinstance(troubles[0], NotNow):
        return "refused"
    was_rolled_back = any(step["step"] == Step.ROLL_BACK for step in result.steps)
    return "rolled back" if was_rolled_back and state.container is Container.OLD else "failed"


def _words(trouble: Trouble, state: State) -> str:
    if not isinstance(trouble, Interrupted):
        return str(trouble)
    touched = "the service was put back as it was" if state.is_confirmed else "nothing had been changed"
    return f"{_signal_name(trouble.signum)} ended the reload; {touched}"


def _signal_name(signum: int) -> str:
    return signal.Signals(signum).name
