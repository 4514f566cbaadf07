"""Find the service for a NAME in verbs about the whole fleet: this host need not define it."""

from agent.cli import context
from agent.consul import Consul
from agent.definitions import Definition, Settings
from agent.errors import BadDefinition
from agent.fleet import is_known


def service_of(chosen: Settings, consul: Consul, name: str) -> str:
    """Return the name of a service that this host defines, by its name or ID, or that Consul knows.

    Faulty definitions do not prevent an operator from stopping a fleet. A usage error lists the existing names.
    """
    loaded = context.definitions_without_agent(chosen)
    services = [one for definition in loaded.definitions for one in definition.services]
    # Consul compares names without case.
    defined = next((one.name for one in services if name == one.id or name.lower() == one.name.lower()), None)
    if defined is not None:
        return defined
    # Consul cannot look up a name with a slash.
    if "/" not in name and (consul.instances(name)[1] or is_known(consul, name)):
        return name
    if faults := loaded.faults_of(name):
        raise BadDefinition(list(faults))
    raise context.unknown_name(name, loaded.definitions, f", neither in Consul nor in {chosen.services_dir}")


def defined_here(chosen: Settings, service: str) -> tuple[Definition, ...]:
    """Return this host's definitions of the service; none if its file has faults, which other verbs report."""
    found = context.definitions_without_agent(chosen).definitions
    return tuple(one for one in found if one.service.name == service)


def lock_prefix_of(chosen: Settings, service: str) -> str | None:
    """Return the prefix of a service's lock; None if the service is not defined here, or its file has faults."""
    return next(
        (
            one.reload.lock_prefix(one.service.name)
            for one in context.definitions_without_agent(chosen).definitions
            if one.reload is not None and one.service.name.lower() == service.lower()
        ),
        None,
    )
