"""Commands that a message suggests repeat the global options that were given."""

from collections.abc import Callable

import click
import pytest

from agent.cli import output
from agent.cli.options import Options
from agent.cli.output import with_given_options
from agent.errors import SvcagentError
from agent.logs import DAEMON_CHILD
from tests.unit.logs_fixture import fresh_logs

__all__ = ["fresh_logs"]

GIVEN = Options(config="/my conf", services_dir="./services.d")
REPEATED = "svcagent --config '/my conf' --services-dir ./services.d"


def _said(text: str, options: Options = GIVEN) -> str:
    with click.Context(click.Command("register"), obj=options):
        return with_given_options(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if so, run: svcagent register --allow-empty", f"if so, run: {REPEATED} register --allow-empty"),
        ("to see it: svcagent maint status; or: svcagent why web", None),
        ("run: svcagent --services-dir /x register", f"run: {REPEATED} register".replace("./services.d", "/x")),
        ("in maintenance, by svcagent reload ab12 on host1: svcagent", "unchanged"),
        ("run on host2: svcagent recover web", "unchanged"),
        ("the user svcagent runs as", "unchanged"),
    ],
)
def test_every_suggested_command(text: str, expected: str | None) -> None:
    """Not prose that names svcagent, nor a command for another host; an option that is there is not repeated."""
    found = _said(text)

    if expected is None:
        assert found == text.replace("svcagent", REPEATED)
    elif expected == "unchanged":
        assert found == text
    else:
        assert sorted(found.split()) == sorted(expected.split())


def test_none_if_no_option_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in a child of the daemon, whose options no operator gave."""
    text = "run: svcagent recover"

    assert _said(text, Options()) == text
    monkeypatch.setenv(DAEMON_CHILD, "1")
    assert _said(text) == text


@pytest.mark.usefixtures("fresh_logs")
@pytest.mark.parametrize(
    "show",
    [
        output.show_line,
        output.show_warning,
        output.print_warning,
        output.show_problem,
        lambda text: output.show_error(SvcagentError(text), GIVEN),
        lambda text: output.show_table(("REMEDY",), [(text,)]),
    ],
)
def test_any_way_to_print_it(show: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("plan"), obj=GIVEN):
        show("run: svcagent plan")
    found = capsys.readouterr()

    assert f"run: {REPEATED} plan" in found.out + found.err
