"""The programs of hooks are looked for before the service is drained."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.definitions.reload import Hooks
from agent.errors import HookFailed
from agent.reload.dependencies import ReloadContext
from agent.reload.hooks import Hook, HookRunner


def _runner(**commands: Any) -> HookRunner:
    context = SimpleNamespace(
        section=SimpleNamespace(hooks=Hooks(**commands)),
        deps=SimpleNamespace(environ={"PATH": "/bin:/usr/bin"}),
        entry=SimpleNamespace(record=SimpleNamespace(service="web")),
    )
    return HookRunner(cast("ReloadContext", context))


@pytest.mark.parametrize("hook", Hook)
def test_a_program_that_does_not_exist_is_found_beforehand(hook: Hook) -> None:
    with pytest.raises(HookFailed, match=f"hook {hook} of web .* cannot be started: the program /nowhere"):
        _runner(**{hook: ("/nowhere", "x")}).check_programs()


def test_programs_that_exist_are_accepted() -> None:
    _runner(before_drain=("true",), on_failure=("/bin/sh", "-c", "exit 1")).check_programs()


def test_a_directory_of_path_that_cannot_be_searched_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `exec` does. Path.exists raises for one that this user must not search, as for a name that is too long."""
    monkeypatch.setenv("PATH", f"/{'x' * 300}:{os.environ['PATH']}")
    _runner(before_drain=("true",)).check_programs()
