"""The host: disk space, inotify, connection counting, what runs svcagent, and its clock.

svcagent judges windows, ages, ends of maintenance and signatures of DNS updates by the host's clock. Serf's clocks
count events, not seconds, and the local agent has this host's time, so the HTTP APIs of the Consul servers are asked.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.daemon.status import read_status
from agent.data import dataclass
from agent.doctor.diagnosis import Diagnosis, error, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.engine.host_clients import host_connections
from agent.errors import ConnectionsUnknown
from agent.files import NotRegularFile, read_regular

MIB, GIB = 1 << 20, 1 << 30
LEAST_STATE = 16 * MIB
"""Free bytes below which writing a journal may soon fail."""
LEAST_IMAGES = 1024 * MIB
"""Free bytes below which the next pull may fail."""
LEAST_SHARE = 0.02
"""Share of free inodes."""
SPARE_WATCHERS = 4
"""inotify instances to leave for this user: the daemon takes one, editors and shells take others."""

TOLERATED_SECONDS = 5.0
"""Of a difference between clocks: an HTTP date has a resolution of one second."""

CRONTABS = ("etc/crontab", "etc/cron.d", "var/spool/cron/crontabs", "var/spool/cron")
UNITS = "etc/systemd/system"
_CRON_LINE = re.compile(r"^\s*[^#\s].*\bsvcagent\b", re.MULTILINE)
_ANY_LARGE = 1 << 20


@dataclass(frozen=True)
class Space:
    """A file system: free bytes for this user, and the share of its inodes that is free."""

    free: int
    free_inodes: float

    @classmethod
    def of(cls, path: Path) -> "Space":
        found = os.statvfs(path)
        # Some file systems (btrfs) have no fixed number of inodes.
        share = found.f_favail / found.f_files if found.f_files else 1.0
        return cls(found.f_bavail * found.f_frsize, share)


def judge_space(what: str, space: Space, least: int) -> Diagnosis:
    """Judge the free space of a directory. ``least`` is the number of bytes that should be free."""
    free = _size(space.free)
    if space.free < least // 8:
        return error(f"{what} has {free} free: writes will fail soon", f"free at least {_size(least)}")
    if space.free < least:
        return warning(f"{what} has {free} free", f"free at least {_size(least)}")
    if space.free_inodes < LEAST_SHARE:
        return warning(f"{what} has {space.free_inodes:.1%} of its inodes free", "remove files; to count them: df -i")
    return ok(f"{what} has {free} free")


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count // MIB} MiB"


def examine_space(examined: ExaminedHost) -> Iterator[Diagnosis]:
    yield from _space("the state directory", examined.settings.state_dir, LEAST_STATE)
    if examined.containers:
        with examined.engine_survey() as engine:
            directory = Path(engine.facts().root_dir)
        yield from _space("Docker's data root", directory, LEAST_IMAGES)


def _space(what: str, directory: Path, least: int) -> Iterator[Diagnosis]:
    try:
        yield judge_space(f"{what} {directory}", Space.of(directory), least)
    except OSError as found:
        yield unknown(f"cannot read {what} {directory}: {found.strerror}")


def judge_watchers(used: int, most: int) -> Diagnosis:
    if most - used < SPARE_WATCHERS:
        remedy = "run: sysctl fs.inotify.max_user_instances=1024, and add the setting to /etc/sysctl.d/"
        return warning(f"{used} of {most} inotify instances are in use: the daemon may not see changed files", remedy)
    return ok(f"{used} of {most} inotify instances are in use")


def examine_inotify(examined: ExaminedHost) -> Iterator[Diagnosis]:
    proc = examined.root / "proc"
    most = int((proc / "sys/fs/inotify/max_user_instances").read_text())
    yield judge_watchers(_watchers(proc), most)


def _watchers(proc: Path) -> int:
    found = 0
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if process.stat().st_uid == os.geteuid():
                found += sum(str(one.readlink()) == "anon_inode:inotify" for one in (process / "fd").iterdir())
        except OSError:  # the process has ended
            continue
    return found


def examine_connections(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Report a kernel that does not list connected clients, if a drain waits for them."""
    for service, reload in examined.reloads:
        if not reload.drain.connections or service.port is None:
            continue
        try:
            count = host_connections(service.port, service.address)
        except ConnectionsUnknown as found:
            yield error(str(found), "correct that: every drain fails until then", service.id)
        except ValueError:  # the address is a host name
            yield ok("connections are counted inside the container", service.id)
        else:
            yield ok(f"connections can be counted ({count} now)", service.id)


def judge_runner(daemon: str, timers: Collection[str]) -> Diagnosis:
    """Judge what runs svcagent. ``daemon`` describes a running daemon, else it is empty; ``timers`` are files."""
    if daemon:
        return ok(daemon)
    if timers:
        return ok(f"no daemon runs; {', '.join(sorted(timers))} runs svcagent")
    return error(
        "nothing runs svcagent here: no daemon, no crontab, no timer",
        "run: systemctl enable --now svcagent, or install packaging/cron.d/svcagent. Without one, nothing is "
        "registered after a reboot, reloaded or recovered",
    )


def judge_daemon(found: Mapping[str, Any]) -> Iterator[Diagnosis]:
    if found.get("trouble"):
        yield error(f"the daemon cannot register: {found['trouble']}", "run: svcagent status; see the daemon's log")
    for service, why in sorted(dict(found.get("unrecovered") or {}).items()):
        yield error(f"a crashed reload is not recovered: {why}", "the daemon retries; run: svcagent why", service)
    for service, why in sorted(dict(found.get("failed") or {}).items()):
        yield error(f"the daemon could not register it: {why}", "run: svcagent plan", service)
    if found.get("needs_consent"):
        yield error(
            f"changes wait for consent: {found['needs_consent']}",
            "run: svcagent plan. To apply the changes: svcagent register --allow-removals",
        )


def examine_runner(examined: ExaminedHost) -> Iterator[Diagnosis]:
    timers, unread = find_timers(examined.root)
    daemon = read_status(examined.settings, examined.clock)
    if daemon.document is not None:
        status = daemon.document
        if daemon.problem:
            yield error(f"the daemon {daemon.problem}", "run: systemctl restart svcagent; see the daemon's log")
        yield judge_runner(f"the daemon runs (pid {status.get('pid')}): {status.get('status')}", timers)
        yield from judge_daemon(status)
    elif daemon.is_elsewhere:
        yield warning(
            f"the daemon {daemon.problem}",
            "use the same directories for both: reloads with different state directories do not exclude each other",
        )
    elif daemon.is_unknown:
        yield unknown(f"the daemon's status is {daemon.problem}")
    elif unread and not timers:
        yield unknown(f"no daemon runs, and {', '.join(unread)} cannot be read", "run as root to find crontabs")
    else:
        yield judge_runner("", timers)


def find_timers(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the crontabs and enabled units that start svcagent, and the places that cannot be read."""
    found, unread = [], []
    for place in CRONTABS:
        path = root / place
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found += [str(file) for file in files if file.is_file() and _is_cron_of_ours(file)]
        except FileNotFoundError:
            continue
        except (OSError, NotRegularFile):
            unread.append(str(path))
    units = root / UNITS
    wanted = sorted(units.glob("*.wants/svcagent*")) if units.is_dir() else []
    return (*found, *map(str, wanted)), tuple(unread)


def _is_cron_of_ours(file: Path) -> bool:
    return _CRON_LINE.search(read_regular(file, _ANY_LARGE).decode("utf-8", "replace")) is not None


def judge_clock(whose: str, theirs: datetime, ours: datetime) -> Diagnosis:
    """Judge the difference between two clocks that were read at the same moment."""
    ahead = (ours - theirs).total_seconds()
    if abs(ahead) <= TOLERATED_SECONDS:
        return ok(f"this host's clock agrees with {whose}")
    direction = "ahead of" if ahead > 0 else "behind"
    remedy = "synchronise the clocks of both machines (chrony, systemd-timesyncd); to check: timedatectl"
    return warning(f"this host's clock is {abs(ahead):.0f} s {direction} {whose}", remedy)


def examine_server_clocks(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        servers = survey.servers()
        found = [(server, survey.server_time(server), examined.clock.now()) for server in servers]
    for server, theirs, ours in found:
        if theirs is not None:
            yield judge_clock(f"the Consul server {server}", theirs, ours)
    if not any(theirs for _server, theirs, _ours in found):
        yield ok("not compared: this host cannot reach the HTTP API of any Consul server")


def examine_engine_clock(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        theirs, ours = engine.facts().system_time, examined.clock.now()
    if theirs:
        yield judge_clock("the Docker Engine", theirs, ours)
    else:
        yield unknown("the Docker Engine does not report its time")
