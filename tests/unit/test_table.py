"""Tables on a terminal."""

import hypothesis.strategies as st
from hypothesis import given
from rich.console import Console

from agent.cli.output import table

DIGEST = f"sha256:{'0' * 64}"
HEADERS = ("HOST", "DIGEST", "STATE", "MAINTENANCE", "ERROR")
WORDS = st.sampled_from(["host1", "a-host-with-a-long-name.example.com", "-", "not", "ready", DIGEST])
CELLS = st.lists(WORDS, max_size=6).map(" ".join)


def _printed(rows: list[list[str]], width: int) -> list[str]:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table(HEADERS, rows, width))
    return [line.rstrip() for line in captured.get().splitlines()]


@given(st.lists(st.tuples(WORDS, CELLS, CELLS, CELLS, CELLS).map(list), max_size=3))
def test_no_word_breaks_at_80_columns(rows: list[list[str]]) -> None:
    lines = _printed(rows, 80)

    printed = " ".join(lines).split()
    assert max(map(len, lines)) <= 80
    for word in {word for row in rows for cell in row for word in cell.split()} - {"-"}:
        assert printed.count(word) == sum(cell.split().count(word) for row in rows for cell in row)


def test_what_does_not_fit_is_below_its_row() -> None:
    rows = [
        ["host1", DIGEST[:19], "running", "-", "-"],
        ["host2", DIGEST[:19], "rolled back", "alice", "not ready " * 5],
    ]

    assert _printed(rows, 60) == [
        "HOST   DIGEST               STATE        MAINTENANCE",
        f"host1  {DIGEST[:19]}  running      -",
        f"host2  {DIGEST[:19]}  rolled back  alice",
        "  not ready not ready not ready not ready not ready",
    ]
