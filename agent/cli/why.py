import os
from dataclasses import asdict, replace

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_warning
from agent.definitions import EXAMPLE_ADDRESS, ReloadSection, Service, Settings
from agent.errors import SvcagentError
from agent.fleet import HostState, SeenDigests, find_suspects
from agent.reload.build import drain_dns, engine_of
from agent.reload.checks import CheckedInstance
from agent.reload.host_lock import HostLock
from agent.reload.probe import Prober
from agent.reload.restart import Restarter, restarter
from agent.reload.survey import InstanceSurvey
from agent.reload.why import Explanation, WhySources, explain


@click.command(epilog="\b\nExamples:\n  svcagent why keyword-suggest\n  svcagent --json why keyword-suggest")
@click.argument("name", shell_complete=context.complete_name)
@output_options
def why(name: str) -> int:
    """Show everything that blocks this host from the newest image of NAME, and who can clear it.

    Lists every obstacle, not only the first: a pause, a quarantined or suspect version, closed windows, too few passing
    instances, maintenance, a stopped container, a check that svcagent cannot judge as Consul does, the lock, a reload
    that runs, and Consul, Docker or the registry if they do not answer. Changes nothing. A container that does not run
    is always reported. The exit code is 0 if nothing blocks the reload or there is nothing newer, else 75; if a
    server does not answer, or a container or image does not exist, it is that of a reload (69, 1).
    """
    settings, clock = context.settings(), context.system_clock()
    definition, section = context.reloaded_definition(settings, name, lambda: _address(settings))
    service = definition.service
    host_lock = HostLock(context.state_directory(settings, is_needed=False), service.id, clock, 0.0)
    with context.consul(settings) as consul, engine_of(settings, clock) as engine:
        how = restarter(section.strategy, service, engine, settings.state_dir, os.environ, clock)
        checked = CheckedInstance(service, section, consul, engine, Prober(), clock)
        found = explain(_sources(settings, checked, how, host_lock))
    if current().as_json:
        show_document(_document(service, found))
    else:
        _show(service, found, section)
    return found.exit_code


def _sources(settings: Settings, checked: CheckedInstance, how: Restarter, host_lock: HostLock) -> WhySources:
    """Return what `explain` needs. If Consul does not answer, its DNS does not either."""
    service, reload, consul, clock = checked.service, checked.section, checked.consul, checked.clock
    survey = InstanceSurvey(checked)
    sources = WhySources(
        service, reload, consul, how, clock, host_lock, settings.state_dir, (), lambda: survey.take().differences
    )
    try:
        agent = consul.agent_self()
    except SvcagentError:  # one of the reasons already
        return sources

    def find_suspect(digest: str) -> HostState | None:
        own = (agent.node, service.id)
        found = find_suspects(consul, service.name, reload.lock_prefix(service.name), digest, own)
        return next(iter(found), None)

    def trusts(digest: str) -> bool:
        return settings.fleet.trust_pins or SeenDigests(settings.state_dir, service.name).knows(reload.image, digest)

    return replace(sources, drain_dns=drain_dns(settings, agent), suspect=find_suspect, trusts=trusts)


def _address(chosen: Settings) -> str:
    """Return the agent's address, for files that refer to it. An agent that does not answer is one of the reasons."""
    try:
        with context.consul(chosen) as consul:
            return consul.agent_self().address
    except SvcagentError:
        return EXAMPLE_ADDRESS


def _show(service: Service, found: Explanation, reload: ReloadSection) -> None:
    if found.stopped is not None and found.unfinished is None:
        show_warning(f"{service.id}: {found.stopped}", service=service.id)
    runs = "runs" if found.stopped is None else "does not run; its container has"
    if found.is_newest:
        show_line(f"{service.name} {runs} the newest image already: {found.newest}", None if found.stopped else "green")
    elif found.newest is not None:
        show_line(f"{service.name} {runs} {found.running or 'an unknown digest'}; the newest is {found.newest}")
    elif reload.restart is not None:
        show_line(f"{service.name} is restarted by a command at every reload: no image could be newer")
    if not found.reasons and not found.is_newest:
        show_line(f"nothing blocks it; run: svcagent reload {service.name}", "green")
    if found.reasons and found.is_newest:
        show_line("the next reload is blocked by:")
    for reason in found.reasons:
        show_line(f"- {reason}", None if found.is_newest else "yellow")


def _document(service: Service, found: Explanation) -> dict[str, object]:
    return {
        "service": service.name,
        "running": found.running,
        "newest": found.newest,
        "wanted": found.wanted,
        "is_newest": found.is_newest,
        "stopped": str(found.stopped) if found.stopped is not None and found.unfinished is None else None,
        "reasons": [asdict(reason) for reason in found.reasons],
    }
