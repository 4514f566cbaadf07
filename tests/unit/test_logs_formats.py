"""How one event is written: as key=value, as JSON, as fields of the journal."""

import json
import math
import re
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.logs.formats import CRITICAL, DEBUG, ERROR, INFO, WARNING, LogEvent, as_journal, as_json, as_text

TIME = "2026-11-24T10:00:00.000+00:00"
PAIR = re.compile(r'([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s="]*))(?: |$)')


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


def event(text: str = "", level: int = INFO, /, **fields: object) -> LogEvent:
    return LogEvent(TIME, level, "info", text, fields)


def read_logfmt(line: str) -> dict[str, str]:
    """As logfmt readers do it (Loki, go-logfmt): pairs with one space between; within quotes JSON's escapes."""
    found, place = {}, 0
    while place < len(line):
        pair = PAIR.match(line, place)
        assert pair, line[place:]
        name, quoted, bare = pair.groups()
        found[name] = bare if quoted is None else json.loads(f'"{quoted}"')
        place = pair.end()
    return found


VALUES: dict[str, tuple[object, str, object]] = {
    "a word": ("drain", "drain", "drain"),
    "spaces": ("two words", '"two words"', "two words"),
    "nothing": ("", '""', ""),
    "a quote": ('say "x"', r'"say \"x\""', 'say "x"'),
    "an equals sign": ("a=b", '"a=b"', "a=b"),
    "a backslash": ("a\\b", r'"a\\b"', "a\\b"),
    "a newline": ("a\nlevel=error", r'"a\nlevel=error"', "a\nlevel=error"),
    "a carriage return": ("a\rb", r'"a\rb"', "a\rb"),
    "a tab": ("a\tb", r'"a\tb"', "a\tb"),
    "zero": ("a\0b", r'"a\u0000b"', "a\0b"),
    "a terminal's escape": ("\x1b[2J", r'"\u001b[2J"', "\x1b[2J"),
    "the same of eight bits": ("\x9b2J", r'"\u009b2J"', "\x9b2J"),
    "delete": ("\x7f", r'"\u007f"', "\x7f"),
    "a line separator": ("a\u2028b", r'"a\u2028b"', "a\u2028b"),
    "text turned round": ("a\u202eb", r'"a\u202eb"', "a\u202eb"),
    "a space that is none": ("a\u00a0b", r'"a\u00a0b"', "a\u00a0b"),
    "German": ("für", "für", "für"),
    "Japanese, with a space": ("再 読", '"再 読"', "再 読"),
    "beyond the first plane": ("🚀", "🚀", "🚀"),
    "a tag beyond it": ("\U000e0041", r'"\udb40\udc41"', "\U000e0041"),
    "no character": ("\udcff", r'"\udcff"', "\udcff"),
    "yes": (True, "true", True),
    "no": (False, "false", False),
    "an integer": (7, "7", 7),
    "a float": (0.25, "0.25", 0.25),
    "a large float": (1e300, "1e+300", 1e300),
    "not a number": (math.nan, "nan", "nan"),
    "infinity": (-math.inf, "-inf", "-inf"),
    "a word of an enumeration": (Colour.RED, "red", "red"),
    "a number of one": (Number.ONE, "1", 1),
    "a path": (Path("/a b"), '"/a b"', "/a b"),
    "bytes": (b"a\xff", "a\ufffd", "a\ufffd"),
    "a list": (["a", 1, None], r'"[\"a\", 1, null]"', ["a", 1, None]),
    "a tree": ({"a": {1: math.inf}}, r'"{\"a\": {\"1\": \"inf\"}}"', {"a": {"1": "inf"}}),
    "an error": (ValueError("no\nway"), r'"no\nway"', "no\nway"),
}


@pytest.mark.parametrize(("value", "text", "tree"), VALUES.values(), ids=VALUES)
def test_a_value(value: object, text: str, tree: object) -> None:
    """In text a word or within quotes, never with a sign that ends a line or moves a cursor; in JSON as JSON has it."""
    line = as_text(event(value=value))

    assert line == f"time={TIME} level=info value={text}"
    assert json.loads(as_json(event(value=value)))["value"] == tree


@pytest.mark.parametrize("write", [as_text, as_json])
def test_what_is_none_is_not_there(write: Any) -> None:
    assert "gone" not in write(event("x", gone=None))
    assert "SVCAGENT_GONE" not in dict(as_journal(event("x", gone=None)))


def test_the_order_of_a_line() -> None:
    """When and how bad, then the fields as they were given, then the words; no words, no field for them."""
    assert as_text(event("is out", service="web", step="drain")) == (
        f'time={TIME} level=info service=web step=drain text="is out"'
    )
    assert as_text(event("", step="drain")) == f"time={TIME} level=info step=drain"
    assert list(json.loads(as_json(event("is out", service="web")))) == ["time", "level", "text", "service"]


def test_the_time_of_the_original_line_is_kept() -> None:
    assert as_text(event("x", time="then")) == "time=then level=info text=x"
    assert json.loads(as_json(event("x", time="then")))["time"] == "then"


def test_no_name_breaks_a_line() -> None:
    """Names may come from another process."""
    assert as_text(event("", INFO, **{"a b": 1, "c=d\ne": 2, "": 3})) == f"time={TIME} level=info a_b=1 c_d_e=2 _=3"


names = st.text(min_size=1).filter(lambda name: name not in ("time", "level", "text"))
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.text(), st.dictionaries(names, trees))
def test_one_event_is_one_line_for_any_text(text: str, fields: Mapping[str, Any]) -> None:
    """And the text comes back as it was; JSON is JSON for strict readers too."""
    found = LogEvent(TIME, INFO, "info", text, fields)

    for line in (as_text(found), as_json(found)):
        assert line.isprintable()
        assert len(line.splitlines()) == 1
    assert read_logfmt(as_text(found)).get("text", "") == text
    assert json.loads(as_json(found), parse_constant=pytest.fail)["text"] == text


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(lambda n: n not in ("time", "level")), st.text()
    )
)
def test_logfmt_readers_find_every_field_as_it_was(fields: Mapping[str, str]) -> None:
    found = read_logfmt(as_text(LogEvent(TIME, INFO, "info", "", fields)))

    assert found == {"time": TIME, "level": "info", **fields}


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (CRITICAL, "2"),
        (ERROR, "3"),
        (35, "4"),
        (WARNING, "4"),
        (25, "6"),
        (INFO, "6"),
        (DEBUG, "7"),
        (0, "7"),
        (60, "2"),
    ],
)
def test_a_level_is_a_priority_of_syslog(level: int, priority: str) -> None:
    """Never emerg, which journald writes on every terminal of the host."""
    assert dict(as_journal(event("x", level)))["PRIORITY"] == priority


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (event("is out"), "is out"),
        (event("is out", service="web"), "web: is out"),
        (event("web IS STILL OUT", service="web"), "web IS STILL OUT"),
        (event("", service="web", step="drain", phase="begin"), "web: drain begin"),
        (event("line one\nline two\tx\x1b[2J"), "line one\nline two\tx\\u001b[2J"),
        (event("\udcff"), "\\udcff"),
        (
            event("", service="web", reload="r1", outcome="reloaded", why="schedule"),
            "web: outcome=reloaded why=schedule",
        ),
        (event(""), ""),
    ],
)
def test_what_journalctl_shows(found: LogEvent, message: str) -> None:
    """Whose event it is and what happened, and nothing for which it would show "blob data" instead."""
    assert dict(as_journal(found))["MESSAGE"] == message


def test_fields_of_the_journal() -> None:
    """Ours under a name of ours, in signs that the journal takes; what is not text as JSON."""
    found = as_journal(
        event("x", INFO, **{"service": "web", "exit_code": 75, "ok": True, "faults": [{"file": "a"}], "a b\n=": "c"})
    )

    assert found == [
        ("MESSAGE", "web: x"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "svcagent"),
        ("SVCAGENT_SERVICE", "web"),
        ("SVCAGENT_EXIT_CODE", "75"),
        ("SVCAGENT_OK", "true"),
        ("SVCAGENT_FAULTS", '[{"file": "a"}]'),
        ("SVCAGENT_A_B__", "c"),
    ]
    assert len(as_journal(event("x", INFO, **{"n" * 99: 1}))[-1][0]) == 64


def test_no_format_passes_a_control_or_bidirectional_character_on() -> None:
    evil = "a\x1b[2J\x9b31m\x7f\u202eb\u2028c\ud800"
    event = LogEvent("now", 20, "info", evil, {"service": evil, "more": [evil]})

    journal = "".join(value for _name, value in as_journal(event))

    for line in (as_text(event), as_json(event), journal):
        assert line.isprintable()
