"""The lab itself: what the fleet tests stand on holds, and nothing is left of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, Load, Server, run_origin, wait_until
from tests.lab.ground import CGROUPS, MARK, claimed
from tests.lab.server import PATH, REPOSITORY, child_of

# What a user's script would do with a lab, up to a line on its standard output, and then wait.
OWNER = """
import sys
from tests.lab import Lab
with Lab(1) as lab:
    lab.push("1")
    lab.run_service(lab.hosts[0])
    print(lab.directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2) as lab:
        lab.push("1")
        for host in lab.hosts:
            lab.run_service(host, load_seconds=0)
            lab.register(host, interval="1s")
        lab.wait_passing()
        yield lab


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """A process that makes a lab of its own."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def processes_naming(directory: Path) -> list[str]:
    """The command lines that name a lab's directory or one of its addresses: servers and containers."""
    second, third = directory.name.split("-")
    signs = (f"{directory}/", f"127.{second}.{third}.")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(sign in command for sign in signs):
                found.append(command)
    return found


def traces(directory: Path) -> list[str]:
    """Whatever a lab can leave behind: processes, mounts, control groups, files."""
    files = (directory, directory.with_name(f"{directory.name}.lock"))
    return [
        *processes_naming(directory),
        *(mount for mount in Path("/proc/mounts").read_text().splitlines() if f"{directory}/" in mount),
        *map(str, CGROUPS.glob(f"**/svcagent-lab-{directory.name}")),
        *(str(file) for file in files if file.exists()),
    ]


def printed_directory(owner: subprocess.Popen[str]) -> Path:
    """The directory of a lab that has started."""
    assert owner.stdout is not None
    return Path(owner.stdout.readline().strip())


def early_directory(owner: subprocess.Popen[str]) -> Path:
    """The directory of a lab that has just started its first server."""
    found: list[Path] = []

    def has_begun() -> bool:
        child = child_of(owner.pid)
        if child is not None:
            variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
            found.extend(Path(value) for name, _, value in (v.partition("=") for v in variables) if name == MARK)
        return bool(found)

    wait_until(has_begun, 20, "the owner has started a server", every=0.001)
    return found[0]


def test_its_hosts_serve(lab: Lab) -> None:
    """Every host's container serves the version pushed, and Consul knows every instance as passing."""
    assert lab.versions() == {"host1": "1", "host2": "1"}
    assert [lab.consul(host).passing() for host in lab.hosts] == [("host1", "host2")] * 2


def test_a_version_keeps_its_digest(lab: Lab) -> None:
    """Digests tell versions apart, and the same version pushed again is the same image."""
    first, second, again = lab.push("digest-a", tag="x"), lab.push("digest-b", tag="x"), lab.push("digest-a", tag="x")

    assert first == again != second


def test_a_program_runs_as_if_on_a_host(lab: Lab) -> None:
    """A host's environment leads to its own Consul agent, its own engine and its own directories, all there."""
    host = lab.hosts[1]
    script = (
        'consul info | grep -c "server = false"; docker ps --format "{{.Names}}"; cd "$SVCAGENT_SERVICES_DIR" && pwd'
    )

    output, errors = lab.command(host, "sh", "-c", script).communicate(timeout=20)

    assert (output.splitlines(), errors) == (["1", "keyword-suggest", str(host.services_dir)], "")


def test_load_sees_no_failure_while_nothing_changes(lab: Lab) -> None:
    """Every request of the load generator is answered, by the version that runs."""
    with Load(lab, rate=300) as load:
        load.wait_for(requests=600)
        summary = load.stop()

    assert (summary.failures, summary.errors, summary.failed) == (0, {}, ())
    assert summary.versions == {"1": summary.requests}


def test_load_sees_a_hard_stop(lab: Lab) -> None:
    """A container killed without being drained first costs requests, and the load generator names their address."""
    host = lab.hosts[0]
    with Load(lab) as load:
        load.wait_for(requests=100)
        host.engine.api.stop("keyword-suggest", timeout=0)
        load.wait_for(until=lambda counts: counts.failures > 0)
        lab.wait_passing(lab.hosts[1:])
        summary = load.stop()
    host.engine.api.start("keyword-suggest")
    lab.wait_passing()

    assert summary.errors["connect: refused"] > 0
    assert {failure.address for failure in summary.failed} == {host.address}


def test_load_detects_that_no_instance_answers(lab: Lab) -> None:
    """A name without an instance, and a resolver that is not there, are failed requests too."""
    with Load(lab, dns=[lab.server_dns, (lab.hosts[0].address, 9)]) as load:
        for host in lab.hosts:
            lab.consul(host).put("/v1/agent/service/maintenance/keyword-suggest?enable=true")
        load.wait_for(until=lambda counts: {"dns: nxdomain", "dns: refused"} <= set(counts.errors))
    for host in lab.hosts:
        lab.consul(host).put("/v1/agent/service/maintenance/keyword-suggest?enable=false")
    lab.wait_passing()


def test_load_notices_a_frozen_resolver(lab: Lab) -> None:
    """A resolver that keeps silent costs each request its whole time, and then counts."""
    with Load(lab, dns=[lab.hosts[0].dns], timeout=1) as load:
        load.wait_for(requests=1)
        lab.hosts[0].consul.freeze()
        load.wait_for(until=lambda counts: counts.errors.get("dns: timeout", 0) > 0)
        lab.hosts[0].consul.thaw()
        load.stop()
    lab.wait_passing()


def test_a_killed_engine_leaves_its_containers(lab: Lab) -> None:
    """As on a real host, a service outlives its engine, frozen or killed; the engine comes back at the same place."""
    host = lab.hosts[0]

    host.engine.freeze()
    assert lab.versions()["host1"] == "1"
    host.engine.kill()
    assert lab.versions()["host1"] == "1"
    assert not host.engine.is_running

    host.engine.restart()
    # Docker 20.10 takes a container that outlived its engine for one stopped by hand.
    host.engine.api.start("keyword-suggest")
    wait_until(lambda: lab.versions()["host1"] == "1", 20, "the container serves again")
    lab.wait_passing()


def test_a_host_without_power_comes_back(lab: Lab) -> None:
    """A host's end, whatever state it is in, takes its container with it; when it boots, its engine starts it again."""
    host = lab.hosts[0]

    host.engine.freeze()
    host.power_off()
    assert lab.versions() == {"host1": None, "host2": "1"}

    host.power_on()
    wait_until(lambda: lab.versions()["host1"] == "1", 20, "the engine has started its container again")
    lab.wait_passing()


@pytest.mark.parametrize("name", ["server", "registry"])
def test_a_server_comes_back_at_its_place(lab: Lab, name: str) -> None:
    """What is killed can be started again, with all that it knew."""
    server: Server = getattr(lab, name)

    server.kill()
    assert not server.is_running

    server.restart()
    lab.wait_passing()


def test_maintenance_survives_its_agent(lab: Lab) -> None:
    """A host's Consul agent keeps its state on disk, so that a maintenance outlives it."""
    host = lab.hosts[0]
    lab.consul(host).put("/v1/agent/service/maintenance/keyword-suggest?enable=true&reason=test")
    lab.wait_passing(lab.hosts[1:])

    host.consul.kill()
    host.consul.restart()

    assert "_service_maintenance:keyword-suggest" in lab.consul(host).get("/v1/agent/checks")
    lab.consul(host).put("/v1/agent/service/maintenance/keyword-suggest?enable=false")
    lab.wait_passing()


def test_a_broken_image_ends_with_status_1(lab: Lab) -> None:
    """The broken image pulls well and fails at run time, saying why."""
    reference = f"{lab.repository}:broken"
    lab.push("2", broken=True, tag="broken")
    api = lab.builder.api
    container = api.create_container(reference, host_config=api.create_host_config(network_mode="host"))
    api.start(container)

    assert api.wait(container)["StatusCode"] == 1
    assert b"2: error: the index is damaged" in api.logs(container)


def test_the_origin_rolls_the_fleet(lab: Lab) -> None:
    """The shell script brings every host to the new version and back into service, sleeping seven seconds on each.

    The exit code of ``consul lock`` is not looked at: under load it has been seen to be 1.
    """
    lab.push("2")

    runs = run_origin(lab)

    assert lab.versions() == {"host1": "2", "host2": "2"}, [run.output for run in runs]
    assert max(run.seconds for run in runs) > 14
    lab.wait_passing()


def test_two_labs_do_not_meet(lab: Lab) -> None:
    """A second lab has its own addresses, directory and catalog."""
    with Lab(1) as other:
        assert {host.address for host in lab.hosts}.isdisjoint(host.address for host in other.hosts)
        assert lab.directory != other.directory
        assert [node["Node"] for node in other.consul().get("/v1/catalog/nodes")] == ["host1", "server"]
        assert len(lab.consul().get("/v1/catalog/nodes")) == 3


def test_nothing_is_left_after_its_end() -> None:
    """After ``with``, there is no process, no mount, no control group and no file."""
    with Lab(1) as lab:
        lab.push("1")
        lab.run_service(lab.hosts[0])
        directory = lab.directory
        sleeping = lab.command(lab.hosts[0], "sleep", "1000")
        assert traces(directory)

    assert traces(directory) == []
    assert sleeping.returncode == -signal.SIGKILL


def test_the_next_start_clears_a_killed_run_away(owner: subprocess.Popen[str]) -> None:
    """SIGKILL to a lab's owner ends every process of the lab at once; its files go with the next start."""
    directory = printed_directory(owner)
    assert traces(directory)

    owner.kill()
    owner.wait()

    wait_until(lambda: processes_naming(directory) == [], 10, "no process outlives the owner")
    with claimed():
        assert traces(directory) == []


@pytest.mark.parametrize("has_started", [True, False])
def test_ctrl_c_leaves_nothing(owner: subprocess.Popen[str], has_started: bool) -> None:
    """An interrupted owner clears up, be it in the middle of the start."""
    directory = printed_directory(owner) if has_started else early_directory(owner)

    owner.send_signal(signal.SIGINT)

    assert owner.wait(20) == -signal.SIGINT
    assert traces(directory) == []


def test_a_server_that_exits_shows_its_log(tmp_path: Path) -> None:
    """The error names the server and carries the end of its log."""
    argv = ["sh", "-c", "echo the port is taken >&2; exit 1"]
    server = Server("a server", argv, tmp_path / "log", os.environ | {"PATH": PATH}, is_ready=lambda: False)
    server.start()

    with pytest.raises(LabError, match=r"a server died(?s:.*)the port is taken"):
        server.wait_ready()
