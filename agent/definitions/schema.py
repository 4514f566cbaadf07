"""The JSON Schema of a definition file, for editors."""

from typing import Any

from agent.definitions import durations
from agent.definitions.document import Document

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Draft 2020-12, in snake_case. It says less than `load`: what spans several fields or files is not in it."""
    return {"$schema": DIALECT, **_for_a_file(Document.model_json_schema())}


def _for_a_file(node: Any) -> Any:
    """The schema of what is written instead of what is held: no null for what was left out, durations as text."""
    if isinstance(node, list):
        return [_for_a_file(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {key: _for_a_file(item) for key, item in node.items() if not (key == "title" and isinstance(item, str))}
    if isinstance(tidied.get("pattern"), str):
        # The text may be put together from what differs from host to host.
        tidied["pattern"] = f"({tidied['pattern']})|[$][{{]"
    default = tidied.get("default")
    if isinstance(default, float):
        tidied["default"] = durations.text(default)
    elif default in (None, "") or isinstance(default, dict):
        tidied.pop("default", None)
    options = [option for option in tidied.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del tidied["anyOf"]
        return options[0] | tidied
    return tidied
