"""The table of all checks. Each runs in its own thread with a time limit, independently of the others.

A check that raises also yields a diagnosis: its subject is unknown.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import field, replace

from agent.clock import Deadline
from agent.data import dataclass
from agent.doctor import cname, consul, dns, docker, files, host, leftovers, upgrade
from agent.doctor.diagnosis import UNREACHABLE, Diagnosis, Level, error, unknown
from agent.doctor.examined import ExaminedHost
from agent.errors import ConsulUnreachable, DockerUnreachable, SvcagentError
from agent.logs import log_bug

LONGEST_SECONDS = 30.0
"""The limit for all checks together. A server that does not answer delays a check by 10 s."""


@dataclass(frozen=True)
class DoctorCheck:
    """One check. ``examine`` yields one or more diagnoses, and may raise anything.

    ``of_containers`` skips it if no definition reloads a container. ``late`` is the diagnosis on a timeout.
    """

    subject: str
    name: str
    examine: Callable[[ExaminedHost], Iterable[Diagnosis]]
    of_containers: bool = False
    late: Callable[[str, str], Diagnosis] = unknown


CHECKS = (
    DoctorCheck("definitions", "faults", files.find_faults),
    DoctorCheck("definitions", "requirements", files.find_unmet),
    DoctorCheck("consul", "agent", consul.examine_agent, late=error),
    DoctorCheck("consul", "release", consul.examine_release),
    DoctorCheck("consul", "leader", consul.examine_leader),
    DoctorCheck("consul", "node", consul.examine_node),
    DoctorCheck("consul", "rights", consul.examine_rights),
    DoctorCheck("consul", "blocking", consul.examine_blocking),
    DoctorCheck("consul", "certificates", consul.examine_certificates),
    DoctorCheck("dns", "answers", dns.examine_answers),
    DoctorCheck("dns", "bind", dns.examine_bind),
    DoctorCheck("cname", "records", cname.examine),
    DoctorCheck("clock", "servers", host.examine_server_clocks),
    DoctorCheck("clock", "engine", host.examine_engine_clock, of_containers=True),
    DoctorCheck("docker", "engine", docker.examine_engine, of_containers=True, late=error),
    DoctorCheck("docker", "sections", docker.examine_sections, of_containers=True),
    DoctorCheck("docker", "containers", docker.examine_containers, of_containers=True),
    DoctorCheck("docker", "credentials", docker.examine_credentials, of_containers=True),
    DoctorCheck("docker", "registry", docker.examine_registries, of_containers=True),
    DoctorCheck("host", "space", host.examine_space),
    DoctorCheck("host", "inotify", host.examine_inotify),
    DoctorCheck("host", "connections", host.examine_connections),
    DoctorCheck("host", "runner", host.examine_runner),
    DoctorCheck("files", "ownership", files.examine),
    DoctorCheck("leftovers", "journals", leftovers.examine_journals),
    DoctorCheck("leftovers", "containers", leftovers.examine_containers, of_containers=True),
    DoctorCheck("leftovers", "maintenance", leftovers.examine_maintenance),
    DoctorCheck("leftovers", "sessions", leftovers.examine_sessions),
    DoctorCheck("upgrade", "containers", upgrade.examine_containers, of_containers=True),
    DoctorCheck("upgrade", "engine", upgrade.examine_engine, of_containers=True),
    DoctorCheck("upgrade", "keys", upgrade.examine_keys),
)
"""A new check needs a function in its subject's module and a row here."""


@dataclass
class _Run:
    check: DoctorCheck
    found: list[Diagnosis] = field(default_factory=list)

    def run_checked(self, examined: ExaminedHost) -> None:
        try:
            for one in self.check.examine(examined):
                self.found.append(one)  # keep what was found before an error or the timeout
        except ConsulUnreachable as failure:
            self.found.append(unknown(UNREACHABLE["consul"], str(failure)))
        except DockerUnreachable as failure:
            self.found.append(unknown(UNREACHABLE["docker"], str(failure)))
        except (SvcagentError, OSError) as failure:
            self.found.append(unknown(f"not checked: {failure}"))
        except Exception as failure:  # noqa: BLE001 - a bug in one check must not hide what the others find
            log_bug(f"the check {self.check.name} of {self.check.subject} ended unexpectedly", failure)
            what = f"not checked: unexpected {type(failure).__name__}: {failure}"
            self.found.append(unknown(what, "this is a bug in svcagent; please report it"))


def examine(
    examined: ExaminedHost, only: Collection[str] = (), checks: Iterable[DoctorCheck] = CHECKS
) -> tuple[Diagnosis, ...]:
    """Run the checks concurrently and return their results in the table's order.

    ``only`` names subjects; empty means all. A check that exceeds `LONGEST_SECONDS` is abandoned.
    """
    deadline = Deadline.after(examined.clock, LONGEST_SECONDS)
    asked = [check for check in checks if not only or check.subject in only]
    runs = [_Run(check) for check in asked if examined.containers or not check.of_containers]
    # Not a pool, because the process would wait for its threads at exit.
    threads = [threading.Thread(target=run.run_checked, args=(examined,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline.remaining)
    return tuple(one for run, thread in zip(runs, threads, strict=True) for one in _result(run, thread.is_alive()))


def _result(run: _Run, is_late: bool) -> Iterable[Diagnosis]:
    late = run.check.late(f"no answer within {LONGEST_SECONDS:g} s", "check whether the server that it queries hangs")
    for one in [*run.found, *([late] if is_late else [])]:
        yield replace(one, subject=run.check.subject, check=run.check.name)


def is_failure(found: Iterable[Diagnosis], *, strict: bool) -> bool:
    """True if the exit code is 1: for an error; with ``strict`` also for a warning or an unknown."""
    levels = {Level.ERROR, *({Level.WARNING, Level.UNKNOWN} if strict else ())}
    return any(one.level in levels for one in found)
