"""Replace host-specific references in a file's text: ``${HOSTNAME}``, ``${ADDRESS}``, ``${env:NAME}``.

A variable that contains a credential is refused: Consul's catalog publishes the definition, and plans and errors show
it. Pure: the values are arguments. ``$${`` is a literal ``${``. Only the text of values is replaced, never keys.
"""

import re
from collections.abc import Mapping

from agent.definitions.faults import Finding, is_secret, joined, shown
from agent.text import has_credentials, is_secret_name

HOSTNAME = "HOSTNAME"
ADDRESS = "ADDRESS"
ENVIRONMENT = "env:"
"""The prefix of references to environment variables."""

EXAMPLE_ADDRESS = "192.0.2.1"
"""The value of ``${ADDRESS}`` if no agent is asked: an address for documentation, which no host has (RFC 5737)."""

_REFERENCE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[^}]*)(?P<end>\}?)")
_ESCAPE = "for a literal ${ write $${"


def reference_values(environ: Mapping[str, str], hostname: str, address: str = EXAMPLE_ADDRESS) -> dict[str, str]:
    """Return the value of every reference on a host. ``address`` is the address that its Consul agent advertises."""
    return {**{f"{ENVIRONMENT}{name}": value for name, value in environ.items()}, HOSTNAME: hostname, ADDRESS: address}


def interpolate(tree: object, values: Mapping[str, str]) -> tuple[object, list[Finding], frozenset[str]]:
    """Return the tree with every reference replaced, those that cannot be replaced, and the names that were used."""
    substitution = _Substitution(values)
    return substitution.walk(tree, ""), substitution.found, frozenset(substitution.used)


class _Substitution:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.found: list[Finding] = []
        self.used: set[str] = set()

    def walk(self, tree: object, path: str) -> object:
        """Return the same objects, because they remember repeated keys."""
        if isinstance(tree, str):
            return self._text(tree, path) if "${" in tree else tree
        if isinstance(tree, list):
            for index, item in enumerate(tree):
                tree[index] = self.walk(item, joined(path, index))
        elif isinstance(tree, dict):
            for key, item in tree.items():
                tree[key] = self.walk(item, joined(path, key))
        return tree

    def _text(self, text: str, path: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "${"
            name = match["name"]
            if not match["end"]:
                self._report(path, f"{_shown_reference(path, match[0])} is not closed", f"close it with }}; {_ESCAPE}")
            elif name.startswith(ENVIRONMENT) and self._is_secret(name):
                variable = shown(name.removeprefix(ENVIRONMENT))
                problem = f"the environment variable {variable} contains a credential, and Consul would publish it"
                self._report(path, problem, "let the program read it from a file that only its user can read")
            elif name in self._values:
                self.used.add(name)
                return self._values[name]
            elif name.startswith(ENVIRONMENT) and name != ENVIRONMENT:
                variable = name.removeprefix(ENVIRONMENT)
                remedy = f"set it in svcagent's environment, also for cron and systemd; {_ESCAPE}"
                self._report(path, f"the environment variable {shown(variable)} is not set", remedy)
            else:
                remedy = f"write ${{{HOSTNAME}}}, ${{{ADDRESS}}} or ${{{ENVIRONMENT}NAME}}; {_ESCAPE}"
                self._report(path, f"{_shown_reference(path, match[0])} is an unknown variable", remedy)
            return match[0]

        return _REFERENCE.sub(replaced, text)

    def _is_secret(self, name: str) -> bool:
        """True if the variable has the name of a credential, or a value such as a URL with a password."""
        return is_secret_name(name.removeprefix(ENVIRONMENT)) or has_credentials(self._values.get(name, ""))

    def _report(self, path: str, problem: str, remedy: str) -> None:
        self.found.append(Finding(path, problem, remedy))


def _shown_reference(path: str, text: str) -> str:
    return "a reference in the value" if is_secret(path) else shown(text)
