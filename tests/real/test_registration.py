"""Converging a real agent to services.d, under each of Consul's sharp edges."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.consul.releases import is_known_since, release_of
from agent.consul.transport import ConsulConnection
from agent.http import HttpAnswer
from agent.registration.requirements import CHECK_FIELDS
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.registration_fixture import Backend, RegistrationHost, backend
from tests.support.threads import repeating

OFTEN = {"interval": "1s", "timeout": "1s"}
NEVER = {"interval": "1h", "status": "passing"}


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[RegistrationHost]:
    found = RegistrationHost(tmp_path, host)
    yield found
    found.clear()


@pytest.fixture
def web() -> Iterator[Backend]:
    with backend() as found:
        yield found


def http(url: str = "http://127.0.0.1:1/", **fields: Any) -> dict[str, Any]:
    return {"http": url, **NEVER, **fields}


def tcp(address: str = "127.0.0.1:1", **fields: Any) -> dict[str, Any]:
    return {"tcp": address, **NEVER, **fields}


@contextmanager
def watched(site: RegistrationHost, service: str) -> Iterator[set[str]]:
    """The states that clients could have seen meanwhile, as the health API of the agent tells them."""
    seen: set[str] = set()

    def look() -> None:
        checks = site.host.ask.get("/v1/agent/checks").values()
        states = {check["Status"] for check in checks if check["ServiceID"] == service}
        seen.add("critical" if "critical" in states else "serving")

    with repeating(look):
        yield seen


def test_a_plan_names_every_field_before_and_after_and_writes_nothing(site: RegistrationHost) -> None:
    site.service("web", port=80, tags=["a"], meta={"v": "1"}, checks=[http(), tcp()])
    site.service("old")
    site.registered("same")
    site.service("web", port=81, tags=["a", "b"], meta={"v": "2"}, weights={"passing": 5}, checks=[http(timeout="3s")])
    site.remove("old")
    site.service("fresh")
    before = site.services()

    plan = site.planned()

    assert {name: change["action"] for name, change in plan.items()} == {
        "fresh": "create",
        "old": "remove",
        "same": "keep",
        "web": "update",
    }
    assert [(one["field"], one["before"], one["after"]) for one in plan["web"]["fields"]] == [
        ("tags", ["a"], ["a", "b"]),
        ("port", 80, 81),
        ("meta.v", "1", "2"),
        ("weights.passing", 1, 5),
        ("checks[service:web:http]", None, "changed"),
        ("checks[service:web:tcp]", None, "removed"),
    ]
    text = site("register", "--dry-run").out
    assert "update\tweb\tport: 80 → 81\n" in text
    assert "update\tweb\tchecks[service:web:http]: changed\n" in text
    assert "keep\tsame\tunchanged\n" in text
    assert site.services() == before


def test_an_unchanged_directory_costs_no_write(site: RegistrationHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the agent, its services and its checks, however many there are."""
    address = "10.0.0.7"
    site.service("web", port=80, address=address, tagged_addresses={"wan": {"address": address}}, checks=[http()])
    site.registered("bare", enable_tag_override=True, checks=[{"ttl": "1h"}])

    asked = []
    ask = ConsulConnection.ask

    def recorded(self: ConsulConnection, method: str, target: str, *more: Any) -> HttpAnswer:
        asked.append((method, target))
        return ask(self, method, target, *more)

    monkeypatch.setattr(ConsulConnection, "ask", recorded)

    assert site.register().out == "0 changed, 2 unchanged\n"
    assert asked == [("GET", "/v1/agent/self"), ("GET", "/v1/agent/checks"), ("GET", "/v1/agent/services")]


def test_what_was_changed_by_hand_is_put_right(site: RegistrationHost) -> None:
    site.registered("web", port=80, checks=[http()])
    held = site.services()["web"]
    site.put("service/register", {"ID": "web", "Name": "web", "Port": 99, "Meta": held["Meta"]})
    site.host.ask.deregister_check("service:web:http")

    change = site.planned()["web"]
    site.register()

    assert change["why"] == "changed by hand"
    assert [one["field"] for one in change["fields"]] == ["port", "checks[service:web:http]"]
    assert site.services()["web"]["Port"] == 80
    assert "service:web:http" in site.checks()


def test_maintenance_survives_an_update(site: RegistrationHost) -> None:
    site.registered("web", port=80, checks=[http(), tcp()])
    site.put("service/maintenance/web?enable=true&reason=disk")

    site.registered("web", port=81, checks=[http()])

    assert site.services()["web"]["Port"] == 81
    assert site.checks() == {"_service_maintenance:web": "critical", "service:web:http": "passing"}


def test_a_removed_check_goes_alone(site: RegistrationHost) -> None:
    site.registered("web", checks=[http(id="one"), tcp(id="two"), {"ttl": "1h", "id": "three"}])
    site.put("check/pass/three")
    site.service("web", checks=[http(id="one"), {"ttl": "1h", "id": "three"}])

    site.register()

    assert site.checks() == {"one": "passing", "three": "passing"}


def test_a_changed_url_keeps_the_status(site: RegistrationHost, web: Backend) -> None:
    site.registered("web", checks=[http(web.url)])
    site.service("web", checks=[{"http": f"{web.url}/other", "interval": "1h"}])

    with watched(site, "web") as seen:
        site.register()

    assert seen == {"serving"}


def test_a_changed_type_under_one_id_leaves_no_second_runner(site: RegistrationHost, web: Backend) -> None:
    site.registered("web", checks=[{"http": f"{web.url}/old", "id": "alive", **OFTEN}])
    wait_until(lambda: web.hits.get("/old", 0) > 0 and site.checks()["alive"] == "passing", 10, "the old check runs")

    site.service("web", checks=[tcp(web.address, id="alive", interval="1s")])
    with watched(site, "web") as seen:
        site.register()
    site.registered("watch", checks=[{"http": f"{web.url}/clock", **OFTEN}])
    hits = web.hits["/old"]
    wait_until(lambda: web.hits.get("/clock", 0) > 2, 10, "two intervals are over")

    assert web.hits["/old"] == hits
    assert seen == {"serving"}
    assert site.host.ask.get("/v1/agent/checks")["alive"]["Type"] == "tcp"


def test_a_failing_service_does_not_pass_while_its_check_is_exchanged(site: RegistrationHost) -> None:
    site.registered("web", checks=[http(id="alive", status="critical")])
    site.service("web", checks=[{"tcp": "127.0.0.1:1", "id": "alive", "interval": "1h"}])

    with watched(site, "web") as seen:
        site.register()

    assert seen == {"critical"}
    assert site.checks() == {"alive": "critical"}


def test_a_new_check_does_not_take_a_passing_service_out(site: RegistrationHost, web: Backend) -> None:
    site.registered("web", checks=[http(web.url)])
    more = [{"http": f"{web.url}/more", "interval": "1h"}, {"ttl": "1h"}, {"grpc": "127.0.0.1:1", "interval": "1h"}]
    site.service("web", checks=[http(web.url), *more])

    with watched(site, "web") as seen:
        site.register()

    assert seen == {"serving"}
    assert web.hits == {"/more": 1}


@pytest.mark.parametrize(("answer", "status"), [(429, "warning"), (500, "critical")])
def test_a_new_check_shows_its_failure_immediately(
    site: RegistrationHost, web: Backend, answer: int, status: str
) -> None:
    """Consul serves an instance in warning."""
    site.registered("web", checks=[http(web.url)])
    web.status = answer

    site.registered("web", checks=[http(web.url), {"http": f"{web.url}/more", "interval": "1h"}])

    assert site.checks() == {"service:web:http": "passing", "service:web:http:2": status}


def test_a_check_may_move_from_one_own_service_to_another(site: RegistrationHost) -> None:
    site.service("a", checks=[http(id="shared")])
    site.registered("b")
    for giver, taker in (("a", "b"), ("b", "a")):
        site.service(giver)
        site.service(taker, checks=[tcp(id="shared")])

        site.register()

        assert site.host.ask.get("/v1/agent/checks")["shared"]["ServiceID"] == taker
        assert site.register().out == "0 changed, 2 unchanged\n"


def test_a_foreign_service_of_the_same_id_is_refused_with_its_owner(site: RegistrationHost) -> None:
    foreign = {"ID": "web", "Name": "web", "Port": 1, "Meta": {"external-source": "nomad"}}
    site.put("service/register", foreign | {"Checks": [{"CheckID": "theirs", "TTL": "1h"}]})
    site.service("web", port=2)
    site.service("other")

    outcome = site("register")

    assert outcome.code == 1
    assert "external-source 'nomad'" in outcome.err
    assert "--adopt" in outcome.err
    assert (site.services()["web"]["Port"], "other" in site.services()) == (1, True)


def test_an_adopted_service_is_ours_with_its_maintenance(site: RegistrationHost) -> None:
    site.put("service/register", {"ID": "web", "Name": "web", "Port": 1, "Check": {"CheckID": "theirs", "TTL": "1h"}})
    site.put("service/maintenance/web?enable=true&reason=disk")
    site.service("web", port=2, checks=[http()])

    site.register("--adopt")

    assert site.services()["web"]["Port"] == 2
    assert site.checks() == {"_service_maintenance:web": "critical", "service:web:http": "passing"}
    assert site.register().out == "0 changed, 1 unchanged\n"


@pytest.mark.parametrize("path", ["service/register", "check/register"])
def test_a_check_id_of_another_service_or_of_the_node_is_not_taken_over(site: RegistrationHost, path: str) -> None:
    service = {"ID": "theirs", "Name": "theirs", "Check": {"CheckID": "alive", "TTL": "1h"}}
    site.put(path, service if path == "service/register" else {"ID": "alive", "Name": "alive", "TTL": "1h"})
    holder = site.host.ask.get("/v1/agent/checks")["alive"]
    site.service("web", checks=[http(id="alive")])

    outcome = site("--json", "register", "--adopt")

    assert outcome.code == 1
    assert [one["kind"] for one in outcome.document["changes"]] == ["check-id-in-use"]
    assert site.host.ask.get("/v1/agent/checks")["alive"] == holder
    assert "web" not in site.services()


def test_a_check_that_another_attached_to_our_service_stays(site: RegistrationHost) -> None:
    site.registered("web", port=1, checks=[http()])
    site.put("check/register", {"ID": "theirs", "Name": "theirs", "ServiceID": "web", "TTL": "1h"})
    assert site.register().out == "0 changed, 1 unchanged\n"
    site.service("web", port=2)

    site.register()

    assert set(site.checks()) == {"theirs"}


def test_services_without_files_are_removed_but_never_all_by_accident(site: RegistrationHost) -> None:
    site.put("service/register", {"ID": "theirs", "Name": "theirs"})
    site.service("a")
    site.registered("b", id="b-1")
    (site.services_dir / "b.json").rename(site.services_dir / "c.json")
    site.registered("c", id="c-1")
    assert set(site.services()) == {"a", "c-1", "theirs"}

    for file in site.services_dir.iterdir():
        file.unlink()
    refused = site("register")
    site.services_dir.rmdir()
    missing = site("register")

    assert (refused.code, missing.code) == (1, 78)
    assert "--allow-empty" in refused.err
    assert set(site.services()) == {"a", "c-1", "theirs"}
    site.register("--allow-empty")
    assert set(site.services()) == {"theirs"}


def test_a_node_that_the_catalog_does_not_know_is_never_sent(site: RegistrationHost, host: ConsulHost) -> None:
    known = host.ask.get("/v1/agent/self")["Config"]["NodeName"]
    site.service("follows", checks=[{"alias_node": known}])
    site.service("lost", checks=[{"alias_node": "nowhere"}])
    site.service("other")

    outcome = site("--json", "register")

    assert outcome.code == 1
    refused = {one["service"]: one["kind"] for one in outcome.document["changes"] if one["action"] == "refuse"}
    assert refused == {"lost": "alias-node-unknown"}
    assert set(site.services()) == {"follows", "other"}
    wait_until(lambda: "passing" in site.checks().values(), 10, "the agent is alive and follows its node")


NEWER = [
    ({"tls_server_name": "web", **http()}, "tls_server_name", "1.9"),
    ({"disable_redirects": True, **http()}, "disable_redirects", "1.12"),
    ({"failures_before_warning": 2, "failures_before_critical": 3, **http()}, "failures_before_warning", "1.11"),
    ({"h2ping": "127.0.0.1:1", **NEVER}, "h2ping", "1.10"),
    ({"udp": "127.0.0.1:1", **NEVER}, "udp", "1.13"),
    ({"tcp": "127.0.0.1:1", "tcp_use_tls": True, **NEVER}, "tcp_use_tls", "1.14.10"),
]


@pytest.mark.parametrize(("check", "field", "first"), NEWER)
def test_what_the_agent_is_too_old_for_is_said_and_nothing_is_sent(
    site: RegistrationHost, host: ConsulHost, check: dict[str, Any], field: str, first: str
) -> None:
    """An agent that knows the field gets it."""
    version = host.ask.get("/v1/agent/self")["Config"]["Version"]
    file = site.write("z", {"services": [{"name": "one"}, {"name": "two", "check": {"ttl": "1s"}, "checks": [check]}]})
    site.service("a")

    outcome = site("--json", "register")

    if is_known_since(release_of(version), CHECK_FIELDS[field]):
        assert outcome.code == 0
        assert set(site.services()) == {"a", "one", "two"}
        return
    assert outcome.code == 78
    [fault] = outcome.document["faults"]
    assert (fault["file"], fault["path"]) == (str(file), f"services[1].checks[0].{field}")
    assert version in fault["problem"]
    assert first in fault["remedy"]
    assert set(site.services()) == {"a"}
    assert site("register", "a").code == 0
    assert site("register", "two").code == 78


def test_a_script_check_is_said_to_need_a_setting_before_it_is_sent(site: RegistrationHost) -> None:
    file = site.service("web", checks=[{"args": ["/bin/true"], "interval": "10s"}])

    outcome = site("--json", "register")

    assert outcome.code == 78
    [fault] = outcome.document["faults"]
    assert (fault["file"], fault["path"]) == (str(file), "service.checks[0].args")
    assert "enable_script_checks" in fault["remedy"]


def test_one_file_serves_every_host(site: RegistrationHost, host: ConsulHost) -> None:
    site.settings["RACK"] = "r7"
    site.service(
        "web",
        id="web-${HOSTNAME}",
        address="${ADDRESS}",
        meta={"rack": "${env:RACK}", "cost": "$${5}"},
        checks=[http("http://${ADDRESS}:8500/v1/status/leader")],
    )

    site.register()

    (web,) = site.services().values()
    assert web["ID"] == f"web-{Path('/proc/sys/kernel/hostname').read_text().strip()}"
    assert web["Address"] == host.address
    assert {"rack": "r7", "cost": "${5}"}.items() <= web["Meta"].items()
    assert site("validate").code == 0
    assert "up to date" in site("status", "web").out


def test_a_name_that_is_not_set_is_a_fault_and_changes_nothing(site: RegistrationHost) -> None:
    file = site.service("web", meta={"rack": "${env:NO_SUCH_VARIABLE}"})

    outcome = site("register")

    assert outcome.code == 78
    assert outcome.err.startswith(f"svcagent: {file}: service.meta.rack: the environment variable")
    assert site.services() == {}


@pytest.fixture
def with_faults(site: RegistrationHost) -> RegistrationHost:
    """Services are registered; then the file of one gets a fault, one is removed, and a file that is no JSON comes."""
    for name in ("changed", "faulty", "gone"):
        site.service(name)
    site.register()
    site.service("changed", port=80)
    site.service("faulty", prot=80)
    site.remove("gone")
    site.service("new")
    return site


def test_a_faulty_file_concerns_its_own_services_alone(with_faults: RegistrationHost) -> None:
    """Verbs about all services act on the others, and end with 78. Nothing is removed: a faulty file may define it."""
    site = with_faults

    planned = site("--json", "plan")
    outcome = site("register")

    document = json.loads(planned.out)
    actions = {one["service"]: one["action"] for one in document["changes"]}
    assert (planned.code, outcome.code) == (78, 78)
    assert actions == {"changed": "update", "faulty": "keep", "gone": "keep", "new": "create"}
    assert [(Path(one["file"]).name, one["path"]) for one in document["faults"]] == [("faulty.json", "service.prot")]
    assert outcome.err.count("faulty.json: service.prot: ") == 1
    assert {name: one["Port"] for name, one in site.services().items()} == {
        "changed": 80,
        "faulty": 0,
        "gone": 0,
        "new": 0,
    }
    assert (site("status").code, site("schedule").code) == (78, 78)


@pytest.mark.parametrize("verb", ["register", "plan", "status", "schedule"])
def test_a_verb_on_a_name_ends_well_though_another_file_is_faulty(with_faults: RegistrationHost, verb: str) -> None:
    """The faults are warnings; those of the named service's own file are the error, and nothing is changed."""
    site = with_faults

    good, own = site(verb, "new"), site(verb, "faulty")

    assert (good.code, own.code) == (0, 78)
    assert "faulty.json: service.prot: " in good.err
    assert ("new" in site.services()) == (verb == "register")
    unknown = site("--json", verb, "typo")
    assert (unknown.code, unknown.kind) == (2, "usage")
    site.write("unreadable", "{")
    assert "unreadable.json" in site(verb, "typo").err


def test_json_of_a_run_says_what_was_done(site: RegistrationHost) -> None:
    site.service("web", port=80)

    document = json.loads(site("--json", "register").out)

    assert document["dry_run"] is False
    assert [(one["service"], one["action"]) for one in document["changes"]] == [("web", "create")]
