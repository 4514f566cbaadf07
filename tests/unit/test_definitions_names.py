"""Which definition a name on the command line means, and what is left of a directory with faulty files."""

import json
from pathlib import Path

import pytest

from agent.definitions import Loaded, find_definition, load, load_valid


def _load(directory: Path, **files: str | dict[str, str]) -> Loaded:
    for file, content in files.items():
        text = content if isinstance(content, str) else json.dumps({"service": content})
        (directory / f"{file}.json").write_text(text)
    return load_valid(directory)


def _files(found: Loaded) -> str:
    return " ".join(one.file.stem for one in found.definitions)


def test_an_id_comes_before_a_name(tmp_path: Path) -> None:
    """Reloads are asked for by id, which is one service's alone; one's id may be another's name."""
    for file, name, service_id in (("1", "web", "web-1"), ("2", "other", "web"), ("3", "web", "web-3")):
        (tmp_path / f"{file}.json").write_text(json.dumps({"service": {"name": name, "id": service_id}}))
    found = load(tmp_path, {})

    assert [find_definition(found, one) for one in ("web", "other", "web-3", "none")] == [
        found[1],
        found[1],
        found[2],
        None,
    ]


def test_a_name_of_several_is_the_first(tmp_path: Path) -> None:
    for file, service_id in (("b", "web-2"), ("a", "web-1")):
        (tmp_path / f"{file}.json").write_text(json.dumps({"service": {"name": "web", "id": service_id}}))
    found = load(tmp_path, {})

    assert find_definition(found, "web") == found[0]


def test_a_faulty_file_is_left_out_alone(tmp_path: Path) -> None:
    found = _load(tmp_path, a={"name": "a"}, b={"name": "b", "prot": "80"}, c="{", d={"name": "d"})

    assert _files(found) == "a d"
    assert [(Path(one.file).stem, one.path) for one in found.faults] == [
        ("b", "service.prot"),
        ("c", "line 1 column 2"),
    ]


@pytest.mark.parametrize("draft", [{"name": "web"}, {"name": "web", "prot": "80"}, {"name": "other", "id": "WEB"}])
def test_neither_of_two_files_with_one_name_is_used(tmp_path: Path, draft: dict[str, str]) -> None:
    """Which of them is meant is not known, whichever of them has another fault."""
    found = _load(tmp_path, a={"name": "a"}, draft=draft, web={"name": "web"})

    assert _files(found) == "a"
    assert {Path(one.file).stem for one in found.faults_of("web")} >= {"web"}
    assert found.faults_of("web") == found.faults


def test_faults_concern_the_services_of_their_file(tmp_path: Path) -> None:
    found = _load(tmp_path, a={"name": "a"}, b={"name": "b", "id": "b-1", "prot": "80"}, c={"name": "c", "prot": "80"})

    assert [[Path(one.file).stem for one in found.faults_of(name)] for name in ("b", "b-1", "c")] == [
        ["b"],
        ["b"],
        ["c"],
    ]
    assert found.faults_of("typo") == ()


def test_a_file_whose_service_cannot_be_read_may_define_any(tmp_path: Path) -> None:
    found = _load(tmp_path, a={"name": "a"}, b={"name": "b", "prot": "80"}, c="{")

    assert [Path(one.file).stem for one in found.faults_of("web")] == ["c"]
    assert [Path(one.file).stem for one in found.faults_of("b")] == ["b"]


def test_a_directory_that_cannot_be_read_concerns_every_service(tmp_path: Path) -> None:
    found = load_valid(tmp_path / "nowhere")

    assert (found.definitions, found.faults_of("web")) == ((), found.faults)
    assert found.faults[0].problem == "no such directory"
