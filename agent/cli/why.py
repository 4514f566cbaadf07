"""``svcagent why``."""

import contextlib
import os
from dataclasses import asdict

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.definitions import ANY_ADDRESS, Reload, Service, Settings
from agent.engine import Engine
from agent.errors import NotNow, SvcagentError
from agent.reload.host_lock import HostLock
from agent.reload.restart import restarter
from agent.reload.why import Explanation, Inquiry, explain


@click.command(epilog="\b\nExamples:\n  svcagent why keyword-suggest\n  svcagent --json why keyword-suggest")
@click.argument("name", shell_complete=wiring.complete_name)
@output_options
def why(name: str) -> int:
    """Show everything that stands between this host and the newest image of NAME, and who can clear it.

    Changes nothing. The exit code is 0 when nothing stands in the way, or there is nothing newer; 75 when something
    does, also that Consul, Docker or the registry cannot be asked.
    """
    settings, clock = wiring.settings(), wiring.system_clock()
    definition = wiring.definition_of(settings, name, lambda: _address(settings))
    if definition.reload is None:
        raise click.BadParameter(f"{definition.file} has no reload section for {name}", param_hint="NAME")
    service = definition.service
    host_lock = HostLock(wiring.state_directory(settings), service.id, clock, 0.0)
    with (
        wiring.consul(settings) as consul,
        contextlib.closing(Engine(settings.docker.host, os.environ, clock)) as engine,
    ):
        how = restarter(definition.reload.strategy, service.id, engine, os.environ, clock)
        found = explain(service, definition.reload, Inquiry(consul, how, clock, host_lock))
    if current().as_json:
        show_document(_document(service, found))
    else:
        _show(service, found, definition.reload)
    return NotNow.exit_code if found.reasons and not found.is_newest else 0


def _address(chosen: Settings) -> str:
    """The agent's, for files that refer to it; that it cannot be asked will be one of the reasons."""
    try:
        with wiring.consul(chosen) as consul:
            return consul.agent_self().address
    except SvcagentError:
        return ANY_ADDRESS


def _show(service: Service, found: Explanation, reload: Reload) -> None:
    if found.is_newest:
        show_line(f"{service.name} runs the newest image already: {found.newest}", "green")
    elif found.newest is not None:
        show_line(f"{service.name} runs {found.running or 'an unknown digest'}; the newest is {found.newest}")
    elif reload.restart is not None:
        show_line(f"{service.name} is restarted by a command at every reload: no image could be newer")
    if not found.reasons and not found.is_newest:
        show_line(f"nothing stands in the way; run: svcagent reload {service.name}", "green")
    if found.reasons and found.is_newest:
        show_line("in the way of the next one stands:")
    for reason in found.reasons:
        show_line(f"- {reason}", None if found.is_newest else "yellow")


def _document(service: Service, found: Explanation) -> dict[str, object]:
    return {
        "service": service.name,
        "running": found.running,
        "newest": found.newest,
        "wanted": found.wanted,
        "is_newest": found.is_newest,
        "reasons": [asdict(reason) for reason in found.reasons],
    }
