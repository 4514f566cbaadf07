"""A public class name exists once in the package, so that a name in a message or a search leads to one place."""

import ast
from collections import defaultdict

from tests.lab.server import REPOSITORY


def test_each_public_class_name_exists_once() -> None:
    places = defaultdict(list)
    for file in sorted((REPOSITORY / "agent").rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(REPOSITORY)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
