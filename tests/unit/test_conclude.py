"""How a reload ends: outcome, exit code and words, from its last state and its troubles."""

import pytest

from agent.errors import ConsulUnreachable, GuardRefused, Interrupted, LockBusy, NotReady
from agent.reload.conclude import Trouble, conclude
from agent.reload.record import Result
from agent.reload.steps import Container, State

DONE = State(is_newer=True, is_confirmed=True, is_cleaned=True, container=Container.NEW)
BACK = State(is_newer=True, is_confirmed=True, has_failed=True)
OUT = State(is_newer=True, is_confirmed=True, has_failed=True, is_out=True, is_stranded=True)


@pytest.mark.parametrize(
    ("state", "steps", "troubles", "pending", "outcome", "code", "words"),
    [
        (State(is_newer=False), [], [], None, "up to date", 0, None),
        (DONE, [], [], None, "reloaded", 0, None),
        (DONE, [], [], 15, "reloaded", 143, "SIGTERM"),
        (State(has_failed=True), [], [Interrupted(2)], 2, "interrupted", 130, "nothing had been changed"),
        (BACK, [], [Interrupted(15)], 15, "interrupted", 143, "put back"),
        (State(has_failed=True), [], [GuardRefused("no")], None, "refused", 75, "no"),
        (State(has_failed=True), [], [LockBusy("busy")], None, "refused", 75, "busy"),
        (BACK, ["roll back"], [NotReady("slow")], None, "rolled back", 1, "slow"),
        (OUT, ["roll back"], [NotReady("slow"), NotReady("dead")], None, "stranded", 1, "STILL OUT OF SERVICE"),
        (OUT, [], [NotReady("slow"), ConsulUnreachable("gone")], None, "stranded", 69, "svcagent recover web"),
    ],
)
def test_how_it_ended(
    state: State,
    steps: list[str],
    troubles: list[Trouble],
    pending: int | None,
    outcome: str,
    code: int,
    words: str | None,
) -> None:
    """The first trouble gives the exit code; an instance that is still out drowns everything else."""
    result = Result("web", "host1", "web:latest", steps=[{"step": step, "seconds": 0.1} for step in steps])

    ended = conclude(result, state, troubles, "", pending)

    assert (ended.outcome, ended.exit_code) == (outcome, code)
    assert (words is None) is (ended.error is None)
    assert words is None or words in str(ended.error)


def test_the_last_words_of_a_failed_container_are_told() -> None:
    """They are what whoever is woken needs first."""
    result = Result("web", "host1", "web:latest", steps=[{"step": "roll back", "seconds": 0.1}])

    ended = conclude(result, BACK, [NotReady("stopped")], "no index\n", None)

    assert str(ended.error).endswith("The last lines of the container that failed:\nno index")
