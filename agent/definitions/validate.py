"""From a parsed tree to a model, or to everything that is wrong with the tree."""

from typing import Any, TypeVar

from pydantic import ValidationError

from agent.definitions.faults import Finding, findings
from agent.definitions.part import FROM_A_FILE, Part
from agent.definitions.tidy import model_of, shape_inside, tidy

P = TypeVar("P", bound=Part)


def validate(tree: object, model: type[P]) -> tuple[P | None, list[Finding], object]:
    """The model, unless there are findings; and the tidied tree, for questions that a faulty one can still answer."""
    tidied, found = tidy(tree, model)
    built: P | None = None
    try:
        built = model.model_validate(tidied, context=FROM_A_FILE)
    except ValidationError as error:
        taken = {finding.path for finding in found}
        found.extend(
            finding for finding in findings(error, lambda loc: describe(model, loc)) if finding.path not in taken
        )
    return (None if found else built), found, tidied


def describe(model: type[Part], loc: tuple[int | str, ...]) -> str:
    """What the field at a place is for."""
    shape: Any = model
    for key in loc[:-1]:
        owner = model_of(shape)
        shape = shape_inside(shape) if owner is None else owner.model_fields[str(key)].annotation
    owner = model_of(shape)
    return (owner.model_fields[str(loc[-1])].description or "") if owner else ""
