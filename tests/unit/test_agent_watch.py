"""What an answer about the canary means: a table."""

import pytest

from agent.daemon.agent_watch import Seen, heard


@pytest.mark.parametrize(
    ("seen", "answer", "expected", "is_waking"),
    [
        # Asked for the first time.
        (Seen("web"), "1", Seen("web", "1"), False),
        (Seen("web"), None, Seen("web", None), True),
        # As it was.
        (Seen("web", "1"), "1", Seen("web", "1"), False),
        # Defined otherwise: by the convergence or by hand, so it is converged, and then asked for anew.
        (Seen("web", "1"), "2", Seen("web", ""), True),
        # Gone: told once, for it may not come back.
        (Seen("web", "1"), None, Seen("web", None), True),
        (Seen("web", None), None, Seen("web", None), False),
        (Seen("web", None), "1", Seen("web", "1"), False),
        # The agent was away, and whatever it says, it is back.
        (Seen("web", "1", is_away=True), "1", Seen("web", ""), True),
        (Seen("web", "", is_away=True), "1", Seen("web", ""), True),
        (Seen("web", None, is_away=True), None, Seen("web", None), True),
        # Without a canary there is only here and away.
        (Seen(), None, Seen(known=None), False),
        (Seen(known=None), None, Seen(known=None), False),
        (Seen(known=None, is_away=True), None, Seen(known=None), True),
        (Seen(is_away=True), "1", Seen(known=None), True),
    ],
)
def test_what_an_answer_means(seen: Seen, answer: str | None, expected: Seen, is_waking: bool) -> None:
    """A convergence is woken when it may have something to do, and not again before that can have changed."""
    assert heard(seen, answer) == (expected, is_waking)


def test_another_canary_is_asked_anew() -> None:
    """That the agent is away holds for any."""
    assert Seen("web", "1").about("web") == Seen("web", "1")
    assert Seen("web", "1", is_away=True).about("api") == Seen("api", "", is_away=True)
