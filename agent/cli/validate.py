import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_warning
from agent.consul import AgentSelf
from agent.daemon.schedule import schedule_of
from agent.definitions import ADDRESS, EXAMPLE_ADDRESS, Definition, Settings, load
from agent.errors import BadDefinition, SvcagentError
from agent.registration import unmet_requirements
from agent.text import counted

NO_DEFINITIONS = frozenset({".hcl", ".yaml", ".yml"})
"""Suffixes of files that other tools would read as definitions."""


@click.command(
    epilog="Example: svcagent --services-dir ./services.d validate",
)
@output_options
def validate() -> None:
    """Show every fault of every definition, and change nothing.

    Where the local Consul agent answers, what it is too old for is a fault as well. Faults go to standard error, each
    with its file, the place in it, and what would be right; the exit code is 78. Warnings do not change the exit code:
    a schedule that never falls into its windows, and files that are ignored because they are not JSON.
    """
    settings = context.settings()
    directory = settings.services_dir
    definitions = load(directory, context.host_values(EXAMPLE_ADDRESS))
    agent = _agent(settings)
    if agent is not None and (faults := unmet_requirements(definitions, agent)):
        raise BadDefinition(faults)
    services = [service for definition in definitions for service in definition.services]
    warnings = [*_never_due(definitions), *_ignored(directory)]
    for warning in warnings:
        show_warning(warning)
    if current().as_json:
        version = agent.version if agent is not None else None
        document = {"directory": str(directory), "definitions": len(definitions), "faults": []}
        show_document({**document, "warnings": warnings, "consul_version": version})
    for definition in definitions:
        show_line(f"{definition.file}: {', '.join(service.name for service in definition.services) or 'no service'}")
    if any(ADDRESS in definition.names_used for definition in definitions):
        show_line(f"${{{ADDRESS}}} is {EXAMPLE_ADDRESS} here; register uses the address of the Consul agent")
    if agent is None:
        show_line("the Consul agent did not answer: whether it is too old for a definition was not checked")
    found = f"{counted(len(definitions), 'definition')}, {counted(len(services), 'service')}, no faults"
    show_line(found, "yellow" if warnings else "green")


def _never_due(definitions: Iterable[Definition]) -> Iterator[str]:
    now = context.system_clock().now()
    for definition in definitions:
        try:
            schedule = schedule_of(definition, os.uname().nodename, os.environ)
        except SvcagentError as error:  # the host's time zone is not known
            yield f"{definition.file}: reload.schedule: {error}"
            continue
        if schedule is not None and schedule.after(now) is None:
            yield f"{definition.file}: reload.schedule: {schedule.why_never()}"


def _ignored(directory: Path) -> Iterator[str]:
    for file in sorted(directory.iterdir()):
        if file.suffix.lower() in NO_DEFINITIONS and not file.name.startswith("."):
            yield (
                f"{file} is ignored: definitions are JSON, in files *.json. Convert it to {file.stem}.json (for its "
                "format, see: svcagent schema), or move it elsewhere"
            )


def _agent(settings: Settings) -> AgentSelf | None:
    """Return the local agent, or None if it does not answer or refuses to identify itself."""
    try:
        with context.consul(settings) as consul:
            return consul.agent_self()
    except SvcagentError:
        return None
