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
from agent.reload.command import Command, require_program
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


@pytest.mark.parametrize("program", ["{0}/nowhere", "{0}", "{0}/text", "nowhere", "dir"])
def test_a_program_that_cannot_be_started_is_refused_before_the_drain(tmp_path: Path, program: str) -> None:
    """It is absent, a directory or not executable, by its path or on PATH."""
    (tmp_path / "text").touch()
    (tmp_path / "dir").mkdir()
    strategy = CommandRestart((program.format(tmp_path), "restart"), 10)
    environ = {"PATH": str(tmp_path)}
    service = Service(name="web", id="web-1")
    web = restarter(strategy, service, cast("Engine", NoEngine()), Path("/nowhere"), environ, SystemClock())

    with pytest.raises(CommandFailed, match="cannot be started"):
        web.check_recreatable()
    with pytest.raises(CommandFailed, match="cannot be started"):
        web.restart("")


def test_a_program_is_found_where_it_is_started(tmp_path: Path) -> None:
    """On svcagent's own PATH, or from the directory / on."""
    (tmp_path / "go").write_text("#!/bin/sh\n")
    (tmp_path / "go").chmod(0o755)
    for program in ("go", str(tmp_path / "go"), str(tmp_path / "go")[1:]):
        require_program(Command("x", [program], 1, "x"), {"PATH": str(tmp_path)})


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
