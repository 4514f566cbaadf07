"""What an ordinary zone holds besides svcagent's records, and what its server allows: each read and written right."""

import dataclasses
from collections.abc import Iterator

import pytest

from agent.cname.provider import NOTHING, NotAuthoritative, TtlLowered
from tests.lab.bind import Zone
from tests.real.cname_fixture import OTHER_TARGET, Dns, dns_server, marked, view
from tests.support.kinds import raises_kind

POLICY = ("grant svcagent zonesub ANY;",)
ZONES = (
    Zone("texts.test.", POLICY, '* TXT "v=spf1 -all"\n*.eu TXT "v=spf1 -all"\nx.eu A 192.0.2.1'),
    Zone("wild.test.", POLICY, "* 300 CNAME elsewhere.example.net.\n*.a 300 A 192.0.2.1\nx.empty A 192.0.2.1"),
    Zone("parent.test.", POLICY, "sub NS ns.elsewhere.test.\nmoved DNAME elsewhere.test."),
    Zone("short.test.", POLICY, options="max-zone-ttl 120;"),
)


@pytest.fixture(scope="module")
def dns_() -> Iterator[Dns]:
    with dns_server(zones=ZONES) as running:
        yield running


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("texts.test.", "www"),
        ("texts.test.", "*.us"),
        ("texts.test.", "www.eu"),
        ("wild.test.", "www"),
        ("wild.test.", "www.a"),
        ("wild.test.", "empty"),
    ],
)
def test_what_a_wildcard_answers_is_neither_record_nor_marker(dns_: Dns, zone: str, name: str) -> None:
    """A TXT record for SPF is often a wildcard; it answers for markers that are not there yet."""
    provider, place = dns_.provider(), dataclasses.replace(dns_, zone=zone).place(name)
    record, marker = marked()

    assert provider.read(place) == NOTHING
    provider.preflight(place)
    provider.write(place, NOTHING, view(record, marker))

    seen = provider.read(place)
    assert seen == view(record, marker)
    provider.write(place, seen, view(*marked(OTHER_TARGET, gen=1)))
    provider.write(place, provider.read(place), NOTHING)
    assert provider.read(place) == NOTHING


@pytest.mark.parametrize("name", ["sub", "www.sub"])
def test_a_name_that_is_delegated(dns_: Dns, name: str) -> None:
    """The server holds the zone above; the zone to write is named."""
    place = dataclasses.replace(dns_, zone="parent.test.").place(name)

    with pytest.raises(NotAuthoritative, match=r'"zone": "sub\.parent\.test\."'):
        dns_.provider().read(place)


def test_a_name_below_a_dname(dns_: Dns) -> None:
    """A record there would be stored and never answered, so nothing is written."""
    provider, place = dns_.provider(), dataclasses.replace(dns_, zone="parent.test.").place("www.moved")
    before = dns_.bind.serial("parent.test.")

    for act in (lambda: provider.read(place), lambda: provider.preflight(place)):
        with raises_kind(NotAuthoritative, "dname-above"):
            act()

    assert dns_.bind.serial("parent.test.") == before
    assert provider.read(dataclasses.replace(dns_, zone="parent.test.").place("moved")).others == (
        "DNAME elsewhere.test.",
    )


def test_a_ttl_that_the_server_lowers(dns_: Dns) -> None:
    """Stored otherwise than written, without an error of the server; the limit is named, and kept, all is well."""
    provider, place = dns_.provider(), dataclasses.replace(dns_, zone="short.test.").place("www")

    with pytest.raises(TtlLowered, match="to 120 s"):
        provider.write(place, NOTHING, view(*marked(ttl=3600)))
    record, marker = marked(ttl=120, gen=1)
    provider.write(place, provider.read(place), view(record, marker))

    assert provider.read(place) == view(record, marker)
