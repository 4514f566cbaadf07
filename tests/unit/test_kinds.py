"""docs/kinds.md lists every kind with its exit code, and every outcome."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import agent
from agent.cli.output import USAGE
from agent.doctor.registry import CHECKS
from agent.errors import GuardRefused, Interrupted, SvcagentError
from agent.outcomes import Outcome
from agent.registration.plan import RefusalKind
from agent.reload import why
from agent.reload.guard import ObstacleKind

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "kinds.md").read_text()
OBJECTIONS = {"other-directory", "too-many-removals"}


def error_classes() -> dict[str, type[SvcagentError]]:
    """Return every error class of the package by its name."""
    for module in pkgutil.walk_packages(agent.__path__, "agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(one: type[SvcagentError]) -> Iterator[type[SvcagentError]]:
        yield one
        for subclass in one.__subclasses__():
            if subclass.__module__.startswith("agent."):
                yield from below(subclass)

    return {one.__name__: one for one in below(SvcagentError)}


def raised_kinds(classes: dict[str, type[SvcagentError]]) -> Iterator[tuple[str, int]]:
    """Return the kinds that errors are raised with, and their exit codes."""
    for file in (ROOT / "agent").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in classes:
                for given in call.keywords:
                    if given.arg == "kind" and isinstance(given.value, ast.Constant):
                        yield str(given.value.value), classes[call.func.id].exit_code


def documented(section: str) -> set[tuple[str, str]]:
    """Return the first two cells of the rows of a section's table."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.MULTILINE))


def test_docs_list_every_kind_with_its_exit_code() -> None:
    classes = error_classes()
    reasons = {why.CONTAINER_STOPPED, why.OLDER_ROLLOUT, why.RELOAD_RUNNING, why.RELOAD_UNFINISHED}
    kinds = {(one.kind, str(one.exit_code)) for one in classes.values()}
    kinds |= {(kind, str(code)) for kind, code in raised_kinds(classes)}
    kinds |= {(str(kind), str(GuardRefused.exit_code)) for kind in {*ObstacleKind, *reasons}}
    kinds |= {(str(kind), str(SvcagentError.exit_code)) for kind in {*RefusalKind, *OBJECTIONS}}
    kinds |= {(USAGE, "2"), (Interrupted.kind, "130, 143 or 129")}

    found = documented("Obstacles") | documented("Refused changes of `plan` and `register`") | documented("Errors")
    assert found == kinds


def test_docs_list_every_outcome() -> None:
    assert {outcome for outcome, _text in documented("Outcomes of a reload")} == set(Outcome)


def test_docs_list_every_finding_of_doctor() -> None:
    text = PAGE.partition("## Findings of `doctor`\n")[2]

    assert set(re.findall(r"`(\w+-\w+)`", text)) == {f"{one.subject}-{one.name}" for one in CHECKS}


def test_a_kind_is_kebab_case() -> None:
    classes = error_classes()
    kinds = {one.kind for one in classes.values()} | {kind for kind, _code in raised_kinds(classes)}

    assert [kind for kind in kinds if not re.fullmatch(r"[a-z]+(-[a-z]+)*", kind)] == []
