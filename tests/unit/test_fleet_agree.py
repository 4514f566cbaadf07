"""Which digest a host takes: every situation of a rollout in, the decision out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fleet import FleetView, HostState, InstanceKey, Pin, Quarantine, VersionAction, decide, progress

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=3)
RECENT = NOW - timedelta(minutes=59)
IMAGE = "registry.example.com/web:latest"
OLD, PINNED, NEW = (f"sha256:{digit * 64}" for digit in "012")


def _pin(digest: str = PINNED, image: str = IMAGE, since: datetime = RECENT) -> Pin:
    return Pin(image, digest, "a", since)


def _hosts(since: datetime = RECENT, **digests: str) -> dict[InstanceKey, HostState]:
    return {(node, "web"): HostState(digest, "running", since) for node, digest in digests.items()}


def _webs(*nodes: str) -> frozenset[InstanceKey]:
    return frozenset((node, "web") for node in nodes)


def _quarantine(*digests: str) -> dict[str, Quarantine]:
    return {digest: Quarantine(digest, "a", NOW, "broken") for digest in digests}


@pytest.mark.parametrize(
    ("view", "newest", "running", "wanted", "action"),
    [
        # The newest runs here: nothing to do, whatever the pin.
        (FleetView(), NEW, NEW, NEW, VersionAction.KEEP),
        (FleetView(_pin()), NEW, NEW, NEW, VersionAction.KEEP),
        (FleetView(_pin(), quarantine=_quarantine(NEW)), NEW, NEW, NEW, VersionAction.KEEP),
        # No pin, or none that counts: the newest is pinned.
        (FleetView(), NEW, OLD, NEW, VersionAction.PIN),
        (FleetView(), NEW, None, NEW, VersionAction.PIN),
        (FleetView(Pin("", "", "", None, problem="it is not JSON")), NEW, OLD, NEW, VersionAction.REPLACE),
        (FleetView(_pin(image="registry.example.com/web:stable")), NEW, OLD, NEW, VersionAction.REPLACE),
        # The newest is the pinned one.
        (FleetView(_pin(NEW)), NEW, OLD, NEW, VersionAction.KEEP),
        (FleetView(_pin(NEW), quarantine=_quarantine(NEW)), NEW, OLD, NEW, VersionAction.KEEP),
        (FleetView(_pin(NEW, since=LONG_AGO)), NEW, OLD, NEW, VersionAction.KEEP),
        (FleetView(_pin(NEW), hosts=_hosts(a=NEW, b=NEW)), NEW, OLD, NEW, VersionAction.KEEP),
        # Under way: the pinned one, though the tag has moved; who runs it already has nothing to do.
        (FleetView(_pin()), NEW, OLD, PINNED, VersionAction.KEEP),
        (FleetView(_pin(), hosts=_hosts(a=PINNED, b=OLD)), NEW, OLD, PINNED, VersionAction.KEEP),
        (FleetView(_pin(), hosts=_hosts(a=PINNED, b=OLD)), NEW, PINNED, PINNED, VersionAction.KEEP),
        (FleetView(_pin(), hosts=_hosts(a=PINNED)), NEW, OLD, PINNED, VersionAction.KEEP),
        (FleetView(_pin(), hosts=_hosts(a=PINNED, b="")), NEW, OLD, PINNED, VersionAction.KEEP),
        (FleetView(_pin(), quarantine=_quarantine(NEW)), NEW, OLD, PINNED, VersionAction.KEEP),
        # Finished, quarantined, stalled: the newest takes its place.
        (FleetView(_pin(), hosts=_hosts(a=PINNED, b=PINNED)), NEW, PINNED, NEW, VersionAction.REPLACE),
        (FleetView(_pin(), hosts=_hosts(a=PINNED, b=PINNED, gone=OLD)), NEW, PINNED, NEW, VersionAction.REPLACE),
        (FleetView(_pin(), quarantine=_quarantine(PINNED)), NEW, OLD, NEW, VersionAction.REPLACE),
        (FleetView(_pin(since=LONG_AGO)), NEW, OLD, NEW, VersionAction.REPLACE),
        (FleetView(_pin(since=LONG_AGO), hosts=_hosts(LONG_AGO, a=PINNED)), NEW, OLD, NEW, VersionAction.REPLACE),
        (FleetView(_pin(since=LONG_AGO), hosts=_hosts(RECENT, b=OLD)), NEW, OLD, NEW, VersionAction.REPLACE),
        # A host that took it lately is progress, however long ago it was pinned.
        (FleetView(_pin(since=LONG_AGO), hosts=_hosts(RECENT, a=PINNED)), NEW, OLD, PINNED, VersionAction.KEEP),
        # A clock that is far ahead does not hold the fleet for as long.
        (FleetView(_pin(since=NOW + timedelta(days=400))), NEW, OLD, NEW, VersionAction.REPLACE),
        # A quarantined digest is never pinned.
        (FleetView(quarantine=_quarantine(NEW)), NEW, OLD, NEW, VersionAction.KEEP),
        (FleetView(_pin(), quarantine=_quarantine(PINNED, NEW)), NEW, OLD, NEW, VersionAction.KEEP),
    ],
)
def test_the_taken_digest(
    view: FleetView, newest: str, running: str | None, wanted: str, action: VersionAction
) -> None:
    """Each row: the documents of hosts, the tag's digest, the running one; the digest taken and the pin's fate."""
    decision = decide(view, IMAGE, newest, running, _webs("a", "b"), NOW)

    assert (decision.wanted, decision.action) == (wanted, action)
    assert decision.why


def test_a_fleet_without_any_host_that_can_take_it_does_not_keep_its_pin() -> None:
    """All are held out by operators: nobody is waited for."""
    assert decide(FleetView(_pin()), IMAGE, NEW, OLD, (), NOW).action is VersionAction.REPLACE


def test_progress_counts_the_hosts_that_can_take_it() -> None:
    """One that is gone from the catalog counts for nothing."""
    found = progress(_pin(), _hosts(a=PINNED, b=OLD, gone=PINNED), _webs("a", "b", "c"))

    assert found.done == _webs("a")
    assert found.missing == _webs("b", "c")


def test_every_host_follows_the_first_one_though_the_tag_moves_on_each_step() -> None:
    """Replayed host by host: a tag that moves before every host's turn, and still each rollout is one digest."""
    nodes = [f"h{number}" for number in range(5)]
    hosts = _hosts(LONG_AGO, **dict.fromkeys(nodes, OLD))
    pinned, now, taken = None, NOW, []
    for turn in range(2 * len(nodes)):
        node, newest = nodes[turn % len(nodes)], f"sha256:tag{turn}"
        now += timedelta(minutes=1)
        decision = decide(FleetView(pinned, hosts=hosts), IMAGE, newest, hosts[node, "web"].digest, _webs(*nodes), now)
        if decision.action is not VersionAction.KEEP:
            pinned = Pin(IMAGE, decision.wanted, node, now)
        hosts[node, "web"] = HostState(decision.wanted, "running", now)
        taken.append(decision.wanted)

    assert taken == ["sha256:tag0"] * 5 + ["sha256:tag5"] * 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_in_any_order_of_hosts_a_rollout_ends_before_the_next_begins(turns: list[tuple[int, int]]) -> None:
    """Each turn: which host, and whether the tag moves on or back before it. Nobody fails, no hour passes."""
    nodes = [f"h{number}" for number in range(4)]
    hosts = _hosts(NOW, **dict.fromkeys(nodes, OLD))
    pinned, tag = None, 0
    for number, move in turns:
        tag = max(0, tag + (0, 1, -1)[move])
        node = nodes[number]
        decision = decide(
            FleetView(pinned, hosts=hosts), IMAGE, f"sha256:{tag}", hosts[node, "web"].digest, _webs(*nodes), NOW
        )
        if decision.action is not VersionAction.KEEP:
            assert pinned is None or all(state.digest == pinned.digest for state in hosts.values())
            pinned = Pin(IMAGE, decision.wanted, node, NOW)
        if decision.wanted != hosts[node, "web"].digest:
            assert pinned is not None
            assert decision.wanted == pinned.digest
        hosts[node, "web"] = HostState(decision.wanted, "running", NOW)


def test_a_rollout_waits_for_each_instance_and_says_for_which_hosts() -> None:
    """Two instances of a host are two; at most five hosts are named, the others counted."""
    awaited = frozenset({*_webs(*(f"h{number}" for number in range(7))), ("h0", "web-2")})
    hosts = _hosts(h0=PINNED)
    hosts["h0", "web-2"] = HostState(OLD, "running", RECENT)
    found = progress(_pin(), hosts, awaited)
    assert (found.hosts_done, len(found.hosts_missing)) == (frozenset(), 7)
    assert found.waits_for.startswith(
        "h0, h1, h2, h3, h4 and 2 more (no state published by h1, h2, h3, h4, h5 and 1 more:"
    )

    why = decide(FleetView(_pin(), hosts=hosts), IMAGE, NEW, OLD, awaited, NOW).why
    assert f"the rollout of {PINNED}, pinned by a, is in progress" in why
    assert "it waits for h0, h1, h2, h3, h4 and 2 more" in why
