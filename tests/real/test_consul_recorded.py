"""svcagent's calls on releases of Consul that no package has, played from recorded answers, and on the real one.

Each scenario is the same for all: what holds on the real agent holds on the recorded ones.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, KvOperation, Lock, known_faults, lock_status, queue_of
from agent.definitions import MinHealthy, ReloadSection, Service
from agent.errors import Denied, LockBusy, NotFound, OutcomeUnknown, Rejected
from agent.fleet import HostState, Quarantine, observe, quarantine
from agent.fleet.host_state import write_host_state
from agent.reload.guard import Observed, ObstacleKind, find_obstacles
from tests.lab.ground import wait_until
from tests.lab.recorded import DIRECTORY, RELEASES, RecordedAgent, recorded_agent, recording
from tests.real.conftest import ConsulHost
from tests.support.consul import consul_at
from tests.support.kinds import raises_kind
from tests.support.svcagent import Svcagent

REAL = "the real one"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DIGEST = f"sha256:{'0' * 64}"
CLOCK = SystemClock()
TRANSACTIONS_UNKNOWN = "whether a transaction refuses such keys, too"


@dataclass(frozen=True)
class PlayedAgent:
    address: str
    consul: Consul
    recorded: RecordedAgent | None

    @property
    def settings(self) -> dict[str, str]:
        return {"CONSUL_HTTP_ADDR": self.address}


@pytest.fixture(params=[REAL, *RELEASES])
def site(request: pytest.FixtureRequest) -> Iterator[PlayedAgent]:
    if request.param == REAL:
        host: ConsulHost = request.getfixturevalue("host")
        consul = Consul(host.settings)
        yield PlayedAgent(f"{host.address}:8500", consul, None)
        for service_id in consul.services():
            consul.deregister_service(service_id)
        host.ask.delete("/v1/kv/?recurse")
        consul.close()
        return
    with recorded_agent(request.param) as (address, agent), consul_at(address) as consul:
        yield PlayedAgent(address, consul, agent)


def test_every_recorded_answer_has_its_source() -> None:
    assert RELEASES == ("1.15", "1.18", "1.21.5", "1.22", "2.0")
    for release in RELEASES:
        for name, answer in recording(release)["answers"].items():
            assert answer["source"], (DIRECTORY, release, name)
            assert answer["basis"], (DIRECTORY, release, name)


def test_services_are_registered_shown_and_deregistered(site: PlayedAgent, svcagent: Svcagent) -> None:
    svcagent.define("web", "db")

    first = svcagent("register", **site.settings)
    again = svcagent("--json", "register", **site.settings)
    shown = svcagent("status", "web", **site.settings)
    planned = svcagent("--json", "plan", **site.settings)
    removed = svcagent("deregister", "--all", **site.settings)

    assert (first.code, again.code, shown.code, planned.code, removed.code) == (0, 0, 0, 0, 0), (
        first.text + again.text + shown.text + planned.text + removed.text
    )
    assert {one["action"] for one in json.loads(again.out)["changes"]} == {"keep"}
    assert {one["action"] for one in json.loads(planned.out)["changes"]} == {"keep"}
    assert "up to date" in shown.out
    assert site.consul.services().keys() <= {"consul"}


def test_what_is_absent_is_deregistered_and_nothing_else_is_done_to_it(site: PlayedAgent) -> None:
    """Each release says in its own way that there is no such service."""
    site.consul.deregister_service("absent")
    site.consul.deregister_check("absent")

    check = {"ID": "c", "Name": "c", "TTL": "1h", "ServiceID": "absent"}
    writes: tuple[Callable[[], None], ...] = (
        lambda: site.consul.enable_maintenance("absent", "r"),
        lambda: site.consul.disable_maintenance("absent"),
        lambda: site.consul.rewrite_maintenance("absent", "r"),
        lambda: site.consul.register_check(check),
    )
    for write in writes:
        with raises_kind(NotFound, "not-registered"):
            write()
    assert not site.consul.renew_session("00000000-0000-0000-0000-000000000000")
    assert site.consul.service_hash("absent") is None


def test_maintenance_is_enabled_shown_and_disabled(site: PlayedAgent, svcagent: Svcagent) -> None:
    svcagent.define("web")
    svcagent("register", **site.settings)
    wait_until(lambda: any(one.is_served for one in site.consul.instances("web")[1]), 10, "web is in the catalog")

    enabled = svcagent("maint", "enable", "web", "--reason", "disk", **site.settings)
    shown = svcagent("--json", "maint", "status", **site.settings)
    served = [one.is_served for one in site.consul.instances("web")[1]]
    disabled = svcagent("maint", "disable", "web", **site.settings)

    assert (enabled.code, disabled.code) == (0, 0), enabled.text + disabled.text
    assert "disk" in shown.out
    assert served == [False]
    wait_until(lambda: any(one.is_served for one in site.consul.instances("web")[1]), 10, "web is back")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_lock_is_held_waited_for_and_handed_on(site: PlayedAgent, limit: int) -> None:
    other = site.consul.another()
    details = {"node": "n", "service": "web"}
    first = Lock(site.consul, "svcagent/web/lock", "svcagent reload web", details, CLOCK, limit=limit)
    second = Lock(other, "svcagent/web/lock", "svcagent reload web", details, CLOCK, limit=limit)
    with first, second:
        first.acquire(Deadline.after(CLOCK, 5))
        first.update(step="drain")
        first.check_held()
        if limit == 1:
            with pytest.raises(LockBusy):
                second.acquire(Deadline.after(CLOCK, 0.2))
            first.release()
        second.acquire(Deadline.after(CLOCK, 10))
        holders = lock_status(site.consul, "svcagent/web/lock", queue_of("web")).holders
        assert len(holders) == limit
        second.check_held()
    other.close()
    assert site.consul.kv_get("svcagent/web/lock/.lock")[1] is None


def test_the_guard_reads_hosts_and_quarantine(site: PlayedAgent, svcagent: Svcagent) -> None:
    """The version that failed is refused; cleared, it is not."""
    svcagent.define("web")
    svcagent("register", **site.settings)
    node = site.consul.agent_self().node
    wait_until(lambda: bool(site.consul.instances("web")[1]), 10, "web is in the catalog")
    write_host_state(site.consul, "web", node, HostState(DIGEST, "running", NOW, service_id="web"))
    quarantine.put(site.consul, "web", Quarantine(DIGEST, node, NOW, "it failed"))

    view = observe(site.consul, "web", NOW)

    assert view.hosts[node, "web"].digest == DIGEST
    assert view.quarantine.keys() == {DIGEST}
    section = ReloadSection(image="web", container="web", min_healthy=MinHealthy(value=0))
    seen = Observed(site.consul.instances("web")[1], node, Service(name="web"), section, NOW, view, wanted=DIGEST)
    assert [one.kind for one in find_obstacles(seen)] == [ObstacleKind.QUARANTINE]
    assert quarantine.clear(site.consul, "web", DIGEST) is not None
    assert quarantine.read_all(site.consul, "web") == {}


def test_an_entry_of_an_earlier_release_still_counts(site: PlayedAgent) -> None:
    """By its prefix: 1.21.5 refuses to read its key. Clearing removes both spellings, where that is known."""
    site.consul.kv_transaction(*_old_entry())

    assert quarantine.find(site.consul, "web", DIGEST) is not None
    if site.recorded is not None and TRANSACTIONS_UNKNOWN in site.recorded.recording["unknown"]:
        return
    assert quarantine.clear(site.consul, "web", DIGEST) is not None
    assert site.consul.kv_tree("svcagent/web/")[1] == ()


def _old_entry() -> list[KvOperation]:
    text = json.dumps({"v": 1, "digest": DIGEST, "node": "h1", "since": NOW.isoformat(), "why": "it failed"})
    names = (DIGEST, f"sha256-{'0' * 64}")
    return [KvOperation("set", f"svcagent/web/quarantine/{name}", text) for name in names]


def test_a_release_that_refuses_keys_says_so() -> None:
    assert [fault.kind for fault in known_faults("1.21.5")] == ["kv-key-refused"]
    with recorded_agent("1.21.5") as (address, _agent), consul_at(address) as consul:
        with raises_kind(Rejected, "rejected"):
            consul.kv_put("a:b", "v")
        assert consul.kv_put("a=3Ab", "v")


def test_a_read_is_repeated_where_the_agent_lost_its_server_and_a_write_is_not() -> None:
    with recorded_agent("2.0") as (address, agent), consul_at(address) as consul:
        consul.kv_put("k", "v")
        agent.fail_next = "rpc_lost"
        assert consul.kv_get("k")[1] is not None
        agent.fail_next = "rpc_lost"
        before = len(agent.asked)
        with pytest.raises(OutcomeUnknown):
            consul.kv_put("k", "w")
        assert len(agent.asked) == before + 1


@pytest.mark.parametrize("release", RELEASES)
def test_a_filtered_list_of_instances_is_refused_by_the_guard(release: str, svcagent: Svcagent) -> None:
    svcagent.define("web")
    with recorded_agent(release) as (address, agent), consul_at(address) as consul:
        svcagent("register", CONSUL_HTTP_ADDR=address)
        agent.is_filtering = True
        with pytest.raises(Denied, match=r'node_prefix "" \{ policy = "read" \}'):
            consul.instances("web")
        refused = svcagent("maint", "enable", "web", "--reason", "disk", CONSUL_HTTP_ADDR=address)
        assert refused.code == 1
        assert 'node_prefix "" { policy = "read" }' in refused.err
