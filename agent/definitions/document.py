"""A definition: the format of one file of ``services.d/``, and the model made from it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from agent.data import dataclass
from agent.definitions.checks import KIND_OF
from agent.definitions.cname import Cname
from agent.definitions.faults import Finding
from agent.definitions.reload import ReloadSection
from agent.definitions.service import Service
from agent.definitions.strict_model import ListOf, ObjectOf, Refusal, StrictModel, always, optional

PROBED_KINDS = ("http", "tcp")
"""The kinds of check that svcagent runs itself before a reloaded instance counts as ready."""


@dataclass(frozen=True)
class Definition:
    file: Path
    services: tuple[Service, ...]
    reload: ReloadSection | None = None
    cname: tuple[Cname, ...] = ()
    places: tuple[str, ...] = ()
    """The path of each service in the file, for messages: ``service``, or ``services[0]``."""
    names_used: frozenset[str] = frozenset()
    """The host-specific variables that the file refers to."""

    @property
    def service(self) -> Service:
        """Return the first service: ``reload`` reloads it and ``cname`` points at it."""
        return self.services[0]


class DefinitionFile(StrictModel):
    """A definition file of svcagent."""

    refused: ClassVar[Mapping[str, Refusal]] = dict.fromkeys(
        ("check", "checks"),
        always("svcagent registers the checks of services, not of nodes", "write it inside the service"),
    )

    service: Service | None = optional(ObjectOf(Service), "The service, in Consul's own service-definition format.")
    services: tuple[Service, ...] | None = optional(ListOf(ObjectOf(Service)), "Several services, without reload.")
    reload: ReloadSection | None = optional(
        ObjectOf(ReloadSection), "How the service is reloaded when its image has changed."
    )
    cname: tuple[Cname, ...] = optional(ListOf(ObjectOf(Cname)), "CNAMEs that point at the service.", ())

    def definition(self, file: Path, names_used: frozenset[str] = frozenset()) -> Definition:
        services = (self.services or ()) if self.service is None else (self.service,)
        is_single = self.service is not None
        return Definition(
            file=file,
            services=services,
            reload=self.reload,
            cname=self.cname,
            places=("service",) if is_single else tuple(f"services[{index}]" for index in range(len(services))),
            names_used=names_used,
        )

    @classmethod
    def across(cls, given: Mapping[str, Any]) -> Iterator[Finding]:
        if "service" in given and "services" in given:
            yield Finding("services", '"service" and "services" are both in this file', "keep one of them")
        elif "service" not in given and "services" not in given:
            yield Finding("service", "missing", 'add "service", or "services" for several')
        if isinstance(given.get("services"), tuple) and not given["services"]:
            yield Finding("services", "the list is empty", "add a service, or remove the file")
        if "reload" not in given:
            return
        if "services" in given:
            yield Finding("reload", 'a file with "services" cannot have "reload"', 'use "service", one per file')
        service = given.get("service")
        if _has_checks_array(service) and not any(map(_may_be_probed, _checks(service))):
            yield Finding(
                "service.checks",
                "reload needs an http or tcp check, which svcagent runs before the service returns to clients",
                'add one, like {"http": "http://127.0.0.1:8080/", "interval": "10s"}',
            )
        if isinstance(service, dict) and "ports" in service:
            yield Finding(
                "service.ports", "svcagent cannot drain a service with several ports", 'write "port", or remove reload'
            )


def find_definition(definitions: Sequence[Definition], name: str) -> Definition | None:
    """Return the definition of the service with this ID, or else with this name. One's ID may be another's name."""
    by_name = None
    for definition in definitions:
        for service in definition.services:
            if service.id == name:
                return definition
            if service.name == name:
                by_name = by_name or definition
    return by_name


def _checks(service: dict[str, Any]) -> tuple[object, ...]:
    checks = service.get("checks", ())
    single = (service["check"],) if "check" in service else ()
    return (*single, *checks) if isinstance(checks, tuple) else single


def _has_checks_array(service: object) -> TypeGuard[dict[str, Any]]:
    """False if the service or its checks are of another type, which has its own fault."""
    return isinstance(service, dict) and isinstance(service.get("checks", ()), tuple)


def _may_be_probed(check: object) -> bool:
    """True also for a check of unknown kind: it has its own fault, and may be meant as the required check."""
    return not isinstance(check, dict) or check.keys().isdisjoint(KIND_OF.keys() - set(PROBED_KINDS))
