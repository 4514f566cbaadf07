"""Restarting by a command: what the steps of a reload come down to where there is no image."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from agent.clock import SystemClock
from agent.definitions import CommandRestart, Service
from agent.engine.client import Engine
from agent.engine.swap import ReplacementState
from agent.errors import CommandFailed
from agent.reload.restart import CommandRestarter, Restarter, restarter


class NoEngine:
    """A host without Docker."""


def by_command(script: str, timeout: float = 10, environ: Mapping[str, str] = os.environ) -> Restarter:
    strategy = CommandRestart(("/bin/sh", "-c", script), timeout)
    service = Service(name="web", id="web-1")
    return restarter(strategy, service, cast("Engine", NoEngine()), Path("/nowhere"), environ, SystemClock())


def test_each_reload_runs_the_command(tmp_path: Path) -> None:
    web = by_command(f"echo x >>{tmp_path}/runs")

    assert isinstance(web, CommandRestarter)
    for _ in range(2):
        assert not web.is_current(web.newest())
        web.check_recreatable()
        web.fetch(web.newest(), lambda _: None)
        web.prepare(web.newest())
        assert web.restart(web.newest()).seconds["command"] > 0
        web.clean_up(web.newest())
    assert (tmp_path / "runs").read_text() == "x\nx\n"
    assert (web.newest(), web.running(), web.image_created(""), web.log_tail()) == ("", "", None, "")


def test_a_restart_command_that_fails_is_reported_with_its_output() -> None:
    with pytest.raises(CommandFailed, match=r"restart command of web-1 .* exit status 5.*\n.*no such unit") as caught:
        by_command("echo no such unit; exit 5").restart("")

    assert caught.value.exit_code == 1


def test_a_restart_command_has_a_limit_whose_key_is_named() -> None:
    """A service manager may wait for minutes."""
    with pytest.raises(CommandFailed, match=r"raise reload\.restart_timeout"):
        by_command("sleep 60", timeout=0.2).restart("")


def test_a_restart_command_sees_no_secrets() -> None:
    by_command(
        'test -z "$CONSUL_HTTP_TOKEN" && test "$A" = b', environ={"CONSUL_HTTP_TOKEN": "hush", "A": "b"}
    ).restart("")


def test_after_a_restart_command_nothing_is_half_way() -> None:
    """Its checks say whether it runs; there is nothing to put back."""
    web = by_command("exit 1")

    web.roll_back(None, finish_stop=True)
    web.start()

    assert web.replacement_status().state is ReplacementState.OLD
