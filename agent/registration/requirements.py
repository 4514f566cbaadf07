"""What definitions require and this host's Consul agent does not support, reported before anything is sent. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from agent.consul import AgentSelf, Release, is_known_since
from agent.definitions import Check, Definition, Service
from agent.errors import Fault

CHECK_FIELDS: Mapping[str, tuple[Release, ...]] = {
    "body": ((1, 7),),
    "success_before_passing": ((1, 7),),
    "failures_before_critical": ((1, 7),),
    "tls_server_name": ((1, 9),),
    "h2ping": ((1, 10),),
    "h2ping_use_tls": ((1, 11),),
    "failures_before_warning": ((1, 11),),
    "disable_redirects": ((1, 12),),
    "udp": ((1, 13),),
    "tcp_use_tls": ((1, 14, 10), (1, 15, 6), (1, 16, 2)),
}
"""Check fields that not every Consul agent knows, and the first release of each branch that does; the last one counts
for all later branches. An older agent answers 400."""

SERVICE_FIELDS: Mapping[str, tuple[Release, ...]] = {"ports": ((1, 22),)}
"""The same for service fields."""

RUN_BY_SCRIPT = frozenset({"args", "docker"})
"""Check kinds that run a program. An agent accepts them through its API only if its configuration allows it."""


def unmet_requirements(
    definitions: Iterable[Definition], agent: AgentSelf, only: frozenset[str] = frozenset()
) -> list[Fault]:
    """Return every fault of every service, or of the services in ``only`` (names or IDs)."""
    return [
        fault
        for definition in definitions
        for place, service in zip(definition.places, definition.services, strict=True)
        if not only or {service.id, service.name} & only
        for fault in _of_service(str(definition.file), place, service, agent)
    ]


def _of_service(file: str, place: str, service: Service, agent: AgentSelf) -> Iterator[Fault]:
    yield from _unknown(file, place, SERVICE_FIELDS, service.given, agent)
    for path, check in _placed(place, service.check, service.checks):
        yield from _unknown(file, path, CHECK_FIELDS, check.given, agent)
        if check.kind in RUN_BY_SCRIPT and not agent.is_running_scripts:
            yield Fault(
                file,
                f"{path}.args",
                "the Consul agent of this host does not accept script checks through its API",
                "write an http or tcp check, or set enable_script_checks = true in the agent's configuration "
                "(enable_local_script_checks is not enough) and protect its API with ACLs",
            )


def _unknown(
    file: str, path: str, table: Mapping[str, tuple[Release, ...]], given: frozenset[str], agent: AgentSelf
) -> Iterator[Fault]:
    for field in table.keys() & given:
        if not is_known_since(agent.release, table[field]):
            needed = ", ".join(".".join(map(str, one)) for one in table[field] if one > agent.release)
            yield Fault(
                file,
                f"{path}.{field}",
                f"the Consul agent of this host is {agent.version} and does not support it",
                f"upgrade the agent to {needed} or later, or remove it",
            )


def _placed(place: str, single: Check | None, checks: tuple[Check, ...]) -> Iterator[tuple[str, Check]]:
    if single is not None:
        yield f"{place}.check", checks[0]
        checks = checks[1:]
    for index, check in enumerate(checks):
        yield f"{place}.checks[{index}]", check
