"""The decisions of ``svcagent doctor``, as tables: what was observed, and how much it matters."""

import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.consul import AgentSelf, CheckState, DnsAnswer, LocalService
from agent.consul.acl import Right
from agent.consul.certificates import expiries
from agent.consul.releases import ReleaseFault
from agent.consul.survey import Waited
from agent.doctor import (
    Diagnosis,
    Level,
    consul,
    dns,
    docker,
    files,
    host,
    leftovers,
    upgrade,
)
from agent.engine.survey import EngineFacts, RefusedSection
from agent.errors import Fault
from agent.maintenance.reason import by_operator, by_reload, render

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
OK, NOTE, WARNING, ERROR = Level.OK, Level.NOTE, Level.WARNING, Level.ERROR


def levels(found: Diagnosis | Iterable[Diagnosis]) -> list[Level]:
    """How much each matters; whatever matters has a remedy."""
    listed = [found] if isinstance(found, Diagnosis) else list(found)
    assert all(one.remedy for one in listed if one.level in (NOTE, WARNING, ERROR))
    return [one.level for one in listed]


def check(check_id: str, status: str = "passing", notes: str = "", service_id: str = "") -> CheckState:
    return CheckState(check_id, check_id, status, notes, service_id)


def service(name: str, *checks: CheckState) -> LocalService:
    return LocalService(name, name, (), 80, "", {}, checks)


def held(name: str, reason: str) -> LocalService:
    maintenance = check(f"_service_maintenance:{name}", "critical", reason, name)
    return service(name, maintenance, check("real", "passing", "", name))


ENGINE = EngineFacts("26.1.5", "1.45", "1.24", "/var/lib/docker", NOW, False, True, frozenset())


def test_every_fault_of_a_definition_is_an_error() -> None:
    faults = (Fault("a.json", "service.port", "missing", "write it"), Fault("b.json", "", "not JSON", "repair it"))

    found = list(files.judge_faults(faults, "well"))

    assert levels(found) == [ERROR, ERROR]
    assert "a.json: service.port" in found[0].what
    assert levels(files.judge_faults((), "well")) == [OK]


def test_a_service_that_the_agent_lacks_is_an_error() -> None:
    found = list(consul.judge_registered(["web", "api"], {"web"}))

    assert [(one.service, one.level) for one in found] == [("web", OK), ("api", ERROR)]


def test_a_fault_of_the_release_that_svcagent_handles_is_a_note() -> None:
    harms = ReleaseFault("dns-ignores-tag", "ignores tags", "1.19.1", handled=False)
    handled = ReleaseFault("long-wait-cut", "cuts waits", "1.22.5", handled=True)

    assert levels(consul.judge_release("1.19.0", [harms, handled])) == [ERROR, NOTE]
    assert levels(consul.judge_release("1.20.0", [])) == [OK]


@pytest.mark.parametrize(
    ("checks", "level"),
    [
        ({}, ERROR),
        ({"serfHealth": check("serfHealth", "critical")}, ERROR),
        ({"serfHealth": check("serfHealth")}, OK),
        ({"other": check("other", "critical")}, OK),
    ],
)
def test_a_node_is_in_the_catalog_and_alive(checks: dict[str, CheckState], level: Level) -> None:
    assert levels(consul.judge_node("host-1", checks)) == [level]


def test_servers_without_a_leader_are_an_error() -> None:
    assert levels(consul.judge_leader("", ())) == [ERROR]
    assert levels(consul.judge_leader("10.0.0.1:8300", ["10.0.0.1"])) == [OK]


def test_one_rule_for_several_rights_is_advised_once() -> None:
    """The keys of a service and its lock are below one prefix."""
    keys = [Right("key", "write", "svcagent/web/doctor"), Right("key", "write", "svcagent/web/lock/.lock")]
    needed = dict.fromkeys((*keys, Right("service", "write", "web")), "web")

    found = list(consul.judge_rights(needed, keys))

    assert [(one.level, one.service) for one in found] == [(ERROR, "web")]
    assert 'key_prefix "svcagent/web/" { policy = "write" }' in found[0].remedy
    assert levels(consul.judge_rights(needed, ())) == [OK]


@pytest.mark.parametrize(
    ("waited", "level"), [(Waited(7, 7, 0.01), WARNING), (Waited(7, 7, 1.02), OK), (Waited(7, 8, 0.01), OK)]
)
def test_a_query_answered_early_without_a_change_does_not_block(waited: Waited, level: Level) -> None:
    assert levels(consul.judge_wait(waited, 1.0)) == [level]


def test_an_agents_configuration_is_read() -> None:
    raw: dict[str, Any] = {
        "Config": {"NodeName": "host-1", "Datacenter": "dc1", "Version": "1.8.7"},
        "DebugConfig": {"DNSDomain": "consul.", "ServerMode": False, "LeaveOnTerm": True},
    }

    found = AgentSelf.parse(raw, "http://127.0.0.1:8500")

    assert (found.node, found.is_server, found.leaves_on_terminate) == ("host-1", False, True)
    assert found.has_coordinates


@pytest.mark.parametrize(
    ("left", "level"),
    [(timedelta(seconds=-1), ERROR), (timedelta(), ERROR), (timedelta(days=3), WARNING), (timedelta(days=15), OK)],
)
def test_a_certificate_that_expires_soon(left: timedelta, level: Level) -> None:
    assert levels(consul.judge_expiry("it", NOW + left, NOW)) == [level]


@pytest.mark.parametrize("days", [30, 20000], ids=["UTCTime", "GeneralizedTime"])
def test_the_end_of_a_certificate_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    """RFC 5280 writes years from 2050 on in another form."""
    made = tmp_path / "made.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(tmp_path / "key")]
    command = ["openssl", "req", "-x509", *key, "-subj", "/CN=x", "-days", str(days), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    shown = subprocess.run(["openssl", "x509", "-enddate", "-noout", "-in", str(made)], check=True, capture_output=True)

    (end,) = expiries(made.read_text())

    assert shown.stdout.decode().strip() == f"notAfter={end:%b} {end.day:2d} {end:%H:%M:%S %Y} GMT"


@pytest.mark.parametrize("content", ["AAAA", "MAA=", "MIIBkTCB+wIUZg=="])
def test_what_is_no_certificate_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        expiries(f"-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(("seconds", "level"), [(0, OK), (5, OK), (-5, OK), (6, WARNING), (-3600, WARNING)])
def test_clocks_that_differ_by_more_than_a_few_seconds(seconds: int, level: Level) -> None:
    assert levels(host.judge_clock("it", NOW, NOW + timedelta(seconds=seconds))) == [level]


A, B = ("10.0.0.1", 80), ("10.0.0.2", 80)


@pytest.mark.parametrize(
    ("named", "ttl", "drain_max", "expected"),
    [
        ({A, B}, 0, 30.0, [OK]),
        ({A}, 0, 30.0, [ERROR]),
        (set(), 0, None, [ERROR]),
        ({A, B}, 10, 30.0, [WARNING]),
        ({A, B}, 31, 30.0, [ERROR]),
        ({A, B}, 31, None, [WARNING]),
        ({A, B, ("10.0.0.3", 80)}, 0, 30.0, [OK]),
    ],
)
def test_an_answer_of_dns_that_differs_from_the_catalog(
    named: set[tuple[str, int]], ttl: int, drain_max: float | None, expected: list[Level]
) -> None:
    asked = dns.AskedServer("127.0.0.1:8600", DnsAnswer(frozenset(named), ttl), frozenset({A, B}))

    assert levels(dns.judge_answer("web", asked, drain_max)) == expected


@pytest.mark.parametrize(
    ("rcodes", "level"),
    [(["NOERROR"] * 5, OK), (["NOERROR", "SERVFAIL", "NOERROR"], ERROR), (["SERVFAIL"] * 5, ERROR), (["NXDOMAIN"], OK)],
)
def test_a_resolver_that_fails_now_and_then(rcodes: list[str], level: Level) -> None:
    assert levels(dns.judge_resolver("10.0.0.53:53", "web.service.dc1.consul", rcodes, "web")) == [level]


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("9.18.33-1~deb12u2-Debian", OK),
        ("9.20.12-1-Debian", WARNING),
        ("9.20.13", OK),
        ("9.21.3-dev", WARNING),
        ("none of your business", OK),
        ("", OK),
    ],
)
def test_releases_of_bind_that_fail_for_records_without_a_ttl(version: str, level: Level) -> None:
    assert levels(dns.judge_bind("10.0.0.53:53", version)) == [level]


def test_more_instances_than_bind_takes() -> None:
    assert levels(dns.judge_size("10.0.0.53:53", "web", 101)) == [WARNING]
    assert levels(dns.judge_size("10.0.0.53:53", "web", 100)) == []


def test_one_diagnosis_for_each_section_that_a_proxy_refuses() -> None:
    refused = [
        RefusedSection("POST /containers", "start a container"),
        RefusedSection("POST /containers", "create a container"),
        RefusedSection("GET /info", "describe the Engine"),
    ]

    assert levels(docker.judge_sections(refused)) == [ERROR, ERROR]
    assert levels(docker.judge_sections([])) == [OK]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [OK]),
        ({"credsStore": "here"}, []),
        ({"credsStore": "gone"}, [ERROR]),
        ({"credHelpers": {"registry.example.com": "gone"}}, [ERROR]),
        ({"credHelpers": {"elsewhere.example.com": "gone"}}, [OK]),
    ],
)
def test_credential_helpers(config: dict[str, Any], expected: list[Level]) -> None:
    """Only helpers of registries in use matter."""
    has = "docker-credential-here"
    found = docker.judge_credentials(config, {"registry.example.com"}, "config.json", lambda name: name == has)

    assert levels(found) == expected


def test_a_rootless_engine_is_noted() -> None:
    rootless = EngineFacts("26.1.5", "1.45", "1.24", "/x", NOW, True, True, frozenset())

    assert levels(docker.judge_engine(rootless)) == [NOTE]
    assert levels(docker.judge_engine(ENGINE)) == [OK]


@pytest.mark.parametrize(
    ("host_config", "config", "major", "expected"),
    [
        ({}, {}, 26, []),
        ({"Links": ["/db:/web/db"]}, {}, 26, [NOTE]),
        ({"Links": ["/db:/web/db"]}, {}, 29, [WARNING]),
        ({}, {"MacAddress": "02:42:ac:11:00:02"}, 26, [NOTE]),
    ],
)
def test_what_a_later_engine_does_to_a_container(
    host_config: dict[str, Any], config: dict[str, Any], major: int, expected: list[Level]
) -> None:
    found = {"HostConfig": host_config, "Config": config}

    assert levels(upgrade.judge_container("web", "web", found, major)) == expected


@pytest.mark.parametrize(
    ("has_containerd_store", "least_api", "expected"),
    [(True, "1.24", [OK]), (False, "1.24", [NOTE, OK]), (True, "1.52", [ERROR]), (True, "1.44", [OK])],
)
def test_what_the_engine_becomes(has_containerd_store: bool, least_api: str, expected: list[Level]) -> None:
    found = EngineFacts("29.1.0", "1.52", least_api, "/x", NOW, False, has_containerd_store, frozenset())

    assert levels(upgrade.judge_upgrade(found)) == expected


def test_keys_that_a_later_consul_refuses() -> None:
    bad = {"svcagent/web/quarantine/sha256:00", "svcagent/web/rollout"}

    assert levels(upgrade.judge_keys("web", bad)) == [NOTE]
    assert levels(upgrade.judge_keys("web", {"svcagent/web/quarantine/sha256-00", "a-b_c.d/e,f=g&h?"})) == []


@pytest.mark.parametrize(
    ("space", "level"),
    [
        (host.Space(1 << 40, 0.5), OK),
        (host.Space(500 << 20, 0.5), WARNING),
        (host.Space(100 << 20, 0.5), ERROR),
        (host.Space(1 << 40, 0.01), WARNING),
    ],
)
def test_a_file_system_that_is_nearly_full(space: host.Space, level: Level) -> None:
    assert levels(host.judge_space("it", space, 1 << 30)) == [level]


def test_inotify_instances_that_run_out() -> None:
    assert levels(host.judge_watchers(125, 128)) == [WARNING]
    assert levels(host.judge_watchers(3, 128)) == [OK]


def test_something_runs_svcagent() -> None:
    assert levels(host.judge_runner("the daemon runs", ())) == [OK]
    assert levels(host.judge_runner("", ("/etc/cron.d/svcagent",))) == [OK]
    assert levels(host.judge_runner("", ())) == [ERROR]


@pytest.mark.parametrize(
    ("place", "content", "is_found"),
    [
        ("etc/cron.d/svcagent", "* * * * * root svcagent maint expire\n", True),
        ("etc/crontab", "PATH=/bin\n */5 * * * * root /usr/bin/svcagent register\n", True),
        ("var/spool/cron/crontabs/root", "@reboot svcagent register\n", True),
        ("etc/cron.d/svcagent", "# * * * * * root svcagent maint expire\n", False),
        ("etc/cron.d/other", "* * * * * root true\n", False),
        ("etc/systemd/system/timers.target.wants/svcagent-register.timer", "", True),
        ("etc/systemd/system/svcagent-register.timer", "", False),
    ],
)
def test_crontabs_and_enabled_units_are_found(tmp_path: Path, place: str, content: str, is_found: bool) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(content)

    assert host.find_timers(tmp_path) == ((str(file),) if is_found else (), ())


def test_what_the_daemon_says_of_itself() -> None:
    assert levels(host.judge_daemon({})) == []
    troubled = {"trouble": "no", "unrecovered": {"web": "no"}, "failed": {"api": "no"}, "needs_consent": "no"}
    assert levels(host.judge_daemon(troubled)) == [ERROR] * 4


def test_a_journal_without_its_reload_is_a_crash() -> None:
    found = list(leftovers.judge_journals({"web", "api"}, {"api"}))

    assert [(one.level, one.service) for one in found] == [(ERROR, "web")]
    assert levels(leftovers.judge_journals({"api"}, {"api"})) == [OK]


def test_containers_of_an_interrupted_replacement() -> None:
    """Those of a reload that runs, or that has a journal, are reported there."""
    names = {"web", "web.svcagent-old", "api", "api.svcagent-new", "gone.svcagent-old"}
    containers = {"web": "web", "api": "api"}

    found = list(leftovers.judge_containers(names, containers, {"api"}))

    assert [(one.level, one.service) for one in found] == [(WARNING, ""), (ERROR, "web")]
    assert levels(leftovers.judge_containers({"web"}, containers, ())) == [OK]
    assert levels(leftovers.judge_containers(names, containers, {"api"}, only_defined=True)) == [ERROR]


def test_maintenance_without_an_end() -> None:
    reason = render(by_reload("5f0c2a1e", "host-1", "a newer image", NOW))
    over = render(by_operator("alice", "host-1", "disk swap", NOW - timedelta(hours=2), NOW - timedelta(hours=1)))
    valid = render(by_operator("alice", "host-1", "disk swap", NOW))

    def judged(reason: str, *running: str) -> list[Level]:
        return levels(leftovers.judge_maintenance({"web": held("web", reason)}, {}, "host-1", running, NOW))

    assert judged(reason) == [ERROR]
    assert judged(reason, "web") == [OK]
    assert judged(over) == [WARNING]
    assert judged(valid) == [OK]
    assert judged("by hand") == [OK]


def test_sessions_of_ended_reloads() -> None:
    names = {
        "Consul lock for 'svcagent reload web' at 'svcagent/web/lock'",
        "Consul lock for 'consul lock' at 'other'",
        "Consul lock for 'svcagent reload unknown' at 'x'",
    }

    assert levels(leftovers.judge_sessions(names, (), {"web"})) == [WARNING]
    assert levels(leftovers.judge_sessions(names, {"web"}, {"web"})) == [OK]
