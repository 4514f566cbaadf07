"""Files watched as people and their tools change them: on a real file system, by a real inotify."""

import ctypes
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.daemon import files_watch
from agent.daemon.files_watch import LONGEST_SECONDS, QUIET_SECONDS, FilesWatch
from tests.lab.ground import wait_until

GOOD = '{"service": {"name": "web"}}'
MOST_SECONDS = 0.9
"""watchdog may keep a rename back for half a second; then comes the settle time."""


class Told:
    """How often it was told, and when last."""

    def __init__(self) -> None:
        self.times = 0
        self.at = 0.0

    def __call__(self) -> None:
        self.times += 1
        self.at = time.monotonic()

    def after(self, change: Callable[[], object]) -> float:
        """Make a change; the seconds until it was told, which must be once."""
        before, begun = self.times, time.monotonic()
        change()
        wait_until(lambda: self.times > before, 5, "the change is told", every=0.005)
        took = self.at - begun
        self.stays(before + 1)
        return took

    def stays(self, times: int) -> None:
        """Nothing more is told, for longer than anything takes."""
        end = time.monotonic() + LONGEST_SECONDS + QUIET_SECONDS
        while time.monotonic() < end:
            assert self.times == times
            time.sleep(0.01)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "etc" / "services.d"
    found.mkdir(parents=True)
    return found


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(directory: Path, told: Told) -> Iterator[FilesWatch]:
    (directory / "web.json").write_text(GOOD)
    found = FilesWatch(directory, told)
    found.start()
    try:
        yield found
    finally:
        begun = time.monotonic()
        found.stop()
        assert time.monotonic() - begun < 1
        assert [one.name for one in threading.enumerate() if "atch" in one.name or "notify" in one.name] == []


def replaced(file: Path, text: str) -> None:
    """Written beside it and renamed over it, as careful programs do."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text)
    temporary.rename(file)


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda at: (at / "new.json").write_text(GOOD), id="written"),
        pytest.param(lambda at: (at / "web.json").write_text(GOOD + " "), id="written over"),
        pytest.param(lambda at: (at / "web.json").write_text(GOOD[::-1]), id="written over in the same length"),
        pytest.param(lambda at: replaced(at / "web.json", GOOD + " "), id="renamed into place"),
        pytest.param(lambda at: (at / "web.json").unlink(), id="removed"),
        pytest.param(lambda at: (at / "web.json").rename(at / "web.json.off"), id="renamed away"),
        pytest.param(lambda at: (at / "web.json").rename(at.parent / "web.json"), id="moved away"),
        pytest.param(lambda at: os.link(at / "web.json", at / "other.json"), id="linked"),
        pytest.param(lambda at: (at / "other.json").symlink_to("web.json"), id="linked symbolically"),
        pytest.param(shutil.rmtree, id="directory removed"),
        pytest.param(lambda at: shutil.rmtree(at.parent), id="the directory above removed"),
    ],
)
def test_a_change_is_reported_once_and_soon(directory: Path, told: Told, change: Callable[[Path], object]) -> None:
    assert told.after(lambda: change(directory)) < MOST_SECONDS


@pytest.mark.usefixtures("watch")
def test_what_is_no_definition_is_not_reported(directory: Path, told: Told) -> None:
    """Editors' swap and backup files, probes for writability, hidden files; and reading."""
    names = (".web.json.swp", "4913", "web.json~", "#web.json#", ".#web.json", "web.json.tmp", ".web.json", "README")
    for name in names:
        (directory / name).write_text(GOOD)
        (directory / name).unlink()
    (directory / "web.json").read_text()

    told.stays(0)


@pytest.mark.usefixtures("watch")
def test_many_changes_are_reported_once_when_they_have_ended(directory: Path, told: Told) -> None:
    def deploy() -> None:
        for number in range(10):
            replaced(directory / f"{number}.json", GOOD)
            time.sleep(0.01)

    assert told.after(deploy) < MOST_SECONDS


@pytest.mark.usefixtures("watch")
def test_endless_changes_are_still_reported(directory: Path, told: Told) -> None:
    """A program that writes and writes keeps nobody from hearing of it."""
    begun = time.monotonic()
    while told.times < 2:
        (directory / "web.json").write_text(f"{GOOD} {time.monotonic()}")
        time.sleep(0.02)
        assert time.monotonic() - begun < 3 * MOST_SECONDS


def test_a_new_directory_is_watched_again(directory: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_watch, "RENEW_SECONDS", 0.05)
    watch = FilesWatch(directory, told)
    watch.start()
    try:
        told.after(lambda: shutil.rmtree(directory))
        told.after(lambda: _create_again(directory))
        monkeypatch.setattr(files_watch, "RENEW_SECONDS", 60.0)

        assert told.after(lambda: (directory / "web.json").write_text(GOOD + " ")) < MOST_SECONDS
    finally:
        watch.stop()


def test_a_directory_that_is_a_link_is_watched_at_its_target(directory: Path, tmp_path: Path, told: Told) -> None:
    directory.rmdir()
    release = tmp_path / "release"
    release.mkdir()
    directory.symlink_to(release)
    watch = FilesWatch(directory, told)
    watch.start()
    try:
        assert told.after(lambda: (release / "web.json").write_text(GOOD)) < MOST_SECONDS
    finally:
        watch.stop()


def test_a_directory_of_hidden_releases_is_followed(directory: Path, told: Told) -> None:
    """As container platforms mount configuration: each file a link through one hidden link, which is switched."""
    for release in ("..1", "..2"):
        (directory / release).mkdir()
        (directory / release / "web.json").write_text(GOOD + release)
    (directory / "..data").symlink_to("..1")
    (directory / "web.json").symlink_to("..data/web.json")
    watch = FilesWatch(directory, told)
    watch.start()

    def switch() -> None:
        (directory / "..next").symlink_to("..2")
        (directory / "..next").rename(directory / "..data")

    try:
        assert told.after(switch) < MOST_SECONDS
    finally:
        watch.stop()


def test_without_watches_that_is_reported_once_and_retried(
    directory: Path, told: Told, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """The kernel's limit is one for all users, so a real one cannot be reached without harm to others."""
    from watchdog.observers import inotify_c

    monkeypatch.setattr(files_watch, "RENEW_SECONDS", 0.05)
    with monkeypatch.context() as full:
        full.setattr(inotify_c, "inotify_add_watch", _no_watch_left)
        watch = FilesWatch(directory, told)
        watch.start()
        try:
            (directory / "web.json").write_text(GOOD)
            wait_until(lambda: told.times == 1, 5, "a look each time that the watches are tried finds it")
            full.undo()
            wait_until(lambda: len(log.messages) == 2, 5, "it is watched again")
            monkeypatch.setattr(files_watch, "RENEW_SECONDS", 60.0)
            assert told.after(lambda: (directory / "web.json").write_text(GOOD + " ")) < MOST_SECONDS
        finally:
            watch.stop()

    assert "fs.inotify.max_user_watches" in log.messages[0]
    assert log.messages[1] == f"{directory} is watched again"


def _create_again(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "web.json").write_text(GOOD)


def _no_watch_left(*_given: object) -> int:
    ctypes.set_errno(errno.ENOSPC)
    return -1
