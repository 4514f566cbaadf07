"""``svcagent maint enable`` on two hosts: who is left for clients, before and after, and what a failure says."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import dns.message
import dns.query
import pytest

from agent.cli import maint, maint_enable
from agent.consul import DnsAnswer
from agent.errors import DnsUnreachable
from tests.lab.ground import wait_until
from tests.real.access_fixture import ConsulHosts, consul_hosts
from tests.support.consul import consul_at
from tests.support.svcagent import Result, Svcagent

HOSTS = ("host1", "host2")
_numbers = count(1)


class TwoHosts(ConsulHosts):
    """With what an operator on either of them does and sees."""

    def svcagent(self, node: str) -> Svcagent:
        """That of an operator on that host."""
        return Svcagent(self.directory / node, CONSUL_HTTP_ADDR=f"{self.addresses[node]}:8500", SUDO_USER="alice")

    def run(self, node: str, *arguments: str, code: int = 0) -> str:
        """Return all that a verb of ``svcagent maint`` printed, run as a process."""
        result = self.svcagent(node).process("maint", *arguments)
        assert result.code == code, result
        return result.text

    def out(self, name: str) -> list[str]:
        """The hosts whose instance is in maintenance, as the catalog shows it."""
        entries = self.at_server.get(f"/v1/health/service/{name}?consistent")
        return sorted(
            one["Node"]["Node"] for one in entries if any("_maintenance" in check["CheckID"] for check in one["Checks"])
        )

    def served(self, name: str) -> int:
        query = dns.message.make_query(f"{name}.service.consul", "SRV")
        return len(dns.query.tcp(query, self.addresses["host1"], port=8600, timeout=5).answer)

    def update(self, node: str, name: str, status: str) -> None:
        """What that host's check of the service says from now on; in the catalog when this returns."""
        self.asks[node].put(f"/v1/agent/check/update/{name}-ttl", {"Status": status})

        def is_shown() -> bool:
            entries = self.at_server.get(f"/v1/health/service/{name}?consistent")
            return any(
                check["Status"] == status
                for one in entries
                if one["Node"]["Node"] == node
                for check in one["Checks"]
                if check["CheckID"] == f"{name}-ttl"
            )

        wait_until(is_shown, 10, f"the catalog shows {status}")


@pytest.fixture(scope="module")
def site() -> Iterator[TwoHosts]:
    """Running, with DNS answers for ``hour`` that may be remembered for an hour, and for ``second`` for a second."""
    with consul_hosts(*HOSTS, ttls={"hour": "3600s", "second": "1s"}) as hosts:
        yield TwoHosts(**vars(hosts))


@pytest.fixture
def register(site: TwoHosts) -> Iterator[Callable[[str], str]]:
    """Registers a service, passing on both hosts, until the test ends; returns its name."""
    registered: list[str] = []

    def add(name: str) -> str:
        for node in HOSTS:
            check = {"CheckID": f"{name}-ttl", "TTL": "1h", "Status": "passing"}
            body = {"Name": name, "Port": 8000 + next(_numbers), "Address": site.addresses[node], "Checks": [check]}
            site.asks[node].put("/v1/agent/service/register", body)
        registered.append(name)
        wait_until(lambda: len(site.at_server.passing(name)) == len(HOSTS), 10, f"{name} passes on both hosts")
        return name

    yield add
    for name in registered:
        for node in HOSTS:
            site.asks[node].deregister_service(name)


@pytest.fixture
def web(register: Callable[[str], str]) -> str:
    return register(f"web{next(_numbers)}")


@pytest.fixture
def on_host1(site: TwoHosts) -> Callable[..., Result]:
    """Runs a verb of ``svcagent maint`` in this process, on the first host."""
    return partial(site.svcagent("host1"), "--json", "maint")


@pytest.fixture
def overtaken(site: TwoHosts, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another operator enables maintenance on host2 between the first host's check and its write."""
    enable = maint_enable.enable_all

    def enable_all(*arguments: Any) -> None:
        _take_out_second(site, web)
        enable(*arguments)

    monkeypatch.setattr(maint, "enable_all", enable_all)


def _take_out_second(site: TwoHosts, name: str) -> None:
    site.asks["host2"].put(f"/v1/agent/service/maintenance/{name}?enable=true&reason=disk")
    wait_until(lambda: "host2" in site.out(name), 10, "host2 is out")


def test_an_instance_in_warning_is_the_last_one_served(site: TwoHosts, web: str) -> None:
    """Consul DNS sends clients to it, and the other one is in maintenance."""
    site.update("host1", web, "warning")
    _take_out_second(site, web)
    assert site.served(web) == 1

    refused = site.svcagent("host1")("--json", "maint", "enable", web, "--reason", "x", "--guard")

    assert (refused.code, refused.kind) == (75, "no-instance-left")
    assert site.served(web) == 1
    assert site.out(web) == ["host2"]


def test_an_instance_in_warning_replaces_one_in_warning_and_no_passing_one(site: TwoHosts, web: str) -> None:
    """Clients that ask for passing instances would find none."""
    site.update("host2", web, "warning")
    site.run("host1", "enable", web, "--reason", "x", "--guard", code=75)

    site.update("host1", web, "warning")
    site.run("host1", "enable", web, "--reason", "x", "--guard")

    assert site.served(web) == 1


@pytest.mark.usefixtures("overtaken")
@pytest.mark.parametrize("is_node", [False, True])
def test_another_instance_put_into_maintenance_between_check_and_write(
    site: TwoHosts, web: str, on_host1: Callable[..., Result], is_node: bool
) -> None:
    """The first look saw both in service. The second one sees that nobody is left, and maintenance is off again.

    The node's maintenance holds its services, and is disabled like a service's.
    """
    refused = on_host1("enable", "--node" if is_node else web, "--reason", "x", "--guard")

    assert (refused.code, refused.kind) == (75, "no-instance-left")
    assert site.out(web) == ["host2"]
    assert site.served(web) == 1


def test_another_one_that_begins_after_the_write_is_refused(
    site: TwoHosts, web: str, on_host1: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other order: the second operator's first look sees this one's maintenance."""
    look = maint_enable.check_again

    def late(*arguments: Any) -> None:
        site.run("host2", "enable", web, "--reason", "y", "--guard", code=75)
        look(*arguments)

    monkeypatch.setattr(maint, "check_again", late)

    result = on_host1("enable", web, "--reason", "x", "--guard")

    assert result.code == 0, result
    assert site.out(web) == ["host1"]


def test_two_concurrent_operators_never_enable_maintenance_on_both(site: TwoHosts, web: str) -> None:
    """Each time at most one of them is in maintenance, and a refused one is in service."""
    for _turn in range(4):
        both = {node: site.svcagent(node).start("maint", "enable", web, "--reason", "x", "--guard") for node in HOSTS}
        for process in both.values():
            process.communicate(timeout=60)

        codes = {node: process.returncode for node, process in both.items()}
        assert set(codes.values()) <= {0, 75}
        assert site.out(web) == [node for node, code in codes.items() if code == 0]
        assert site.served(web) == 1
        for node in HOSTS:
            site.run(node, "disable", web)


def test_without_guard_the_second_look_is_not_taken(site: TwoHosts, web: str) -> None:
    """An operator who does not ask for it may take out the last one."""
    _take_out_second(site, web)

    assert "its clients would have none" in site.run("host1", "enable", web, "--reason", "x")
    assert site.out(web) == ["host1", "host2"]


def test_a_ttl_above_the_wait_is_refused_before_any_change(site: TwoHosts, register: Callable[[str], str]) -> None:
    """It says which TTL and which limit; a wait that is long enough, or none, is possible."""
    register("hour")

    refused = site.svcagent("host1")("--json", "maint", "enable", "hour", "--reason", "x", "--wait-drained")

    assert (refused.code, refused.kind) == (75, "dns-ttl-too-long")
    assert "3600 s" in refused.err
    assert site.out("hour") == []
    site.run("host1", "enable", "hour", "--reason", "x")
    assert site.out("hour") == ["host1"]


def test_a_short_ttl_is_waited_for(site: TwoHosts, register: Callable[[str], str]) -> None:
    register("second")

    assert "drained" in site.run("host1", "enable", "second", "--reason", "x", "--wait-drained")


@pytest.mark.parametrize("error", [DnsUnreachable("no answer"), ValueError("nonsense"), OSError("refused")])
def test_any_error_while_draining_says_what_is_out(
    site: TwoHosts,
    web: str,
    on_host1: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Whatever its type: the service, and how to disable its maintenance."""

    def fail(*_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(maint, "await_dns_expiry", fail)

    result = on_host1("enable", web, "--reason", "x", "--wait-drained")

    assert result.code != 0
    assert f"svcagent maint disable {web}" in result.err
    assert site.out(web) == ["host1"]


def test_an_ended_wait_reports_what_is_out_of_service(
    site: TwoHosts, web: str, on_host1: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS goes on returning the instance until the limit: exit code 1, whose maintenance it is, how to disable it."""
    monkeypatch.setattr("agent.maintenance.clients.ask_dns", _always(site.addresses["host1"], web))

    result = on_host1("enable", web, "--reason", "x", "--wait-drained", "--drain-timeout", "300ms")

    assert (result.code, result.kind) == (1, "dns-clients-remain")
    assert f"{web} is still in maintenance, enabled by alice on host1" in result.err
    assert f"svcagent maint disable {web}" in result.err


def _always(address: str, name: str) -> Callable[..., Any]:
    with consul_at(f"{address}:8500") as connection:
        port = connection.services()[name].port
    return lambda *_arguments: DnsAnswer(frozenset({(address, port)}), 0)
