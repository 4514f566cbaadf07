"""What belongs to one definition only: service IDs, CheckIDs, containers. Consul lets the later one take them over."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.definitions.document import Definition
from agent.definitions.faults import shown
from agent.definitions.service import Service
from agent.errors import Fault


@dataclass(frozen=True)
class Claim:
    """One place that uses one name."""

    what: str
    name: str
    file: Path
    path: str


def claims(file: Path, tree: Any, definition: Definition | None) -> Iterator[Claim]:
    """The names that a file uses; of a faulty file, which has no ``definition``, those that its tree spells out."""
    several = tree.get("services", ())
    written = [("service", tree.get("service"))]
    if isinstance(several, tuple):
        written += [(f"services[{index}]", service) for index, service in enumerate(several)]
    written = [(path, service) for path, service in written if isinstance(service, dict)]
    built: Iterable[Service | None] = definition.services if definition else [None] * len(written)
    for (path, service), model in zip(written, built, strict=True):
        key = "id" if service.get("id") else "name"
        if isinstance(service.get(key), str):
            yield Claim("service ID", service[key], file, f"{path}.{key}")
        yield from _check_claims(file, path, service, model)
    reload = tree.get("reload")
    if isinstance(reload, dict) and isinstance(reload.get("container"), str):
        yield Claim("container", reload["container"], file, "reload.container")


def _check_claims(file: Path, path: str, service: dict[str, Any], model: Service | None) -> Iterator[Claim]:
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
            yield Claim("CheckID", check_id, file, f"{place}.id")


def clashes(claimed: Iterable[Claim]) -> Iterator[Fault]:
    """A fault for every name but its first user."""
    first: dict[tuple[str, str], Claim] = {}
    for claim in claimed:
        earlier = first.setdefault((claim.what, claim.name), claim)
        if earlier is not claim:
            place = earlier.path if earlier.file == claim.file else f"{earlier.file} ({earlier.path})"
            yield Fault(
                str(claim.file),
                claim.path,
                f"the {claim.what} {shown(claim.name)} is also used by {place}",
                "give each its own",
            )
