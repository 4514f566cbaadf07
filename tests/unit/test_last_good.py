"""Which version of each definition file the daemon goes by: tables, and what holds of any files."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.last_good import Choice, choose
from agent.definitions import ParsedFile, find_name_conflicts, parse_file

UNREADABLE = "!"
DIRECTORY = Path("services.d")


def file_of(name: str, version: str) -> ParsedFile:
    """A file: ``x y`` defines two services, ``!x`` names one and is faulty, ``!`` is not even JSON.

    A version after a colon (``x:2``) makes it another content of the same names.
    """
    names, _, port = version.lstrip("!").partition(":")
    fault = {"prot": 1} if "!" in version else {}
    services = [{"name": one, "port": int(port or 1), **fault} for one in names.split()]
    content = b"{" if version == UNREADABLE else json.dumps({"services": services}).encode()
    return parse_file(DIRECTORY / name, content, {})


def files_of(versions: Mapping[str, str]) -> dict[str, ParsedFile]:
    return {name: file_of(name, version) for name, version in versions.items()}


def chosen(choice: Choice, *versions: Mapping[str, str]) -> dict[str, str]:
    """The version of each file that was chosen, out of these."""
    contents = {(name, file_of(name, text).content): text for one in versions for name, text in one.items()}
    return {one.file.name: contents[one.file.name, one.content] for one in choice.files}


@pytest.mark.parametrize(
    ("now", "good", "expected", "faulty"),
    [
        ({"a": "x"}, {}, {"a": "x"}, set()),
        ({"a": "x:2"}, {"a": "x"}, {"a": "x:2"}, set()),
        ({"a": "x"}, {"a": "x", "b": "y"}, {"a": "x"}, set()),
        ({"a": "!x", "b": "y:2"}, {"a": "x", "b": "y"}, {"a": "x", "b": "y:2"}, {"a"}),
        ({"a": "!", "b": "y"}, {"a": "x"}, {"a": "x", "b": "y"}, {"a"}),
        ({"a": "!", "b": "y"}, {}, {"b": "y"}, {"a"}),
        # Never good, and what was kept of it is good no more.
        ({"a": "!x", "b": "y"}, {"a": "!x"}, {"b": "y"}, {"a"}),
        # The file that changed is to blame, whatever its name.
        ({"a": "x y", "b": "y"}, {"a": "x", "b": "y"}, {"a": "x", "b": "y"}, {"a"}),
        ({"a": "y", "b": "y"}, {"b": "y"}, {"b": "y"}, {"a"}),
        ({"a": "y", "b": "y"}, {"a": "y"}, {"a": "y"}, {"b"}),
        # Neither was good: the later one is to blame.
        ({"a": "y", "b": "y"}, {}, {"a": "y"}, {"b"}),
        ({"a": "x x"}, {"a": "x"}, {"a": "x"}, {"a"}),
        # A service may move to another file, and two may change places.
        ({"a": "x", "b": "y z"}, {"a": "x y", "b": "z"}, {"a": "x", "b": "y z"}, set()),
        ({"a": "y", "b": "x"}, {"a": "x", "b": "y"}, {"a": "y", "b": "x"}, set()),
        # It may not when the file that it leaves is kept as it was.
        ({"a": "!x", "b": "y z"}, {"a": "x y", "b": "z"}, {"a": "x y", "b": "z"}, {"a", "b"}),
        # A faulty file does not keep others from the names in it.
        ({"a": "!y", "b": "y"}, {"a": "x"}, {"a": "x", "b": "y"}, {"a"}),
        # One step back may force another's.
        ({"a": "y", "b": "y", "c": "x"}, {"a": "x", "b": "y"}, {"a": "x", "b": "y"}, {"a", "c"}),
        ({}, {"a": "x"}, {}, set()),
    ],
)
def test_a_faulty_file_keeps_its_last_good_version(
    now: dict[str, str], good: dict[str, str], expected: dict[str, str], faulty: set[str]
) -> None:
    """Other files change nevertheless."""
    choice = choose(files_of(now), files_of(good))

    assert chosen(choice, now, good) == expected
    assert {Path(fault.file).name for fault in choice.faults} == faulty


@pytest.mark.parametrize(
    ("now", "good", "earlier", "gone"),
    [
        ({"a": "x"}, {"a": "x", "b": "y"}, "", None),
        # A faulty file that was good means what it meant then.
        ({"a": "!"}, {"a": "x", "b": "y"}, "", None),
        # A new one that names its services means those; what good files gave up is not among them.
        ({"a": "x", "c": "!z"}, {"a": "x", "b": "y"}, "", {"y"}),
        ({"a": "x", "c": "!z"}, {"a": "x y"}, "", {"y"}),
        ({"a": "x", "c": "!z"}, {"a": "x"}, "y z", {"y"}),
        ({"a": "x", "c": "!y"}, {"a": "x", "b": "y"}, "", set()),
        ({"a": "x", "c": "!z"}, {"a": "x", "c": "!y"}, "y", set()),
        # One that does not may mean any.
        ({"a": "x", "c": "!"}, {"a": "x", "b": "y"}, "", set()),
        ({"a": "x", "c": "!z", "d": "!"}, {"a": "x", "b": "y"}, "y", set()),
        # One that lost a name to another file meant it.
        ({"a": "x", "c": "x"}, {"a": "x", "b": "y"}, "", {"y"}),
    ],
)
def test_what_may_be_removed_with_a_file_that_was_never_valid(
    now: dict[str, str], good: dict[str, str], earlier: str, gone: set[str] | None
) -> None:
    """Only what good files are known to have given up, and no faulty one names."""
    choice = choose(files_of(now), files_of(good), frozenset(earlier.split()))

    assert choice.gone == gone


VERSIONS = st.one_of(
    st.just(UNREADABLE),
    st.builds(
        lambda is_bad, names, port: f"{'!' if is_bad else ''}{' '.join(sorted(names))}:{port}",
        st.booleans(),
        st.sets(st.sampled_from("wxyz"), min_size=1, max_size=3),
        st.sampled_from("12"),
    ),
)
FILES = st.dictionaries(st.sampled_from("abcd"), VERSIONS)


@given(FILES, FILES)
def test_of_any_files_a_set_without_faults_is_chosen(now: dict[str, str], good: dict[str, str]) -> None:
    """None is faulty, none clashes, each is as it is or as it was kept; and a file that is not chosen has a fault."""
    choice = choose(files_of(now), files_of(good))

    assert not any(one.faults for one in choice.files)
    assert list(find_name_conflicts(use for one in choice.files for use in one.name_uses)) == []
    versions = chosen(choice, good, now)
    assert all(text in (now[name], good.get(name)) for name, text in versions.items())
    faulty = {Path(fault.file).name for fault in choice.faults}
    assert {name for name in now if versions.get(name) != now[name]} <= faulty


@given(FILES, FILES)
def test_what_was_good_stays_good(before: dict[str, str], now: dict[str, str]) -> None:
    """No file that was good falls out because of what others do; and the same files are chosen the same once more."""
    kept = {one.file.name: one for one in choose(files_of(before), {}).files}

    choice = choose(files_of(now), kept)
    again = choose(files_of(now), {one.file.name: one for one in choice.files})

    assert {one.file.name for one in choice.files} >= kept.keys() & now.keys()
    assert again.files == choice.files
