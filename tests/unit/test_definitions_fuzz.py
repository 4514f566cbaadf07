"""Whatever stands in a file, the answer is a definition or a report, never an accident."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.definitions import load
from agent.errors import BadDefinition

GOOD = {
    "service": {
        "name": "web",
        "id": "web-1",
        "tags": ["production"],
        "port": 8080,
        "address": "10.0.0.7",
        "meta": {"version": "3"},
        "tagged_addresses": {"wan": {"address": "web1.example.com", "port": 80}},
        "weights": {"passing": 5, "warning": 1},
        "check": {"ttl": "10s"},
        "checks": [{"http": "http://127.0.0.1:8080/hc", "interval": "10s", "header": {"A": ["b"]}}],
    },
    "reload": {
        "image": "web:1",
        "container": "web",
        "schedule": "*/10 * * * *",
        "timezone": "UTC",
        "lock": "web_reload",
        "windows": ["Mon-Fri 22:00-06:00"],
        "hooks": {"before_drain": ["/bin/true", "x"], "timeout": "1m"},
        "min_age": "1h",
        "min_healthy": "50%",
        "drain": {"min": "0s", "max": "30s"},
        "ready": {"timeout": "2m", "warmup": ["http://127.0.0.1:8080/"]},
        "tag_file": "/var/lib/web/tag",
    },
    "cname": [{"name": "*.web.", "tag": "production", "ttl": 60}],
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] + [place for key, item in items for place in places(item, (*path, key))]


def altered(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = altered(tree[path[0]], path[1:], value)
    return copy


def is_told_or_taken(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "web.json").write_bytes(content)
        told = ""
        try:
            load(Path(directory))
        except BadDefinition as error:
            told = str(error)
        assert b"a bug of svcagent" not in told.encode()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(places(GOOD)), VALUES)
def test_a_value_of_any_sort_in_any_place(path: tuple[str | int, ...], value: Any) -> None:
    is_told_or_taken(json.dumps(altered(GOOD, path, value)).encode())


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=0), st.binary(max_size=3))
def test_a_file_cut_short_or_scribbled_over(position: int, scribble: bytes) -> None:
    whole = json.dumps(GOOD).encode()
    position %= len(whole)

    is_told_or_taken(whole[:position])
    is_told_or_taken(whole[:position] + scribble + whole[position + len(scribble) :])


def test_the_untouched_definition_is_good(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(json.dumps(GOOD))

    assert len(load(tmp_path)) == 1
