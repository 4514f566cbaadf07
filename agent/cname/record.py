"""The records that definitions ask for, with their names, targets and owners."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import field, replace
from pathlib import Path

from agent.cname.marker import Marker, place, render
from agent.cname.provider import PROVIDERS, PublishedRecord, RecordPlace
from agent.consul import service_dns_name
from agent.data import dataclass
from agent.definitions import Cname, Definition, complete, zone_finding
from agent.errors import BadDefinition, Fault

NO_TAG = "-"
"""Replaces the tag in the owner of a record for all instances. No tag has this name."""


@dataclass(frozen=True)
class WantedRecord:
    """One record of a definition. ``file`` and ``path`` locate it for messages."""

    name: str
    """Fully qualified, in lower case."""
    record: PublishedRecord
    owner: str
    """``<service>/<tag>/<dc>``: the service that it points at, not the host that publishes it."""
    gen: int
    provider: str
    service: str
    zone: str = ""
    """Fully qualified, in lower case; empty until it is found."""
    is_in_consul: bool = True
    """True if the target is in Consul's own DNS domain."""
    file: Path = field(default=Path(), compare=False)
    path: str = field(default="", compare=False)

    @property
    def place(self) -> RecordPlace:
        """Where the record is, once the zone is known."""
        return place(self.zone, self.name)

    @property
    def marker(self) -> str:
        return render(Marker(self.owner, self.gen, self.record))

    def is_named(self, names: Collection[str]) -> bool:
        """True if one of the names is the record's, or that of its service."""
        return self.service in names or any(complete(name) == self.name for name in names)

    def fault(self, problem: str, remedy: str, key: str = "") -> Fault:
        return Fault(str(self.file), f"{self.path}.{key}" if key else self.path, problem, remedy)


def wanted_records(
    definitions: Iterable[Definition], datacenter: str, domain: str, default_provider: str
) -> tuple[WantedRecord, ...]:
    """Return every record of the definitions once. ``datacenter`` and ``domain`` are the local agent's.

    :raises BadDefinition: a provider is unknown, or two definitions disagree about one record.
    """
    faults: list[Fault] = []
    by_name: dict[str, WantedRecord] = {}
    for definition in definitions:
        for index, cname in enumerate(definition.cname):
            one = _wanted(definition, cname, f"cname[{index}]", datacenter, domain, default_provider)
            if one.provider not in PROVIDERS:
                known = ", ".join(sorted(PROVIDERS))
                faults.append(
                    one.fault(f"there is no DNS provider {one.provider!r}", f"write one of: {known}", "provider")
                )
            first = by_name.setdefault(one.name, one)
            if first != one:
                faults.append(
                    one.fault(
                        f"{one.name} is also published by {first.file} ({first.path}), with other content",
                        "remove one of the two",
                        "name",
                    )
                )
    if faults:
        raise BadDefinition(faults)
    return tuple(by_name.values())


def located(wanted: Iterable[WantedRecord], find_zone: Callable[[str], str]) -> tuple[WantedRecord, ...]:
    """Return the records with their zones. Raise `BadDefinition` if a name cannot be a CNAME in its zone."""
    found = tuple(one if one.zone else replace(one, zone=find_zone(one.name)) for one in wanted)
    faults = [
        one.fault(finding.problem, finding.remedy, finding.path)
        for one in found
        if (finding := zone_finding(one.name, one.zone))
    ]
    if faults:
        raise BadDefinition(faults)
    return found


def _wanted(
    definition: Definition, cname: Cname, path: str, datacenter: str, domain: str, default_provider: str
) -> WantedRecord:
    service = definition.service.name
    target = complete(cname.target or service_dns_name(service, datacenter, domain, cname.tag))
    return WantedRecord(
        name=complete(cname.name, cname.zone),
        record=PublishedRecord(target, cname.ttl),
        owner=f"{service}/{cname.tag or NO_TAG}/{datacenter}".lower(),
        gen=cname.gen,
        provider=cname.provider or default_provider,
        service=service,
        zone=complete(cname.zone) if cname.zone else "",
        is_in_consul=target.endswith(f".{complete(domain)}"),
        file=definition.file,
        path=path,
    )
