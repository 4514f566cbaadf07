"""Which definition a name on the command line means."""

import json
from pathlib import Path

from agent.definitions import defining, load


def test_an_id_comes_before_a_name(tmp_path: Path) -> None:
    """Reloads are asked for by id, which is one service's alone; one's id may be another's name."""
    for file, name, service_id in (("1", "web", "web-1"), ("2", "other", "web"), ("3", "web", "web-3")):
        (tmp_path / f"{file}.json").write_text(json.dumps({"service": {"name": name, "id": service_id}}))
    found = load(tmp_path, {})

    assert [defining(found, one) for one in ("web", "other", "web-3", "none")] == [found[1], found[1], found[2], None]


def test_a_name_of_several_is_the_first(tmp_path: Path) -> None:
    """In order of the files' names."""
    for file, service_id in (("b", "web-2"), ("a", "web-1")):
        (tmp_path / f"{file}.json").write_text(json.dumps({"service": {"name": "web", "id": service_id}}))
    found = load(tmp_path, {})

    assert defining(found, "web") == found[0]
