"""How a reload ends: outcome, exit code and words, from its last state and its failures."""

from dataclasses import asdict

import pytest

from agent.daemon.reloads import is_unfinished
from agent.engine.swap import ReplacementState
from agent.errors import ConsulUnreachable, GuardRefused, Interrupted, LockBusy, NotReady, RateLimited, UnexpectedError
from agent.reload.outcome import SAME_AGAIN, Failure, conclude, conclude_recovery, with_report_failures
from agent.reload.ready import REFUSED
from agent.reload.record import ReloadResult
from agent.reload.steps import Blame, State

DONE = State(is_newer=True, is_confirmed=True, is_settled=True, is_cleaned=True, container=ReplacementState.NEW)
UNSETTLED = State(
    is_newer=True, is_confirmed=True, is_settled=False, is_cleaned=True, container=ReplacementState.NEW, has_failed=True
)
DEPENDENT = State(is_newer=True, is_confirmed=True, has_failed=True, blame=Blame.ENVIRONMENT)
BACK = State(is_newer=True, is_confirmed=True, has_failed=True)
OUT = State(is_newer=True, is_confirmed=True, has_failed=True, is_out=True, is_stranded=True)


@pytest.mark.parametrize(
    ("state", "steps", "failures", "pending", "outcome", "code", "words"),
    [
        (State(is_newer=False), [], [], None, "up to date", 0, None),
        (DONE, [], [], None, "reloaded", 0, None),
        (DONE, [], [], 15, "reloaded", 143, "SIGTERM"),
        (State(has_failed=True), [], [Interrupted(2)], 2, "interrupted", 130, "nothing was changed"),
        (BACK, [], [Interrupted(15)], 15, "interrupted", 143, "restored"),
        (State(has_failed=True), [], [GuardRefused("no")], None, "refused", 75, "no"),
        (State(has_failed=True), [], [LockBusy("busy")], None, "refused", 75, "busy"),
        (BACK, ["roll back"], [NotReady("slow")], None, "rolled back", 1, "slow"),
        (BACK, ["roll back"], [UnexpectedError("odd"), NotReady("slow")], None, "rolled back", 3, "odd"),
        (BACK, ["roll back"], [NotReady("slow"), UnexpectedError("odd")], None, "rolled back", 3, "odd"),
        (DEPENDENT, ["roll back"], [NotReady("slow")], None, "environment", 1, "not quarantined"),
        (UNSETTLED, [], [Interrupted(15)], 15, "reloaded", 143, "did not complete reload.settle"),
        (OUT, ["roll back"], [NotReady("slow"), NotReady("dead")], None, "stranded", 1, "still out of service"),
        (OUT, [], [NotReady("slow"), ConsulUnreachable("gone")], None, "stranded", 69, "svcagent recover web"),
    ],
)
def test_how_it_ended(
    state: State,
    steps: list[str],
    failures: list[Failure],
    pending: int | None,
    outcome: str,
    code: int,
    words: str | None,
) -> None:
    """The first failure gives the exit code; an instance that is still out drowns everything else."""
    result = ReloadResult("web", "host1", "web:latest", steps=[{"step": step, "seconds": 0.1} for step in steps])

    ended = conclude(result, state, failures, "", pending)

    assert (ended.outcome, ended.exit_code) == (outcome, code)
    assert (words is None) is (ended.error is None)
    assert words is None or words in str(ended.error)


@pytest.mark.parametrize(
    ("failure", "expected"), [(RateLimited("busy", 90.0), 90.0), (RateLimited("busy"), 0.0), (LockBusy("busy"), None)]
)
def test_a_registry_that_was_asked_too_often_is_asked_again_later(failure: Failure, expected: float | None) -> None:
    """Refused like a busy lock, but the daemon does not wait for the schedule."""
    result = ReloadResult("web", "host1", "web:latest")

    ended = conclude(result, State(has_failed=True), [failure], "", None)

    assert (ended.outcome, ended.exit_code, ended.retry_after) == ("refused", 75, expected)
    assert is_unfinished(asdict(ended)) is (expected is not None)


def test_the_log_of_a_failed_container_is_apart_from_the_error() -> None:
    """The error is published; what a container printed stays on the host."""
    result = ReloadResult("web", "host1", "web:latest", steps=[{"step": "roll back", "seconds": 0.1}])

    ended = conclude(result, BACK, [NotReady("stopped")], "no index\n", None)

    assert (ended.error, ended.log_tail) == ("stopped", "no index\n")


def test_a_recovery_that_leaves_an_instance_out_without_a_failure_says_why() -> None:
    ended = conclude_recovery(ReloadResult("web", "host1", "web:latest"), OUT, [], "", None)

    assert (ended.outcome, ended.exit_code) == ("stranded", 1)
    assert "None" not in str(ended.error)


def test_failures_outside_of_the_steps_change_no_outcome() -> None:
    """A report that could not be written is part of the error; only a bug changes the exit code."""
    done = conclude(ReloadResult("web", "host1", "web:latest"), DONE, [], "", None)

    assert with_report_failures(done, [NotReady("not published")]).exit_code == 0
    ended = with_report_failures(done, [UnexpectedError("odd")])

    assert (ended.outcome, ended.exit_code) == ("reloaded", 3)
    assert "not published" in str(ended.error)


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        (
            [NotReady("not ready within 2 s", signature="c 404"), NotReady("not ready in 10 s", signature="c 404")],
            "within 2 s",
        ),
        ([NotReady("gone"), NotReady("gone"), NotReady("gone")], "gone"),
    ],
)
def test_a_failure_that_is_met_again_is_reported_once(failures: list[Failure], words: str) -> None:
    ended = conclude(ReloadResult("web", "host1", "web:latest"), OUT, failures, "", None)

    error = str(ended.error)
    assert error.count(words) == 1
    assert error.count(SAME_AGAIN) == 1
    assert "in 10 s" not in error


def test_two_checks_whose_connections_are_refused_are_two_failures() -> None:
    failures = [NotReady("check web: refused", signature=REFUSED), NotReady("check db: refused", signature=REFUSED)]

    ended = conclude(ReloadResult("web", "host1", "web:latest"), OUT, failures, "", None)

    assert "check web: refused; then: check db: refused" in str(ended.error)
