"""The JSON Schema of a definition file, for editors."""

from typing import Any

from agent.definitions import durations
from agent.definitions.document import DefinitionFile
from agent.definitions.strict_model import Field, ListOf, MapOf, ObjectOf, Schema, StrictModel, ValueType

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """Return the schema (draft 2020-12, in snake_case). Unlike `load`, it has no rules across fields or files."""
    parts: dict[str, type[StrictModel]] = {}
    document = _of(DefinitionFile, parts)
    known: dict[str, Schema] = {}
    while missing := parts.keys() - known.keys():
        known |= {name: _of(parts[name], parts) for name in sorted(missing)}
    return {"$schema": DIALECT, "$defs": dict(sorted(known.items())), **document}


def _of(model: type[StrictModel], parts: dict[str, type[StrictModel]]) -> Schema:
    found: Schema = {"type": "object", "description": model.__doc__, "additionalProperties": False}
    found["properties"] = {name: _of_field(key, parts) for name, key in model.keys.items()}
    if names := [name for name, key in model.keys.items() if key.is_required]:
        found["required"] = names
    return found | model.extra_schema


def _of_field(key: Field, parts: dict[str, type[StrictModel]]) -> Schema:
    found: Schema = _for_a_file(_of_kind(key.kind, parts)) | {"description": key.description}
    if isinstance(key.default, float):
        found["default"] = durations.text(key.default)
    elif isinstance(key.default, bool | int | tuple):
        found["default"] = list(key.default) if isinstance(key.default, tuple) else key.default
    return found


def _of_kind(kind: ValueType, parts: dict[str, type[StrictModel]]) -> Schema:
    match kind:
        case ListOf():
            return {"items": _of_kind(kind.item, parts), "type": "array"}
        case MapOf():
            return {"additionalProperties": _of_kind(kind.item, parts), "type": "object"}
        case ObjectOf():
            parts[kind.model.__name__] = kind.model
            return {"$ref": f"#/$defs/{kind.model.__name__}"}
        case _:
            return kind.schema


def _for_a_file(node: Any) -> Any:
    """Allow references in every pattern, because they may make up any part of a text."""
    if isinstance(node, list):
        return [_for_a_file(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: f"({item})|[$][{{]" if key == "pattern" else _for_a_file(item) for key, item in node.items()}
