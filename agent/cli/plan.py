import click

from agent.cli import context
from agent.cli.options import output_options
from agent.cli.registration_output import show_dry_run
from agent.registration.planner import RegistrationOptions


@click.command(epilog="\b\nExamples:\n  svcagent plan\n  svcagent --json plan keyword-suggest")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=context.complete_name)
@click.option(
    "--wait",
    type=context.GoDuration(),
    default="0s",
    show_default=True,
    help="How long to wait for the local Consul agent to answer.",
)
@click.option("--adopt", is_flag=True, help="Plan as register --adopt would.")
@click.option("--allow-empty", is_flag=True, help="Plan as register --allow-empty would.")
@click.option("--allow-removals", is_flag=True, help="Plan as register --allow-removals would.")
@output_options
def plan(names: tuple[str, ...], *, wait: float, adopt: bool, allow_empty: bool, allow_removals: bool) -> int:
    """Show what register would change, field by field, and change nothing.

    Every service is listed: those to create, to update with each field before and after, to remove, and those that
    are not changed, with the reason. Consul does not return check definitions; plan reports only that a check differs.
    Exits 1 if register would refuse a service, or the plan without --allow-removals. Files with faults are left out
    (exit code 78; with NAME only if NAME is in one of them).
    """
    options = RegistrationOptions(
        frozenset(names), wait, is_dry=True, is_adopting=adopt, is_empty_allowed=allow_empty, may_remove=allow_removals
    )
    return show_dry_run(context.settings(), options)
