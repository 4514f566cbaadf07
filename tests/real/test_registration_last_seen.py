"""What svcagent keeps about its registrations: maintenance that Consul removed, consent to removals, the directory."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.consul import Consul
from agent.maintenance import by_operator, by_reload, render
from tests.real.conftest import ConsulHost
from tests.real.registration_fixture import RegistrationHost
from tests.support.threads import repeating

NEVER = {"interval": "1h", "status": "passing"}
CHECK = {"http": "http://127.0.0.1:1/", **NEVER}
HELD = "_service_maintenance:{}"
SINCE = datetime(2026, 1, 2, tzinfo=UTC)
UNTIL = datetime(2099, 1, 2, tzinfo=UTC)
BY_ALICE = render(by_operator("alice", "web1", "disk swap", SINCE, UNTIL))


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[RegistrationHost]:
    found = RegistrationHost(tmp_path, host)
    yield found
    found.put("maintenance?enable=false")
    found.clear()


def notes(site: RegistrationHost, service_id: str) -> str | None:
    check = site.host.ask.get("/v1/agent/checks").get(HELD.format(service_id))
    return None if check is None else check["Notes"]


def maintain(site: RegistrationHost, service_id: str, reason: str) -> None:
    site.put(f"service/maintenance/{service_id}?enable=true&reason={reason}")


def reap(site: RegistrationHost, service_id: str) -> None:
    site.host.ask.deregister_service(service_id)


@contextmanager
def never_served(site: RegistrationHost, name: str) -> Iterator[None]:
    """The catalog never shows an instance without a critical check inside the block."""
    served: list[Any] = []
    with repeating(lambda: served.extend(site.host.ask.get(f"/v1/health/service/{name}?passing"))):
        yield
    assert served == []


@pytest.mark.parametrize("text", [BY_ALICE, "by hand"])
@pytest.mark.parametrize("checks", [[], [CHECK]])
def test_maintenance_outlasts_a_removal(site: RegistrationHost, text: str, checks: list[dict[str, Any]]) -> None:
    """With owner, reason and end, without a moment in service; also of a service without checks."""
    site.registered("web", checks=checks)
    maintain(site, "web", text)
    site.register()
    reap(site, "web")

    with never_served(site, "web"):
        outcome = site.register()

    assert notes(site, "web") == text
    assert "svcagent maint disable web" in outcome.err
    assert site.register().err == ""
    assert site("maint", "disable", "web").code == 0
    assert notes(site, "web") is None


def test_maint_enable_is_remembered_without_a_registration(site: RegistrationHost) -> None:
    site.registered("web")
    assert site("maint", "enable", "web", "--reason", "disk").code == 0
    before = notes(site, "web")
    reap(site, "web")

    site.register()

    assert notes(site, "web") == before


@pytest.mark.parametrize("how", ["disabled by svcagent", "disabled by hand", "removed by svcagent", "of a reload"])
def test_expired_maintenance_is_not_enabled_again(site: RegistrationHost, how: str) -> None:
    """A reload's maintenance was seen while it ran, and the reload disabled it."""
    site.registered("web")
    maintain(site, "web", render(by_reload("r1", "elsewhere", "reload", SINCE)) if how == "of a reload" else "disk")
    site.register()
    if how == "disabled by svcagent":
        site("maint", "disable", "web")
    elif how == "disabled by hand":
        site.put("service/maintenance/web?enable=false")
        site.register()
    if how == "removed by svcagent":
        site("deregister", "web")
    else:
        reap(site, "web")

    site.register()

    assert notes(site, "web") is None


def test_maintenance_of_the_node_is_enabled_again_when_the_agent_forgot_everything(site: RegistrationHost) -> None:
    site.registered("web")
    site.put("maintenance?enable=true&reason=kernel")
    site.register()
    site.put("maintenance?enable=false")
    reap(site, "web")

    with never_served(site, "web"):
        outcome = site.register()

    assert site.host.ask.get("/v1/agent/checks")["_node_maintenance"]["Notes"] == "kernel"
    assert "svcagent maint disable --node" in outcome.err


def test_maintenance_of_the_node_that_was_disabled_stays_disabled(site: RegistrationHost) -> None:
    site.registered("web")
    site.put("maintenance?enable=true&reason=kernel")
    site.register()
    site("maint", "disable", "--node")
    reap(site, "web")

    site.register()

    assert "_node_maintenance" not in site.checks()


def test_a_damaged_file_is_written_again(site: RegistrationHost) -> None:
    site.registered("web")
    file = site.state_dir / "registration.json"
    assert file.stat().st_mode & 0o777 == 0o600
    for content in (b"\xff", b"[]", b'{"v": 1, "services": 3}', b"[" * 100_000, b'{"v": 1, "directory": 1}'):
        file.write_bytes(content)
        site.register()
        assert json.loads(file.read_bytes())["services"] == {"web": None}


def test_more_than_half_and_more_than_two_removals_need_consent(site: RegistrationHost) -> None:
    for name in ("a", "b", "c", "d", "e"):
        site.service(name)
    site.register()
    for name in ("a", "b", "c"):
        site.remove(name)
    site.service("new")

    outcome = site("--json", "register")

    assert (outcome.code, outcome.kind) == (1, "too-many-removals")
    assert "--allow-removals" in outcome.err
    assert set(site.services()) == {"a", "b", "c", "d", "e"}
    planned = site("--json", "plan")
    assert (planned.code, planned.kind) == (1, "too-many-removals")
    assert site("plan", "--allow-removals").code == 0
    site.register("--allow-removals")
    assert set(site.services()) == {"d", "e", "new"}


@pytest.mark.parametrize(("there", "left"), [(3, 1), (4, 2), (6, 3), (2, 0)])
def test_fewer_removals_need_none(site: RegistrationHost, there: int, left: int) -> None:
    for number in range(there):
        site.service(f"s{number}")
    site.register()
    for number in range(left, there):
        site.remove(f"s{number}")
    site.service("other")

    site.register()

    assert len(site.services()) == left + 1


def test_another_directory_needs_consent(site: RegistrationHost, tmp_path: Path) -> None:
    site.registered("a")
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.json").write_text('{"service": {"name": "b"}}')

    outcome = site("--services-dir", str(other), "--json", "register")

    assert (outcome.code, outcome.kind) == (1, "other-directory")
    assert f"svcagent --services-dir {other} register --allow-removals" in outcome.err
    assert set(site.services()) == {"a"}
    assert site("--services-dir", str(other), "register", "--allow-removals").code == 0
    assert set(site.services()) == {"b"}
    assert site("--services-dir", str(other), "register").code == 0


def test_another_directory_with_the_same_definitions_needs_none(site: RegistrationHost, tmp_path: Path) -> None:
    """Also a link that leads to another place: releases are deployed so."""
    site.registered("a", port=1)
    moved = site.services_dir.rename(tmp_path / "release-1")
    site.services_dir.symlink_to(moved)
    assert site("--services-dir", str(moved), "register").code == 0
    second = tmp_path / "release-2"
    second.mkdir()
    (second / "a.json").write_text('{"service": {"name": "a", "port": 2}}')
    site.register()
    site.services_dir.unlink()
    site.services_dir.symlink_to(second)

    site.register()

    assert site.services()["a"]["Port"] == 2


def test_an_id_that_differs_only_by_case_replaces_the_service(site: RegistrationHost) -> None:
    """Consul's catalog keeps one of both; maintenance goes with it."""
    site.registered("web", id="Web-1")
    maintain(site, "Web-1", "disk")
    site.service("web", id="web-1")

    site.register()

    assert set(site.services()) == {"web-1"}
    assert notes(site, "web-1") == "disk"


@pytest.mark.parametrize("error", [RuntimeError("bug"), RecursionError()])
def test_a_bug_with_one_service_does_not_keep_the_others_waiting(
    site: RegistrationHost, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = Consul.register_service

    def register(consul: Consul, body: dict[str, Any]) -> None:
        if body["ID"] == "b":
            raise error
        real(consul, body)

    monkeypatch.setattr(Consul, "register_service", register)
    for name in ("a", "b", "c"):
        site.service(name)

    outcome = site("register")

    assert outcome.code == 3
    assert "Traceback" in outcome.err
    assert set(site.services()) == {"a", "c"}


def test_a_rejected_service_does_not_stop_the_others(site: RegistrationHost, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Consul.register_service
    monkeypatch.setattr(
        Consul, "register_service", lambda consul, body: real(consul, body | ({"Bad": 1} if body["ID"] == "b" else {}))
    )
    for name in ("a", "b", "c"):
        site.service(name)

    outcome = site("--json", "register")

    assert outcome.code == 1
    assert [one["service"] for one in json.loads(outcome.out)["failed"]] == ["b"]
    assert set(site.services()) == {"a", "c"}
