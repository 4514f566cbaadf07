"""``svcagent reload``: the daemon does it where one runs, else `reload_here`."""

import click

from agent.cli import wiring
from agent.cli.attach import Wanted, reload_in_daemon
from agent.cli.options import output_options
from agent.clock import Interrupts


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
    help="Reload even if the newest image runs already, or it is paused, quarantined, suspect, too young, outside its "
    "windows, too few others pass, an operator stopped the container, DNS clients remember it for longer than "
    "drain.max, or svcagent's own probe fails on a check that Consul passes: then the new version fails as well unless "
    "it corrects that. Prints what it overrides; never disables another owner's maintenance.",
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
    interrupts = Interrupts()
    changes_nothing = only_check or dry_run
    wanted = Wanted(force, in_maintenance, lock_timeout)
    with interrupts.caught():
        if not changes_nothing:
            code = reload_in_daemon(settings, definition.service, wanted, interrupts)
            if code is not None:
                return code
        # Slow to import, the Docker SDK above all: of no use where the daemon has done it.
        from agent.cli.reload_here import check_here, reload_here

        if changes_nothing:
            return check_here(settings, state_dir, definition, definition.reload, wanted, interrupts, is_dry=dry_run)
        return reload_here(settings, state_dir, definition, definition.reload, wanted, interrupts)
