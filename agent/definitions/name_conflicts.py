"""Names that only one definition may use: service IDs, CheckIDs, containers. In Consul a later user takes them over.

Consul's catalog compares service IDs, CheckIDs and service names without case: of ``web`` and ``Web`` on one node it
keeps one, although the agent lists both. Docker distinguishes container names by case.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.data import dataclass
from agent.definitions.document import Definition
from agent.definitions.faults import shown
from agent.definitions.service import Service
from agent.errors import Fault

SERVICE_ID, SERVICE_NAME, CHECK_ID, CONTAINER = "service ID", "service name", "CheckID", "container"


@dataclass(frozen=True)
class NameUse:
    what: str
    name: str
    file: Path
    path: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what conflicting uses have in common. Service names with one key must have one spelling."""
        return self.what, self.name if self.what == CONTAINER else self.name.casefold()


def find_name_uses(file: Path, tree: Any, definition: Definition | None) -> Iterator[NameUse]:
    """Yield the names that a file uses. A faulty file has no ``definition``: then only names written in its tree."""
    several = tree.get("services", ())
    written = [("service", tree.get("service"))]
    if isinstance(several, tuple):
        written += [(f"services[{index}]", service) for index, service in enumerate(several)]
    written = [(path, service) for path, service in written if isinstance(service, dict)]
    built: Iterable[Service | None] = definition.services if definition else [None] * len(written)
    for (path, service), model in zip(written, built, strict=True):
        key = "id" if service.get("id") else "name"
        if isinstance(service.get(key), str):
            yield NameUse(SERVICE_ID, service[key], file, f"{path}.{key}")
        if isinstance(service.get("name"), str):
            yield NameUse(SERVICE_NAME, service["name"], file, f"{path}.name")
        yield from _check_name_uses(file, path, service, model)
    reload = tree.get("reload")
    if isinstance(reload, dict) and isinstance(reload.get("container"), str):
        yield NameUse(CONTAINER, reload["container"], file, "reload.container")


def _check_name_uses(file: Path, path: str, service: dict[str, Any], model: Service | None) -> Iterator[NameUse]:
    several = service.get("checks", ())
    written = [(f"{path}.check", service["check"])] if "check" in service else []
    if isinstance(several, tuple):
        written += [(f"{path}.checks[{index}]", check) for index, check in enumerate(several)]
    ids = (
        [check.id for check in model.checks]
        if model
        else [check.get("id") if isinstance(check, dict) else None for _, check in written]
    )
    for (place, _), check_id in zip(written, ids, strict=True):
        if isinstance(check_id, str) and check_id:
            yield NameUse(CHECK_ID, check_id, file, f"{place}.id")


def find_name_conflicts(claimed: Iterable[NameUse]) -> Iterator[Fault]:
    """Yield a fault of every file that uses the name of another; within one file, of every use but the first.

    Services may share a name if they spell it the same way.
    """
    first: dict[tuple[str, str], NameUse] = {}
    reported: set[tuple[Path, str]] = set()

    def report(use: NameUse, other: NameUse) -> Iterator[Fault]:
        if (use.file, use.path) not in reported:
            reported.add((use.file, use.path))
            yield _conflict(use, other)

    for use in claimed:
        earlier = first.setdefault(use.key, use)
        is_shared = use.what == SERVICE_NAME and use.name == earlier.name
        if earlier is use or is_shared:
            continue
        yield from report(use, earlier)
        if use.file != earlier.file:
            yield from report(earlier, use)


def _conflict(use: NameUse, other: NameUse) -> Fault:
    place = other.path if other.file == use.file else f"{other.file} ({other.path})"
    if use.name == other.name:
        problem, remedy = f"the {use.what} {shown(use.name)} is also used by {place}", "give each a different one"
    else:
        problem = (
            f"the {use.what} {shown(use.name)} differs only by case from {shown(other.name)} in {place}, and "
            "Consul treats both as the same"
        )
        remedy = "spell it the same way" if use.what == SERVICE_NAME else "give each a different one"
    return Fault(str(use.file), use.path, problem, remedy)
