"""Markers: where they stand, and that what is written is what is read."""

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cname.marker import Marker, parse, place, render
from agent.cname.provider import PublishedRecord
from agent.definitions.cname import LONGEST_FIRST_LABEL, LONGEST_NAME

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join(labels) + ".")
SECONDS = st.integers(0, 2**31 - 1)
OWNERS = st.tuples(LABELS, LABELS, LABELS).map("/".join)


@pytest.mark.parametrize(
    ("zone", "name", "marker"),
    [
        ("ccnproxy-https.", "*.ccnproxy-https.", "cname-_wildcard._svcagent.ccnproxy-https."),
        ("example.org.", "*.example.org.", "cname-_wildcard._svcagent.example.org."),
        ("example.org.", "www.example.org.", "cname-www._svcagent.example.org."),
        ("example.org.", "*.eu.example.org.", "cname-_wildcard.eu._svcagent.example.org."),
        ("example.org.", "a.b.c.example.org.", "cname-a.b.c._svcagent.example.org."),
        ("org.", "example.org.", "cname-example._svcagent.org."),
    ],
)
def test_where_a_marker_is(zone: str, name: str, marker: str) -> None:
    """In one subtree of the zone, never beside or below the record."""
    assert place(zone, name).marker == marker


def test_the_longest_names_have_markers_that_dns_can_hold() -> None:
    """A label of 63 characters, a name of 255 bytes on the wire."""
    long = f"{'a' * LONGEST_FIRST_LABEL}.{'b.' * LONGEST_NAME}"[: LONGEST_NAME - 1].rstrip(".") + "."
    wild = f"*.{'b.' * LONGEST_NAME}"[: LONGEST_NAME - 1].rstrip(".") + "."

    for name in (long, wild):
        assert len(dns.name.from_text(place("b.", name).marker).to_wire() or b"") <= 255


@given(NAMES, NAMES)
def test_every_record_has_its_own_marker(one: str, other: str) -> None:
    places = [place("zone.", f"{name}zone.") for name in (one, other, f"*.{one}", f"*.{other}")]

    assert len({found.marker for found in places}) == len({found.name for found in places})
    assert all(found.marker.endswith("._svcagent.zone.") for found in places)


@given(OWNERS, st.integers(0, 10**18 - 1), NAMES, SECONDS)
def test_what_is_rendered_is_parsed(owner: str, gen: int, target: str, ttl: int) -> None:
    marker = Marker(owner, gen, PublishedRecord(target, ttl))

    assert parse(render(marker)) == marker


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hands off",
        "heritage=external-dns,external-dns/owner=default",
        "heritage=svcagent v=2 owner=a/b/c gen=0 ttl=60 target=x.",
        "heritage=svcagent v=1 owner=a/b/c gen=-1 ttl=60 target=x.",
        "heritage=svcagent v=1 owner=a/b/c gen=0 ttl=60 target=x. more",
        "heritage=svcagent v=1 owner= gen=0 ttl=60 target=x.",
    ],
)
def test_what_svcagent_did_not_write_is_no_marker(text: str) -> None:
    assert parse(text) is None
