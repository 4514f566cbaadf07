"""Commands of svcagent that shipped files and documents tell people, or machines, to run: are they such as it takes?"""

import re
import shlex

import click

from agent.cli import VERBS
from agent.cli.group import cli
from agent.cli.options import Options

# What stands for a name in a unit, an alert, a dashboard.
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|%i\b|\bNAME\b")
# Up to what ends it in a sentence.
COMMAND = re.compile(r"(?<![\w/.@-])svcagent((?: (?:--?[\w-]+|[\w.-]*\w))+)")
BLOCK = re.compile(r"^( *)```\w*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def named_in(prose: str) -> list[str]:
    """The commands that a text names, without ``svcagent`` itself: those that begin with a verb, options aside."""
    flat = re.sub(r"\s+", " ", PLACEHOLDER.sub("web", prose))
    return [found.strip() for found in COMMAND.findall(flat) if _verb(found.split()) in VERBS]


def lines_in(markdown: str) -> list[str]:
    """The commands of its code blocks that stand there to be copied, a line each, without ``svcagent`` itself."""
    lines = [line.strip() for _indent, block in BLOCK.findall(markdown) for line in block.splitlines()]
    return [line.removeprefix("svcagent ") for line in lines if line.startswith("svcagent ")]


def _verb(words: list[str]) -> str:
    return next((word for word in words if not word.startswith("-")), "")


def usage_fault(command: str) -> str:
    """What svcagent would find wrong with the usage; empty where it would do what is asked. It does nothing."""
    words = shlex.split(PLACEHOLDER.sub("web", command), comments=True)
    group: click.Command = cli
    context = click.Context(cli, obj=Options())
    while isinstance(group, click.Group):
        while words and words[0].startswith("-"):
            words.pop(0)
        found = group.get_command(context, words.pop(0)) if words else None
        if found is None:
            return f"no such command: {command}"
        group = found
    try:
        group.make_context(command, words, parent=context)
    except click.UsageError as error:
        return f"{command}: {error.format_message()}"
    return ""
