"""Names in DNS that lead to healthy proxies: BIND, Consul, proxies, and clients that know nothing of any of them."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import Host, Lab, Load
from tests.lab.chocon import CLIENTS_NAME, CLIENTS_PATH, NAME, PORT, RECORD, TAG, Chocon
from tests.lab.names import ZONE, Names, naming
from tests.lab.parts import DATACENTER
from tests.lab.rollout import Rollout
from tests.lab.traffic import Url
from tests.lab.watching import CLIENTS, CONSUL, watching

URL = f"http://{CLIENTS_NAME}{CLIENTS_PATH}"
TARGET = f"{TAG}.{NAME}.service.{DATACENTER}.consul"
SEEN_WITHIN = 0.05
"""Seconds after Consul's own answer from which on no client may be told otherwise."""


@dataclass(frozen=True)
class TwoProxies:
    """Two proxies, registered, and a zone without a record."""

    lab: Lab
    chocon: Chocon
    names: Names

    def svcagent(self, host: Host, *arguments: str) -> tuple[int, str]:
        """To its end: exit code and output."""
        process = self.start(host, *arguments)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output + errors

    def start(self, host: Host, *arguments: str) -> "subprocess.Popen[str]":
        return self.lab.svcagent(host, *arguments, env=self.names.environment())

    def sync(self, host: Host) -> dict[str, Any]:
        code, output = self.svcagent(host, "--json", "cname", "sync")
        assert code == 0, output
        (record,) = json.loads(output)["records"]
        return dict(record)

    def answers(self, times: int = 20) -> set[str]:
        """What clients get who ask that often."""
        found = set()
        for _ in range(times):
            got = self.names.curl(URL)
            assert got.returncode == 0, got.stderr
            found.add(got.stdout.strip())
        return found

    def answer_of(self, host: Host) -> str:
        """What a client gets whom this host's proxy serves."""
        return f"{NAME} 1 on {host.name} for https://example.jp{CLIENTS_PATH}"


@pytest.fixture(scope="module")
def empty_site() -> Iterator[TwoProxies]:
    """Proxies that nobody can reach by name."""
    with Lab(2) as lab:
        chocon = Chocon(lab, interval="1s")
        chocon.start()
        with naming(lab) as names:
            yield TwoProxies(lab, chocon, names)


@pytest.fixture
def site(empty_site: TwoProxies) -> TwoProxies:
    """The record is in place, and both proxies are."""
    assert empty_site.sync(empty_site.lab.hosts[0])["record"] == RECORD
    empty_site.chocon.wait_passing()
    return empty_site


def test_all_hosts_publish_concurrently_and_the_zone_changes_once(empty_site: TwoProxies) -> None:
    """Before, the name is nowhere; one host creates the record, and all others find it in place."""
    assert "Could not resolve host" in empty_site.names.curl(URL).stderr
    before = empty_site.names.bind.serial(ZONE)

    processes = [empty_site.start(host, "--json", "cname", "sync") for host in empty_site.lab.hosts * 3]
    documents = [json.loads(process.communicate(timeout=60)[0]) for process in processes]

    outcomes = sorted(document["records"][0]["outcome"] for document in documents)
    assert outcomes == ["created"] + ["in place"] * 5
    assert empty_site.names.bind.serial(ZONE) == before + 1
    assert empty_site.names.bind.lookup(CLIENTS_NAME, "CNAME") == (f"{TARGET}.",)


def test_any_name_reaches_every_proxy(site: TwoProxies) -> None:
    """By nothing but its URL; the proxy is told which upstream is meant."""
    assert site.answers() == {site.answer_of(host) for host in site.lab.hosts}


def test_status_follows_the_name_down_to_passing_instances(site: TwoProxies) -> None:
    code, output = site.svcagent(site.lab.hosts[1], "--json", "cname", "status")

    assert code == 0, output
    (report,) = json.loads(output)
    assert sorted(report["resolver"]["addresses"]) == [host.address for host in site.lab.hosts]


def test_the_doctor_finds_nothing(site: TwoProxies) -> None:
    code, output = site.svcagent(site.lab.hosts[0], "doctor", "--only", "cname", "--strict")

    assert code == 0, output


def test_a_proxy_under_maintenance_is_not_named_any_more(site: TwoProxies, capsys: pytest.CaptureFixture[str]) -> None:
    """Once Consul's own DNS does not name it, clients asked 50 ms later are not told of it either."""
    staying, leaving = site.lab.hosts
    with watching(site.lab, site.names, TARGET, CLIENTS_NAME) as watch:
        watch.wait_for({staying.address, leaving.address})
        code, output = site.svcagent(leaving, "maint", "enable", NAME, "--reason", "disk swap")
        assert code == 0, output
        watch.wait_for({staying.address})
        gone = watch.gone(CONSUL, leaving.address)
        watch.wait_asked_after(gone + SEEN_WITHIN)
    served = site.answers()
    assert site.svcagent(leaving, "maint", "disable", NAME)[0] == 0
    site.chocon.wait_passing()

    with capsys.disabled():
        milliseconds = 1000 * (watch.gone(CLIENTS, leaving.address) - gone)
        print(f"\n  clients are told {milliseconds:+.1f} ms after Consul DNS", end=" ")
    assert served == {site.answer_of(staying)}
    # By when they asked, not by when they were told: a machine that is busy with other things would be blamed.
    late = [answer for answer in watch.answers(CLIENTS) if answer.asked > gone + SEEN_WITHIN]
    assert {address for answer in late for address in answer.addresses} == {staying.address}


def test_a_record_removed_by_hand_is_back_after_the_next_sync(site: TwoProxies) -> None:
    site.names.update(f"update delete {RECORD} CNAME")
    assert "Could not resolve host" in site.names.curl(URL).stderr

    assert site.sync(site.lab.hosts[1])["outcome"] == "repaired"

    assert site.answers() == {site.answer_of(host) for host in site.lab.hosts}
    assert site.sync(site.lab.hosts[0])["outcome"] == "in place"


def test_a_rollout_of_the_proxies_loses_no_request(site: TwoProxies) -> None:
    """Clients who ask for the name anew each time see every proxy change its version, and nothing else."""
    url = Url(CLIENTS_NAME, PORT, CLIENTS_PATH)
    with Load(site.lab, rate=200, dns=[site.names.resolver], url=url) as load:
        load.wait_for(requests=100)
        site.chocon.push("2")
        rollout = Rollout(site.lab, NAME)
        rollout.wait(90)
        load.wait_for(requests=100)
        summary = load.stop()

    assert (summary.failed, summary.failures) == ((), 0)
    assert set(summary.versions) == {"1", "2"}
    assert [process.returncode for process in rollout.processes.values()] == [0, 0], rollout.errors
    assert site.chocon.versions() == {host.name: "2" for host in site.lab.hosts}
