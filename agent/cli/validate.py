import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_faults, show_line, show_warning
from agent.consul import AgentSelf
from agent.daemon.schedule import schedule_of
from agent.definitions import ADDRESS, EXAMPLE_ADDRESS, Definition, Settings, load_valid
from agent.errors import BadDefinition, SvcagentError
from agent.registration import unmet_requirements
from agent.text import counted

LIKE_JSON = frozenset({".json", ".json5", ".jsonc", ".jsn"})
"""Suffixes of files that may be meant as definitions, in lower case; only ``.json`` itself is read."""

OTHER_FORMATS = frozenset({".hcl", ".toml", ".yaml", ".yml"})
"""Suffixes of files that other tools would read as definitions."""


@click.command(
    epilog="Example: svcagent --services-dir ./services.d validate",
    context_settings={"allow_extra_args": True},
)
@output_options
@click.pass_context
def validate(ctx: click.Context) -> int:
    """Check all definition files, and change nothing.

    If the local Consul agent answers, a definition that needs a newer agent is a fault too. Faults go to standard
    error, each with its file, the place in it, and the correction; the exit code is 78. Warnings do not change the exit
    code: a schedule that never falls into its windows, and files that are ignored because they are not named *.json.
    """
    if ctx.args:
        raise click.UsageError("validate checks all definition files; to check another directory, use --services-dir")
    settings = context.settings()
    directory = settings.services_dir
    found = load_valid(directory, context.host_values(EXAMPLE_ADDRESS))
    files = len(found.definitions) + len(found.skipped)
    if found.faults and not files:  # the directory cannot be read
        raise BadDefinition(list(found.faults))
    definitions = found.definitions
    warnings = [*_never_due(definitions), *_ignored(directory)]
    for warning in warnings:
        show_warning(warning)
    agent = _agent(settings)
    faults = [*found.faults, *(unmet_requirements(definitions, agent) if agent is not None else ())]
    if faults:
        faulty = len({fault.file for fault in faults})
        error = BadDefinition(faults)
        show_faults(error, f"{counted(len(faults), 'error')} in {faulty} of {counted(files, 'file')}")
        return error.exit_code
    if current().as_json:
        version = agent.version if agent is not None else None
        document = {"directory": str(directory), "definitions": len(definitions), "faults": []}
        show_document({**document, "warnings": warnings, "consul_version": version})
    for definition in definitions:
        show_line(f"{definition.file}: {', '.join(service.name for service in definition.services) or 'no service'}")
    if any(ADDRESS in definition.names_used for definition in definitions):
        show_line(
            f"validate uses {EXAMPLE_ADDRESS} for ${{{ADDRESS}}}; register uses the address of the local Consul agent"
        )
    if agent is None:
        show_line("the Consul agent did not answer; whether its version supports the definitions was not checked")
    services = [service for definition in definitions for service in definition.services]
    summary = f"{counted(len(definitions), 'definition')}, {counted(len(services), 'service')}, no faults"
    show_line(summary, "yellow" if warnings else "green")
    return 0


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
        suffix = file.suffix.lower()
        if file.name.startswith(".") or file.suffix == ".json":
            continue
        if suffix in LIKE_JSON:
            yield f"{file} is ignored: definition files are named *.json. Rename it to {file.stem}.json"
        elif suffix in OTHER_FORMATS:
            yield (
                f"{file} is ignored: definition files are JSON, named *.json. Convert it to {file.stem}.json (for its "
                "format, see: svcagent schema), or move it elsewhere"
            )


def _agent(settings: Settings) -> AgentSelf | None:
    """Return the local agent, or None if it does not answer or refuses the request."""
    try:
        with context.consul(settings) as consul:
            return consul.agent_self()
    except SvcagentError:
        return None
