"""``svcagent/<service>/hosts/<node>/<service id>``: what one instance runs and its state. Only its host writes it.

Earlier releases wrote ``hosts/<node>``. That document still counts for every instance of the node without one of its
own, and the host's next write replaces it.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from agent.consul import Consul, KvOperation, KvPair
from agent.data import dataclass
from agent.errors import Conflict
from agent.fleet.document import (
    FLAG,
    MOMENT,
    NAME,
    OPTIONAL_DIGEST,
    OPTIONAL_MOMENT,
    OPTIONAL_NAME,
    PROSE,
    Document,
    Unreadable,
    key,
    quoted,
    stored_as,
    unquoted,
)

FOLDER = "hosts"

REFRESHED_AFTER = timedelta(hours=6)
"""A host that finds nothing to do rewrites its document when it is older than this."""

InstanceKey: TypeAlias = tuple[str, str]
"""Node and service ID of one instance."""


class HostStatus(StrEnum):
    """The state of an instance. A newer svcagent may write other values."""

    QUEUEING = "queueing"
    RELOADING = "reloading"
    RUNNING = "running"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    STRANDED = "stranded"
    UNREADABLE = "unreadable"


ENVIRONMENT = "environment"
"""The verdict on a failed reload whose old version also failed the same checks after the roll-back."""


@dataclass(frozen=True)
class HostState(Document):
    """What an instance runs (an image digest), its state (a `HostStatus`), and since when.

    ``tag`` is the followed tag. ``reload`` is the ID of the reload that wrote this, ``step`` its step, ``session`` the
    session with which it holds the lock, ``wanted`` the digest that it takes. ``is_settled`` is True if this instance
    has run ``digest`` through the settle step. ``seen`` is when svcagent last ran on the host. ``verdict`` is
    `ENVIRONMENT` if the last attempt at ``wanted`` failed and the old version failed after it. ``node`` and
    ``service_id`` are from the key; an earlier release's document has no ``service_id``. For an unreadable document,
    ``since`` is None and ``error`` is the reason.
    """

    digest: str = field(metadata=OPTIONAL_DIGEST)
    state: str = field(metadata=NAME)
    since: datetime | None = field(metadata=MOMENT)
    tag: str = field(default="", metadata=OPTIONAL_NAME)
    reload: str = field(default="", metadata=OPTIONAL_NAME)
    step: str = field(default="", metadata=OPTIONAL_NAME)
    error: str = field(default="", metadata=PROSE)
    service_id: str = ""
    session: str = field(default="", metadata=OPTIONAL_NAME)
    wanted: str = field(default="", metadata=OPTIONAL_DIGEST)
    is_settled: bool = field(default=False, metadata=stored_as("settled", FLAG))
    seen: datetime | None = field(default=None, metadata=OPTIONAL_MOMENT)
    verdict: str = field(default="", metadata=OPTIONAL_NAME)
    node: str = field(default="", compare=False)

    @property
    def last_seen(self) -> datetime | None:
        """When svcagent last ran on the host, according to the document."""
        return self.seen or self.since

    @property
    def current_step(self) -> str:
        """The step of a reload that has not ended; the document of an ended one keeps its last step."""
        return self.step if self.state in (HostStatus.QUEUEING, HostStatus.RELOADING) else ""


def place(service: str, node: str, service_id: str) -> str:
    """Return the key of one instance's document; without a service ID, the key of an earlier release's."""
    return key(service, FOLDER, quoted(node), *([quoted(service_id)] if service_id else []))


def write_host_state(consul: Consul, service: str, node: str, state: HostState) -> None:
    """Write one instance's document, and remove the one that an earlier release wrote for its node."""
    where = place(service, node, state.service_id)
    operations = [KvOperation("set", where, state.encode())]
    if state.service_id:
        operations.append(KvOperation("delete", place(service, node, "")))
    if not consul.kv_transaction(*operations):
        raise Conflict(
            f"Consul refused to write {where}. Check whether a session holds the key as a lock", kind="key-locked"
        )


def note_running(
    consul: Consul, service: str, node: str, service_id: str, digest: str, tag: str, now: datetime
) -> None:
    """Publish that an instance runs ``digest``, unless its document already says so and is recent."""
    _index, pair = consul.kv_get(place(service, node, service_id))
    if pair is None and service_id:
        _index, pair = consul.kv_get(place(service, node, ""))
    new = refreshed(None if pair is None else parse(pair), service_id, digest, tag, now)
    if new is not None:
        write_host_state(consul, service, node, new)


def refreshed(known: HostState | None, service_id: str, digest: str, tag: str, now: datetime) -> HostState | None:
    """Return a new document for an instance that runs ``digest``; None if ``known`` says so and is recent."""
    if known is not None and (known.digest, known.state, known.tag) == (digest, HostStatus.RUNNING, tag):
        last = known.last_seen
        if known.service_id == service_id and last is not None and abs(now - last) < REFRESHED_AFTER:
            return None
        return replace(known, service_id=service_id, seen=now)
    new = HostState(digest, HostStatus.RUNNING, now, tag, service_id=service_id, seen=now)
    if known is None or known.digest != digest:
        return new
    # The version is unchanged, so what is known about it and about the refused one still holds.
    new = replace(new, is_settled=known.is_settled)
    if not known.verdict:
        return new
    return replace(new, since=known.since, wanted=known.wanted, verdict=known.verdict)  # a verdict counts from then


def read_all(consul: Consul, service: str) -> dict[InstanceKey, HostState]:
    """Return every instance's document, read from the leader."""
    return parse_all(consul.kv_tree(key(service, FOLDER, ""), consistent=True)[1])


def parse_all(pairs: tuple[KvPair, ...]) -> dict[InstanceKey, HostState]:
    return {(one.node, one.service_id): one for one in map(parse, pairs)}


def parse(pair: KvPair) -> HostState:
    """Return the document in a key. An unreadable one has no digest, so nothing is known to run there."""
    node, service_id = _instance_of(pair.key)
    try:
        return HostState.decode(pair.value, service_id=service_id, node=node)
    except Unreadable as error:
        return HostState(
            "",
            HostStatus.UNREADABLE,
            None,
            error=f"the document {pair.key} cannot be read: {error}",
            service_id=service_id,
            node=node,
        )


def _instance_of(name: str) -> InstanceKey:
    _prefix, _service, _room, *rest = name.split("/")
    if len(rest) == 2:
        return unquoted(rest[0]), unquoted(rest[1])
    return unquoted("/".join(rest)), ""


def state_of(hosts: Mapping[InstanceKey, HostState], instance: InstanceKey) -> HostState | None:
    """Return an instance's document, or its node's if only an earlier release wrote one."""
    return hosts.get(instance) or hosts.get((instance[0], ""))


def states_on(hosts: Mapping[InstanceKey, HostState], node: str) -> tuple[HostState, ...]:
    return tuple(state for (host, _service_id), state in hosts.items() if host == node)
