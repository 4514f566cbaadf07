"""What an answer about the canary means: a table."""

import pytest

from agent.daemon.agent_watch import SeenRegistrations, after_answer


@pytest.mark.parametrize(
    ("seen", "answer", "expected", "is_waking"),
    [
        # Asked for the first time.
        (SeenRegistrations("web"), "1", SeenRegistrations("web", "1"), False),
        (SeenRegistrations("web"), None, SeenRegistrations("web", None), True),
        # As it was.
        (SeenRegistrations("web", "1"), "1", SeenRegistrations("web", "1"), False),
        # Defined otherwise: by the convergence or by hand, so it is converged, and then asked for anew.
        (SeenRegistrations("web", "1"), "2", SeenRegistrations("web", ""), True),
        # Gone: told once, for it may not come back.
        (SeenRegistrations("web", "1"), None, SeenRegistrations("web", None), True),
        (SeenRegistrations("web", None), None, SeenRegistrations("web", None), False),
        (SeenRegistrations("web", None), "1", SeenRegistrations("web", "1"), False),
        # The agent was away, and whatever it says, it is back.
        (SeenRegistrations("web", "1", is_away=True), "1", SeenRegistrations("web", ""), True),
        (SeenRegistrations("web", "", is_away=True), "1", SeenRegistrations("web", ""), True),
        (SeenRegistrations("web", None, is_away=True), None, SeenRegistrations("web", None), True),
        # Without a canary there is only here and away.
        (SeenRegistrations(), None, SeenRegistrations(known=None), False),
        (SeenRegistrations(known=None), None, SeenRegistrations(known=None), False),
        (SeenRegistrations(known=None, is_away=True), None, SeenRegistrations(known=None), True),
        (SeenRegistrations(is_away=True), "1", SeenRegistrations(known=None), True),
    ],
)
def test_the_answers(seen: SeenRegistrations, answer: str | None, expected: SeenRegistrations, is_waking: bool) -> None:
    """A convergence is woken when it may have something to do, and not again before that can have changed."""
    assert after_answer(seen, answer) == (expected, is_waking)


def test_another_canary_is_queried_again() -> None:
    assert SeenRegistrations("web", "1").with_canary("web") == SeenRegistrations("web", "1")
    assert SeenRegistrations("web", "1", is_away=True).with_canary("api") == SeenRegistrations("api", "", is_away=True)
