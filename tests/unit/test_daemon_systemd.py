"""What systemd is told, over a socket as it gives one; and that there is one daemon a host."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.daemon.daemon import only_daemon
from agent.daemon.status import LONGEST_LINE, DaemonState, ReloadStatus
from agent.daemon.systemd import Systemd
from agent.errors import Fault, LockBusy, SvcagentError
from tests.support.kinds import raises_kind

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def test_it_gets_every_event(manager: socket.socket) -> None:
    """Each state in its own message, and a status line only when it is another one."""
    systemd = Systemd({"NOTIFY_SOCKET": manager.getsockname()})

    systemd.notify("READY=1")
    systemd.status("3 services")
    systemd.status("3 services")
    systemd.status("two\nlines: ü")
    systemd.notify("WATCHDOG=1")
    systemd.notify("RELOADING=1")
    systemd.notify("STOPPING=1")

    expected = ["READY=1", "STATUS=3 services", "STATUS=two lines: ü", "WATCHDOG=1", "RELOADING=1", "STOPPING=1"]
    assert [manager.recv(4096).decode() for _ in expected] == expected


def test_an_abstract_socket() -> None:
    """Containers get one whose name begins with an @."""
    name = f"svcagent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)

        Systemd({"NOTIFY_SOCKET": f"@{name}"}).notify("READY=1")

        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_no_listener(environ: dict[str, str]) -> None:
    """In a terminal there is no service manager; one that is gone stops nothing."""
    systemd = Systemd(environ)

    systemd.notify("READY=1")
    systemd.status("one")

    assert systemd.watchdog_seconds is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    """Answered twice as often as asked for, and only if this very process is meant."""
    assert Systemd(environ).watchdog_seconds == seconds


def test_one_daemon_a_host(tmp_path: Path) -> None:
    """A second one says which process is the first; when that has ended, it may start."""
    with only_daemon(tmp_path), pytest.raises(LockBusy, match=f"pid {os.getpid()}"), only_daemon(tmp_path):
        pytest.fail("there are two")

    with only_daemon(tmp_path):
        assert (tmp_path / "daemon.lock").stat().st_mode & 0o777 == 0o600


def test_no_place_for_the_lock(tmp_path: Path) -> None:
    """A state directory that is not there is told, with what to do."""
    with raises_kind(SvcagentError, "cannot-write"), only_daemon(tmp_path / "nothing"):
        pytest.fail("there is no directory")


def status(**changes: object) -> DaemonState:
    given: dict[str, object] = {"services": ("a", "b", "c"), "is_ready": True, **changes}
    return DaemonState(1, "1", NOON, "/s", "/d", **given)  # type: ignore[arg-type]  # what a case changes


WAITING = ReloadStatus("keyword-suggest", "acquire", "place 2 in the line; the lock is held by host2", NOON, "schedule")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (status(), "3 services"),
        (status(services=("a",)), "1 service"),
        (status(is_ready=False), "starting"),
        (
            status(reloads=(WAITING,)),
            "3 services, keyword-suggest waits: place 2 in the line; the lock is held by host2",
        ),
        (
            status(reloads=(ReloadStatus("a", "drain", "", NOON, ""), ReloadStatus("b", "", "", NOON, ""))),
            "3 services, a: drain, b: starting",
        ),
        (
            status(reloads=(ReloadStatus("a", "pull", "", NOON, ""),) * 5),
            "3 services, a: pull, a: pull, a: pull, 2 more reloads",
        ),
        (
            status(faults=(Fault("x", "", ""), Fault("x", "a", ""), Fault("y", "", ""))),
            "3 services, 2 files with faults",
        ),
        (status(trouble="Consul is gone", is_ready=False), "Consul is gone, starting"),
        (
            status(is_stopping=True, reloads=(ReloadStatus("a", "return", "", NOON, ""),)),
            "stopping, 3 services, a: return",
        ),
    ],
)
def test_the_status_line(found: DaemonState, line: str) -> None:
    """What is wrong comes first, then how much there is, then what is being done."""
    assert found.line == line


def test_the_status_line_is_short() -> None:
    assert len(status(trouble="x" * 500).line) == LONGEST_LINE


def test_a_busy_manager_is_notified_later(manager: socket.socket) -> None:
    """One that takes no more for a moment hears all the same that the daemon is ready: it would wait for ever."""
    systemd = Systemd({"NOTIFY_SOCKET": manager.getsockname()})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
        others.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                others.sendto(b"BUSY=1", manager.getsockname())
    systemd.notify("READY=1")
    after_answer = []
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            after_answer.append(manager.recv(100).decode())
    assert "READY=1" not in after_answer

    systemd.status("")

    assert manager.recv(100).decode() == "READY=1"


def test_a_full_disk_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with only_daemon(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
