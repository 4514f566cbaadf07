"""Putting a service out and back, so that nobody's maintenance is taken over or lifted by mistake."""

from agent.clock import Clock, Deadline
from agent.consul import CheckState, Consul
from agent.errors import Conflict, NotFound, OutcomeUnknown
from agent.maintenance.reason import Maintenance, OwnerKind, parse, render

CATALOG_SECONDS = 30.0


def put_out(consul: Consul, clock: Clock, service_id: str, name: str, node: str, wanted: Maintenance) -> None:
    """Take an instance out and return when the catalog shows it.

    Consul answers 200 and keeps the first reason when the service is out already, so the reason is read back.

    :raises Conflict: somebody else's maintenance is on; it stays as it is.
    :raises OutcomeUnknown: Consul did not show it in time; it may or may not be on.
    """
    text = render(wanted)
    consul.enable_maintenance(service_id, text)
    await_maintenance(consul, clock, service_id, name, node, text)


def await_maintenance(consul: Consul, clock: Clock, service_id: str, name: str, node: str, text: str | None) -> None:
    """Wait until the catalog shows this maintenance text on the instance, or with None no maintenance of its own.

    :raises Conflict: it shows another maintenance than ``text``.
    :raises OutcomeUnknown: the catalog did not show it within 30 s.
    """
    deadline = Deadline.after(clock, CATALOG_SECONDS)
    index: int | None = None
    while True:
        index, instances = consul.instances(name, index, min(5.0, deadline.remaining))
        own = [one for one in instances if one.node == node and one.service_id == service_id]
        held = next((check.notes for one in own for check in one.checks if _is_own(check, service_id)), None)
        if own and held == text:
            return
        if held is not None and text is not None:
            raise Conflict(f"{service_id} is already out, taken {parse(held).describe()}")
        if deadline.is_over:
            raise OutcomeUnknown(
                f"Consul accepted the maintenance of {service_id}, but its catalog did not show the change within "
                f"{CATALOG_SECONDS:.0f} s; ask again with: svcagent maint status {service_id}"
            )


def lift_own(consul: Consul, service_id: str, own: Maintenance) -> bool:
    """Lift a maintenance if it is this very one; False when it is off or somebody else's."""
    held = held_text(consul, service_id)
    if held is None or held != render(own):
        return False
    try:
        consul.disable_maintenance(service_id)
    except NotFound:
        return False
    return True


def lift_expired(consul: Consul, clock: Clock, service_ids: list[str]) -> tuple[list[str], list[str]]:
    """Lift operators' maintenances whose end has come, on instances whose own checks pass.

    Returns the ids lifted, and the ids whose end has come but whose checks do not pass: those stay out.
    """
    lifted, kept = [], []
    services = consul.services()
    for service_id in service_ids:
        service = services.get(service_id)
        if service is None or service.maintenance is None:
            continue
        maintenance = parse(service.maintenance.notes)
        if maintenance.kind is not OwnerKind.OPERATOR or not maintenance.is_over(clock.now()):
            continue
        if all(check.status == "passing" for check in service.real_checks):
            lift_own(consul, service_id, maintenance)
            lifted.append(service_id)
        else:
            kept.append(service_id)
    return lifted, kept


def held_text(consul: Consul, service_id: str) -> str | None:
    """The reason of a service's maintenance as the local agent holds it; None when it is in service."""
    return next((check.notes for check in consul.checks().values() if _is_own(check, service_id)), None)


def _is_own(check: CheckState, service_id: str) -> bool:
    return check.id == f"_service_maintenance:{service_id}"
