"""From options to the things that verbs work with: settings, definitions, connections. Imported by verbs only."""

import contextlib
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent.cli.options import current
from agent.cli.output import set_up_logs
from agent.clock import Clock, Deadline, SystemClock
from agent.consul import AgentSelf, Consul
from agent.definitions import (
    ADDRESS,
    ANY_ADDRESS,
    Definition,
    Service,
    Settings,
    defining,
    durations,
    load,
    untrusted,
    values_of,
)
from agent.errors import BadDefinition, ConsulUnreachable, Fault
from agent.files import Untrusted, make_private_directory
from agent.logs import log
from agent.text import quoted_command

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


def settings() -> Settings:
    """The settings file, the environment and the options, the later winning over the earlier."""
    options = current()
    found = Settings.load(
        Path(options.config) if options.config else None,
        os.environ,
        services_dir=options.services_dir,
        state_dir=options.state_dir,
    )
    set_up_logs(options, found.log.format)
    return found


def state_directory(chosen: Settings) -> Path:
    """Return the state directory; it is created (0700) if its parent exists, and nobody else may write in it."""
    directory = chosen.state_dir
    try:
        make_private_directory(directory)
    except Untrusted as error:
        fault = untrusted(str(directory), error)
        if owner := _service_user(directory):
            as_owner = (
                f"run svcagent as {owner}, whose state directory it is: {quoted_command(['sudo', '-u', owner])} …"
            )
            fault = replace(fault, remedy=f"{as_owner}; or, if svcagent is to run as root: {fault.remedy}")
        raise BadDefinition([fault]) from error
    except OSError as error:
        remedy = "create it (mode 0700), or name another with --state-dir or SVCAGENT_STATE_DIR"
        problem = "no such directory" if isinstance(error, FileNotFoundError) else f"cannot be used: {error.strerror}"
        raise BadDefinition([Fault(str(directory), "", problem, remedy)]) from error
    return directory


def _service_user(directory: Path) -> str:
    """Return the user that owns the directory, if root runs svcagent where another user usually does; else ""."""
    with contextlib.suppress(OSError, KeyError):
        owner = directory.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            return pwd.getpwuid(owner).pw_name
    return ""


@contextlib.contextmanager
def consul(chosen: Settings) -> Iterator[Consul]:
    """A connection to the local agent, closed at the end."""
    if chosen.consul.address.startswith("https://") and not chosen.consul.verify:
        log("its certificate is not verified, as CONSUL_HTTP_SSL_VERIFY says", consul=chosen.consul.address)
    connection = Consul(chosen.consul)
    try:
        yield connection
    finally:
        connection.close()


def await_agent(connection: Consul, clock: Clock, wait: float, say: Any) -> AgentSelf:
    """The local agent, waited for up to ``wait`` seconds with growing pauses; says once that it waits."""
    deadline = Deadline.after(clock, wait)
    pause = FIRST_PAUSE
    while True:
        try:
            return connection.agent_self()
        except ConsulUnreachable as error:
            if deadline.is_over:
                raise
            if pause == FIRST_PAUSE:
                say(f"{error}. Waiting up to {wait:.0f} s for it")
        clock.sleep(min(pause, deadline.remaining))
        pause = min(2 * pause, LONGEST_PAUSE)


def definitions(chosen: Settings, ask_address: Callable[[], str] | None = None) -> tuple[Definition, ...]:
    """The definitions, with what differs from host to host filled in.

    ``ask_address`` gives the agent's advertised address; it is asked only if a file refers to it and no file has a
    fault. Without it the local agent is asked, at once.
    """
    found = placeheld_definitions(chosen)
    if not any(ADDRESS in definition.names_used for definition in found):
        return found
    address = ask_address() if ask_address else _address(chosen)
    return load(chosen.services_dir, values(address))


def placeheld_definitions(chosen: Settings) -> tuple[Definition, ...]:
    """The definitions as they can be read without an agent: ``${ADDRESS}`` stands for `ANY_ADDRESS`."""
    return load(chosen.services_dir, values(ANY_ADDRESS))


def values(address: str) -> dict[str, str]:
    """What references like ``${HOSTNAME}`` stand for on this host, whose agent advertises that address."""
    return values_of(os.environ, socket.gethostname(), address)


def _address(chosen: Settings) -> str:
    with consul(chosen) as connection:
        return connection.agent_self().address


def definition_of(chosen: Settings, name: str, ask_address: Callable[[], str] | None = None) -> Definition:
    """The one definition whose service is called ``name``. A usage error lists the names there are.

    ``ask_address`` as in `definitions`.
    """
    found = definitions(chosen, ask_address)
    definition = defining(found, name)
    if definition is None:
        raise unknown_name(name, [service for one in found for service in one.services], chosen.services_dir)
    return definition


def unknown_name(name: str, services: list[Service], directory: Path) -> click.BadParameter:
    """What to say about a NAME that nothing has."""
    names = ", ".join(sorted({service.name for service in services})) or "none"
    return click.BadParameter(f"no service is called {name!r} in {directory}; there is: {names}", param_hint="NAME")


def complete_name(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of a service's name."""
    try:
        names = {service.name for definition in placeheld_definitions(settings()) for service in definition.services}
    except BadDefinition:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


class GoDuration(click.ParamType[float]):
    """``90s``, ``1m30s``, ``2h`` on the command line, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, or a usage error."""
        if isinstance(value, int | float):
            return float(value)
        try:
            found = durations.seconds(value)
        except durations.NotADuration:
            found = -1.0
        if found < 0:
            self.fail(f'{value!r} is not a duration; write a number with a unit, like "90s" or "1h30m"', param, ctx)
        return found


def system_clock() -> Clock:
    """The machine's clock."""
    return SystemClock()


def drain_dns(settings: Settings, agent: AgentSelf) -> tuple[tuple[str, int], ...]:
    """Return the DNS servers that clients ask: as set, else the local agent, unless its DNS is switched off."""
    if not settings.drain_dns:
        return (agent.dns,) if agent.dns else ()
    split = (server.rpartition(":") for server in settings.drain_dns)
    return tuple((host.strip("[]"), int(port)) for host, _, port in split)
