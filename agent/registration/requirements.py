"""What a definition asks for and this host's Consul agent cannot do, said before anything is sent. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from agent.consul import AgentSelf
from agent.definitions import Check, Definition
from agent.errors import Fault

FIRST_RELEASE: Mapping[str, tuple[int, ...]] = {
    "body": (1, 7),
    "success_before_passing": (1, 7),
    "failures_before_critical": (1, 7),
    "tls_server_name": (1, 9),
    "h2ping": (1, 10),
    "h2ping_use_tls": (1, 11),
    "failures_before_warning": (1, 11),
    "disable_redirects": (1, 12),
    "udp": (1, 13),
    "os_service": (1, 14),
    "tcp_use_tls": (1, 14, 10),
}
"""Fields of checks that not every Consul agent knows, and the first release that does; an older one answers 400."""

BACKPORTED: Mapping[str, tuple[tuple[int, ...], ...]] = {"tcp_use_tls": ((1, 15, 6), (1, 16, 2))}
"""Further first releases of a field, for the minor versions that had begun when it was added."""

RUN_BY_SCRIPT = frozenset({"args", "docker"})
"""Kinds that run a program, which an agent does not take through its API unless it is told to."""


def unmet(definitions: Iterable[Definition], agent: AgentSelf, only: frozenset[str] = frozenset()) -> list[Fault]:
    """Every fault of every check; with ``only`` (names or ids of services) none but theirs."""
    return [
        fault
        for definition in definitions
        for place, service in zip(definition.places, definition.services, strict=True)
        if not only or {service.id, service.name} & only
        for where, check in _placed(place, service.check, service.checks)
        for fault in _of_check(str(definition.file), where, check, agent)
    ]


def _placed(place: str, single: Check | None, checks: tuple[Check, ...]) -> Iterator[tuple[str, Check]]:
    """The checks, each with the place where it was written: a service's own ``check`` is the first of them."""
    if single is not None:
        yield f"{place}.check", checks[0]
        checks = checks[1:]
    for index, check in enumerate(checks):
        yield f"{place}.checks[{index}]", check


def _of_check(file: str, path: str, check: Check, agent: AgentSelf) -> Iterator[Fault]:
    for field in FIRST_RELEASE.keys() & check.model_fields_set:
        first = _first_release(field, agent.release)
        if agent.release < first:
            release = ".".join(map(str, first))
            yield Fault(
                file,
                f"{path}.{field}",
                f"the Consul agent of this host is {agent.version} and does not know it",
                f"upgrade the agent to {release} or later, or remove it",
            )
    if check.kind in RUN_BY_SCRIPT and not agent.is_running_scripts:
        yield Fault(
            file,
            f"{path}.args",
            "the Consul agent of this host takes no script checks through its API",
            "write an http or tcp check, or set enable_script_checks = true in the agent's configuration "
            "(enable_local_script_checks is not enough) and guard its API with ACLs",
        )


def _first_release(field: str, release: tuple[int, ...]) -> tuple[int, ...]:
    """The first release of the agent's own minor version that knows the field, or else of all."""
    own = (first for first in BACKPORTED.get(field, ()) if first[:2] == release[:2])
    return next(own, FIRST_RELEASE[field])
