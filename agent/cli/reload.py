"""``svcagent reload``."""

import contextlib
import dataclasses
import os
import sys

import click

from agent.cli import wiring
from agent.cli.maint_output import tell_ended
from agent.cli.options import current, output_options
from agent.cli.output import log, show_document, show_line, show_warning
from agent.clock import Interrupts
from agent.consul import AgentSelf
from agent.definitions import Settings
from agent.engine import Engine, PullProgress
from agent.maintenance import lift_expired
from agent.reload import Edges, Event, Executor, HostLock, Phase, Prober, Result, Step

DEFAULT_LOCK_SECONDS = 3600.0


@click.command(
    epilog="Examples: svcagent reload keyword-suggest; svcagent reload --check keyword-suggest; in cron, every ten "
    "minutes on every host: svcagent reload keyword-suggest",
)
@click.argument("name", shell_complete=wiring.complete_name)
@click.option("--check", "only_check", is_flag=True, help="Say whether there is a newer image, and stop there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what stands in the way; change nothing.")
@click.option("--force", is_flag=True, help="Reload even if the newest image runs already. The guard still holds.")
@click.option(
    "--lock-timeout",
    type=wiring.GoDuration(),
    metavar="DURATION",
    help="How long to wait for other hosts, and for another reload of NAME on this host; 0 not at all. "
    "[default: 1h for other hosts, 0 on this one]",
)
@output_options
def reload(name: str, *, only_check: bool, dry_run: bool, force: bool, lock_timeout: float | None) -> int:
    """Take the newest image of NAME on this host, without a lost request.

    Asks the registry first: with nothing new it takes no lock and pulls nothing, and from cron prints nothing.
    Otherwise: pull, wait for this host's turn, drain, restart, wait until it is ready, put it back. Ctrl-C and
    SIGTERM put the service back before the process ends.
    """
    settings = wiring.settings()
    state_dir = wiring.state_directory(settings)
    definition = wiring.definition_of(settings, name)
    if definition.reload is None:
        raise click.BadParameter(f"{definition.file} has no reload section for {name}", param_hint="NAME")
    service = definition.service
    clock = wiring.system_clock()
    interrupts = Interrupts()
    engine = Engine(settings.docker.host, os.environ, clock)
    waits = DEFAULT_LOCK_SECONDS if lock_timeout is None else lock_timeout
    with (
        contextlib.closing(engine),
        wiring.consul(settings) as consul,
        interrupts.caught(),
        HostLock(state_dir, service.id, clock, lock_timeout or 0.0, interrupts.allowed),
    ):
        with interrupts.allowed():
            agent = consul.agent_self()
            if not (only_check or dry_run):
                tell_ended(lift_expired(consul, clock, agent.node, {service.id}))
        printer = _Printer(service.name)
        edges = Edges(
            consul=consul,
            engine=engine,
            agent=agent,
            prober=Prober(),
            clock=clock,
            interrupts=interrupts,
            drain_dns=_drain_dns(settings, agent),
            tell=printer.tell,
            tell_pull=printer.tell_pull,
        )
        executor = Executor(service, definition.reload, edges, lock_timeout=waits, is_forced=force)
        if only_check or dry_run:
            return _show_check(executor, is_dry=dry_run)
        return _show_result(executor.run())


def _drain_dns(settings: Settings, agent: AgentSelf) -> tuple[tuple[str, int], ...]:
    """Whom clients ask: as set, else the local agent, unless its DNS is switched off."""
    if not settings.drain_dns:
        return (agent.dns,) if agent.dns else ()
    split = (server.rpartition(":") for server in settings.drain_dns)
    return tuple((host.strip("[]"), int(port)) for host, _, port in split)


def _show_check(executor: Executor, *, is_dry: bool) -> int:
    is_newer, obstacles = executor.check()
    result = executor.result
    if current().as_json:
        document = {"service": result.service, "node": result.node, "is_newer": is_newer, "wanted": result.wanted}
        show_document({**document, "obstacles": [dataclasses.asdict(one) for one in obstacles]} if is_dry else document)
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


def _show_result(result: Result) -> int:
    if current().as_json:
        show_document(dataclasses.asdict(result))
    if result.error:
        for line in result.error.splitlines():
            click.secho(f"svcagent: {line}", fg="red", err=True)
    elif result.outcome == "reloaded":
        seconds = sum(step["seconds"] for step in result.steps)
        show_line(f"{result.service} runs {result.wanted} on {result.node} after {seconds:.1f} s", "green")
    elif sys.stdout.isatty():
        show_line(f"{result.service} runs the newest {result.image} already", "green")
    return result.exit_code


class _Printer:
    """A line a step, from the first that does something: cron mails whatever is printed."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._percent = -1

    def tell(self, event: Event) -> None:
        log(service=self._service, step=event.step, phase=event.phase, seconds=f"{event.seconds:.3f}", text=event.text)
        if event.step is Step.CHECK:
            return
        if event.phase is Phase.END:
            show_line(f"{event.step:<10} {event.seconds:7.2f} s")
        elif event.phase is Phase.NOTE:
            show_warning(f"{self._service}: {event.text}")

    def tell_pull(self, progress: PullProgress) -> None:
        percent = 100 * progress.bytes_done // progress.bytes_total if progress.bytes_total else 0
        step = 1 if sys.stdout.isatty() else 25
        if percent >= self._percent + step:
            self._percent = percent
            end = "\r" if sys.stdout.isatty() and percent < 100 else "\n"
            if not current().quiet and not current().as_json:
                text = f"pull {percent:3d}%  {progress.layers_done}/{progress.layers} layers"
                click.echo(f"{text:<40}{end}", nl=False)
