import dataclasses

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_warning
from agent.cli.reload_output import show_recovered
from agent.cli.repairing import recover_usable, revive_containers
from agent.cli.textfile import reloads_ended
from agent.clock import Interrupts
from agent.errors import BadDefinition
from agent.reload.journal import journalled


@click.command(epilog="Examples: svcagent recover; svcagent recover keyword-suggest")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=context.complete_name)
@output_options
def recover(names: tuple[str, ...]) -> int:
    """Finish or roll back a reload that crashed on this host.

    Afterwards a ready container runs (the new one, else the old one), the service is in service again, and lock and
    session are released. register and reload do this first, and the daemon within a minute, so this command is rarely
    needed. A reload that still runs is left alone. Services are recovered even if another file has faults; the exit
    code is then 78.
    """
    settings = context.settings()
    state_dir = context.state_directory(settings)
    interrupts = Interrupts()
    with interrupts.caught():
        revive_containers(settings, journalled(state_dir))
        results, faults = recover_usable(settings, names or None, interrupts)
    reloads_ended(settings, results)
    if current().as_json:
        show_document([dataclasses.asdict(result) for result in results])
    for fault in faults:
        show_warning(str(fault))
    if not results and not faults:
        show_line("nothing to recover")
    return show_recovered(results) or (BadDefinition.exit_code if faults else 0)
