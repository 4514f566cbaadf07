"""Metrics in files: gone on from by the next process, read by another user, never half written."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import SvcagentError
from agent.metrics.host_series import MaintenanceSample
from agent.metrics.textfile import LOCK_SECONDS, Textfiles
from tests.support.clock import NOON, FakeClock
from tests.support.kinds import raises_kind
from tests.unit.test_metrics import ended

RELOAD = "svcagent_reload_web.prom"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def process(tmp_path: Path, clock: FakeClock, warnings: list[str]) -> Callable[[], Textfiles]:
    """One process after the other, in one directory."""
    return lambda: Textfiles(tmp_path, clock, warnings.append)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def series(directory: Path) -> dict[tuple[str, ...], float]:
    """All files together, as node_exporter reads them: a series that stands in two is an error."""
    found: dict[tuple[str, ...], float] = {}
    for file in directory.glob("*.prom"):
        for metric in text_string_to_metric_families(file.read_text()):
            for sample in metric.samples:
                key = (sample.name, *(value for _label, value in sorted(sample.labels.items())))
                assert key not in found, key
                found[key] = sample.value
    return found


def test_counters_continue_across_processes(process: Callable[[], Textfiles], tmp_path: Path, clock: FakeClock) -> None:
    """Counts and seconds add up; what the last one did not see stays."""
    process().reloads_ended([ended("reloaded", steps=[{"step": "acquire", "seconds": 2.0}])])
    clock.sleep(600)
    process().reloads_ended([{"service": "web", "exit_code": 69}])
    process().reloads_ended([ended("recovered"), ended("refused", steps=[{"step": "acquire", "seconds": 20.0}])])

    found = series(tmp_path)
    counted = {key[1]: value for key, value in found.items() if key[0] == "svcagent_reloads_total" and value}
    assert counted == {"reloaded": 1, "failed": 1, "recovered": 1, "refused": 1}
    assert found["svcagent_lock_wait_seconds_sum", "web"] == 22
    assert found["svcagent_lock_wait_seconds_bucket", "10.0", "web"] == 1
    assert found["svcagent_last_success_timestamp_seconds", "web"] == NOON.timestamp()
    assert found["svcagent_last_run_timestamp_seconds", "web"] == NOON.timestamp() + 600
    assert found["svcagent_image_info", "sha256:one", "registry/web:latest", "web"] == 1


def test_every_service_has_its_own_file(process: Callable[[], Textfiles], tmp_path: Path) -> None:
    """Whatever is in its name, and no series is in two of them."""
    process().reloads_ended([ended("reloaded"), ended("reloaded", service="a/b c")])
    process().converged(["web", "a/b c"], {}, [MaintenanceSample("web", "bob", 1.0)], 0)
    process().cnames({"records": [{"record": "*.a.", "outcome": "in place", "is_done": False}]}, is_all=True)

    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "svcagent_cname.prom",
        "svcagent_register.prom",
        "svcagent_reload_a%2Fb%20c.prom",
        RELOAD,
    ]
    found = series(tmp_path)
    assert found["svcagent_reloads_total", "reloaded", "a/b c"] == found["svcagent_reloads_total", "reloaded", "web"]


def test_a_service_that_is_removed_loses_its_file(process: Callable[[], Textfiles], tmp_path: Path) -> None:
    """At the next registration of all; what others keep there stays."""
    (tmp_path / "apt.prom").touch()
    process().reloads_ended([ended("reloaded"), ended("reloaded", service="db")])

    process().converged(["db"], {}, [], 0)

    assert {file.name for file in tmp_path.iterdir()} == {
        "apt.prom",
        "svcagent_register.prom",
        "svcagent_reload_db.prom",
    }


def test_no_service_counts_as_removed_while_a_file_has_faults(process: Callable[[], Textfiles], tmp_path: Path) -> None:
    process().reloads_ended([ended("reloaded")])

    process().converged(["db"], {"web.json": 2}, [], 0)

    assert (tmp_path / RELOAD).exists()
    assert series(tmp_path)["svcagent_definition_faults", "web.json"] == 2


@pytest.mark.usefixtures("umask")
def test_another_user_may_read_it(process: Callable[[], Textfiles], tmp_path: Path) -> None:
    process().reloads_ended([ended("reloaded")])
    process().reloads_ended([ended("reloaded")])

    assert [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()] == [0o644]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"\xff" + whole,
        lambda whole: whole.replace(b'"web"} 1.0', b'"web"} NaN'),
        lambda whole: whole.replace(b'le="30.0"', b'le="31.0"'),
        lambda whole: whole.replace(b"result=", b"how="),
        lambda _whole: b"{}\n",
    ],
    ids=["half", "not UTF-8", "not a number", "other buckets", "another label", "something else"],
)
def test_a_damaged_file_is_replaced(
    process: Callable[[], Textfiles], tmp_path: Path, warnings: list[str], damage: Callable[[bytes], bytes]
) -> None:
    """With a warning that names it; nothing of it is mixed with what is new."""
    process().reloads_ended([ended("reloaded", steps=[{"step": "ready", "seconds": 1.0}])] * 3)
    process().reloads_ended([ended("stranded")])
    file = tmp_path / RELOAD
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)

    process().reloads_ended([ended("up to date")])

    assert len(warnings) == 1
    assert f"{file} is damaged (" in warnings[0]
    found = series(tmp_path)
    assert sum(value for key, value in found.items() if key[0] == "svcagent_reloads_total") == 1
    assert not any(key[0].startswith("svcagent_reload_step_seconds") for key in found)


def test_an_unknown_series_is_dropped(process: Callable[[], Textfiles], tmp_path: Path, warnings: list[str]) -> None:
    process().reloads_ended([ended("reloaded")])
    file = tmp_path / RELOAD
    file.write_text(f"{file.read_text()}# HELP svcagent_old …\n# TYPE svcagent_old gauge\nsvcagent_old 1\n")

    process().reloads_ended([ended("reloaded")])

    assert warnings == []
    assert series(tmp_path)["svcagent_reloads_total", "reloaded", "web"] == 2
    assert "svcagent_old" not in file.read_text()


def test_the_host_before_and_after_faults(process: Callable[[], Textfiles], tmp_path: Path, clock: FakeClock) -> None:
    """Faults and a Consul that is away are told beside what was known; all is well again with the next registration."""
    process().converged([], {}, [MaintenanceSample("web", "bob", 5.0), MaintenanceSample("db", "unknown", None)], 1)
    clock.sleep(60)
    process().update_host(lambda host: host.faulty({"a.json": 2}))
    process().update_host(lambda host: host.consul(is_up=False))
    troubled = series(tmp_path)
    process().converged([], {}, [MaintenanceSample("db", "unknown", None)], 0)
    after = series(tmp_path)

    since = "svcagent_maintenance_since_timestamp_seconds"
    assert troubled["svcagent_definition_faults", "a.json"] == 2
    assert troubled["svcagent_consul_up",] == 0
    assert troubled["svcagent_last_convergence_timestamp_seconds",] == NOON.timestamp()
    assert troubled[since, "bob", "web"] == 5
    assert {key for key in after if key[0] in (since, "svcagent_definition_faults")} == {(since, "unknown", "db")}
    assert after[since, "unknown", "db"] == NOON.timestamp()
    assert (after["svcagent_consul_up",], after["svcagent_registrations_refused",]) == (1, 0)


def test_some_records_are_reported_apart_from_the_others(process: Callable[[], Textfiles], tmp_path: Path) -> None:
    """A sync of all forgets those that are no longer kept, one of a few does not."""

    def document(**outcomes: str) -> dict[str, object]:
        return {"records": [{"record": name, "outcome": how, "is_done": False} for name, how in outcomes.items()]}

    def states() -> set[tuple[str, ...]]:
        return {key[1:] for key in series(tmp_path) if key[0] == "svcagent_cname_state"}

    process().cnames(document(a="in place", b="conflict"), is_all=True)
    process().cnames(document(b="in place"), is_all=False)
    assert states() == {("a", "in place"), ("b", "in place")}

    process().cnames(document(b="unreachable"), is_all=True)
    assert states() == {("b", "unreachable")}


def test_a_missing_directory_is_named(clock: FakeClock, tmp_path: Path) -> None:
    """It is not made: node_exporter would not look there."""
    with raises_kind(SvcagentError, "cannot-write") as caught:
        Textfiles(tmp_path / "nowhere", clock, print).reloads_ended([ended("reloaded")])
    assert f"{tmp_path}/nowhere" in str(caught.value)


def test_a_hanging_one_stops_no_other(process: Callable[[], Textfiles], tmp_path: Path, clock: FakeClock) -> None:
    """The wait for another process is short, and then a count may be lost."""
    hung = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(hung, fcntl.LOCK_EX)
    process().reloads_ended([ended("reloaded")])
    os.close(hung)

    assert series(tmp_path)["svcagent_reloads_total", "reloaded", "web"] == 1
    assert clock.seconds == pytest.approx(LOCK_SECONDS, abs=0.1)
