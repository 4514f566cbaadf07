"""Validate a parsed tree: return a model, or everything that is wrong with the tree."""

from typing import TypeVar

from agent.definitions.faults import Finding
from agent.definitions.part import BAD, Part, PartOf
from agent.definitions.tidy import tidy

P = TypeVar("P", bound=Part)


def validate(tree: object, model: type[P]) -> tuple[P | None, list[Finding], object]:
    """Return the model if there are no findings, the findings, and the normalized tree, which may be faulty."""
    tidied, found = tidy(tree, model)
    taken = {finding.path for finding in found}
    more: list[Finding] = []
    built = PartOf(model).read(tidied, (), more)
    found.extend(finding for finding in more if finding.path not in taken)
    return (None if found or built is BAD else built), found, tidied
