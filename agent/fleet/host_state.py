"""``svcagent/<service>/hosts/<node>``: what one host runs, and how it fares. Only that host writes it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.consul import Consul, KvPair
from agent.fleet.document import ERROR_BYTES, Fields, Unreadable, bounded, encode, key

ROOM = "hosts"


class HostStanding(StrEnum):
    """How a host fares. A newer svcagent may write others."""

    QUEUEING = "queueing"
    RELOADING = "reloading"
    RUNNING = "running"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    STRANDED = "stranded"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class HostState:
    """What one host's instance runs (an image digest), how it fares (a `HostStanding`), and since when.

    ``tag`` is the one that was followed; ``reload`` the id of the reload that wrote this, ``step`` where it was.
    ``since`` is None where the document cannot be read; ``error`` says so then.
    """

    digest: str
    state: str
    since: datetime | None
    tag: str = ""
    reload: str = ""
    step: str = ""
    error: str = ""


def write_host_state(consul: Consul, service: str, node: str, state: HostState) -> None:
    """Tell the fleet."""
    text = encode(
        digest=state.digest,
        state=str(state.state),
        since=state.since,
        tag=state.tag,
        reload=state.reload,
        step=str(state.step),
        error=bounded(state.error, ERROR_BYTES),
    )
    consul.kv_put(key(service, ROOM, node), text)


def tell_running(consul: Consul, service: str, node: str, digest: str, tag: str, now: datetime) -> None:
    """Tell that it runs, unless that is what it told already: a host that never reloaded is waited for otherwise."""
    _index, pair = consul.kv_get(key(service, ROOM, node))
    told = None if pair is None else parse(pair)
    if told is None or (told.digest, told.state, told.tag) != (digest, HostStanding.RUNNING, tag):
        write_host_state(consul, service, node, HostState(digest, HostStanding.RUNNING, now, tag))


def read_all(consul: Consul, service: str) -> dict[str, HostState]:
    """Every host's state by node, read from the leader."""
    return parse_all(consul.kv_tree(key(service, ROOM, ""), consistent=True)[1])


def parse_all(pairs: tuple[KvPair, ...]) -> dict[str, HostState]:
    """States by node."""
    return {pair.key.rpartition("/")[2]: parse(pair) for pair in pairs}


def parse(pair: KvPair) -> HostState:
    """The state that a key holds; with no digest when it cannot be read, so that it runs nothing for sure."""
    try:
        fields = Fields.of(pair)
        return HostState(
            fields.text_or_empty("digest"),
            fields.text("state"),
            fields.moment("since"),
            fields.text_or_empty("tag"),
            fields.text_or_empty("reload"),
            fields.text_or_empty("step"),
            fields.text_or_empty("error"),
        )
    except Unreadable as error:
        return HostState("", HostStanding.UNREADABLE, None, error=f"the document {pair.key} cannot be read: {error}")
