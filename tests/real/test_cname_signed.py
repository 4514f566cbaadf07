"""A primary that asks for the key in questions too: a view that the key chooses, and ``allow-query``."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from agent.cname import CnameSync, RecordOutcome, WantedRecord
from agent.cname.marker import place
from agent.cname.provider import NOTHING, BadSignature, PublishedRecord, QuestionsRefused, UnknownKey, UnsignedRefused
from agent.cname.rfc2136 import Rfc2136
from agent.cname.signing import find_zone, unsigned_problem
from agent.cname.tsig import from_file
from agent.cname.verify import observe_servers
from agent.definitions import DnsSettings, Settings
from agent.errors import DnsUnreachable, Rejected
from tests.lab.bind import Bind, Zone, make_key
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.real.access_fixture import Listener
from tests.real.cname_fixture import (
    OTHER_TARGET,
    OWNER,
    TARGET,
    ZONE,
    Dns,
    Faults,
    dns_server,
    marked,
    secondary,
    view,
    written_key,
)
from tests.support.kinds import raises_kind

WEAK = ("hmac-md5", "hmac-sha1")
EVERYBODY = ("svcagent", "hmac-sha224", *WEAK)
POLICY = "update-policy { " + " ".join(f"grant {key} zonesub ANY;" for key in EVERYBODY) + " };"


def _own(more: str = "") -> str:
    return f'zone "example.test" {{ type primary; file "own.zone"; {POLICY} {more} }};'


def _views(public: str) -> str:
    own = f"view own {{ match-clients {{ key svcagent; }}; {_own()} }};"
    return f"{own} view public {{ match-clients {{ any; }}; {public} }};"


ASKING: Mapping[str, str] = {
    "a view without the zone": _views(""),
    "a view with another copy": _views('zone "example.test" { type primary; file "public.zone"; };'),
    "a view with the zone above": _views('zone "test" { type primary; file "public.zone"; };'),
    "a view that resolves": _views(
        'recursion yes; zone "test" { type forward; forward only; forwarders { 127.0.0.1 port 9; }; };'
    ),
    "allow-query": _own("allow-query { key svcagent; };"),
}
"""What named.conf says, by the way in which it asks for the key."""


@contextmanager
def server(text: str) -> Iterator[Dns]:
    """A running BIND with this in named.conf. All keys are the server's, none is the administrator's."""
    with claimed() as ground:
        directory = ground.directory / "bind"
        directory.mkdir()
        keys = {name: make_key(ground.directory, name, name) for name in EVERYBODY if name != "svcagent"}
        keys["svcagent"] = key = make_key(ground.directory, "svcagent")
        for file, minimum in (("own", 5), ("public", 7)):
            (directory / f"{file}.zone").write_text(Zone(ZONE, minimum=minimum).text(ground.address(1)))
        environment = environment_in(ground.directory, ground.directory)
        # The space keeps the lab from asking for the zones, unsigned, whether the server is ready.
        bind = Bind("bind", directory, ground.address(1), environment, keys=tuple(keys.values()), more=f" {text}")
        with bind.running():
            yield Dns(bind, ground, key, key, key)


@pytest.fixture(scope="module", params=sorted(ASKING))
def asking(request: pytest.FixtureRequest) -> Iterator[Dns]:
    """A server that asks for the key in questions."""
    with server(ASKING[request.param]) as running:
        yield running


@pytest.fixture(scope="module")
def plain() -> Iterator[Dns]:
    """A server that does not: two views share the zone."""
    with server(_views('zone "example.test" { in-view own; };')) as running:
        yield running


def signing(dns_: Dns) -> Rfc2136:
    return Rfc2136.from_settings(settings(dns_, is_signing=True))


def settings(dns_: Dns, *, is_signing: bool) -> DnsSettings:
    environ = {"SVCAGENT_DNS_SERVER": dns_.bind.endpoint, "SVCAGENT_DNS_KEY_FILE": str(dns_.key.file)}
    return Settings.load(None, {**environ, "SVCAGENT_DNS_SIGN_QUERIES": str(is_signing).lower()}).dns


def wanted(name: str, target: str = TARGET, *, gen: int = 0) -> WantedRecord:
    record, _marker = marked(target)
    return WantedRecord(f"{name}.{ZONE}", record, OWNER, gen, "rfc2136", "chocon", ZONE)


def keeper(provider: Rfc2136) -> CnameSync:
    return CnameSync(lambda _name: provider, lambda _target: True)


def serial(dns_: Dns) -> int:
    """Of the zone that the key is for."""
    (view,) = observe_servers(signing(dns_).server, signing(dns_).server, wanted("www"))
    assert view.serial is not None
    return view.serial


@pytest.mark.parametrize("name", ["www", "*"])
def test_without_the_setting_it_is_what_the_message_asks_for(asking: Dns, name: str) -> None:
    """Neither a conflict, nor "does not hold the zone"; nothing is written to a zone that cannot be read."""
    before = serial(asking)
    provider = asking.provider()

    (planned,), (synced,) = (does([wanted(name)]) for does in (keeper(provider).plan, keeper(provider).sync))

    assert (planned.outcome, synced.outcome) == (RecordOutcome.REFUSED, RecordOutcome.REFUSED)
    assert "dns.sign_queries = true" in planned.why
    assert "dns.sign_queries = true" in synced.why
    assert "sign_queries" in unsigned_problem(provider.server, provider.key, asking.place(name))
    assert serial(asking) == before


def test_a_record_that_unsigned_questions_do_not_show(asking: Dns) -> None:
    """Published signed, it is neither missing nor in conflict without the setting, and is not touched."""
    keeper(signing(asking)).sync([wanted("there")])
    before = serial(asking)

    for record in (wanted("there"), wanted("there", OTHER_TARGET, gen=1)):
        (result,) = keeper(asking.provider()).sync([record])
        assert result.outcome is RecordOutcome.REFUSED
        assert "dns.sign_queries = true" in result.why
    with pytest.raises(UnsignedRefused):
        asking.provider().read(asking.place("there"))
    assert serial(asking) == before


def test_a_zone_that_only_signed_questions_find(asking: Dns) -> None:
    """Signed, it is found. Unsigned, nothing, a copy or the zone above is found, and nothing is published there."""
    assert find_zone(settings(asking, is_signing=True), f"www.{ZONE}") == ZONE

    def publish_unsigned() -> None:
        zone = find_zone(settings(asking, is_signing=False), f"www.{ZONE}")
        asking.provider().write(place(zone, f"www.{ZONE}"), NOTHING, view(*marked()))

    with pytest.raises(UnsignedRefused):
        publish_unsigned()


def test_views_that_share_the_zone_ask_for_nothing(plain: Dns) -> None:
    provider = plain.provider()

    assert unsigned_problem(provider.server, provider.key, plain.place("www")) == ""
    (created,) = keeper(provider).sync([wanted("www")])
    (in_place,) = keeper(signing(plain)).sync([wanted("www")])

    assert (created.outcome, in_place.outcome) == (RecordOutcome.CREATED, RecordOutcome.IN_PLACE)


def test_a_zone_that_this_host_may_not_ask_for() -> None:
    """The server holds it, and the key is no help: allow-query is named."""
    with server(_own("allow-query { 192.0.2.0/24; };")) as closed:
        with pytest.raises(QuestionsRefused):
            closed.provider().read(closed.place("www"))
        with raises_kind(Rejected, "zone-unknown") as caught:
            find_zone(settings(closed, is_signing=False), f"www.{ZONE}")
        (view,) = observe_servers(closed.provider().server, closed.provider().server, wanted("www"))

    assert "signed queries" not in str(caught.value)
    assert "allow-query" in view.problem


@pytest.mark.parametrize("name", ["web", "*.eu"])
def test_with_the_setting_everything_works(asking: Dns, name: str) -> None:
    provider = signing(asking)
    first, second = wanted(name), wanted(name, OTHER_TARGET, gen=1)

    (planned,) = keeper(provider).plan([first])
    outcomes = [keeper(provider).sync([one])[0].outcome for one in (first, first, second)]
    (view,) = observe_servers(provider.server, provider.server, second)
    removed = keeper(provider).remove(second.place, "rfc2136", None, second)

    assert planned.outcome is RecordOutcome.CREATED
    assert outcomes == [RecordOutcome.CREATED, RecordOutcome.IN_PLACE, RecordOutcome.CHANGED]
    assert (view.record, view.problem) == (PublishedRecord(OTHER_TARGET, 60), "")
    assert removed.outcome is RecordOutcome.REMOVED


def test_a_signature_that_the_server_does_not_take(plain: Dns) -> None:
    server_of = signing(plain).server
    for name, secret, expected in (("nobody", plain.key.secret, UnknownKey), ("svcagent", "eHh4eA==", BadSignature)):
        key = from_file(written_key(plain.ground.directory, name, "hmac-sha256", secret).file)
        with pytest.raises(expected):
            dataclasses.replace(server_of, key=key).ask(ZONE, "SOA")


def test_an_answer_without_a_signature_is_not_believed(plain: Dns) -> None:
    class Forger(Faults):
        def answer(self, message: bytes, reply: bytes) -> bytes:
            return reply if self.is_update(message) else message[:2] + b"\x84\x00" + bytes(8)

    provider = signing(plain)
    with Listener(Forger((plain.bind.address, plain.bind.port)).serve) as between:
        server_of = dataclasses.replace(provider.server, host="127.0.0.1", port=between.port)
        with raises_kind(DnsUnreachable, "answer-lost"):
            dataclasses.replace(provider, server=server_of).read(plain.place("www"))


def test_a_secondary_that_does_not_know_the_key() -> None:
    """Status asks it unsigned, as clients do."""
    with dns_server(secondaries=1) as running, secondary(running):
        # The secondary knows svcagent's key alone.
        key = from_file(running.stranger.file)
        signed = dataclasses.replace(running.provider().server, key=key)

        views = observe_servers(signed, signed, wanted("www"))

    assert [view.problem for view in views] == ["", ""]


@pytest.mark.parametrize("algorithm", sorted(set(EVERYBODY) - {"svcagent"}))
def test_keys_of_old_primaries(plain: Dns, algorithm: str) -> None:
    """Updates are signed with them; the weak ones are warned of."""
    key = from_file(plain.ground.directory / f"{algorithm}.key", may_be_weak=True)
    provider = dataclasses.replace(plain.provider(), key=key)
    at = plain.place(algorithm)
    record, marker = marked()

    provider.write(at, provider.read(at), view(record, marker))

    assert provider.read(at).record == record
    assert [algorithm in warning for warning in provider.warnings] == ([True] if algorithm in WEAK else [])
