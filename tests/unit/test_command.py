"""Commands of a definition, run for real: how they end, what they see, and that nothing of them is left."""

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.clock import Interrupts, SystemClock
from agent.definitions import Hooks
from agent.errors import CommandFailed, HookFailed, Interrupted
from agent.reload import command
from agent.reload.command import Command, run, run_checked, without_secrets
from agent.reload.dependencies import ReloadContext
from agent.reload.hooks import Hook, HookRunner
from agent.reload.journal import Journal, JournalEntry, JournalRecord
from agent.reload.progress import Progress
from agent.reload.record import Phase, StepEvent
from agent.reload.steps import Step
from tests.lab.ground import wait_until
from tests.support.kinds import raises_kind

CLOCK = SystemClock()
ENVIRON = {"PATH": "/usr/bin:/bin"}  # not the one of the run, which may be longer than the output that is kept
RECORD = JournalRecord("0a1b2c3d", "web-1", "web", "", "", 1, "", "", "sha256:old", "sha256:new")


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def failure(argv: tuple[str, ...], timeout: float = 10) -> str:
    with pytest.raises(CommandFailed) as caught:
        run_checked(Command("the command", argv, timeout, "reload.key"), ENVIRON, CLOCK)
    return str(caught.value)


def is_gone(pid_file: Path) -> bool:
    """Has the process that wrote this file ended? One that nobody has reaped yet has."""
    try:
        status = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_a_command_that_succeeds_says_what_it_printed_on_both_outputs() -> None:
    finished = run(sh("echo one; echo two >&2"), ENVIRON, 10, CLOCK)

    assert (finished.status, finished.output) == (0, "one\ntwo")


def test_arguments_reach_the_program_as_they_are_written() -> None:
    finished = run(("printf", "%s|", "$HOME", "a b", "*", ";"), ENVIRON, 10, CLOCK)

    assert finished.output == "$HOME|a b|*|;|"


def test_a_command_has_nothing_to_read_and_starts_in_the_root_directory() -> None:
    """Neither the terminal nor the directory that svcagent was started in."""
    assert run(sh("cat; pwd"), ENVIRON, 10, CLOCK).output == "/"


FAILURES = [
    (
        sh("echo why; exit 3"),
        "the command (/bin/sh -c 'echo why; exit 3') failed with exit status 3. Its last lines:\nwhy",
    ),
    (("false",), "the command (false) failed with exit status 1 and printed nothing"),
    (sh("kill -9 $$"), "was ended by signal 9"),
    (("/nonexistent/program",), "cannot be started: No such file or directory. Write the program's full path"),
    (("/etc/passwd",), "cannot be started: Permission denied"),
]


@pytest.mark.parametrize(("argv", "said"), FAILURES)
def test_a_failure_says_what_ran_and_how_it_ended(argv: tuple[str, ...], said: str) -> None:
    assert said in failure(argv)


def test_a_command_that_takes_too_long_is_stopped_with_all_its_children(tmp_path: Path) -> None:
    """SIGTERM to the whole group; the message names the limit and where it stands."""
    child = tmp_path / "child"

    said = failure(sh(f"sleep 60 & echo $! >{child}; echo begun; wait"), timeout=0.5)

    assert (
        "did not end within 0.5 s and was stopped. If it needs longer, raise reload.key. Its last lines:\nbegun" in said
    )
    assert is_gone(child)


def test_what_ignores_sigterm_is_killed_after_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its children; what it printed about SIGTERM is still read."""
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.3)
    child = tmp_path / "child"
    script = f"trap 'echo not now' TERM; sh -c 'trap \"\" TERM; echo $$ >{child}; sleep 60' & while :; do wait; done"

    finished = run(sh(script), ENVIRON, 0.5, CLOCK)

    assert (finished.status, finished.output) == (None, "not now")
    wait_until(lambda: is_gone(child), 1, "the child is gone")


def test_output_is_bounded_and_harmless() -> None:
    """The last lines of any amount, without escape sequences that a terminal would obey."""
    script = "import sys; sys.stdout.write('x' * 10**6 + '\\n' + ''.join(f'line {n}\\n' for n in range(99)))"

    lines = run((sys.executable, "-c", script + "; print('\\x1b[2Jend\\r')"), ENVIRON, 10, CLOCK).output.split("\n")

    assert lines[-2:] == ["line 98", "end"]
    assert len(lines) == command.KEPT_LINES


def test_a_command_that_prints_without_end_is_stopped_in_time() -> None:
    assert run(("yes",), ENVIRON, 0.3, CLOCK).seconds < 3


def test_what_a_command_leaves_in_the_background_is_neither_waited_for_nor_ended(tmp_path: Path) -> None:
    """An init script starts a daemon and exits; the daemon goes on."""
    child = tmp_path / "child"

    finished = run(sh(f"sleep 60 & echo $! >{child}"), ENVIRON, 30, CLOCK)

    assert finished.status == 0
    assert finished.seconds < 10
    assert not is_gone(child)
    os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_signal_ends_the_wait_and_leaves_no_process_behind(tmp_path: Path) -> None:
    child, interrupts = tmp_path / "child", Interrupts()

    def interrupt() -> None:
        wait_until(lambda: child.exists() and child.read_text().endswith("\n"), 10, "it runs")
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=interrupt)
    with interrupts.caught():
        killer.start()
        with pytest.raises(Interrupted):
            run(sh(f"sleep 60 & echo $! >{child}; wait"), ENVIRON, 30, CLOCK, interrupts.allowed)
    killer.join()

    assert is_gone(child)


SECRETS = {
    "CONSUL_HTTP_TOKEN": "hush",
    "CONSUL_HTTP_TOKEN_FILE": "/hush",
    "CONSUL_HTTP_AUTH": "me:hush",
    "CONSUL_CLIENT_KEY": "/hush",
    "DOCKER_AUTH_CONFIG": "{hush}",
    "SVCAGENT_DNS_KEY": "hush",
    "MY_TOKEN": "hush",
    "AWS_ACCESS_KEY_ID": "hush",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "GOOGLE_APPLICATION_CREDENTIALS": "/hush",
    "AZURE_CLIENT_SECRET": "hush",
    "PGPASSWORD": "hush",
    "MYSQL_PWD": "hush",
    "STRIPE_API_KEY": "hush",
    "HTTPS_PROXY": "http://me:hush@proxy:3128",
    "DATABASE_URL": "postgres://me:hush@db/x",
}


def test_secrets_are_kept_back_and_the_rest_is_passed_on() -> None:
    """Addresses help a hook that calls consul or docker; every credential stays with svcagent."""
    kept = {"CONSUL_HTTP_ADDR": "127.0.0.1:8500", "DOCKER_HOST": "unix:///d", "PATH": "/bin"}

    assert without_secrets(kept | SECRETS) == kept


def run_hook(hooks: Hooks, hook: Hook, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """Run it in the step drain of a reload that ended as rolled back; the notes."""
    deps = SimpleNamespace(agent=SimpleNamespace(node="host1"), environ=environ, clock=CLOCK, interrupts=Interrupts())
    events: list[StepEvent] = []
    progress = Progress(events.append, CLOCK, "web", RECORD.reload_id)
    progress.begin(Step.DRAIN)
    entry = JournalEntry(cast("Journal", None), RECORD, progress)
    context = SimpleNamespace(section=SimpleNamespace(hooks=hooks), deps=deps, entry=entry, progress=progress)
    HookRunner(cast("ReloadContext", context)).run(hook, "rolled back")
    return [event.text for event in events if event.phase is Phase.NOTE]


@pytest.mark.parametrize("hook", list(Hook))
def test_a_hook_gets_the_state_in_its_environment(hook: Hook, tmp_path: Path) -> None:
    """Service, host, step and digests, for each hook; the result where there is one."""
    result = {"SVCAGENT_RESULT": "rolled back"} if hook in ("after_return", "on_failure") else {}

    hooks = Hooks().replace(**{str(hook): sh(f"env >{tmp_path}/env")})
    run_hook(hooks, hook, ENVIRON | SECRETS)
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())

    assert {name: value for name, value in found.items() if name.startswith("SVCAGENT_")} == {
        "SVCAGENT_HOOK": str(hook),
        "SVCAGENT_SERVICE": "web",
        "SVCAGENT_SERVICE_ID": "web-1",
        "SVCAGENT_NODE": "host1",
        "SVCAGENT_RELOAD": "0a1b2c3d",
        "SVCAGENT_STEP": "drain",
        "SVCAGENT_DIGEST": "sha256:new",
        "SVCAGENT_DIGEST_BEFORE": "sha256:old",
    } | result
    assert found["PATH"] == ENVIRON["PATH"]
    assert "hush" not in str(found)


def test_a_hook_that_is_not_defined_is_not_run() -> None:
    run_hook(Hooks(before_drain=("false",)), Hook.AFTER_DRAIN)


def test_a_hook_that_fails_when_nothing_is_left_to_stop_is_a_note() -> None:
    (note,) = run_hook(Hooks(on_failure=("false",)), Hook.ON_FAILURE)

    assert "hook on_failure of web" in note


HOOKS: list[tuple[Hooks, str]] = [
    (Hooks(after_drain=sh("echo no; exit 1")), "exit status 1. Its last lines:\nno"),
    (Hooks(after_drain=("sleep", "9"), timeout=0.1), "raise reload.hooks.timeout"),
    (Hooks(after_drain=("/nonexistent",)), "cannot be started"),
]


@pytest.mark.parametrize(("hooks", "said"), HOOKS)
def test_a_hook_that_fails_says_which_it_was(hooks: Hooks, said: str) -> None:
    with pytest.raises(HookFailed) as caught:
        run_hook(hooks, Hook.AFTER_DRAIN)

    assert said in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (("true", "a\0b"), ENVIRON),
        (("true", "\ud800"), ENVIRON),
        (("tr\0ue",), ENVIRON),
        (("true",), ENVIRON | {"X": "a\0b"}),
        (("true",), ENVIRON | {"X": "\udfff"}),
        (("true",), ENVIRON | {"A=B": "x"}),
        (("true", "x" * 200_000), ENVIRON),
        ((), ENVIRON),
    ],
)
def test_what_no_program_can_be_started_with_is_a_failure(argv: tuple[str, ...], environ: dict[str, str]) -> None:
    with raises_kind(CommandFailed, "command-failed") as caught:
        run_checked(Command("the command", argv, 1, "reload.key"), environ, CLOCK)

    assert str(caught.value).isprintable()


def test_the_output_is_separate_from_the_summary() -> None:
    """Only the summary may leave the host; neither shows a password of the command line."""
    with pytest.raises(CommandFailed) as caught:
        run_checked(
            Command(
                "the command", sh("echo from inside; exit 3 # --password=hush http://me:hush@db/"), 5, "reload.key"
            ),
            ENVIRON,
            CLOCK,
        )

    assert caught.value.log_tail == "from inside"
    assert "from inside" not in caught.value.summary.partition("failed with")[2]
    assert "hush" not in str(caught.value)
