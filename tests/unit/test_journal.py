"""The journal on disk: what is written is read, what is damaged is told, and nothing else gets in its way."""

import stat
from pathlib import Path

import pytest

from agent.errors import SvcagentError
from agent.reload.journal import Journal, JournalDamaged, JournalRecord, journalled
from tests.support.kinds import raises_kind

RECORD = JournalRecord(
    reload_id="1234abcd",
    service_id="web/eu 1",
    service="web",
    container="web",
    lock="web_reload",
    max_parallel=1,
    image="registry.example.com/web:latest",
    digest_before="sha256:1",
    digest="sha256:2",
    since="2026-05-01T06:00:00+00:00",
    step="drain",
    session="s",
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """By the next process, in a file that only its owner reads; an id may hold what file names may not."""
    Journal(tmp_path, "web/eu 1").write(RECORD)

    assert Journal(tmp_path, "web/eu 1").read() == RECORD
    assert journalled(tmp_path) == {"web/eu 1"}
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_was_left(tmp_path: Path) -> None:
    """No file, no record; removing it again is fine; a directory that is not there holds none."""
    journal = Journal(tmp_path, "web")
    journal.write(RECORD)
    journal.remove()
    journal.remove()

    assert journal.read() is None
    assert journalled(tmp_path) == frozenset()
    assert journalled(tmp_path / "lost") == frozenset()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"v": 2}', '{"v": 1}', '{"v": 1, "reload_id": 7}', "\xff", '{"v": 1, "step": {}}'],
)
def test_a_damaged_document_is_reported_as_damaged(tmp_path: Path, content: str) -> None:
    """A half-written file, another version, other fields: all named as damaged, with the file."""
    Journal(tmp_path, "web").write(RECORD)
    [file] = tmp_path.iterdir()
    file.write_bytes(content.encode("latin-1"))

    with pytest.raises(JournalDamaged, match=file.name):
        Journal(tmp_path, "web").read()


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    """The directory cannot be written: the old record stands, without a temporary file beside it."""
    journal = Journal(tmp_path / "state", "web")
    with raises_kind(SvcagentError, "cannot-write"):
        journal.write(RECORD)

    assert list(tmp_path.iterdir()) == []
