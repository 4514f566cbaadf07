"""Many hosts keep one record at once, all on one BIND: the zone changes as often as it must, and then never again."""

import time
from collections.abc import Iterator

import pytest

from agent.cname import CnameSync, RecordOutcome, SyncResult, WantedRecord
from tests.real.cname_fixture import OTHER_TARGET, OWNER, TARGET, ZONE, Dns, dns_server, marked
from tests.support.threads import concurrently

HOSTS = 10
SECONDS = 5.0


@pytest.fixture(scope="module")
def dns_() -> Iterator[Dns]:
    with dns_server() as running:
        yield running


@pytest.fixture
def name(number: int) -> str:
    """A label of its own for a test."""
    return f"www{number}"


def wanted(name: str, target: str = TARGET, *, gen: int = 0, ttl: int = 60) -> WantedRecord:
    """What the definitions of one host say."""
    return WantedRecord(f"{name}.{ZONE}", marked(target, ttl=ttl)[0], OWNER, gen, "rfc2136", "chocon", ZONE)


def rolled_out(dns_: Dns, definitions: list[WantedRecord], seconds: float = SECONDS) -> list[list[SyncResult]]:
    """Every host syncs its definition again and again, all at once; what each of them saw."""
    seen: list[list[SyncResult]] = [[] for _ in definitions]

    def host(number: int) -> None:
        keeper = CnameSync(lambda _name: dns_.provider(timeout=30), lambda _target: True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen[number] += keeper.sync([definitions[number]])

    concurrently(host, range(len(definitions)))
    assert all(seen)
    return seen


def outcomes(seen: list[list[SyncResult]]) -> dict[RecordOutcome, int]:
    everything = [result.outcome for of_host in seen for result in of_host]
    return {outcome: everything.count(outcome) for outcome in set(everything)}


@pytest.mark.parametrize("outcome", [RecordOutcome.CREATED, RecordOutcome.REPAIRED])
def test_hosts_that_agree_make_one_change(dns_: Dns, name: str, outcome: RecordOutcome) -> None:
    """One of them creates or repairs it, and all others, all the time, find it in place."""
    if outcome is RecordOutcome.REPAIRED:
        rolled_out(dns_, [wanted(name)], seconds=0.1)
        dns_.take(f"{name}.{ZONE}", "CNAME")
    before = dns_.serial

    seen = rolled_out(dns_, [wanted(name)] * HOSTS)

    assert dns_.serial == before + 1
    found = outcomes(seen)
    assert found.pop(outcome) == 1
    assert set(found) == {RecordOutcome.IN_PLACE}


def test_of_two_generations_the_higher_one_stays(dns_: Dns, name: str) -> None:
    """At most two changes, however many hosts still have the old files; those give way, and say nothing is wrong."""
    before = dns_.serial
    old, new = wanted(name), wanted(name, OTHER_TARGET, gen=1)

    seen = rolled_out(dns_, [old, new] * (HOSTS // 2))

    assert 1 <= dns_.serial - before <= 2
    assert dns_.bind.lookup(new.name, "CNAME") == (OTHER_TARGET,)
    found = outcomes(seen)
    assert set(found) <= {RecordOutcome.CREATED, RecordOutcome.CHANGED, RecordOutcome.IN_PLACE, RecordOutcome.DEFERRED}
    assert {of_host[-1].outcome for of_host in seen[0::2]} == {RecordOutcome.DEFERRED}
    assert {of_host[-1].outcome for of_host in seen[1::2]} == {RecordOutcome.IN_PLACE}
    assert RecordOutcome.DEFERRED.exit_code == 0


@pytest.mark.parametrize("other", [{"target": OTHER_TARGET}, {"ttl": 300}], ids=["target", "ttl"])
def test_two_definitions_of_one_generation_conflict_everywhere(dns_: Dns, name: str, other: dict[str, object]) -> None:
    """On all hosts of the side that came second, and the zone is still: one change in all."""
    before = dns_.serial
    first, second = wanted(name), wanted(name, **other)  # type: ignore[arg-type]  # one of the two

    seen = rolled_out(dns_, [first, second] * (HOSTS // 2), seconds=2)

    assert dns_.serial == before + 1
    last = [{of_host[-1].outcome for of_host in seen[side::2]} for side in (0, 1)]
    assert sorted(last, key=str) == sorted([{RecordOutcome.IN_PLACE}, {RecordOutcome.CONFLICT}], key=str)
    assert RecordOutcome.CONFLICT.exit_code == 1


def test_a_conflict_is_seen_on_both_hosts_unless_one_has_a_newer_file(dns_: Dns, name: str) -> None:
    """Both are told what the other one is: whoever does not stand there sees the conflict."""
    rolled_out(dns_, [wanted(name, gen=3)], seconds=0.1)
    other = wanted(name, OTHER_TARGET, gen=3)

    (result,) = rolled_out(dns_, [other], seconds=0.1)[0][-1:]

    assert result.outcome is RecordOutcome.CONFLICT
    assert TARGET in result.why
    assert OTHER_TARGET in result.why
