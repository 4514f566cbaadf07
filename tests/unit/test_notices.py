"""Which notices about a rollout are sent, each once: courses in, notices out."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fleet import FleetView, HostState, InstanceKey, Pause, Pin, Quarantine
from agent.fleet.rollout_progress import RolloutProgress
from agent.notify.notices import (
    LONGEST_WHY,
    MOST_HOSTS,
    NOTICES,
    Notice,
    NoticeKind,
    Tone,
    conflict,
    due,
    due_conflict,
    is_closed,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
STUCK_AFTER = timedelta(minutes=30)
IMAGE = "registry.example.com/web:latest"
OLD, NEW, NEXT = (f"sha256:{digit * 64}" for digit in "012")
A_PAUSE = Pause("alice", "host2", "release party", NOW - timedelta(hours=1))


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def pin(minutes: float = 1, digest: str = NEW, node: str = "a") -> Pin:
    return Pin(IMAGE, digest, node, ago(minutes))


def running(digest: str, minutes: float = 1) -> HostState:
    return HostState(digest, "running", ago(minutes))


def at(state: str, minutes: float = 1, error: str = "") -> HostState:
    return HostState(OLD, state, ago(minutes), error=error)


def quarantined(digest: str = NEW, minutes: float = 1, why: str = "web exited with 1") -> dict[str, Quarantine]:
    return {digest: Quarantine(digest, "a", ago(minutes), why, IMAGE)}


def on(states: Mapping[str, HostState]) -> dict[InstanceKey, HostState]:
    return {(node, "web"): state for node, state in states.items()}


def webs(nodes: Iterable[str]) -> frozenset[InstanceKey]:
    return frozenset((node, "web") for node in nodes)


def course(view: FleetView, awaited: str = "ab", **more: Any) -> RolloutProgress:
    return RolloutProgress("web", view, webs(awaited), NOW, STUCK_AFTER, **more)


def kinds(notices: tuple[Notice, ...]) -> list[str]:
    return [str(one.kind) for one in notices]


BOTH_OLD = {"a": running(OLD, 900), "b": running(OLD, 900)}
ONE_NEW = {"a": running(NEW, 5), "b": running(OLD, 900)}
BOTH_NEW = {"a": running(NEW, 5), "b": running(NEW, 2)}
ROLLED_BACK = {"a": at("rolled back"), "b": running(OLD, 900)}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        # Nothing is pinned, or nobody can say what.
        (FleetView(), []),
        (FleetView(Pin("", "", "", None, problem="it is not JSON"), hosts=on(BOTH_OLD)), []),
        # Under way.
        (FleetView(pin(), hosts=on(BOTH_OLD)), ["started"]),
        (FleetView(pin(5), hosts=on(ONE_NEW)), ["started"]),
        (FleetView(pin(), hosts=on({})), ["started"]),
        (FleetView(pin(), hosts=on({"a": at("reloading"), "b": at("queueing")})), ["started"]),
        (FleetView(pin(), hosts=on(BOTH_OLD), pause=A_PAUSE), ["started"]),
        # Finished: each host that is waited for runs it, and hosts that are gone count for nothing.
        (FleetView(pin(10), hosts=on(BOTH_NEW)), ["finished"]),
        (FleetView(pin(10), hosts=on({**BOTH_NEW, "gone": running(OLD, 900)})), ["finished"]),
        (FleetView(pin(10), hosts=on(BOTH_NEW), pause=A_PAUSE), ["finished"]),
        # Bad: sent when its host has restored the old version, not before.
        (FleetView(pin(), hosts=on(ROLLED_BACK), quarantine=quarantined()), ["quarantined"]),
        (FleetView(pin(), hosts=on({"a": at("stranded")}), quarantine=quarantined()), ["quarantined"]),
        (FleetView(pin(), hosts=on({}), quarantine=quarantined()), ["quarantined"]),
        (FleetView(pin(), hosts=on({"a": at("reloading")}), quarantine=quarantined()), []),
        (FleetView(pin(), hosts=on({"a": at("reloading", 31)}), quarantine=quarantined()), ["quarantined"]),
        # One that is not pinned any more is sent as well.
        (FleetView(pin(digest=NEXT), hosts=on(ROLLED_BACK), quarantine=quarantined()), ["started", "quarantined"]),
        # Overridden by --force, everywhere: it is both.
        (FleetView(pin(10), hosts=on(BOTH_NEW), quarantine=quarantined()), ["finished", "quarantined"]),
        # Stuck, or paused: no host has come further for so long, and not all have.
        (FleetView(pin(31), hosts=on(BOTH_OLD)), ["started", "stuck"]),
        (FleetView(pin(29), hosts=on(BOTH_OLD)), ["started"]),
        (FleetView(pin(31), hosts=on(BOTH_OLD), pause=A_PAUSE), ["started", "paused"]),
        (FleetView(pin(90), hosts=on({**ONE_NEW, "a": running(NEW, 31)})), ["started", "stuck"]),
        (FleetView(pin(90), hosts=on(ONE_NEW)), ["started"]),
        (FleetView(pin(31), hosts=on({"a": at("reloading", 5), "b": running(OLD, 900)})), ["started"]),
        (FleetView(pin(90), hosts=on({"a": at("reloading", 31), "b": running(OLD, 900)})), ["started", "stuck"]),
        (FleetView(pin(31), hosts=on({"a": at("queueing", 5), "b": at("failed", 1)})), ["started", "stuck"]),
        (FleetView(pin(31), hosts=on(ROLLED_BACK), quarantine=quarantined(minutes=31)), ["quarantined"]),
        (FleetView(pin(90), hosts=on(BOTH_NEW)), ["finished"]),
        # What is old is no news; what holds now is.
        (FleetView(pin(60 * 25), hosts=on(BOTH_OLD)), ["stuck"]),
        (FleetView(pin(60 * 25), hosts=on({"a": running(NEW, 60 * 24), "b": running(NEW, 60 * 24)})), []),
        (FleetView(pin(60 * 25), hosts=on({"a": running(NEW, 60 * 24), "b": running(NEW, 5)})), ["finished"]),
        (FleetView(pin(60 * 25), hosts=on(ROLLED_BACK), quarantine=quarantined(minutes=60 * 25)), []),
        # A clock that is a little ahead, and one that is far ahead: its moments are none.
        (FleetView(pin(-5), hosts=on(BOTH_OLD)), ["started"]),
        (FleetView(pin(-60 * 24 * 400), hosts=on(BOTH_OLD)), ["stuck"]),
        (
            FleetView(pin(90), hosts=on({"a": running(NEW, -60 * 24 * 400), "b": running(OLD, 900)})),
            ["started", "stuck"],
        ),
    ],
)
def test_what_is_notified(view: FleetView, expected: list[str]) -> None:
    """Each row: the published states of the two awaited hosts; the notices that are sent, in order."""
    notices, sent = due(course(view), frozenset())

    assert kinds(notices) == expected
    assert {one.key for one in notices} <= sent
    assert due(course(view), sent) == ((), sent)


def test_a_rollout_that_no_host_can_take_is_neither_stuck_nor_finished() -> None:
    assert due(course(FleetView(pin(90), hosts=on(BOTH_OLD)), awaited=""), frozenset()) == ((), frozenset())


@pytest.mark.parametrize(
    ("pinned", "opened", "closes", "expected"),
    [
        (16 * 60, 120, -120, ["started", "stuck"]),
        (16 * 60, 29, -120, ["started"]),
        (16 * 60, 31, -120, ["started", "stuck"]),
        (16 * 60, 120, 1, ["started"]),
        (20, 120, -120, ["started"]),
    ],
)
def test_outside_windows_no_rollout_is_stuck(pinned: float, opened: float, closes: float, expected: list[str]) -> None:
    """Minutes ago: when it was pinned, when the window opened and closed. Closed hours do not count."""
    found = course(
        FleetView(pin(pinned), hosts=on(BOTH_OLD)), is_open=lambda moment: ago(opened) <= moment < ago(closes)
    )

    notices, _sent = due(found, frozenset())

    assert kinds(notices) == expected


@pytest.mark.parametrize(("pinned", "expected"), [(60, ["started"]), (89, ["started"]), (91, ["started", "stuck"])])
def test_an_image_that_is_too_young_is_not_stuck(pinned: float, expected: list[str]) -> None:
    """It was made before it was pinned, so an hour after that it is an hour old."""
    found = course(FleetView(pin(pinned), hosts=on(BOTH_OLD)), min_age=timedelta(hours=1))

    assert kinds(due(found, frozenset())[0]) == expected


def test_another_digest_is_another_rollout_and_the_same_one_again_is_not() -> None:
    """Pinned anew by another host: nothing new. Another digest: all of it again. Back to the first: again too."""
    _first, sent = due(course(FleetView(pin(), hosts=on(BOTH_OLD))), frozenset())
    again, sent = due(course(FleetView(pin(0, node="b"), hosts=on(BOTH_OLD))), sent)
    assert kinds(again) == []

    other, sent = due(course(FleetView(pin(digest=NEXT), hosts=on(BOTH_OLD))), sent)
    assert kinds(other) == ["started"]
    assert sent == {f"started {NEXT}"}

    back, sent = due(course(FleetView(pin(), hosts=on(BOTH_OLD))), sent)
    assert kinds(back) == ["started"]
    assert sent == {f"started {NEW}"}


def test_an_image_that_fails_again_after_it_was_cleared_is_reported_again() -> None:
    _first, sent = due(
        course(FleetView(pin(90), hosts=on(ROLLED_BACK), quarantine=quarantined(minutes=80))), frozenset()
    )
    cleared, sent = due(course(FleetView(pin(90), hosts=on(ROLLED_BACK))), sent, {NoticeKind.QUARANTINED})
    again, sent = due(course(FleetView(pin(90), hosts=on(ROLLED_BACK), quarantine=quarantined(minutes=1))), sent)

    assert kinds(cleared) == []
    assert kinds(again) == ["quarantined"]


def test_only_what_is_subscribed_is_notified_and_recorded() -> None:
    """A host that begins to pull tells that it started; what else there is comes when it has ended."""
    view = FleetView(pin(31), hosts=on(BOTH_OLD))
    notices, sent = due(course(view), frozenset(), {NoticeKind.STARTED})

    assert kinds(notices) == ["started"]
    assert kinds(due(course(view), sent)[0]) == ["stuck"]


def test_a_finished_rollout_is_closed_for_hosts_that_have_nothing_to_do() -> None:
    """A rollout that ended long before notifications were set up is noted without a notice."""
    old = {"a": running(NEW, 60 * 48), "b": running(NEW, 60 * 48)}
    notices, sent = due(course(FleetView(pin(60 * 49), hosts=on(old))), frozenset())

    assert notices == ()
    assert is_closed(pin(60 * 49), sent)
    assert is_closed(None, frozenset())
    assert not is_closed(pin(digest=NEXT), sent)
    assert not is_closed(pin(), {f"started {NEW}"})


_DIGESTS = st.sampled_from([OLD, NEW, NEXT])
_MINUTES = st.integers(-60, 60 * 30)
_STATES = st.builds(
    HostState,
    _DIGESTS,
    st.sampled_from(["running", "reloading", "queueing", "failed", "rolled back", "of a newer svcagent"]),
    _MINUTES.map(ago),
)
_VIEWS = st.builds(
    FleetView,
    st.none() | st.builds(pin, _MINUTES, _DIGESTS, st.sampled_from("abc")),
    hosts=st.dictionaries(st.sampled_from("abc"), _STATES).map(on),
    quarantine=st.builds(quarantined, _DIGESTS, _MINUTES),
    pause=st.none() | st.just(A_PAUSE),
)


@given(st.lists(_VIEWS, max_size=6))
def test_nothing_is_notified_twice_and_the_record_is_bounded(views: list[FleetView]) -> None:
    """Of one rollout no kind comes twice while its pin stands, and what is noted is about what is there."""
    sent: frozenset[str] = frozenset()
    for view in views:
        notices, sent = due(course(view, "abc"), sent)
        again, same = due(course(view, "abc"), sent)

        assert (again, same) == ((), sent)
        assert len({one.key for one in notices}) == len(notices)
        assert len(sent) <= len(NOTICES) + len(view.quarantine)


def test_messages_say_what_where_and_what_to_do_next() -> None:
    """A line for the title; image, digest, hosts and command below; what is long or many is cut."""
    many = {
        f"host{number:02}": at("failed", 40, f"{'x' * 2 * LONGEST_WHY}\nsecret") for number in range(MOST_HOSTS + 3)
    }
    stuck = RolloutProgress(
        "web",
        FleetView(pin(45), hosts=on({**many, "a": running(NEW, 40)})),
        webs({*many, "a"}),
        NOW,
        STUCK_AFTER,
        webs("z"),
    )
    notices = {one.kind: one for one in due(stuck, frozenset())[0]}
    text = notices[NoticeKind.STUCK].body

    assert notices[NoticeKind.STUCK].title == (
        f"web: rollout of web:latest ({NEW[:19]}) is stuck, 1 of 14 hosts run it, without progress for 40m0s"
    )
    assert f"{IMAGE} is {NEW}" in text
    assert "pinned by a at 2026-05-01T11:15:00Z" in text
    assert "do not run it yet: host00, host01" in text
    assert "and 3 more" in text
    assert "in maintenance (not waited for): z" in text
    assert "svcagent fleet web" in text
    assert "secret" not in text
    assert max(map(len, text.splitlines())) < LONGEST_WHY + 100
    assert all("\n" not in one.title for one in notices.values())


@pytest.mark.parametrize(
    ("view", "kind", "tone", "words"),
    [
        (FleetView(pin(), hosts=on(BOTH_OLD)), NoticeKind.STARTED, Tone.INFO, ["svcagent fleet web --watch"]),
        (
            FleetView(pin(10), hosts=on(BOTH_NEW)),
            NoticeKind.FINISHED,
            Tone.SUCCESS,
            ["2 of 2 hosts run it after 8m0s", "run it: a, b", "svcagent history web"],
        ),
        (
            FleetView(pin(), hosts=on(ROLLED_BACK), quarantine=quarantined(why="web exited with 1\nlog")),
            NoticeKind.QUARANTINED,
            Tone.FAILURE,
            [
                "rolled back on a and quarantined",
                "cause: web exited with 1\nNo host",
                f"svcagent quarantine clear web {NEW}",
            ],
        ),
        (
            FleetView(pin(), hosts=on({"a": at("stranded")}), quarantine=quarantined()),
            NoticeKind.QUARANTINED,
            Tone.FAILURE,
            ["failed on a, WHICH IS OUT OF SERVICE, and is quarantined"],
        ),
        (FleetView(pin(31), hosts=on(BOTH_OLD)), NoticeKind.STUCK, Tone.WARNING, ["0 of 2 hosts", "svcagent why web"]),
        (
            FleetView(pin(31), hosts=on(BOTH_OLD), pause=A_PAUSE),
            NoticeKind.PAUSED,
            Tone.INFO,
            ["alice on host2", "release party", "svcagent resume web"],
        ),
    ],
)
def test_every_kind_has_its_words(view: FleetView, kind: NoticeKind, tone: Tone, words: list[str]) -> None:
    [notice] = [one for one in due(course(view), frozenset())[0] if one.kind is kind]

    assert notice.tone is tone
    for one in words:
        assert one in f"{notice.title}\n{notice.body}"
    assert notice.title.startswith("web: ")


def test_a_conflict_is_reported_once_until_the_record_is_in_place() -> None:
    """The conflict of another owner is sent too, and neither notice removes the other's key."""
    ours, theirs = "web/production/dc1", "web/staging/dc1"
    found = conflict("web", "www.example.com.", ours, "an A record stands there", "host1")
    other = conflict("web", "www.example.com.", theirs, "it belongs to web/production/dc1", "host2")

    first, sent = due_conflict(found, ours, frozenset())
    again, sent = due_conflict(found, ours, sent)
    second, sent = due_conflict(other, theirs, sent)
    assert (first, again, second) == ((found,), (), (other,))

    assert due_conflict(None, ours, sent) == ((), frozenset({other.key}))
    assert due_conflict(found, ours, frozenset({other.key}))[0] == (found,)
    assert "svcagent cname plan" in found.body


def test_a_suspect_version_is_notified_once_for_each_digest() -> None:
    """Also if a second host disappears with it; and what to do, with what came from Consul quoted."""
    first = HostState(OLD, "reloading", ago(5), step="ready", service_id="web", session="s", wanted=NEW, node="a b")
    view = FleetView(pin(10), hosts=on({"a b": first, "b": running(OLD, 900)}))

    notices, sent = due(course(view, suspects=(first,)), frozenset())
    assert kinds(notices) == ["started", "suspect"]
    text = f"{notices[1].title}\n{notices[1].body}"
    assert notices[1].tone is Tone.FAILURE
    for words in ("a b disappeared", "step ready", f"svcagent quarantine clear web {NEW}", "svcagent recover web"):
        assert words in text
    again, sent = due(course(view, suspects=(first, replace(first, node="c"))), sent)
    assert kinds(again) == []
    other, _sent = due(course(view, suspects=(replace(first, wanted=NEXT),)), sent)
    assert kinds(other) == ["suspect"]


def test_hosts_that_are_down_are_named() -> None:
    [started] = due(course(FleetView(pin(), hosts=on(BOTH_OLD)), down=webs("z")), frozenset())[0]

    assert "down (not waited for): z" in started.body


def test_a_host_with_two_instances_has_finished_with_the_second_one() -> None:
    hosts = {("a", "web-1"): running(NEW), ("a", "web-2"): running(OLD)}
    both = frozenset(hosts)
    [notice] = due(RolloutProgress("web", FleetView(pin(), hosts=hosts), both, NOW, STUCK_AFTER), frozenset())[0]
    assert "0 of 1 host run it" in notice.title

    hosts["a", "web-2"] = running(NEW)
    [notice] = due(RolloutProgress("web", FleetView(pin(), hosts=hosts), both, NOW, STUCK_AFTER), frozenset())[0]
    assert notice.kind is NoticeKind.FINISHED
