"""What is made of what servers, the resolver and Consul say of a record: tables."""

from pathlib import Path

import pytest

from agent.cname import PublishedRecord, WantedRecord
from agent.cname.verify import ResolverView, ServerView, report
from agent.consul import CheckState, Instance

TARGET = "production.chocon.service.dc1.consul."
RECORD = PublishedRecord(TARGET, 60)
WANTED = WantedRecord("*.z.", RECORD, "chocon/production/dc1", 0, "rfc2136", "chocon", "z.", file=Path("chocon.json"))

FIRST = ServerView("ns1.z.", "192.0.2.1:53", 7, RECORD)
SECOND = ServerView("ns2.z.", "192.0.2.2:53", 7, RECORD)
WRAPPED = ServerView("ns2.z.", "b", 2**32 - 1, RECORD)
SILENT = ServerView("ns2.z.", "192.0.2.2:53", problem="does not answer")
CLIENTS = ResolverView("192.0.2.9:53", "x.z.", TARGET, ("10.0.0.1",))


def instance(address: str, status: str = "passing") -> Instance:
    return Instance("node", "chocon", address, 80, (CheckState("c", "c", status, "", "chocon"),))


BOTH = (instance("10.0.0.1"), instance("10.0.0.2"))


@pytest.mark.parametrize(
    ("servers", "clients", "instances", "said"),
    [
        ((FIRST, SECOND), CLIENTS, BOTH, None),
        ((), CLIENTS, BOTH, "has no NS records"),
        ((FIRST, ServerView("ns2.z.", "a", 6, RECORD)), CLIENTS, BOTH, "ns2.z. (a): its serial 6 is behind 7"),
        (
            (FIRST, ServerView("ns2.z.", "a", 6)),
            CLIENTS,
            BOTH,
            "the record does not exist, and its serial 6 is behind 7",
        ),
        (
            (ServerView("ns1.z.", "a", 0, RECORD), ServerView("ns2.z.", "b", 2**32 - 1, RECORD)),
            CLIENTS,
            BOTH,
            "behind 0",
        ),
        ((FIRST, ServerView("ns2.z.", "a", 7, PublishedRecord(TARGET, 5))), CLIENTS, BOTH, "TTL 5"),
        ((FIRST,), ResolverView("r", "x.z.", None, ()), BOTH, "returns no CNAME, not"),
        ((FIRST,), ResolverView("r", "x.z.", "y.", ("10.0.0.1",)), BOTH, "returns y., not"),
        ((FIRST,), ResolverView("r", "x.z.", problem="answers SERVFAIL"), BOTH, "svcagent doctor --only cname"),
        ((FIRST,), ResolverView("r", "x.z.", TARGET, ()), BOTH, "although 10.0.0.1, 10.0.0.2 pass"),
        ((FIRST,), ResolverView("r", "x.z.", TARGET, ()), (), "no instance of chocon passes"),
        ((FIRST,), ResolverView("r", "x.z.", TARGET, ("10.0.0.3",)), BOTH, "10.0.0.3, where no instance"),
        ((FIRST,), CLIENTS, (instance("10.0.0.1", "warning"),), "10.0.0.1, where no instance"),
    ],
)
def test_what_is_wrong_with_a_record(
    servers: tuple[ServerView, ...], clients: ResolverView, instances: tuple[Instance, ...], said: str | None
) -> None:
    found = report(WANTED, servers, clients, instances)

    assert len(found.problems) == (said is not None)
    assert not found.is_silent
    if said is not None:
        assert said in found.problems[0]


def test_a_silent_server_is_distinguished_from_a_wrong_one() -> None:
    assert report(WANTED, (FIRST, SILENT), CLIENTS, BOTH).is_silent
    assert not report(WANTED, (ServerView("ns1.z.", "a", 7), SILENT), CLIENTS, BOTH).is_silent


def test_a_target_outside_consul_needs_addresses_alone() -> None:
    outside = WantedRecord("*.z.", RECORD, "chocon/-/dc1", 0, "rfc2136", "chocon", "z.", is_in_consul=False)

    assert not report(outside, (FIRST,), CLIENTS, ()).problems
    assert report(outside, (FIRST,), ResolverView("r", "x.z.", TARGET, ()), ()).problems


@pytest.mark.parametrize(
    ("view", "line"),
    [
        (
            ServerView("ns2.z.", "a:53", problem="the DNS server a:53 does not answer"),
            "ns2.z.: the DNS server a:53 does",
        ),
        (ServerView("ns2.z.", "a:53", problem="it does not serve z."), "ns2.z. (a:53): it does not serve z."),
        (ServerView("ns2.z.", "a:53", 7), "ns2.z. (a:53): does not have the record yet"),
    ],
)
def test_a_late_server_is_named_once(view: ServerView, line: str) -> None:
    assert view.line.startswith(line)
