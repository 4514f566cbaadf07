import click

from agent.cli import context
from agent.cli.options import output_options
from agent.clock import Interrupts


@click.command(
    epilog="\b\nExamples:\n  svcagent reload keyword-suggest\n  svcagent reload --check keyword-suggest\n"
    "In cron, every ten minutes on every host:\n  svcagent reload keyword-suggest",
)
@click.argument("name", shell_complete=context.complete_name)
@click.option("--check", "only_check", is_flag=True, help="Print whether there is a newer image; change nothing.")
@click.option(
    "--force",
    is_flag=True,
    help="Reload even if the newest image runs already, and override: a pause, a quarantined, suspect or too young "
    "version, closed windows, too few other passing instances, a container that an operator stopped, a DNS TTL above "
    "drain.max, and a check that Consul passes and svcagent's own probe does not (the new version then fails too, "
    "unless it corrects that check). Prints what it overrides. Never disables another owner's maintenance.",
)
@click.option(
    "--in-maintenance",
    is_flag=True,
    help="Reload an instance that is in an operator's maintenance, and leave it in maintenance. Without this option it "
    "keeps its image until the maintenance ends.",
)
@click.option(
    "--lock-timeout",
    type=context.GoDuration(),
    metavar="DURATION",
    help="How long to wait for other hosts, and for another reload of NAME on this host; 0: do not wait. "
    "[default: 1h for other hosts, 0 on this one]",
)
@output_options
def reload(name: str, *, only_check: bool, force: bool, in_maintenance: bool, lock_timeout: float | None) -> int:
    """Take the newest image of NAME on this host, without a lost request.

    Asks the registry first: with nothing new it takes no lock, pulls nothing, and prints nothing when run from cron.
    Otherwise: pull, wait for the lock, drain, restart, wait until the instance is ready, return it to service, and
    watch it there (reload.settle in the definition: 10s on the first host of a version, 1s on the others) before the
    next host starts.

    A version that fails is rolled back. It is quarantined if the old one passes the same checks again. If the old one
    fails in the same way, the outcome is "environment": nothing is quarantined, and the next reload tries again. A
    version is suspect, and other hosts do not take it, while the host that was taking it has disappeared or is still
    out of service. To see what blocks a reload: svcagent why NAME.

    Ctrl-C and SIGTERM restore the service before the process ends. A reload that crashed on this host is finished or
    rolled back first. If another process on this host reloads NAME, also the daemon, the exit code is 75; with
    --lock-timeout this command waits for it. To watch it: svcagent status NAME.
    """
    settings = context.settings()
    definition, section = context.reloaded_definition(settings, name)
    state_dir = context.state_directory(settings)
    # Slow to import (the Docker SDK).
    from agent.cli.reload_here import ReloadRequest, check_here, reload_here

    interrupts = Interrupts()
    asked = ReloadRequest(settings, state_dir, definition, section, interrupts, force, in_maintenance, lock_timeout)
    with interrupts.caught():
        return check_here(asked) if only_check else reload_here(asked)
