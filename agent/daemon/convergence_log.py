"""What one convergence found and did, and its log: each condition once when it begins, and once when it ends."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from agent.clock import Clock
from agent.definitions import Definition
from agent.errors import Fault, SvcagentError, Unreachable
from agent.logs import INFO, WARNING, log
from agent.maintenance import ExpiredMaintenance, Maintenance, MaintenanceTarget, length, parse
from agent.registration import Change, ChangeAction

IN_MAINTENANCE_AGAIN = (
    "removed from Consul while it was in maintenance; the same maintenance is enabled again, first enabled"
)

_UNREACHABLE = ("unreachable",)
_PAST = {ChangeAction.CREATE: "registered", ChangeAction.UPDATE: "updated", ChangeAction.REMOVE: "deregistered"}


@dataclass(frozen=True)
class HeldMaintenance:
    target: MaintenanceTarget
    maintenance: Maintenance


@dataclass(frozen=True)
class ConvergenceResult:
    """One convergence. With ``trouble``, what could not be observed is unchanged since the last one."""

    definitions: tuple[Definition, ...] = ()
    """The definitions in force: the last valid version of every file."""
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    """The changes that were applied."""
    refused: tuple[Change, ...] = ()
    """Services of others, which svcagent did not register and does not change."""
    failed: tuple[tuple[str, SvcagentError], ...] = ()
    """IDs of services that could not be registered, deregistered or returned to service; and why."""
    kept: tuple[str, ...] = ()
    """IDs of services that no valid file defines any more, but a faulty file may."""
    objection: str = ""
    """Why changes wait for an operator's consent; empty if none do."""
    ended: tuple[ExpiredMaintenance, ...] = ()
    """Expired maintenance: disabled, or still enabled because checks fail."""
    out: tuple[HeldMaintenance, ...] = ()
    """Our services in maintenance; the host itself is last."""
    canary: str = ""
    """The ID of a service of ours in the agent; empty if there is none."""
    trouble: SvcagentError | None = None
    """Why it did not finish: Consul is unreachable or refuses the token, or another svcagent registers."""
    again_in: float | None = None
    """Seconds until the next run, if no event comes earlier; None: at the next minute."""


class ConvergenceLog:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trouble: tuple[str, ...] = ()
        self._since = 0.0
        self._before = ConvergenceResult()
        self._lasting: dict[str, dict[str, str]] = {}

    def log(self, found: ConvergenceResult) -> None:
        """Log what is new since the last convergence."""
        self._log_trouble(found.trouble)
        self._log_faults(found)
        for change in found.changes:
            log(f"{change.service_id}: {_PAST[change.action]}: {change.why}", service=change.service_id)
            if change.maintenance is not None and not change.replaces:
                held = parse(change.maintenance).describe()
                text = (
                    f"{change.service_id} was {IN_MAINTENANCE_AGAIN} {held}. To disable it, run: "
                    "svcagent maint disable "
                )
                log(text + shlex.quote(change.service_id), level=WARNING, service=change.service_id)
        for one in found.ended:
            if one.may_be_disabled:
                was = one.maintenance.describe()
                log(
                    f"{one.target}: maintenance expired and was disabled; it was enabled {was}",
                    service=one.target.service_id,
                )
        if found.trouble is None:
            if found.objection != self._before.objection:
                withheld = f"services not deregistered: {found.objection}"
                over = "no change waits for an operator's consent"
                log(withheld if found.objection else over, level=WARNING if found.objection else INFO)
            self._log_lasting(found)
        self._before = found

    def _log_trouble(self, trouble: SvcagentError | None) -> None:
        kind = _kind(trouble)
        if kind == self._trouble:
            return
        now = self._clock.monotonic()
        if trouble is not None:
            if not self._trouble:
                self._since = now
            log(f"{trouble}. Registered services are not changed; svcagent retries until it succeeds", level=WARNING)
        else:
            whose = "Consul answers again" if self._trouble == _UNREACHABLE else "registration succeeds again"
            log(f"{whose} after {length(timedelta(seconds=now - self._since))}")
        self._trouble = kind

    def _log_faults(self, found: ConvergenceResult) -> None:
        before = self._before.faults
        for fault in found.faults:
            if fault not in before:
                log(str(fault), level=WARNING, file=fault.file)
        files, files_before = {one.file for one in found.faults}, {one.file for one in before}
        for file in sorted((files - files_before) & {str(one.file) for one in found.definitions}):
            log(f"{file}: not applied; its last good version stays active", file=file)
        for file in sorted(files_before - files):
            log(f"{file}: no faults any more", file=file)

    def _log_lasting(self, found: ConvergenceResult) -> None:
        refused = {one.service_id: f"not changed: {one.why}" for one in found.refused}
        self._log_changes("refused", refused, "no conflict any more")
        failed = {service_id: f"not registered as defined: {error}" for service_id, error in found.failed}
        self._log_changes("failed", failed, "registered as defined, or not defined any more")
        kept = dict.fromkeys(found.kept, "stays registered: no valid file defines it, but a file with faults may")
        self._log_changes("kept", kept, "defined again, or deregistered")
        failing = {
            str(one.target): "stays in maintenance, although it has expired, because its checks do not pass: "
            + "; ".join(f"check {check.id} is {check.status}" for check in one.failing)
            for one in found.ended
            if not one.may_be_disabled
        }
        self._log_changes("failing", failing, "expired maintenance is no longer kept because of failing checks")

    def _log_changes(self, sort: str, found: Mapping[str, str], is_over: str) -> None:
        before = self._lasting.get(sort, {})
        for name, text in found.items():
            if before.get(name) != text:
                log(f"{name}: {text}", level=WARNING, service=name)
        for name in before.keys() - found.keys():
            log(f"{name}: {is_over}", service=name)
        self._lasting[sort] = dict(found)


def _kind(trouble: SvcagentError | None) -> tuple[str, ...]:
    """Return what identifies a failure. An unreachable agent has changing errors, which count as one."""
    if trouble is None:
        return ()
    return _UNREACHABLE if isinstance(trouble, Unreachable) else (type(trouble).__name__, str(trouble))
