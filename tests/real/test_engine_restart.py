"""The container strategy of a reload, step by step, on a real engine."""

from pathlib import Path

from agent.clock import SystemClock
from agent.definitions import ContainerRestart, Service
from agent.engine.swap import ReplacementState
from agent.reload.restart import restarter
from tests.real.engine_fixture import DockerHost


def test_the_steps_of_a_container_reload(docker: DockerHost, image: str, tmp_path: Path) -> None:
    """Newest, fetch, restart, put back, restart again, finish: each is seen in Docker, the tag file comes last."""
    docker.run("app", image, host_config={"restart_policy": {"Name": "always"}})
    tag_file = tmp_path / "tag"
    strategy = ContainerRestart(image, "app", 60.0, 0.0, rollback=True, keep_images=1, tag_file=tag_file, min_age=0.0)
    app = restarter(strategy, Service(name="app"), docker.engine, tmp_path, {}, SystemClock())
    before = app.running()
    assert app.newest() == before
    assert app.is_current(before)

    wanted = docker.push("2")
    app.check_recreatable()
    assert (app.newest(), app.is_current(wanted)) == (wanted, False)
    app.fetch(wanted, lambda _: None)
    app.fetch(wanted, lambda _: None)
    assert app.image_created(wanted) is not None
    assert set(app.prepare(wanted).seconds) == {"create"}
    assert app.replacement_status().state is ReplacementState.PREPARED
    assert set(app.restart(wanted).seconds) == {"stop", "start"}
    assert (app.running(), app.replacement_status().state) == (wanted, ReplacementState.NEW)

    app.roll_back("always", finish_stop=True)
    assert (app.running(), app.replacement_status().restart_policy) == (before, "always")
    app.prepare(wanted)
    app.restart(wanted)
    assert not tag_file.exists()
    app.clean_up(wanted)

    assert (app.running(), app.replacement_status().state) == (wanted, ReplacementState.OLD)
    assert tag_file.read_text() == "latest\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tag", "seen-app.json"}
    assert docker.names() == {"app"}
    assert len(docker.api.images()) == 1
