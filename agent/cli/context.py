"""Make what verbs work with from the options: settings, definitions, connections. Only verbs import it."""

import contextlib
import os
import pwd
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import click

from agent.cli.options import current
from agent.cli.output import set_up_logs, show_fault
from agent.clock import Clock, Deadline, SystemClock
from agent.consul import AgentSelf, Consul
from agent.definitions import (
    ADDRESS,
    EXAMPLE_ADDRESS,
    Definition,
    Loaded,
    ReloadSection,
    Settings,
    durations,
    find_definition,
    load_valid,
    reference_values,
    untrusted,
)
from agent.errors import BadDefinition, ConsulUnreachable, Fault
from agent.files import Untrusted, make_private_directory
from agent.logs import log
from agent.text import quoted_command

Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[str]]

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


def settings() -> Settings:
    """Return the settings of the file, the environment and the options; later ones override earlier ones."""
    options = current()
    found = Settings.load(
        Path(options.config) if options.config else None,
        os.environ,
        services_dir=options.services_dir,
        state_dir=options.state_dir,
    )
    set_up_logs(options, found.log.format)
    return found


def state_directory(chosen: Settings, *, is_needed: bool = True) -> Path:
    """Return the state directory; no other user may write in it.

    If it is needed and its parent exists, it is created (0700). A verb that only reads needs none.
    """
    directory = chosen.state_dir
    try:
        if is_needed or directory.exists():
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
    """Return the directory's owner, if root runs svcagent where another user usually does; else ""."""
    with contextlib.suppress(OSError, KeyError):
        owner = directory.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            return pwd.getpwuid(owner).pw_name
    return ""


@contextlib.contextmanager
def consul(chosen: Settings) -> Iterator[Consul]:
    if chosen.consul.address.startswith("https://") and not chosen.consul.verify:
        log("its certificate is not verified, as CONSUL_HTTP_SSL_VERIFY says", consul=chosen.consul.address)
    connection = Consul(chosen.consul)
    try:
        yield connection
    finally:
        connection.close()


def await_agent(connection: Consul, clock: Clock, wait: float, say: Any) -> AgentSelf:
    """Return the local agent. Wait for it up to ``wait`` seconds with growing pauses, and print that once."""
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


def definitions(chosen: Settings, names: Collection[str] = (), ask_address: Callable[[], str] | None = None) -> Loaded:
    """Return the definitions of the good files, and report the faults of the others.

    ``names`` are the services that the verb is about, by name or ID. Without names it is about all services, and ends
    with 78 if any file has a fault. ``ask_address`` returns the agent's advertised address; it is called only if a file
    refers to it. Without it the local agent is asked.

    :raises BadDefinition: a faulty file may define a named service, or no file is good.
    :raises click.BadParameter: no file defines a named service.
    """
    found = good_definitions(chosen, ask_address)
    for name in names:
        if find_definition(found.definitions, name) is None:
            if faults := found.faults_of(name):
                raise BadDefinition(list(faults))
            raise unknown_name(name, found.definitions, f" in {chosen.services_dir}")
    leave_out_faulty_files(found.faults, found.definitions, is_all=not names)
    return found


def good_definitions(chosen: Settings, ask_address: Callable[[], str] | None = None) -> Loaded:
    """Return the definitions of the good files, with host-specific values filled in. Report no fault."""
    found = definitions_without_agent(chosen)
    if not any(ADDRESS in definition.names_used for definition in found.definitions):
        return found
    address = ask_address() if ask_address else _address(chosen)
    return load_valid(chosen.services_dir, host_values(address))


def definitions_without_agent(chosen: Settings) -> Loaded:
    """Return the definitions as they can be read without an agent: ``${ADDRESS}`` becomes `EXAMPLE_ADDRESS`."""
    return load_valid(chosen.services_dir, host_values(EXAMPLE_ADDRESS))


def leave_out_faulty_files(faults: Collection[Fault], good: Collection[Definition], *, is_all: bool) -> None:
    """Warn once of the faults of files that the verb leaves out. ``is_all``: the verb is about all files' services.

    :raises BadDefinition: no file is good.
    """
    options = current()
    if faults and not good:
        raise BadDefinition(list(faults))
    for fault in faults:
        if fault not in options.faults:
            options.faults += (fault,)
            show_fault(fault)
    if faults and is_all:
        options.least_exit_code = BadDefinition.exit_code


def host_values(address: str) -> dict[str, str]:
    """Return the values of references like ``${HOSTNAME}`` on this host, whose agent advertises that address."""
    return reference_values(os.environ, socket.gethostname(), address)


def _address(chosen: Settings) -> str:
    with consul(chosen) as connection:
        return connection.agent_self().address


def definition_of(chosen: Settings, name: str, ask_address: Callable[[], str] | None = None) -> Definition:
    """Return the one definition whose service is called ``name``. Faults and ``ask_address`` as in `definitions`."""
    definition = find_definition(definitions(chosen, [name], ask_address).definitions, name)
    assert definition is not None  # noqa: S101 - for mypy: `definitions` raises
    return definition


def reloaded_definition(
    chosen: Settings, name: str, ask_address: Callable[[], str] | None = None
) -> tuple[Definition, ReloadSection]:
    """Return the definition and its reload section; a definition without one is a usage error."""
    definition = definition_of(chosen, name, ask_address)
    if definition.reload is None:
        raise click.BadParameter(f"{definition.file} has no reload section for {name}", param_hint="NAME")
    return definition, definition.reload


def unknown_name(name: str, found: Collection[Definition], where: str) -> click.BadParameter:
    """Return the usage error of a service that is not there. ``where``: the places that were searched."""
    names = sorted({service.name for one in found for service in one.services})
    there = ", ".join(names) or "none"
    text = f"no service is called {name!r}{where}; there is: {there}{did_you_mean(name, names)}"
    return click.BadParameter(text, param_hint="NAME")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the name that it resembles, if there is one."""
    import difflib  # only after a mistake

    near = difflib.get_close_matches(name, list(names), n=1)
    return f". Did you mean {near[0]}?" if near else ""


def completer(names_of: Callable[[Definition], Iterable[str]]) -> Completer:
    """Return a shell completion of names that valid definitions have."""

    def complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            found = definitions_without_agent(settings()).definitions
        except BadDefinition:
            return []
        return sorted({name for one in found for name in names_of(one) if name.startswith(incomplete)})

    return complete


complete_name = completer(lambda definition: (service.name for service in definition.services))


class GoDuration(click.ParamType[float]):
    """``90s``, ``1m30s``, ``2h`` on the command line, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            found = durations.seconds(value)
        except durations.InvalidDuration:
            found = -1.0
        if found < 0:
            self.fail(f'{value!r} is not a duration; write a number with a unit, like "90s" or "1h30m"', param, ctx)
        return found


def system_clock() -> Clock:
    return SystemClock()
