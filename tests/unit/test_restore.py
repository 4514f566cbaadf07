"""Returning an instance to service and watching it there, with a Consul agent and a Docker Engine that are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import never_interrupted
from agent.consul import CheckState, Instance, LocalService
from agent.definitions import Check, Ready, ReloadSection, Service, Settle
from agent.engine.client import Engine
from agent.errors import Conflict, ConsulUnreachable, Denied, NotReady, Rejected, SvcagentError
from agent.registration import registration
from agent.reload.dependencies import Dependencies, ReloadContext
from agent.reload.journal import Journal, JournalEntry, JournalRecord
from agent.reload.probe import ProbeResult, ProbeStatus
from agent.reload.progress import Progress
from agent.reload.restart import Restarter
from agent.reload.restore import Restoration
from agent.reload.steps import Step
from tests.support.clock import FakeClock
from tests.support.kinds import raises_kind

SERVICE = Service(name="web", checks=(Check(http="http://127.0.0.1:1/hc", interval="10s", timeout="1s"),))
(CHECK,) = SERVICE.checks


HELD = CheckState(
    "_service_maintenance:web",
    "",
    "critical",
    "Taken out by svcagent reload r1 on host1 since 2026-01-01T00:00:00Z: x",
    "web",
)


def state_of(check_id: str, status: str, output: str = "ran", service_id: str = "web") -> CheckState:
    return CheckState(check_id, check_id, status, "", service_id, output)


@dataclass
class FakeConsul:
    clock: FakeClock
    is_registered: bool = True
    states: dict[str, CheckState] = field(default_factory=lambda: {CHECK.id: state_of(CHECK.id, "passing")})
    registrations: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    was_ready: Callable[[], bool] = lambda: True

    def checks(self) -> dict[str, CheckState]:
        return self.states

    def services(self) -> dict[str, LocalService]:
        if not self.is_registered:
            return {}
        return {"web": LocalService("web", "web", (), 80, "", self.meta, tuple(self.states.values()))}

    def services_and_checks(self, _expected: Any = None) -> tuple[dict[str, LocalService], dict[str, CheckState]]:
        return self.services(), self.states

    def register_service(self, body: dict[str, Any]) -> None:
        assert self.was_ready()
        self.registrations.append(body["ID"])
        self.is_registered = True
        self.states = {CHECK.id: state_of(CHECK.id, "passing", "")}

    def instances(self, _name: str, _index: int | None = None, _wait: float = 0.0) -> tuple[int, tuple[Instance, ...]]:
        self.clock.sleep(1.0)
        return 1, (Instance("host1", "web", "10.0.0.1", 80, tuple(self.states.values())),)


class FakeProber:
    def __init__(self) -> None:
        self.status = ProbeStatus.PASSING

    def can_probe(self, _check: Check) -> bool:
        return True

    def probe(self, _check: Check, _limit: float) -> ProbeResult:
        return ProbeResult(self.status, "it failed", "" if self.status is ProbeStatus.PASSING else "http 503")


class FakeRestarter:
    def __init__(self) -> None:
        self.container = ("new 1", 0)
        self.is_running = True
        self.was_requested = False
        self.starts = 0
        self.finished: list[str] = []
        self.finished_stops: list[bool] = []

    def roll_back(self, _restart_policy: str | None, *, finish_stop: bool) -> None:
        self.finished_stops.append(finish_stop)

    def log_tail(self) -> str:
        return ""

    def identity(self) -> tuple[str, int]:
        return self.container

    def runs(self) -> bool:
        return self.is_running

    def stop_was_requested(self, _identity: tuple[str, int]) -> bool:
        return self.was_requested

    def start(self) -> None:
        self.starts += 1

    def clean_up(self, digest: str) -> None:
        self.finished.append(digest)


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.consul = FakeConsul(self.clock)
        self.prober = FakeProber()
        self.restarter = FakeRestarter()
        self.notes: list[str] = []
        deps = SimpleNamespace(
            consul=self.consul,
            engine=cast("Engine", None),
            agent=SimpleNamespace(node="host1", datacenter="dc1", domain="consul"),
            prober=self.prober,
            clock=self.clock,
            drain_dns=(),
        )
        ready = Ready(timeout=30.0, interval=0.1)
        reload = ReloadSection(restart=("true",), ready=ready, settle=Settle(canary=2.0, each=2.0))
        record = JournalRecord(
            "r1", "web", "web", "web", "web", 1, "", "", digest="sha256:2", before={CHECK.id: "passing"}
        )
        progress = Progress(lambda event: self.notes.append(event.text), self.clock, "web", "r1")
        restarter = cast("Restarter", self.restarter)
        self.entry = JournalEntry(cast("Journal", None), record, progress)
        context = ReloadContext(SERVICE, reload, cast("Dependencies", deps), progress, self.entry, restarter)
        self.restoration = Restoration(context)
        self.drainer = self.restoration.drainer

    def returning(self) -> None:
        self.consul.states[HELD.id] = HELD
        local = self.consul.services()["web"]
        assert self.drainer.find_own(local) is not None

    def settle(self, *, is_first: bool = False) -> bool:
        return self.restoration.watch.settle(is_first=is_first, each_round=never_interrupted)

    def stop(self) -> None:
        """An operator stops the container."""
        self.restarter.is_running, self.restarter.was_requested = False, True

    def start(self) -> None:
        self.restarter.is_running, self.restarter.was_requested = True, False
        self.restarter.container = ("new 2", 0)

    def shown(self, *states: CheckState) -> Callable[[], None]:
        """Return what makes the agent show these checks."""

        def show() -> None:
            self.consul.states = {one.id: one for one in states}

        return show


@pytest.fixture
def world() -> World:
    return World()


def test_an_agent_that_forgets_the_service_in_settle_gets_it_again_and_nothing_is_blamed(world: World) -> None:
    def forget() -> None:
        world.consul.is_registered, world.consul.states = False, {}

    world.clock.plan.append((1.0, forget))

    assert world.settle()
    assert world.consul.registrations == ["web"]


def test_an_agent_that_was_restarted_shows_checks_as_critical_that_it_has_not_run(world: World) -> None:
    world.clock.plan += [
        (1.0, world.shown(state_of(CHECK.id, "critical", ""))),
        (8.0, world.shown(state_of(CHECK.id, "passing"))),
    ]

    assert world.settle()
    assert world.clock.seconds >= 8.0


def test_a_check_that_stays_critical_for_longer_than_its_first_run_takes_fails_in_settle(world: World) -> None:
    world.shown(state_of(CHECK.id, "critical", ""))()

    with pytest.raises(NotReady) as caught:
        world.settle()
    assert caught.value.signature == f"{CHECK.id} consul critical"
    assert world.clock.seconds <= 30.0


@pytest.mark.parametrize("is_first", [True, False])
def test_a_check_that_others_deregistered_does_not_blame_the_version(world: World, *, is_first: bool) -> None:
    """A proof is waited for until ready.timeout, and then said to be missing."""
    world.shown()()

    assert world.settle(is_first=is_first)
    assert bool(world.notes) is is_first


@pytest.mark.parametrize("check_id", ["_service_maintenance:web", "_node_maintenance"])
def test_an_operators_maintenance_in_settle_ends_it_without_a_proof(world: World, check_id: str) -> None:
    world.clock.plan.append(
        (1.0, world.shown(state_of(CHECK.id, "passing"), state_of(check_id, "critical", service_id="")))
    )

    assert not world.settle()


@pytest.mark.parametrize(
    ("attribute", "value", "error"), [("container", ("theirs 1", 0), Conflict), ("is_running", False, NotReady)]
)
def test_a_container_that_others_replaced_or_that_ended_in_settle_is_a_failure(
    world: World, attribute: str, value: object, error: type[Exception]
) -> None:
    world.clock.plan.append((1.0, lambda: setattr(world.restarter, attribute, value)))

    with pytest.raises(error):
        world.settle()


def test_a_container_that_an_operator_stops_in_settle_is_waited_for_and_not_started(world: World) -> None:
    """Until ``ready.timeout`` is over: it may be the first half of a restart."""
    world.clock.plan.append((1.0, world.stop))
    began = world.clock.seconds

    with raises_kind(NotReady, "stopped-by-operator"):
        world.settle()
    assert world.clock.seconds - began >= 30
    assert world.restarter.starts == 0


def test_a_check_that_consul_ran_while_an_operator_restarted_the_container_is_run_again(world: World) -> None:
    """What failed between the two halves of the restart does not count against the version."""
    failed = world.shown(state_of(CHECK.id, "critical", "connection refused"))
    world.clock.plan += [
        (1.0, world.stop),
        (1.0, failed),
        (4.0, world.start),
        (9.0, world.shown(state_of(CHECK.id, "passing"))),
    ]

    assert world.settle()


def test_the_two_halves_of_an_operators_restart_are_one_restart(world: World) -> None:
    """Seen between them, the container is stopped; it is waited for and watched again."""
    world.clock.plan += [(1.0, world.stop), (4.0, world.start)]

    assert world.settle()
    assert any("another process restarted" in note for note in world.notes)


def test_a_container_that_was_restarted_between_its_return_and_the_first_look_fails(world: World) -> None:
    """The run that was seen ready is the one that has to go on."""
    world.returning()

    def disable(_service_id: str) -> None:
        world.consul.states.pop("_service_maintenance:web")
        world.restarter.container = ("new 2", 1)

    world.consul.disable_maintenance = disable  # type: ignore[attr-defined]
    world.restoration.return_(is_returning=False)

    with pytest.raises(NotReady):
        world.settle()


def test_the_old_container_is_kept_where_the_unproven_new_one_fails_right_before(world: World) -> None:
    """A signal ended the step settle; meanwhile the new container has begun to fail."""
    world.prober.status = ProbeStatus.CRITICAL

    with pytest.raises(NotReady):
        world.restoration.clean(is_proven=False)
    assert world.restarter.finished == []

    world.restoration.clean(is_proven=True)
    assert world.restarter.finished == ["sha256:2"]


def test_a_forgotten_service_is_registered_again_only_on_a_ready_instance(world: World) -> None:
    """Registered again it is in service immediately."""
    world.returning()
    world.consul.is_registered, world.consul.states = False, {}
    world.prober.status = ProbeStatus.CRITICAL

    with pytest.raises(NotReady):
        world.restoration.return_(is_returning=False)
    assert world.consul.registrations == []

    world.prober.status = ProbeStatus.PASSING
    world.restoration.return_(is_returning=False)
    assert world.consul.registrations == ["web"]


def test_a_check_of_the_host_that_is_critical_fails_no_return(world: World) -> None:
    """It says nothing about the version; a check of the service does."""
    world.shown(state_of(CHECK.id, "passing"), state_of("disk", "critical", service_id=""))()
    world.restoration.return_(is_returning=False)
    assert "disk" in world.notes[-1]

    world.shown(state_of(CHECK.id, "passing"), state_of("foreign", "critical"))()
    with pytest.raises(NotReady) as caught:
        world.restoration.return_(is_returning=True)
    assert caught.value.signature in world.restoration.signatures


def test_an_old_container_that_docker_restarts_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it depends on is away for a while; it runs whenever it is looked at."""
    rounds = iter([NotReady("stopped", signature="container exit 1")] * 3)

    def wait(*, is_returning: bool) -> float:
        assert is_returning
        for error in rounds:
            raise error
        return 0.0

    monkeypatch.setattr(world.restoration.readiness, "wait", wait)

    world.restoration.await_ready(is_returning=True)

    assert world.restarter.starts == 3


@pytest.mark.parametrize("error", [Rejected("its ID cannot be addressed"), Denied("no"), ValueError("odd")])
def test_checks_that_cannot_be_renewed_do_not_keep_the_instance_in_maintenance(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Renewing them only makes the return faster; a note reports the failure."""

    def fail(*_arguments: object) -> None:
        raise error

    world.returning()
    world.consul.meta = registration(SERVICE)["Meta"]
    world.consul.disable_maintenance = lambda _id: world.consul.states.pop(HELD.id)  # type: ignore[attr-defined]
    monkeypatch.setattr("agent.reload.restore.renew_checks", fail)
    monkeypatch.setattr(world.restoration.readiness, "expect_fresh_results", fail)

    world.restoration.start_again()
    world.restoration.return_(is_returning=True)

    assert HELD.id not in world.consul.states
    assert [str(error) in note for note in world.notes] == [True, True]


def test_a_check_that_was_deregistered_and_could_not_be_registered_keeps_the_maintenance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Consul would judge the instance without it."""

    def deregister_only(*_arguments: object) -> None:
        del world.consul.states[CHECK.id]
        raise Rejected("not registered")

    world.returning()
    world.consul.meta = registration(SERVICE)["Meta"]
    monkeypatch.setattr("agent.reload.restore.renew_checks", deregister_only)

    with pytest.raises(SvcagentError, match="no longer has these checks"):
        world.restoration.return_(is_returning=True)

    assert HELD.id in world.consul.states


def test_consul_not_answering_while_checks_are_renewed_is_retried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = iter([ConsulUnreachable("gone"), ConsulUnreachable("gone")])

    def renew(*_arguments: object) -> None:
        for error in attempts:
            raise error

    world.returning()
    world.consul.meta = registration(SERVICE)["Meta"]
    world.consul.disable_maintenance = lambda _id: world.consul.states.pop(HELD.id)  # type: ignore[attr-defined]
    monkeypatch.setattr("agent.reload.restore.renew_checks", renew)

    world.restoration.return_(is_returning=True)

    assert world.notes == []


@pytest.mark.parametrize("is_held", [True, False])
def test_a_stop_that_was_begun_is_finished_also_in_an_operators_maintenance(world: World, *, is_held: bool) -> None:
    """With ``--in-maintenance``: the old container still answers for a while, and would then be gone."""
    if is_held:
        held = state_of("_service_maintenance:web", "critical")
        world.consul.states[held.id] = held

    world.entry.update(is_replacing=True, restart_policy="always")

    world.restoration.way_back[Step.ROLL_BACK]()

    assert world.restarter.finished_stops == [is_held]


def test_an_old_container_that_was_never_asked_to_stop_is_not_stopped(world: World) -> None:
    """The restart was refused before it began: the container may serve clients again."""
    held = state_of("_service_maintenance:web", "critical")
    world.consul.states[held.id] = held

    world.restoration.way_back[Step.ROLL_BACK]()

    assert world.restarter.finished_stops == [False]
