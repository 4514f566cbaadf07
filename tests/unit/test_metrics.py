"""What Prometheus is told, from what happened: tables of events and the series that stand afterwards."""

import math
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, CheckState, LocalService
from agent.maintenance import by_operator, by_reload, render
from agent.metrics.exposition import Metrics, text_of
from agent.metrics.host_series import MaintenanceSample, held_maintenance
from agent.metrics.series import Damaged, Histogram, Series
from agent.outcomes import Outcome
from agent.reload.host_lock import HostReload
from agent.reload.record import ReloadResult
from tests.support.clock import NOON, FakeClock
from tests.support.threads import repeating


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock)


def series(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels; one that stands there twice fails here, as it would in Prometheus."""
    text = text_of(metrics.collect())
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for metric in text_string_to_metric_families(text.decode()):
        for sample in metric.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def of(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The series of one name, by their labels' values in order of the labels' names."""
    return {
        tuple(value for _label, value in sorted(labels)): value
        for (found, labels), value in series(metrics).items()
        if found == name
    }


def ended(outcome: str, **more: Any) -> dict[str, Any]:
    result = ReloadResult(
        "web", "host1", "registry/web:latest", id="1f3a9c21", outcome=Outcome(outcome), running="sha256:one"
    )
    return {**asdict(result), **more}


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_is_counted_and_the_others_are_zero(metrics: Metrics, outcome: str) -> None:
    """A counter that begins at 1 would be no increase to Prometheus."""
    metrics.reload_ended(ended(outcome))
    metrics.reload_ended(ended(outcome))

    assert of(metrics, "svcagent_reloads_total") == {
        (result, "web"): 2.0 if result == outcome else 0.0 for result in Outcome
    }


@pytest.mark.parametrize(
    ("code", "counted"), [(75, "refused"), (69, "failed"), (78, "failed"), (1, "failed"), (143, "interrupted")]
)
def test_a_reload_with_an_error_alone_is_counted_by_exit_code(metrics: Metrics, code: int, counted: str) -> None:
    """As of a child that could not reach Consul, or found its service locked."""
    metrics.reload_ended({"service": "web", "error": "…", "exit_code": code})

    assert of(metrics, "svcagent_reloads_total")[counted, "web"] == 1


@pytest.mark.parametrize(
    ("outcome", "is_success"), [(outcome, outcome in ("up to date", "reloaded")) for outcome in Outcome]
)
def test_last_success_of_what_ended_well(metrics: Metrics, clock: FakeClock, outcome: str, *, is_success: bool) -> None:
    metrics.reload_ended(ended("up to date"))
    clock.sleep(60)
    metrics.reload_ended(ended(outcome))

    last = NOON.timestamp() + (60 if is_success else 0)
    assert of(metrics, "svcagent_last_success_timestamp_seconds") == {("web",): last}
    assert of(metrics, "svcagent_last_run_timestamp_seconds") == {("web",): NOON.timestamp() + 60}


@pytest.mark.parametrize(
    ("then", "is_stranded"),
    [
        (ended("stranded"), True),
        (ended("recovered", id=""), False),
        (ended("up to date"), False),
        (ended("refused"), False),
        # It never came to the point where it would have put right what was left.
        (ended("failed", id=""), True),
        ({"service": "web", "exit_code": 69}, True),
        ({"service": "web", "exit_code": 75}, True),
    ],
)
def test_an_instance_is_stranded_until_it_is_back(metrics: Metrics, then: dict[str, Any], *, is_stranded: bool) -> None:
    metrics.reload_ended(ended("stranded"))
    metrics.reload_ended(then)

    assert of(metrics, "svcagent_stranded") == {("web",): float(is_stranded)}


def test_a_digest_replaces_the_one_before(metrics: Metrics) -> None:
    """One series a service; a reload that does not know what runs leaves it."""
    metrics.reload_ended(ended("reloaded"))
    metrics.reload_ended(ended("reloaded", running="sha256:two"))
    metrics.reload_ended(ended("failed", running=None))

    assert of(metrics, "svcagent_image_info") == {("sha256:two", "registry/web:latest", "web"): 1.0}


def test_steps_and_the_wait_for_the_lock_are_measured(metrics: Metrics) -> None:
    """Every step in its buckets; that of the lock once more by itself."""
    metrics.reload_ended(
        ended("reloaded", steps=[{"step": "acquire", "seconds": 42.5}, {"step": "drain", "seconds": 0.5}])
    )

    assert of(metrics, "svcagent_reload_step_seconds_sum") == {("web", "acquire"): 42.5, ("web", "drain"): 0.5}
    assert of(metrics, "svcagent_lock_wait_seconds_count") == {("web",): 1.0}
    buckets = of(metrics, "svcagent_lock_wait_seconds_bucket")
    assert (buckets["10.0", "web"], buckets["60.0", "web"], buckets["+Inf", "web"]) == (0.0, 1.0, 1.0)


def at_step(step: str, seconds: float, place: int | None = None) -> HostReload:
    """What the lock file says of a reload that began a step so long after noon."""
    since = (NOON + timedelta(seconds=seconds)).isoformat()
    return HostReload(4711, NOON.isoformat(), step, since, place=place)


def test_where_a_running_reload_is(metrics: Metrics) -> None:
    """Its step and since when, its place in the queue while it waits; nothing of it when it has ended."""
    since, queue = "svcagent_reload_step_since_timestamp_seconds", "svcagent_lock_queue_length"
    told = []
    for running in (at_step("guard", 10), at_step("acquire", 20), at_step("acquire", 20, 3), at_step("drain", 50)):
        metrics.reloads_run([("web", running)])
        told.append((of(metrics, since), of(metrics, queue)))
    metrics.reloads_run([])

    at = NOON.timestamp()
    assert told == [
        ({("web", "guard"): at + 10}, {}),
        ({("web", "acquire"): at + 20}, {}),
        ({("web", "acquire"): at + 20}, {("web",): 3.0}),
        ({("web", "drain"): at + 50}, {}),
    ]
    assert of(metrics, since) == of(metrics, queue) == {}


def test_ended_series_are_removed(metrics: Metrics) -> None:
    """A service removed, a maintenance ended, a file mended, a record no longer kept."""
    record = {"record": "a.", "outcome": "conflict", "is_done": False}
    metrics.converged(
        ["web", "db"],
        {"a.json": 2, "b.json": 1},
        [MaintenanceSample("web", "bob", 1.0), MaintenanceSample("", "eve", 2.0)],
    )
    metrics.reload_ended(ended("reloaded", service="db", steps=[{"step": "acquire", "seconds": 1}]))
    metrics.reloads_run([("db", at_step("check", 0))])
    metrics.cnames({"dry_run": False, "records": [record, {**record, "record": "b."}]})

    metrics.converged(["web"], {"b.json": 1}, [MaintenanceSample("web", "bob", 1.0)])
    metrics.cnames({"dry_run": False, "records": [record]})

    assert of(metrics, "svcagent_definition_faults") == {("b.json",): 1.0}
    assert of(metrics, "svcagent_maintenance_since_timestamp_seconds") == {("bob", "web"): 1.0}
    assert of(metrics, "svcagent_cname_state") == {("a.", "conflict"): 1.0}
    assert not [labels for _name, labels in series(metrics) if ("service", "db") in labels]


@pytest.mark.parametrize(
    ("is_done", "outcome", "state"),
    [
        (False, "in place", "in place"),
        (True, "created", "in place"),
        (True, "repaired", "in place"),
        (False, "deferred", "deferred"),
        (False, "conflict", "conflict"),
        (False, "unreachable", "unreachable"),
    ],
)
def test_the_state_of_a_cname(metrics: Metrics, outcome: str, state: str, *, is_done: bool) -> None:
    metrics.cnames({"dry_run": False, "records": [{"record": "a.", "outcome": outcome, "is_done": is_done}]})

    assert of(metrics, "svcagent_cname_state") == {("a.", state): 1.0}
    assert of(metrics, "svcagent_cname_last_sync_timestamp_seconds") == {(): NOON.timestamp()}


def test_a_sync_that_failed_or_only_planned_changes_nothing(metrics: Metrics) -> None:
    before = set(series(metrics))
    metrics.cnames({"error": "Consul does not answer", "exit_code": 69})
    metrics.cnames({"dry_run": True, "records": [{"record": "a.", "outcome": "created", "is_done": False}]})

    assert set(series(metrics)) == before


def test_consul_faults_and_convergence_are_distinguished(metrics: Metrics, clock: FakeClock) -> None:
    """Each by itself; the last convergence stays what it was while Consul is away."""
    metrics.converged([], {}, [], refused=2)
    clock.sleep(60)
    metrics.consul(is_up=False)
    metrics.faulty({"a.json": 3, "b.json": 0})

    assert of(metrics, "svcagent_consul_up") == {(): 0.0}
    assert of(metrics, "svcagent_definition_faults") == {("a.json",): 3.0}
    assert of(metrics, "svcagent_registrations_refused") == {(): 2.0}
    assert of(metrics, "svcagent_last_convergence_timestamp_seconds") == {(): NOON.timestamp()}


def test_undated_maintenance_is_as_old_as_its_first_observation(metrics: Metrics, clock: FakeClock) -> None:
    """As of consul maint; of two instances of one service the older counts."""
    two = [
        MaintenanceSample("web", "bob", 20.0),
        MaintenanceSample("web", "bob", 10.0),
        MaintenanceSample("web", "unknown", None),
    ]
    metrics.converged([], {}, two)
    clock.sleep(3600)
    metrics.converged([], {}, two)

    assert of(metrics, "svcagent_maintenance_since_timestamp_seconds") == {
        ("bob", "web"): 10.0,
        ("unknown", "web"): NOON.timestamp(),
    }


def test_whose_maintenance_the_agent_holds() -> None:
    """An operator by name; a reload without its id, which would make a series of every reload; else unknown."""

    def held(check_id: str, notes: str) -> CheckState:
        return CheckState(check_id, "", "critical", notes, "")

    def service(name: str, notes: str) -> LocalService:
        check = held(f"{SERVICE_MAINTENANCE}{name}", notes)
        return LocalService(f"{name}-1", name, (), 1, "", {}, (check,))

    services = [
        service("a", render(by_operator("alice", "host1", "disk", NOON))),
        service("b", render(by_reload("1f3a9c21", "host1", "new image", NOON))),
        service("c", "Maintenance mode is enabled for this service"),
        LocalService("d", "d", (), 1, "", {}),
    ]
    at = NOON.timestamp()

    assert held_maintenance(services, {NODE_MAINTENANCE: held(NODE_MAINTENANCE, "")}) == [
        MaintenanceSample("a", "alice", at),
        MaintenanceSample("b", "svcagent reload", at),
        MaintenanceSample("c", "unknown", None),
        MaintenanceSample("", "unknown", None),
    ]


def test_it_is_rendered_during_updates() -> None:
    """Every text is whole: the counter of one service and its histogram belong to the same moment."""
    metrics = Metrics(FakeClock())

    def report_event() -> None:
        metrics.reload_ended(ended("reloaded", steps=[{"step": "acquire", "seconds": 1}]))
        metrics.converged(["web"], {}, [])
        metrics.converged([], {}, [])

    with repeating(report_event):
        for _ in range(200):
            found = series(metrics)
            count = found.get(("svcagent_lock_wait_seconds_count", frozenset({("service", "web")})), 0.0)
            total = found.get(("svcagent_reloads_total", frozenset({("service", "web"), ("result", "reloaded")})), 0.0)
            assert count == total


def test_the_text_is_in_the_format_that_all_versions_of_prometheus_read(metrics: Metrics) -> None:
    """Version 0.0.4, and what every exporter tells of its process."""
    text = text_of(metrics.collect())

    assert b"process_resident_memory_bytes" in text
    assert b"svcagent_build_info{version=" in text


def resumed(histogram: Histogram) -> Histogram:
    """Another one of the same kind, gone on from what this one tells."""
    other = Histogram("h_seconds", "…", ("service",), (1, 10))
    metric = histogram.metric()
    assert metric is not None
    other.resume(metric.samples)
    return other


@given(
    before=st.lists(st.floats(0, 20, allow_nan=False), min_size=1), after=st.lists(st.floats(0, 20, allow_nan=False))
)
def test_a_histogram_continues_after_a_restart(before: list[float], after: list[float]) -> None:
    """Taken up from its own samples, it says what one that saw everything says."""
    whole, part = (Histogram("h_seconds", "…", ("service",), (1, 10)) for _ in range(2))
    for seconds in (*before, *after):
        whole.observe(seconds, "web")
    for seconds in before:
        part.observe(seconds, "web")
    part = resumed(part)
    for seconds in after:
        part.observe(seconds, "web")

    assert part.metric() == whole.metric()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_svcagent_never_writes_are_not_gone_on_from(value: float) -> None:
    told = Series("a_total", "…", ("service",))
    told.set(value, "web")
    metric = told.metric()
    assert metric is not None

    with pytest.raises(Damaged):
        Series("a_total", "…", ("service",)).resume(metric.samples)


def test_a_histogram_with_other_buckets_is_not_gone_on_from() -> None:
    told = Histogram("h_seconds", "…", ("service",), (1, 2, 3))
    told.observe(1, "web")

    with pytest.raises(Damaged):
        resumed(told)
