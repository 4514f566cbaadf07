"""All that can go wrong between svcagent and a BIND, each told apart by its type, and what a keeper makes of it."""

import base64
import dataclasses
import time
from collections.abc import Iterator
from types import SimpleNamespace

import dns.message
import pytest

from agent.cname import CnameSync, RecordOutcome, SyncResult, WantedRecord
from agent.cname.provider import (
    NOTHING,
    BadSignature,
    ClockSkewed,
    DnsServerFailed,
    NotAuthoritative,
    NotGranted,
    Provider,
    RecordPlace,
    UnknownKey,
    UpdatesOff,
    ZoneView,
)
from agent.cname.queries import DnsServer
from agent.cname.sync import has_instances
from agent.cname.zones import find_zone
from agent.consul import AgentSelf
from agent.errors import DnsUnreachable, OutcomeUnknown, Rejected
from tests.lab.bind import Zone
from tests.lab.ground import wait_until
from tests.real.access_fixture import Listener, answering
from tests.real.cname_fixture import (
    OTHER_TARGET,
    OWNER,
    TARGET,
    ZONE,
    Dns,
    Faults,
    dns_server,
    marked,
    resolver,
    secondary,
    view,
    written_key,
)
from tests.support.kinds import raises_kind


@pytest.fixture(scope="module")
def dns_() -> Iterator[Dns]:
    """A running BIND, with another zone that takes no updates, and the one above both."""
    with dns_server(zones=[Zone("static.test."), Zone("test.")]) as running:
        yield running


@pytest.fixture
def name(number: int) -> str:
    """A label of its own for a test."""
    return f"www{number}"


@pytest.fixture
def place(dns_: Dns, name: str) -> RecordPlace:
    return dns_.place(name)


def wanted(name: str, target: str = TARGET, *, gen: int = 0, ttl: int = 60, owner: str = OWNER) -> WantedRecord:
    record, _marker = marked(target, ttl=ttl)
    return WantedRecord(f"{name}.{ZONE}", record, owner, gen, "rfc2136", "chocon", ZONE)


def kept(provider: Provider, *records: WantedRecord, is_answered: bool = True) -> tuple[SyncResult, ...]:
    """What one host's sync makes of them."""
    return CnameSync(lambda _name: provider, lambda _target: is_answered).sync(records)


@pytest.mark.parametrize(("name", "algorithm"), [("nobody", "hmac-sha256"), ("svcagent", "hmac-sha512")])
def test_a_key_unknown_to_the_server(dns_: Dns, place: RecordPlace, name: str, algorithm: str) -> None:
    key = written_key(dns_.ground.directory, name, algorithm, dns_.key.secret)

    with pytest.raises(UnknownKey):
        dns_.provider(key).read(place)


def test_a_key_with_another_secret(dns_: Dns, place: RecordPlace) -> None:
    secret = base64.b64encode(b"x" * 32).decode()
    key = written_key(dns_.ground.directory, "svcagent", "hmac-sha256", secret)

    with pytest.raises(BadSignature) as caught:
        dns_.provider(key).read(place)

    assert secret not in str(caught.value)
    assert dns_.key.secret not in str(caught.value)


@pytest.mark.parametrize("shift", [3600, -3600])
def test_a_clock_that_is_wrong(dns_: Dns, place: RecordPlace, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """BADTIME. What signs takes the machine's time, so that is shifted, for it alone."""
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() + shift))

    with pytest.raises(ClockSkewed):
        dns_.provider().read(place)


def test_an_answer_without_a_signature_is_not_believed(dns_: Dns, place: RecordPlace) -> None:
    def unsigned(message: bytes) -> bytes:
        # The header alone: an answer to this question, NOERROR, with nothing in it.
        return message[:2] + b"\xa8\x00" + bytes(8)

    class Forger(Faults):
        def answer(self, message: bytes, reply: bytes) -> bytes:
            return unsigned(message) if self.is_update(message) else reply

    with Listener(Forger(_endpoint(dns_)).serve) as between, raises_kind(DnsUnreachable, "answer-lost"):
        dns_.provider(at=("127.0.0.1", between.port)).read(place)


def test_no_grant_at_all_names_both_lines(dns_: Dns, place: RecordPlace) -> None:
    before = dns_.serial

    with pytest.raises(NotGranted) as caught:
        dns_.provider(dns_.stranger).write(place, NOTHING, view(*marked()))

    assert f"grant stranger name {place.name} CNAME;" in str(caught.value)
    assert f"grant stranger subdomain _svcagent.{ZONE} TXT;" in str(caught.value)
    assert dns_.serial == before


@pytest.mark.parametrize(
    ("granted", "lacking"),
    [
        ("subdomain example.test. CNAME", "subdomain _svcagent.example.test. TXT"),
        ("subdomain _svcagent.example.test. TXT", "name www.example.test. CNAME"),
        ("name *.example.test. CNAME; grant svcagent subdomain _svcagent.example.test. TXT", "name www.example.test."),
    ],
)
def test_half_a_grant_names_the_other_half(granted: str, lacking: str) -> None:
    """With the line that the refusal names, the right is there."""
    with dns_server(grants=(f"grant svcagent {granted};",)) as running:
        place = running.place("www")
        with pytest.raises(NotGranted) as caught:
            running.provider().preflight(place)
        line = str(caught.value).partition("of the zone example.test.: ")[2]
        assert lacking in line
        assert line.count("grant") == 1
    with dns_server(grants=(f"grant svcagent {granted};", line)) as running:
        running.provider().preflight(place)
        running.provider().write(place, NOTHING, view(*marked()))


def test_a_repair_needs_the_right_to_the_record_alone() -> None:
    with dns_server(grants=("grant svcagent subdomain example.test. CNAME;",)) as running:
        place = running.place("www")
        record, marker = marked()
        running.put(place.name, 7, "CNAME", TARGET)
        running.put(place.marker, 60, "TXT", f'"{marker}"')

        running.provider().write(place, running.provider().read(place), view(record, marker))

        assert running.provider().read(place) == view(record, marker)


def test_a_secondary_takes_no_updates() -> None:
    """It answers for the zone and knows the key, and is the wrong server to name."""
    with dns_server(secondaries=1) as running, secondary(running) as second, pytest.raises(UpdatesOff):
        running.provider(at=(second.address, second.port)).read(running.place("www"))


def test_a_secondary_that_forwards_updates_and_lags_behind() -> None:
    """What was written there does not show; the message says what dns.server has to be."""
    with (
        dns_server(secondaries=1, is_notifying=False) as running,
        secondary(running, more="allow-update-forwarding { any; };") as second,
    ):
        late = running.provider(at=(second.address, second.port))
        (at_secondary,) = kept(late, wanted("www"))
        (at_primary,) = kept(running.provider(), wanted("www"))

    assert (at_secondary.outcome, at_primary.outcome) == (RecordOutcome.CONFLICT, RecordOutcome.IN_PLACE)
    assert "set dns.server to the primary" in at_secondary.why


def test_a_signed_zone() -> None:
    """DNSSEC's own records stand beside a CNAME, and in place of one that is not there."""
    options = "dnssec-policy default; inline-signing no;"
    with dns_server(more=options) as running:
        wait_until(lambda: bool(running.bind.lookup(ZONE, "DNSKEY")), 20, "the zone is signed")
        place, below = running.place("*"), running.place("below")
        record, marker = marked()

        running.provider().write(place, NOTHING, view(record, marker))

        assert running.provider().read(place) == view(record, marker)
        assert running.provider().read(below) == NOTHING
        running.provider().write(place, view(record, marker), view(*marked(OTHER_TARGET, gen=1)))
        running.provider().write(place, running.provider().read(place), NOTHING)
        assert running.provider().read(place) == NOTHING
        running.put(below.name, 60, "A", "192.0.2.7")
        assert running.provider().read(below) == ZoneView(others=("A 192.0.2.7",))


def test_a_frozen_zone(dns_: Dns, place: RecordPlace) -> None:
    with dns_.bind.frozen_zone(ZONE), pytest.raises(UpdatesOff, match=r"rndc thaw example\.test"):
        dns_.provider().write(place, NOTHING, view(*marked()))

    dns_.provider().write(place, NOTHING, view(*marked()))


def test_a_zone_that_takes_no_updates(dns_: Dns) -> None:
    static = dataclasses.replace(dns_, zone="static.test.").place("www")

    with pytest.raises(UpdatesOff, match=r"update-policy \{ grant svcagent name www.static.test. CNAME;"):
        dns_.provider().read(static)


def test_a_zone_that_the_server_does_not_hold(dns_: Dns) -> None:
    with raises_kind(NotAuthoritative, "not-authoritative"):
        dns_.provider().read(dataclasses.replace(dns_, zone="elsewhere.example.").place("www"))


def test_a_zone_whose_directory_cannot_be_written(dns_: Dns, place: RecordPlace) -> None:
    """SERVFAIL, and the reason that it usually has. BIND keeps a journal beside the zone file."""
    journal = dns_.bind.directory / "example.test.zone.jnl"
    dns_.bind.rndc("sync", "-clean", ZONE)
    journal.mkdir()
    try:
        with pytest.raises(DnsServerFailed):
            dns_.provider().write(place, NOTHING, view(*marked()))
    finally:
        journal.rmdir()


@pytest.mark.parametrize("name", ["*", "www", "*.eu", "a.b.c", "cname-_wildcard._svcagent"])
def test_the_zone_of_a_name_is_found(dns_: Dns, name: str) -> None:
    assert find_zone(dns_.provider().server, f"{name}.{ZONE}") == ZONE


@pytest.mark.parametrize("target", ["nobody.example.test.", "nobody.test.", "nobody.static.test.", TARGET])
def test_the_zone_of_a_name_that_is_a_cname_is_found(dns_: Dns, place: RecordPlace, target: str) -> None:
    """The answer speaks of the CNAME's target, which may be in the same zone, above it, or elsewhere."""
    dns_.provider().write(place, NOTHING, view(*marked(target)))

    assert find_zone(dns_.provider().server, place.name) == ZONE
    assert find_zone(dns_.provider().server, f"below.{place.name}") == ZONE


def test_the_zone_of_a_cname_whose_target_is_above_is_found_by_a_resolver(dns_: Dns, place: RecordPlace) -> None:
    """It follows the CNAME, and shows the zone of its target beside the answer."""
    dns_.provider().write(place, NOTHING, view(*marked("nobody.test.")))
    with resolver(dataclasses.replace(dns_, zone="test."), ("127.0.0.1", 9)) as resolving:
        asked = DnsServer(resolving.address, resolving.port, 10)

        assert find_zone(asked, place.name) == ZONE


def test_the_zone_of_a_name_that_the_server_does_not_know(dns_: Dns) -> None:
    with raises_kind(Rejected, "zone-unknown"):
        find_zone(dns_.provider().server, "www.elsewhere.example.")


@pytest.mark.parametrize(("kind", "value"), [("CNAME", "elsewhere.example.net."), ("A", "192.0.2.7")])
def test_a_foreign_record_is_a_conflict(dns_: Dns, name: str, place: RecordPlace, kind: str, value: str) -> None:
    dns_.put(place.name, 60, kind, value)
    before = dns_.serial

    (result,) = kept(dns_.provider(), wanted(name))

    assert result.outcome is RecordOutcome.CONFLICT
    assert value in result.why
    assert dns_.serial == before


def test_a_lost_marker_is_a_conflict_until_it_is_adopted(dns_: Dns, name: str, place: RecordPlace) -> None:
    """Without a marker nobody can tell that the record is svcagent's; adopting writes the marker alone."""
    kept(dns_.provider(), wanted(name))
    dns_.take(place.marker, "TXT")

    (conflict,) = kept(dns_.provider(), wanted(name))
    (adopted,) = CnameSync(lambda _name: dns_.provider(), lambda _target: False).adopt([wanted(name)])
    (after,) = kept(dns_.provider(), wanted(name))

    assert conflict.outcome is RecordOutcome.CONFLICT
    assert f"svcagent cname adopt '{place.name}'" in conflict.why
    assert adopted.outcome is RecordOutcome.ADOPTED
    assert after.outcome is RecordOutcome.IN_PLACE


def test_a_lost_record_is_repaired(dns_: Dns, name: str, place: RecordPlace) -> None:
    """Whatever Consul DNS answers: that is no reason to leave a record out that is published."""
    kept(dns_.provider(), wanted(name))
    dns_.take(place.name, "CNAME")
    before = dns_.serial

    (result,) = kept(dns_.provider(), wanted(name), is_answered=False)

    assert result.outcome is RecordOutcome.REPAIRED
    assert dns_.bind.lookup(place.name, "CNAME") == (TARGET,)
    assert dns_.serial == before + 1


@pytest.mark.parametrize(("target", "ttl"), [(TARGET, 86400), ("elsewhere.example.net.", 60)])
def test_a_record_that_drifted_is_repaired(dns_: Dns, name: str, place: RecordPlace, target: str, ttl: int) -> None:
    """Its TTL, or its target, changed by other means under svcagent's marker."""
    kept(dns_.provider(), wanted(name))
    dns_.put(place.name, ttl, "CNAME", target)

    (result,) = kept(dns_.provider(), wanted(name), is_answered=False)

    assert result.outcome is RecordOutcome.REPAIRED
    assert dns_.provider().read(place) == ZoneView(record=wanted(name).record, markers=(wanted(name).marker,))


def test_a_server_that_is_down(dns_: Dns) -> None:
    """Every record's outcome, and the second one does not wait again."""
    provider = dns_.provider(at=(dns_.bind.address, dns_.bind.port + 1))

    results = kept(provider, wanted("a"), wanted("b"))

    assert [result.outcome for result in results] == [RecordOutcome.UNREACHABLE, RecordOutcome.UNREACHABLE]


def test_a_server_that_hangs(dns_: Dns, name: str) -> None:
    """It takes connections, and says nothing; the deadline ends that, once for all records."""
    dns_.bind.freeze()
    try:
        began = time.monotonic()
        results = kept(dns_.provider(timeout=2), wanted(name), wanted("other"), wanted("third"))
        took = time.monotonic() - began
    finally:
        dns_.bind.thaw()

    assert {result.outcome for result in results} == {RecordOutcome.UNREACHABLE}
    assert took < 4


def test_a_server_that_hangs_in_the_middle(dns_: Dns, name: str, place: RecordPlace) -> None:
    """It took the write and nothing can be read: unknown, and the next sync finds out."""

    class Hanging(Faults):
        def before_change(self) -> None:
            dns_.bind.freeze()

    try:
        with Listener(Hanging(_endpoint(dns_)).serve) as between:
            (result,) = kept(dns_.provider(at=("127.0.0.1", between.port), timeout=0.5), wanted(name))
    finally:
        dns_.bind.thaw()
    (after,) = kept(dns_.provider(), wanted(name))

    assert result.outcome is RecordOutcome.UNKNOWN
    assert "unknown whether" in result.why
    assert after.outcome in (RecordOutcome.IN_PLACE, RecordOutcome.CREATED)
    assert dns_.bind.lookup(place.name, "CNAME") == (TARGET,)


@pytest.mark.parametrize("fault", ["swallowed", "lost", "torn"])
def test_a_write_without_an_answer_is_read_back(dns_: Dns, name: str, place: RecordPlace, fault: str) -> None:
    """Not sent, carried out and unanswered, or answered by half: created once, and that is what is told."""
    before = dns_.serial

    with Listener(Faults(_endpoint(dns_), **{fault: 1}).serve) as between:
        (result,) = kept(dns_.provider(at=("127.0.0.1", between.port)), wanted(name))

    assert result.outcome is RecordOutcome.CREATED
    assert result.is_done
    assert ("answer was lost" in result.why) == (fault != "swallowed")
    assert dns_.bind.lookup(place.name, "CNAME") == (TARGET,)
    assert dns_.serial == before + 1


@pytest.mark.parametrize("fault", ["swallowed", "lost", "torn"])
def test_a_removal_without_an_answer_is_read_back(dns_: Dns, name: str, place: RecordPlace, fault: str) -> None:
    kept(dns_.provider(), wanted(name))

    with Listener(Faults(_endpoint(dns_), **{fault: 1}).serve) as between:
        provider = dns_.provider(at=("127.0.0.1", between.port))
        result = CnameSync(lambda _name: provider, lambda _target: True).remove(place, "rfc2136", None, wanted(name))

    assert result.outcome is RecordOutcome.REMOVED
    assert dns_.provider().read(place) == NOTHING


def test_a_write_that_never_arrives_is_unknown(dns_: Dns, name: str, place: RecordPlace) -> None:
    with Listener(Faults(_endpoint(dns_), swallowed=1000).serve) as between:
        (result,) = kept(dns_.provider(at=("127.0.0.1", between.port)), wanted(name))

    assert result.outcome is RecordOutcome.UNKNOWN
    assert dns_.provider().read(place) == NOTHING


def test_a_provider_distinguishes_a_lost_answer_from_an_unreachable_server(dns_: Dns, place: RecordPlace) -> None:
    with Listener(Faults(_endpoint(dns_), lost=1).serve) as between, pytest.raises(OutcomeUnknown):
        dns_.provider(at=("127.0.0.1", between.port)).write(place, NOTHING, view(*marked()))


@pytest.mark.parametrize("answer", [b"", b"\x00", b"\x00\x0cgarbage-here", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 900])
def test_what_is_no_dns_server(dns_: Dns, name: str, answer: bytes) -> None:
    with Listener(answering(answer)) as server:
        (result,) = kept(dns_.provider(at=("127.0.0.1", server.port), timeout=1), wanted(name))

    assert result.outcome is RecordOutcome.UNREACHABLE


@pytest.mark.parametrize("answer", [b"", b"\x00\x0cgarbage-here"])
def test_consul_dns_that_breaks_off_is_unreachable(dns_: Dns, name: str, answer: bytes) -> None:
    """Whether the target may be published is unknown then, and nothing is."""
    with Listener(answering(answer)) as consul:
        agent = AgentSelf("host1", "dc1", "consul", ("127.0.0.1", consul.port), "1.8.7")
        keeper = CnameSync(lambda _name: dns_.provider(), lambda target: has_instances(agent, target))
        (result,) = keeper.sync([wanted(name)])
    switched_off = dataclasses.replace(agent, dns=None)
    (unsure,) = CnameSync(lambda _name: dns_.provider(), lambda target: has_instances(switched_off, target)).sync(
        [wanted(name)]
    )

    assert (result.outcome, unsure.outcome) == (RecordOutcome.UNREACHABLE, RecordOutcome.UNREACHABLE)
    assert "--force" in unsure.why


def test_one_refused_record_does_not_stop_the_others(dns_: Dns, name: str) -> None:
    elsewhere = dataclasses.replace(wanted(name), name="www.elsewhere.example.", zone="elsewhere.example.")
    dns_.put(dns_.place(f"taken-{name}").name, 60, "A", "192.0.2.7")

    results = kept(dns_.provider(), elsewhere, wanted(f"taken-{name}"), wanted(name))

    assert [result.outcome for result in results] == [
        RecordOutcome.REFUSED,
        RecordOutcome.CONFLICT,
        RecordOutcome.CREATED,
    ]


@pytest.mark.parametrize(
    ("published", "target", "gen"),
    [(None, TARGET, 0), ((TARGET, 0), OTHER_TARGET, 1)],
    ids=["first publication", "another target"],
)
def test_an_unanswered_target(dns_: Dns, name: str, published: tuple[str, int] | None, target: str, gen: int) -> None:
    if published:
        kept(dns_.provider(), wanted(name, published[0], gen=published[1]))
    before = dns_.serial
    keeper = CnameSync(lambda _name: dns_.provider(), lambda _target: False)

    (held_back,) = keeper.sync([wanted(name, target, gen=gen)])
    assert held_back.outcome is RecordOutcome.NOT_NOW
    assert dns_.serial == before
    (forced,) = keeper.sync([wanted(name, target, gen=gen)], is_forced=True)

    assert forced.outcome is (RecordOutcome.CHANGED if published else RecordOutcome.CREATED)


def _endpoint(dns_: Dns) -> tuple[str, int]:
    return dns_.bind.address, dns_.bind.port
