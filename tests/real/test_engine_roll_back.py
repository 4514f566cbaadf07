"""Replacements and roll-backs cut short at every call, on a real engine; engines that die meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from agent.engine.sdk import Client
from agent.engine.swap import ReplacementState, ReplacementStatus
from agent.errors import Conflict, DockerUnreachable, NotFound, NotReady, OutcomeUnknown
from tests.lab.ground import wait_until
from tests.real.engine_fixture import BUSYBOX, SLEEP, DockerHost
from tests.support.kinds import raises_kind

WRITES = ("create", "set_restart_policy", "stop", "rename", "start", "remove_container")
REPLACE_WRITES = 6
ROLL_BACK_WRITES = 6
ANYWHERE = pytest.mark.parametrize(
    ("is_roll_back", "at"),
    [(False, at) for at in range(1, REPLACE_WRITES + 1)] + [(True, at) for at in range(1, ROLL_BACK_WRITES + 1)],
)
"""Each call of a replacement, and each of its roll-back."""


@pytest.fixture(scope="module")
def versions(running: DockerHost) -> tuple[str, str]:
    """The digests of two versions, both here."""
    first, second = running.push("1"), running.push("2")
    for digest in (first, second):
        running.engine.pull(running.latest, digest, lambda _: None)
    return first, second


@pytest.fixture
def docker(running: DockerHost) -> Iterator[DockerHost]:
    try:
        yield running
    finally:
        running.clear(keep_images=True)


@pytest.fixture
def image(docker: DockerHost, versions: tuple[str, str]) -> str:
    """The image's name; its first version runs as ``app``."""
    reference = docker.latest
    docker.engine.pull(reference, versions[0], lambda _: None)
    docker.run("app", reference, host_config={"restart_policy": {"Name": "unless-stopped"}})
    return reference


@pytest.fixture
def digest(versions: tuple[str, str]) -> str:
    return versions[1]


def cut(monkeypatch: pytest.MonkeyPatch, at: int, *, is_done: bool) -> None:
    """Lose the answer to the write number ``at``, which the engine has carried out or has not; later ones fail too."""
    count = 0

    def losing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(client: Client, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count < at:
                return original(client, *arguments, **options)
            if count == at and is_done:
                original(client, *arguments, **options)
            raise requests.ReadTimeout

        return call

    for name in WRITES:
        monkeypatch.setattr(Client, name, losing(getattr(Client, name)))


def test_how_far_a_replacement_got_is_seen_from_its_containers_alone(
    docker: DockerHost, image: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each call: old, then mixed, then new; always with the restart policy that belongs there."""
    old_id = docker.engine.container("app").id
    seen = []
    for at in range(1, REPLACE_WRITES + 1):
        with monkeypatch.context() as patch:
            cut(patch, at, is_done=False)
            with pytest.raises(OutcomeUnknown):
                docker.replace("app", image, digest, 0)
        seen.append(docker.engine.replacement_status("app"))
        docker.engine.roll_back("app")
    new_id = docker.replace("app", image, digest, 0).new_id

    assert [(found.state, found.id, found.is_running) for found in seen[:4]] == [
        (ReplacementState.OLD, old_id, True),
        (ReplacementState.PREPARED, old_id, True),
        (ReplacementState.PREPARED, old_id, True),
        (ReplacementState.PREPARED, old_id, False),
    ]
    assert [found.state for found in seen[4:]] == [ReplacementState.MIXED, ReplacementState.NEW]
    assert docker.engine.replacement_status("app") == ReplacementStatus(
        ReplacementState.NEW, new_id, True, digest, "unless-stopped"
    )
    assert {found.restart_policy for found in seen} == {"unless-stopped"}
    docker.engine.remove_old("app")
    assert docker.engine.replacement_status("app").state is ReplacementState.OLD
    assert docker.engine.replacement_status("nobody") == ReplacementStatus(ReplacementState.ABSENT)


@pytest.mark.usefixtures("image")
def test_stopped_containers_are_started_and_running_ones_stay(docker: DockerHost) -> None:
    """For a container that came back stopped after a power loss."""
    docker.api.stop("app", timeout=0)

    docker.engine.start("app")
    started = docker.engine.container("app")
    docker.engine.start("app")

    assert started.is_running
    assert docker.engine.container("app") == started
    with raises_kind(NotFound, "not-found"):
        docker.engine.start("nobody")


def is_as_before(docker: DockerHost, old_id: str) -> bool:
    app = docker.engine.container("app")
    as_it_was = (app.id, app.is_running, app.restart_policy) == (old_id, True, "unless-stopped")
    return as_it_was and docker.names() == {"app"} and docker.executed("app", "cat", "/version") == "1"


def restart_before(monkeypatch: pytest.MonkeyPatch, docker: DockerHost, at: int) -> None:
    """Restart the engine itself just before the write number ``at``."""
    count = 0

    def restarting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(client: Client, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                docker.server.restart()
            return original(client, *arguments, **options)

        return call

    for name in WRITES:
        monkeypatch.setattr(Client, name, restarting(getattr(Client, name)))


def begin(docker: DockerHost, image: str, digest: str, *, is_roll_back: bool) -> tuple[str, Callable[[], object]]:
    """Return the old container's ID, and what is to be interrupted: its replacement, or the roll-back of that."""
    if is_roll_back:
        return docker.replace("app", image, digest, 0).old_id, lambda: docker.engine.roll_back("app")
    return docker.engine.container("app").id, lambda: docker.replace("app", image, digest, 0)


@ANYWHERE
def test_an_engine_restarted_between_any_two_calls_can_roll_back(
    docker: DockerHost, image: str, digest: str, monkeypatch: pytest.MonkeyPatch, *, is_roll_back: bool, at: int
) -> None:
    """What was interrupted goes on, or ends with an error that says what is known; either way there is a way back."""
    old_id, interrupted = begin(docker, image, digest, is_roll_back=is_roll_back)
    with monkeypatch.context() as patch, suppress(DockerUnreachable, OutcomeUnknown):
        restart_before(patch, docker, at)
        interrupted()

    docker.engine.roll_back("app")

    wait_until(lambda: is_as_before(docker, old_id), 10, "the old one runs as before")


def test_an_engine_restarted_during_a_roll_back_does_not_leave_a_container_without_policy_stopped(
    docker: DockerHost, image: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine would not start it again; whoever rolls back does."""
    docker.api.update_container("app", restart_policy={"Name": "no"})  # type: ignore[arg-type]  # so in types-docker
    docker.replace("app", image, digest, 0)
    with monkeypatch.context() as patch:
        restart_before(patch, docker, ROLL_BACK_WRITES - 1)  # there is no policy to restore: the last call
        docker.engine.roll_back("app")

    assert docker.engine.container("app").is_running
    assert docker.names() == {"app"}


@pytest.mark.parametrize("is_done", [False, True], ids=["not done", "done"])
@ANYWHERE
def test_what_is_cut_short_at_any_call_is_rolled_back(
    docker: DockerHost,
    image: str,
    digest: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_roll_back: bool,
    at: int,
    is_done: bool,
) -> None:
    old_id, interrupted = begin(docker, image, digest, is_roll_back=is_roll_back)
    with monkeypatch.context() as patch:
        cut(patch, at, is_done=is_done)
        with pytest.raises(OutcomeUnknown):
            interrupted()

    docker.engine.roll_back("app")

    assert is_as_before(docker, old_id)
    assert docker.engine.roll_back("app") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (['CMD ["/nonexistent"]'], "/nonexistent"),
        (['CMD ["/version"]'], "permission denied"),
        (["USER nobody-here", f'CMD ["{BUSYBOX}"]'], "unable to find user nobody-here"),
    ],
    ids=["no program", "not executable", "no user"],
)
def test_a_new_container_that_cannot_start_is_not_ready_and_can_be_rolled_back(
    docker: DockerHost, image: str, changes: list[str], said: str
) -> None:
    old_id = docker.engine.container("app").id
    digest = docker.push("2", *changes)
    docker.engine.pull(image, digest, lambda _: None)

    with pytest.raises(NotReady, match=rf"{digest} does not start: .*{said}"):
        docker.replace("app", image, digest, 0)
    docker.engine.roll_back("app")

    assert is_as_before(docker, old_id)


def test_the_failed_containers_last_words_can_be_read_before_the_roll_back(docker: DockerHost, image: str) -> None:
    digest = docker.push("2", f'CMD ["{BUSYBOX}", "sh", "-c", "echo index damaged; exit 1"]')
    docker.engine.pull(image, digest, lambda _: None)
    old_id = docker.replace("app", image, digest, 0).old_id

    wait_until(lambda: docker.engine.container("app").restart_count > 0, 10, "it failed again and again")
    assert set(docker.engine.log_tail("app", 2).split("\n")) == {"index damaged"}
    docker.engine.roll_back("app")

    assert is_as_before(docker, old_id)


def test_without_the_new_container_the_caller_knows_the_policy(docker: DockerHost, image: str, digest: str) -> None:
    old_id = docker.replace("app", image, digest, 0).old_id
    docker.api.remove_container("app", force=True)

    docker.engine.roll_back("app", "unless-stopped")

    assert is_as_before(docker, old_id)


def test_without_the_old_container_nothing_is_rolled_back(docker: DockerHost, image: str, digest: str) -> None:
    new_id = docker.replace("app", image, digest, 0).new_id

    docker.engine.remove_old("app")
    docker.engine.remove_old("app")

    assert docker.engine.roll_back("app") is None
    assert docker.engine.container("app").id == new_id
    assert docker.names() == {"app"}


def test_a_container_made_by_hand_during_the_reload_is_not_changed(docker: DockerHost, image: str, digest: str) -> None:
    docker.replace("app", image, digest, 0)
    docker.api.remove_container("app", force=True)
    mine = docker.run("app", image)

    with raises_kind(Conflict, "not-created-by-svcagent"):
        docker.engine.roll_back("app")

    assert docker.engine.container("app").id == mine


def test_a_leftover_that_never_ran_does_not_stop_the_next_replacement_nor_cost_the_policy(
    docker: DockerHost, image: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut(patch, 2, is_done=True)
        with pytest.raises(OutcomeUnknown):
            docker.replace("app", image, digest, 0)
    assert docker.engine.container("app").restart_policy == "no"

    docker.replace("app", image, digest, 0)

    assert docker.engine.container("app").restart_policy == "unless-stopped"
    assert docker.executed("app", "cat", "/version") == "2"


def test_an_old_container_left_next_to_a_running_new_one_is_removed_by_the_next_replacement(
    docker: DockerHost, image: str, digest: str
) -> None:
    first = docker.replace("app", image, digest, 0)

    second = docker.replace("app", image, digest, 0)

    assert second.old_id == first.new_id
    assert docker.engine.container("app.svcagent-old").id == first.new_id
    assert docker.engine.container("app").restart_policy == "unless-stopped"


def test_an_old_container_next_to_an_exited_new_one_is_rolled_back(docker: DockerHost, image: str, digest: str) -> None:
    docker.replace("app", image, digest, 0)
    docker.api.stop("app", timeout=0)

    with raises_kind(Conflict, "replacement-interrupted"):
        docker.replace("app", image, digest, 0)

    assert docker.names() == {"app", "app.svcagent-old"}


def test_an_engine_killed_while_it_stops_the_old_one_leaves_the_outcome_unknown_and_can_be_rolled_back(
    docker: DockerHost, image: str, digest: str
) -> None:
    docker.api.remove_container("app", force=True)
    old_id = docker.run("app", image, SLEEP, host_config={"restart_policy": {"Name": "unless-stopped"}})
    killer = threading.Timer(1, docker.server.kill)
    killer.start()

    with pytest.raises(OutcomeUnknown):
        docker.replace("app", image, digest, 5)
    killer.join()
    with pytest.raises(DockerUnreachable):
        docker.engine.roll_back("app")
    docker.server.restart()
    docker.engine.roll_back("app")

    assert is_as_before(docker, old_id)


def test_after_a_power_loss_only_the_new_one_starts(docker: DockerHost, image: str, digest: str) -> None:
    docker.replace("app", image, digest, 0)

    docker.server.power_off()
    docker.server.restart()

    wait_until(lambda: docker.engine.container("app").is_running, 10, "the new one runs")
    assert not docker.engine.container("app.svcagent-old").is_running


def test_after_a_power_loss_before_the_start_the_old_container_is_restored(
    docker: DockerHost, image: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_id = docker.engine.container("app").id
    with monkeypatch.context() as patch:
        cut(patch, REPLACE_WRITES, is_done=False)
        with pytest.raises(OutcomeUnknown):
            docker.replace("app", image, digest, 0)

    docker.server.power_off()
    docker.server.restart()
    assert not docker.engine.container("app").is_running
    docker.engine.roll_back("app")

    assert is_as_before(docker, old_id)
