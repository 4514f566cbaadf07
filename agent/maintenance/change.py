"""Enables and disables maintenance without touching another owner's.

The local agent has a change first; the catalog shows it a moment later, or when a server answers again. So every change
has two parts: the write, which is read back from the agent, and `await_shown`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.clock import Clock, Deadline
from agent.consul import Consul
from agent.errors import Conflict, ConsulUnreachable, NotFound, OutcomeUnknown
from agent.maintenance.reason import Maintenance, parse, render
from agent.maintenance.target import MaintenanceTarget

CATALOG_SECONDS = 30.0
RETRY_SECONDS = 0.5


def enable_maintenance(
    consul: Consul, target: MaintenanceTarget, wanted: Maintenance, *, is_rewrite: bool = False
) -> None:
    """Enable this maintenance on the local agent.

    If maintenance is enabled already, Consul answers 200 and keeps the first reason, so the reason is read back.
    ``is_rewrite`` changes the reason of an enabled maintenance. It is one write to one check: there is neither a
    moment in service nor an intermediate state after a crash.

    :raises Conflict: another owner's maintenance is enabled; it stays as it is.
    :raises NotFound: the service is not registered here.
    :raises OutcomeUnknown: the agent did not answer in time; it may or may not be enabled.
    """
    text = render(wanted)
    with _unknown(target, "is out of service"):
        if is_rewrite:
            consul.rewrite_maintenance(target.service_id, text)
        elif target.service_id:
            consul.enable_maintenance(target.service_id, text)
        else:
            consul.enable_node_maintenance(text)
    held = held_text(consul, target)
    if held != text:
        raise _changed_meanwhile(target, held)


def disable_own_maintenance(consul: Consul, target: MaintenanceTarget, own: Maintenance) -> bool:
    """Disable exactly this maintenance; return False if none or another one is enabled.

    :raises OutcomeUnknown: the agent did not answer in time; it may or may not be disabled.
    """
    held = held_text(consul, target)
    if held is None or held != render(own):
        return False
    try:
        with _unknown(target, "is in service again"):
            if target.service_id:
                consul.disable_maintenance(target.service_id)
            else:
                consul.disable_node_maintenance()
    except NotFound:
        return False
    return True


def await_shown(
    consul: Consul,
    clock: Clock,
    target: MaintenanceTarget,
    wanted: Maintenance | None,
    seconds: float = CATALOG_SECONDS,
) -> None:
    """Wait until the catalog shows this maintenance on the target, or none if ``wanted`` is None.

    :raises Conflict: the agent holds a different one, because another process changed it meanwhile.
    :raises OutcomeUnknown: the catalog did not show it within ``seconds``.
    """
    text = render(wanted) if wanted is not None else None
    deadline = Deadline.after(clock, seconds)
    index: int | None = None
    while True:
        failure: ConsulUnreachable | None = None
        try:
            index, checks = consul.node_checks(target.node, index, min(5.0, deadline.remaining))
            shown = checks[target.check_id].notes if target.check_id in checks else None
            if checks and shown == text:  # no checks at all: the token may not read the node
                return
        except ConsulUnreachable as error:
            failure, index = error, None
        held = held_text(consul, target)
        if held != text:
            raise _changed_meanwhile(target, held)
        if deadline.is_over:
            raise OutcomeUnknown(
                f"unknown whether clients see it: the local agent has {'disabled' if text is None else 'enabled'} "
                f"maintenance of {target}, but Consul's catalog did not show that within "
                f"{seconds:g} s{f' ({failure})' if failure else ''}. {_how_to_check(target)}"
            ) from failure
        if failure is not None:
            clock.sleep(RETRY_SECONDS)


def held_text(consul: Consul, target: MaintenanceTarget) -> str | None:
    check = consul.checks().get(target.check_id)
    return check.notes if check is not None else None


@contextmanager
def _unknown(target: MaintenanceTarget, state: str) -> Iterator[None]:
    """Explain what is unknown after a write without an answer, and how to find out."""
    try:
        yield
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"unknown whether {target} {state}: {error}. {_how_to_check(target)}") from error


def _how_to_check(target: MaintenanceTarget) -> str:
    return (
        "When Consul answers again, run the same command again (it is safe to repeat), "
        f"or run: svcagent maint status {target.argument}"
    )


def _changed_meanwhile(target: MaintenanceTarget, held: str | None) -> Conflict:
    now = "it is in service" if held is None else f"it is in maintenance, enabled {parse(held).describe()}"
    return Conflict(
        f"another process changed the maintenance of {target} at the same moment: {now}. Run the command again",
        kind="maintenance-changed",
    )
