"""The warning of every verb about a service whose container is stopped, and how to start it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent import logs
from agent.cli.output import show_warning
from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, Consul
from agent.definitions import ContainerRestart, Definition, Settings
from agent.engine.stopped import find_stopped
from agent.errors import DockerUnreachable
from agent.reload.journal import journalled

if TYPE_CHECKING:  # the Docker SDK is slow to import, and registering without a container needs none
    from agent.engine.client import Engine


def warn_of_stopped(settings: Settings, consul: Consul, engine: "Engine", definitions: Iterable[Definition]) -> None:
    """Warn of each service whose container does not run, unless maintenance or a reload explains that.

    An operator must not start a container that a running or crashed reload is replacing. If Docker does not answer,
    only log that: verbs that need it report it themselves.
    """
    reloaded = journalled(settings.state_dir)
    try:
        named = {
            one.service.id: name for one in definitions if one.service.id not in reloaded and (name := _container(one))
        }
        found = {one: stopped for one, name in named.items() if (stopped := find_stopped(name, engine.find(name)))}
    except DockerUnreachable as error:
        logs.log(f"stopped containers not determined: {error}")
        return
    checks = consul.checks() if found else {}
    for service_id, stopped in found.items():
        if NODE_MAINTENANCE not in checks and f"{SERVICE_MAINTENANCE}{service_id}" not in checks:
            show_warning(f"{service_id}: {stopped}", service=service_id)


def check_for_stopped(settings: Settings, consul: Consul, definitions: Iterable[Definition]) -> None:
    """Do the same for a verb that does not use Docker otherwise."""
    definitions = [one for one in definitions if _container(one)]
    if definitions:
        from agent.cli import context
        from agent.reload.build import engine_of

        with engine_of(settings, context.system_clock()) as engine:
            warn_of_stopped(settings, consul, engine, definitions)


def _container(definition: Definition) -> str:
    strategy = definition.reload.strategy if definition.reload is not None else None
    return strategy.container if isinstance(strategy, ContainerRestart) else ""
