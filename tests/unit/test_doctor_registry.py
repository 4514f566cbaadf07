"""How the checks of ``svcagent doctor`` are run: each for itself, whatever the others meet."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.definitions import Settings
from agent.doctor import SUBJECTS, Diagnosis, Level, registry
from agent.doctor.diagnosis import error, note, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.doctor.registry import CHECKS, DoctorCheck, examine, is_failure
from agent.errors import ConsulUnreachable


@pytest.fixture
def examined(tmp_path: Path) -> ExaminedHost:
    settings = Settings(state_dir=tmp_path / "state", services_dir=tmp_path / "services.d")
    return ExaminedHost(settings, (), (), {}, SystemClock())


def _well(_examined: ExaminedHost) -> Iterator[Diagnosis]:
    yield ok("all is well")


def _away(_examined: ExaminedHost) -> Iterator[Diagnosis]:
    yield warning("before", "do this")
    raise ConsulUnreachable("cannot reach Consul")


def _broken(_examined: ExaminedHost) -> Iterator[Diagnosis]:
    raise KeyError("surprise")


def test_a_check_that_raises_stops_no_other(examined: ExaminedHost, caplog: pytest.LogCaptureFixture) -> None:
    """What it had found before is kept, and the trace of a bug is logged."""
    checks = [DoctorCheck("consul", "a", _away), DoctorCheck("docker", "b", _broken), DoctorCheck("host", "c", _well)]

    found = examine(examined, checks=checks)

    assert [(one.subject, one.check, one.level) for one in found] == [
        ("consul", "a", Level.WARNING),
        ("consul", "a", Level.UNKNOWN),
        ("docker", "b", Level.UNKNOWN),
        ("host", "c", Level.OK),
    ]
    [logged] = caplog.records
    assert "the check b of docker" in logged.getMessage()
    assert "KeyError: 'surprise'" in vars(logged)["fields"]["trace"]


def test_a_check_that_does_not_end_is_left_behind(examined: ExaminedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LONGEST_SECONDS", 0.5)
    end = threading.Event()

    def hangs(_examined: ExaminedHost) -> Iterator[Diagnosis]:
        end.wait(30)
        yield ok("too late")

    checks = [
        DoctorCheck("consul", "leader", hangs),
        DoctorCheck("consul", "agent", hangs, late=error),
        DoctorCheck("docker", "well", _well),
    ]
    try:
        found = examine(examined, checks=checks)
    finally:
        end.set()

    assert [one.level for one in found] == [Level.UNKNOWN, Level.ERROR, Level.OK]


def test_checks_of_containers_are_left_out_where_there_are_none(examined: ExaminedHost) -> None:
    assert examine(examined, checks=[DoctorCheck("docker", "engine", _well, of_containers=True)]) == ()


def test_only_the_subjects_asked_for_are_examined(examined: ExaminedHost) -> None:
    checks = [DoctorCheck("consul", "a", _broken), DoctorCheck("docker", "b", _well)]

    assert [one.subject for one in examine(examined, ["docker"], checks)] == ["docker"]


@pytest.mark.parametrize(
    ("diagnosis", "plainly", "strictly"),
    [
        (ok("x"), False, False),
        (note("x", "y"), False, False),
        (unknown("x"), False, True),
        (warning("x", "y"), False, True),
        (error("x", "y"), True, True),
    ],
)
def test_what_ends_with_exit_code_1(diagnosis: Diagnosis, *, plainly: bool, strictly: bool) -> None:
    assert is_failure([diagnosis], strict=False) is plainly
    assert is_failure([diagnosis], strict=True) is strictly


def test_every_subject_has_checks_and_every_check_its_name() -> None:
    assert {check.subject for check in CHECKS} == set(SUBJECTS)
    assert len({(check.subject, check.name) for check in CHECKS}) == len(CHECKS)
