"""``svcagent maint`` before it asks Consul anything: its help, and what it does not understand."""

import pytest
from click.testing import CliRunner

from agent.cli.maint import maint

EVERY = ["", *maint.commands]


@pytest.mark.parametrize("verb", EVERY)
def test_every_help_has_examples(verb: str) -> None:
    result = CliRunner().invoke(maint, [*verb.split(), "--help"])

    assert result.exit_code == 0
    assert f"  svcagent maint {verb}".rstrip() in result.output.partition("Examples:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("web", "--until", "2001-01-01T00:00"),
        ("web", "--until", "tomorrow"),
        ("web", "--for", "0s"),
        ("web", "--for", "2"),
        ("web", "--for", "99999999h"),
        ("web", "--for", "2h", "--until", "12:00"),
        ("web", "--force"),
        ("web", "--reason", "  "),
    ],
)
def test_what_is_not_understood_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(maint, ["enable", "--reason", "disk swap", *arguments])

    assert result.exit_code == 2
