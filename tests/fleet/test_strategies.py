"""What a definition says of restart and hooks, carried out by ``svcagent reload`` on a fleet."""

import json
from collections.abc import Iterator

import pytest

from tests.fleet.conftest import NAME, Fleet
from tests.lab import image
from tests.lab.ground import wait_until
from tests.lab.host import Host
from tests.lab.traffic import Load

HOOKS = ("before_drain", "after_drain", "after_restart", "after_return", "on_failure")


@pytest.fixture(autouse=True)
def _as_before(fleet: Fleet) -> Iterator[None]:
    """Each test leaves the definitions as they were."""
    yield
    fleet.reset()


def restart_by(host: Host, *argv: str) -> None:
    """Let a command restart the service of that host."""
    file = host.services_dir / f"{NAME}.json"
    document = json.loads(file.read_text())
    reload = document["reload"]
    for key in ("image", "container"):
        reload.pop(key, None)
    reload["restart"] = argv
    file.write_text(json.dumps(document))


def started_at(host: Host) -> str:
    return str(host.engine.api.inspect_container(NAME)["State"]["StartedAt"])


def noting(host: Host, *, failing: str = "") -> dict[str, list[str]]:
    """Hooks that write down what they are told; one of them fails."""
    script = f"""echo "$SVCAGENT_HOOK $SVCAGENT_NODE $SVCAGENT_STEP $SVCAGENT_RESULT" >>{host.directory}/hooks
        echo heard by the log
        test "$SVCAGENT_HOOK" != {failing or "none"} || {{ echo said by the hook; exit 9; }}"""
    (host.directory / "hooks").write_text("")
    return {hook: ["/bin/sh", "-c", script] for hook in HOOKS}


def noted(host: Host) -> list[str]:
    return (host.directory / "hooks").read_text().splitlines()


def test_a_command_restarts_the_service_of_one_host_after_another_without_a_lost_request(fleet: Fleet) -> None:
    for host in fleet.lab.hosts:
        restart_by(host, "docker", "restart", "--time", "2", NAME)
    before = [started_at(host) for host in fleet.lab.hosts]
    with Load(fleet.lab) as load:
        load.wait_for(requests=200)
        codes = [fleet.run(number, "--json", "reload", NAME) for number in range(len(fleet.lab.hosts))]
        load.wait_for(requests=200)
        summary = load.stop()

    assert [(code, json.loads(output)["outcome"]) for code, output, _errors in codes] == [(0, "reloaded")] * 2
    assert summary.failed == ()
    assert all(was != started_at(host) for was, host in zip(before, fleet.lab.hosts, strict=True))
    assert fleet.leftovers() == []


def test_a_restart_command_that_fails_leaves_in_service_what_still_runs(fleet: Fleet) -> None:
    """Its output is told; the old instance answers its checks, so it comes back."""
    host = fleet.lab.hosts[0]
    restart_by(host, "/bin/sh", "-c", "echo no such unit; exit 5")
    before = started_at(host)

    code, output, errors = fleet.run(0, "--json", "reload", NAME)

    assert (code, json.loads(output)["kind"]) == (1, "command-failed")
    assert "no such unit" in errors
    assert started_at(host) == before
    assert "host1" in fleet.lab.consul().passing()
    assert fleet.leftovers() == []


def test_hooks_run_in_their_order(fleet: Fleet) -> None:
    """Each once, on the host that reloads, in the step that it belongs to."""
    host = fleet.lab.hosts[0]
    fleet.lab.write_definition(host, hooks=noting(host))
    version = fleet.push_next()

    code, _output, errors = fleet.run(0, "reload", NAME)

    assert code == 0, errors
    assert fleet.lab.versions()["host1"] == version
    assert noted(host) == [
        "before_drain host1 drain ",
        "after_drain host1 drain ",
        "after_restart host1 restart ",
        "after_return host1 return reloaded",
    ]


def test_every_line_of_a_reload_carries_its_id(fleet: Fleet) -> None:
    """Steps, how far the pull is, and what hooks print."""
    host = fleet.lab.hosts[0]
    fleet.lab.write_definition(host, hooks=noting(host))
    fleet.push_next()

    code, output, errors = fleet.run(0, "--json", "--log-format", "json", "-v", "reload", NAME)

    assert code == 0, errors
    records = [json.loads(line) for line in errors.splitlines()]
    assert {(one["service"], one["reload"]) for one in records} == {(NAME, json.loads(output)["id"])}
    ended = [one["step"] for one in records if one.get("phase") == "end"]
    assert ended == [step["step"] for step in json.loads(output)["steps"]]
    assert [one["hook"] for one in records if one["text"] == "heard by the log"] == list(HOOKS[:-1])
    assert [one["layers_done"] for one in records if one.get("phase") == "progress"]


@pytest.mark.parametrize(
    ("failing", "before_it"),
    [("before_drain", []), ("after_drain", ["before_drain"]), ("after_restart", ["before_drain", "after_drain"])],
)
def test_a_failed_hook_stops_the_reload_and_blames_no_image(fleet: Fleet, failing: str, before_it: list[str]) -> None:
    """The old instance stays or comes back; on_failure is told where; another host may still take the image."""
    host = fleet.lab.hosts[0]
    fleet.lab.write_definition(host, hooks=noting(host, failing=failing))
    before = fleet.lab.versions()
    fleet.push_next()

    code, output, errors = fleet.run(0, "--json", "reload", NAME)
    _code, quarantined, _errors = fleet.run(0, "--json", "quarantine", "list", NAME)

    assert (code, json.loads(output)["kind"]) == (1, "hook-failed")
    assert "said by the hook" in errors
    assert fleet.lab.versions() == before
    assert "host1" in fleet.lab.consul().passing()
    assert fleet.leftovers() == []
    assert json.loads(quarantined) == []
    result = "rolled back" if failing == "after_restart" else "failed"
    told = noted(host)
    assert [line.split()[0] for line in told] == [*before_it, failing, "on_failure"]
    failed_step = "restart" if failing == "after_restart" else "drain"
    assert told[-1] == f"on_failure host1 {failed_step} {result}"


def test_a_failing_hook_after_the_return_is_only_reported(fleet: Fleet) -> None:
    host = fleet.lab.hosts[0]
    fleet.lab.write_definition(host, hooks=noting(host, failing="after_return"))
    version = fleet.push_next()

    code, _output, errors = fleet.run(0, "reload", NAME)

    assert code == 0
    assert "said by the hook" in errors
    assert fleet.lab.versions()["host1"] == version


def test_a_container_that_could_no_longer_be_started_is_not_stopped(fleet: Fleet) -> None:
    """Its host loses a bind source while it is drained: neither Docker nor svcagent could start it again."""
    host, lab = fleet.lab.hosts[0], fleet.lab
    reference, file, api = f"{lab.repository}:latest", host.directory / "settings", host.engine.api
    file.touch()
    api.remove_container(NAME, force=True)
    binds = [f"{file}:/etc/settings"]
    image.run(api, reference, host.address, fleet.load_seconds, binds=binds, restart_policy={"Name": "no"})
    try:
        fleet.define(hooks={"after_drain": ["rm", str(file)]})
        # Consul may not have noticed yet that the first container is gone.
        wait_until(lambda: lab.versions()["host1"] is not None, 20, "the container answers")
        lab.wait_passing()
        before, started = lab.versions(), api.inspect_container(NAME)["State"]["StartedAt"]
        fleet.push_next()

        code, output, errors = fleet.run(0, "--json", "reload", NAME)

        assert (code, json.loads(output)["kind"]) == (1, "not-startable")
        assert str(file) in errors
        assert api.inspect_container(NAME)["State"]["StartedAt"] == started
        assert lab.versions() == before
        assert "host1" in lab.consul().passing()
        assert fleet.leftovers() == []
    finally:
        api.remove_container(NAME, force=True)
        lab.run_service(host, fleet.load_seconds)
        fleet.reset()
