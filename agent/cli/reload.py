"""``svcagent reload``."""

import dataclasses

import click

from agent.cli import wiring
from agent.cli.attach import Wanted, reload_in_daemon
from agent.cli.maint_output import tell_ended
from agent.cli.notifying import rollout_told
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_warning
from agent.cli.reload_output import Printer, show_result, tell_repaired
from agent.cli.repairing import edges_of, engine_of, repair_one
from agent.cli.textfile import reload_told
from agent.clock import Interrupts
from agent.consul import AgentSelf, Consul
from agent.engine import Engine
from agent.errors import ConsulUnreachable, Denied, SvcagentError
from agent.logs import about
from agent.maintenance import lift_expired
from agent.reload import Asked, Executor, HostLock, Journal, Step, read_journal, revive

DEFAULT_LOCK_SECONDS = 3600.0


@click.command(
    epilog="Examples: svcagent reload keyword-suggest; svcagent reload --check keyword-suggest; in cron, every ten "
    "minutes on every host: svcagent reload keyword-suggest",
)
@click.argument("name", shell_complete=wiring.complete_name)
@click.option("--check", "only_check", is_flag=True, help="Say whether there is a newer image, and stop there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what stands in the way; change nothing.")
@click.option(
    "--force",
    is_flag=True,
    help="Reload even if the newest image runs already, or it is paused, quarantined, too young, outside its windows, "
    "or too few others pass. Says what it overrides; never lifts maintenance.",
)
@click.option(
    "--in-maintenance",
    is_flag=True,
    help="Reload even if an operator holds it out, and leave it out. Without this it keeps its image until it is back.",
)
@click.option(
    "--lock-timeout",
    type=wiring.GoDuration(),
    metavar="DURATION",
    help="How long to wait for other hosts, and for another reload of NAME on this host; 0 not at all. "
    "[default: 1h for other hosts, 0 on this one]",
)
@output_options
def reload(
    name: str, *, only_check: bool, dry_run: bool, force: bool, in_maintenance: bool, lock_timeout: float | None
) -> int:
    """Take the newest image of NAME on this host, without a lost request.

    Asks the registry first: with nothing new it takes no lock and pulls nothing, and from cron prints nothing.
    Otherwise: pull, wait for this host's turn, drain, restart, wait until it is ready, put it back. Ctrl-C and
    SIGTERM put the service back before the process ends. What an earlier reload left half done when it was killed is
    brought to its end first.

    Where svcagent run runs, it does the reload and this shows it. If it reloads NAME already, this shows that reload,
    and Ctrl-C only looks away.
    """
    settings = wiring.settings()
    state_dir = wiring.state_directory(settings)
    definition = wiring.definition_of(settings, name)
    if definition.reload is None:
        raise click.BadParameter(f"{definition.file} has no reload section for {name}", param_hint="NAME")
    service = definition.service
    clock = wiring.system_clock()
    interrupts = Interrupts()
    waits = DEFAULT_LOCK_SECONDS if lock_timeout is None else lock_timeout
    changes_nothing = only_check or dry_run
    if not changes_nothing:
        wanted = Wanted(force, in_maintenance, lock_timeout)
        with interrupts.caught():
            code = reload_in_daemon(settings, service, wanted, interrupts)
        if code is not None:
            return code
    with (
        interrupts.caught(),
        # Before the lock, so that both come after it.
        rollout_told(settings, definition, interrupts, is_off=changes_nothing) as heard,
        reload_told(settings, service.name, is_off=changes_nothing) as results,
        HostLock(state_dir, service.id, clock, lock_timeout or 0.0, interrupts.allowed),
        wiring.consul(settings) as consul,
        engine_of(settings, clock) as engine,
    ):
        agent = _agent(consul, engine, None if changes_nothing else Journal(state_dir, service.id), interrupts)
        edges = heard(edges_of(settings, consul, engine, agent, definition, interrupts))
        if not changes_nothing:
            trouble: SvcagentError | None = None
            try:
                with interrupts.allowed():
                    tell_ended(lift_expired(consul, clock, agent.node, {service.id}))
            except SvcagentError as error:
                trouble = error  # what is left behind is repaired all the same
            repaired = repair_one(definition, dataclasses.replace(edges, tell=Printer(service.name).tell_quietly))
            results += repaired
            if code := tell_repaired(repaired):
                if current().as_json:
                    show_document(dataclasses.asdict(repaired[-1]))
                return code
            if trouble is not None:
                raise trouble
        asked = Asked(waits, is_forced=force, is_in_maintenance=in_maintenance)
        executor = Executor(service, definition.reload, edges, asked)
        if changes_nothing:
            return _show_check(executor, is_dry=dry_run)
        with about(service=service.name, reload=executor.result.id):
            results.append(executor.run())
            return show_result(results[-1])


def _agent(consul: Consul, engine: Engine, journal: Journal | None, interrupts: Interrupts) -> AgentSelf:
    """The local agent. If it does not answer, at least the container that a dead reload left is put right."""
    try:
        with interrupts.allowed():
            return consul.agent_self()
    except (ConsulUnreachable, Denied):
        if journal is not None and (record := read_journal(journal, show_warning)):
            revive(engine, record)
        raise


def _show_check(executor: Executor, *, is_dry: bool) -> int:
    is_newer, obstacles = executor.check()
    result = executor.result
    if current().as_json:
        document = {"service": result.service, "node": result.node, "is_newer": is_newer, "wanted": result.wanted}
        show_document(
            {
                **document,
                "obstacles": [{**dataclasses.asdict(one), "is_forceable": one.is_forceable} for one in obstacles],
            }
            if is_dry
            else document
        )
        return 0
    if not is_newer:
        show_line(f"{result.service} runs the newest {result.image} ({result.wanted})", "green")
        return 0
    show_line(f"{result.service}: {result.image} is newer than what runs: {result.wanted}")
    if is_dry:
        steps = [str(step) for step in Step if step not in (Step.CHECK, Step.ROLL_BACK, Step.END)]
        show_line(f"would do: {', '.join(steps)}")
        for obstacle in obstacles:
            show_warning(f"not now: {obstacle}")
    return 0
