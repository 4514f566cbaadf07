"""Help, messages, docstrings and documents are in plain technical English, as far as a list of words can show it.

The list has the words of a dialect that this project once had, each with what to write instead. They are found in the
package's strings (messages, help and docstrings), in its comments, in documents and in the names of tests.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INSTEAD = {
    r"told|tells?|telling": "reported, logged, notified, distinguished",
    r"stands?|stood(?! for)": "is, is there, remains",
    r"befalls?|befell|befallen": "happens to",
    r"whoever|whosoever|somebody|someone|nobody|no one": "the operator, another process, no host: name the actor",
    r"whatever|whichever": "even if, in any case, all",
    r"puts? back|putting back": "restore, roll back, enable again",
    r"takes? out|(?<!T)taken out(?! by)|took out|puts? out": "enable maintenance, drain",
    r"gives? back|given back|gave back": "release, return",
    r"lifts?|lifted": "end, disable",
    r"anew|afresh": "again",
    r"beside|besides": "with, next to, also",
    r"at once": "immediately, at the same time",
    r"of (?:its|their|his) own": "separate, its",
    r"goes on|go on|went on|going on": "continue",
    r"(?:is|are|was|were) over": "has ended, has expired",
    r"(?:is|are|was) at it|in the way": "holds the lock, blocks",
    r"dies|died|dead (?:process|holder|waiter|reload|host)s?": "exits, exited, crashed",
    r"mends?|mended|heeds?|heeded|hears?|heard": "repair, consider, receive",
    r"insists?|hence|thus|thereby|forthwith": "a verb of the field, or nothing",
    r"left alone|leaves? alone": "not changed",
}
DIALECT = re.compile("|".join(rf"\b(?:{words})\b" for words in INSTEAD), re.IGNORECASE)


def found_in(text: str) -> Iterator[str]:
    """Yield each such word with what is around it."""
    for match in DIALECT.finditer(text):
        around = text[max(0, match.start() - 40) : match.end() + 40].replace("\n", " ")
        yield f"{match[0]!r} in …{around}…"


def modules(directory: str) -> list[Path]:
    return sorted((ROOT / directory).rglob("*.py"))


@pytest.mark.parametrize("file", modules("agent"), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_is_in_plain_english(file: Path) -> None:
    with tokenize.open(file) as lines:
        tokens = list(tokenize.generate_tokens(lines.readline))
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    strings = [
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]

    assert [hit for text in (*comments, *strings) for hit in found_in(text)] == []


@pytest.mark.parametrize(
    "file",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *(one for one in ROOT.glob("packaging/**/*") if one.is_file())],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_a_document_is_in_plain_english(file: Path) -> None:
    assert list(found_in(file.read_text())) == []


def test_names_of_tests_are_in_plain_english() -> None:
    named = (
        node.name.replace("_", " ")
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )

    assert [hit for name in named for hit in found_in(name)] == []
