"""The command line's surface: what it imports, what it documents, how it ends."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli import VERBS
from agent.cli.cname import cname
from agent.cli.group import cli
from agent.cli.help import OPTIONS, help_text
from agent.cli.maint import maint

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- commands:", "<!-- end of commands -->"


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("argument", ["--help", "-h", "--version", "-V"])
def test_help_and_version_import_nothing_that_is_slow(argument: str) -> None:
    """Both answer at once, also where a dependency is broken; typing alone takes as long as Python's own start."""
    code = f"""
import sys
before = set(sys.modules)
sys.argv = ["svcagent", {argument!r}]
from agent.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
new = set(sys.modules) - before
roots = {{name.partition(".")[0] for name in new}} - set(sys.stdlib_module_names) - {{"agent"}}
print("SLOW", sorted(roots | new & {{"typing", "dataclasses", "inspect", "logging", "socket"}}))
"""

    assert _python(code).splitlines()[-1] == "SLOW []"


def test_the_help_is_the_same_with_click_and_names_each_option_that_click_takes() -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["--json", "--help"])

    assert shown.output == help_text(80)
    declared = [option for one in cli.params for option in one.opts if option.startswith("--")]
    assert [*declared, "--help"] == [term.split(" ")[-1 if ", " in term else 0] for term in OPTIONS]


SLOW = {"apscheduler", "consul", "cronsim", "dns", "docker", "pydantic", "requests", "rich", "urllib3"}
"""Libraries that take as long to import as the rest of a verb takes."""

NO_NOTIFICATION = """
import agent.cli.reload_here as here
from agent.clock import Interrupts
from agent.definitions import Settings
with here.rollout_notified(Settings(), "web", None, Interrupts()) as notify_begun:
    notify_begun(None)
"""
NOTIFICATION = {"apprise"} | {
    f"agent.{name}" for name in ("reload.rollout_notifier", "notify.delivery", "notify.notices", "notify.sent")
}
RELOAD = "import agent.cli.reload, agent.cli.reload_here, agent.engine.client, agent.reload.reload"
JSON_LOG = "from agent import logs; logs.set_up(logs.Format.JSON, is_verbose=True); logs.log('x')"


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import agent.cli.register", SLOW),
        ("import agent.cli.validate", SLOW),
        (RELOAD, SLOW),
        ("import agent.cli.cname", {"dns"}),
        ("import agent.cli.cname, agent.cname.sync, agent.cname.rfc2136", {"boto3"}),
        ("import agent.engine.model, agent.engine.queries", {"docker"}),
        ("import agent.metrics.exposition", {"apprise", "consul", "dns", "docker", "requests", "rich"}),
        (JSON_LOG, {"logging_journald"}),
        (NO_NOTIFICATION, NOTIFICATION),
    ],
)
def test_no_library_is_imported_before_there_is_something_to_do(code: str, modules: set[str]) -> None:
    """Registering runs at every boot, a reload every few minutes. What the latter asks then is shown on a fleet."""
    assert _python(f"{code}\nimport sys; print(sorted(sys.modules.keys() & {modules}))") == "[]\n"


def test_every_verb_has_help_with_an_example() -> None:
    for verb in VERBS:
        shown = CliRunner().invoke(cli, [verb, "--help"])
        assert shown.exit_code == 0
        assert re.search(r"Examples?:", shown.output), verb


@pytest.mark.parametrize(
    ("group", "verb"), [(group, verb) for group in (cname, maint) for verb in ("", *group.commands)]
)
def test_the_help_of_a_group_and_of_its_verbs_has_examples(group: click.Group, verb: str) -> None:
    result = CliRunner().invoke(group, [*verb.split(), "--help"])

    assert result.exit_code == 0
    assert f"  svcagent {group.name} {verb}".rstrip() in result.output.partition("Examples:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--until", "2001-01-01T00:00"),
        ("--until", "tomorrow"),
        ("--for", "0s"),
        ("--for", "2"),
        ("--for", "99999999h"),
        ("--for", "2h", "--until", "12:00"),
        ("--force",),
        ("--reason", "  "),
    ],
)
def test_what_maint_enable_does_not_understand_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(maint, ["enable", "--reason", "disk swap", "web", *arguments])

    assert result.exit_code == 2


def test_usage_errors_end_with_2() -> None:
    for arguments in (["restart"], ["reload"], ["reload", "--nope", "x"], ["deregister"], ["maint", "enable", "x"]):
        assert CliRunner().invoke(cli, arguments).exit_code == 2, arguments


def test_a_mistyped_verb_is_answered_with_the_one_that_was_meant() -> None:
    assert "'reload'" in CliRunner().invoke(cli, ["relaod"]).stderr


def test_the_readme_lists_every_command_as_the_command_line_does() -> None:
    """The listing is generated: ``python -m tests.unit.test_command_line`` writes it anew."""
    text = README.read_text()

    assert with_commands(text) == text


def commands_table() -> str:
    context = click.Context(cli, info_name="svcagent")
    lines = ["| command | |", "|---|---|"]
    for verb in cli.list_commands(context):
        command = cli.get_command(context, verb)
        assert command is not None
        subcommands = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for name, one in [(name, one) for name, one in subcommands if not one.hidden]:
            with click.Context(one, info_name=f"svcagent {verb} {name}".strip(), parent=None) as inner:
                usage = " ".join(one.collect_usage_pieces(inner))
            lines.append(f"| `{inner.info_name} {usage}` | {one.get_short_help_str(200)} |")
    return "\n".join(lines)


def with_commands(text: str) -> str:
    """The README's text with the listing as it should be."""
    begin, end = text.index("\n", text.index(BEGIN)) + 1, text.index(END)
    return f"{text[:begin]}{commands_table()}\n{text[end:]}"


if __name__ == "__main__":
    README.write_text(with_commands(README.read_text()))
