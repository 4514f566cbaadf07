"""The click group of all verbs. `agent.cli.help` has its help text."""

import importlib
from typing import Any

import click

from agent import __version__
from agent.cli.help import VERBS, WIDEST, columns, help_text
from agent.cli.options import Options


class LazyGroup(click.Group):
    """Lists verbs without importing them; imports a verb to run it or to show its help."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"agent.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=VERBS, ctx=ctx) from error

    def get_help(self, _ctx: click.Context) -> str:
        return help_text(columns()).rstrip()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST})
@click.version_option(__version__, "-V", "--version", prog_name="svcagent", message="%(prog)s %(version)s")
@click.option("--config", type=click.Path(), metavar="FILE")
@click.option("--services-dir", type=click.Path(), metavar="DIR")
@click.option("--state-dir", type=click.Path(), metavar="DIR")
@click.option("--json", "as_json", is_flag=True)
@click.option("-v", "--verbose", is_flag=True)
@click.option("--log-format", type=click.Choice(["auto", "text", "json", "journal"]))
@click.option("-q", "--quiet", is_flag=True)
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    options = ctx.ensure_object(Options)
    for name, value in given.items():
        setattr(options, name, value)


@cli.result_callback()
@click.pass_obj
def _exit_code(options: Options, /, result: Any, **_given: Any) -> int:
    return max(result if isinstance(result, int) else 0, options.least_exit_code)
