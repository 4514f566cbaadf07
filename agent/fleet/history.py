"""``svcagent/<service>/history/<node>/<id>``: past reloads, written by their host. A bounded number is kept.

The ids sort by time across all hosts. A copy on disk is read when Consul is unreachable.
"""

from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path

from agent.consul import Consul
from agent.data import dataclass
from agent.files import write_atomically
from agent.fleet.document import (
    MOMENT,
    NAME,
    OPTIONAL_DIGEST,
    OPTIONAL_NAME,
    PROSE,
    STEPS,
    Document,
    Unreadable,
    file_part,
    key,
    quoted,
    read_local,
    stored_as,
    unquoted,
)

FOLDER = "history"
KEPT_PER_HOST = 20
KEPT_ON_DISK = 200

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Past(Document):
    """One finished reload, with its begin, outcome, digests before and after, and seconds per step.

    ``after`` is the digest to take, ``running`` the one that ran at the end; empty if that is unknown. ``outcome`` is a
    `Result`'s, or `UNREADABLE`; then ``began`` is None and ``error`` is the reason.
    """

    id: str = field(metadata=NAME)
    node: str = field(metadata=NAME)
    began: datetime | None = field(metadata=MOMENT)
    outcome: str = field(metadata=NAME)
    image: str = field(default="", metadata=OPTIONAL_NAME)
    before: str = field(default="", metadata=stored_as("from", OPTIONAL_DIGEST))
    after: str = field(default="", metadata=stored_as("to", OPTIONAL_DIGEST))
    steps: tuple[tuple[str, float], ...] = field(default=(), metadata=STEPS)
    error: str = field(default="", metadata=PROSE)
    running: str = field(default="", metadata=OPTIONAL_DIGEST)

    @property
    def seconds(self) -> float:
        return sum(seconds for _step, seconds in self.steps)


def publish(consul: Consul, service: str, past: Past) -> None:
    """Publish a reload, and remove this host's entries beyond `KEPT_PER_HOST`. May be repeated."""
    own = key(service, FOLDER, quoted(past.node), "")
    consul.kv_put(f"{own}{_order(past)}", past.encode())
    for old in consul.kv_keys(own)[:-KEPT_PER_HOST]:
        consul.kv_delete(old)


def read(consul: Consul, service: str, limit: int, node: str | None = None) -> list[Past]:
    """Return up to ``limit`` past reloads of one or all hosts, the newest first."""
    keys = consul.kv_keys(key(service, FOLDER, quoted(node), "") if node else key(service, FOLDER, ""))
    newest = sorted(keys, key=lambda one: one.rpartition("/")[2], reverse=True)[:limit]
    found = []
    for one in newest:
        _index, pair = consul.kv_get(one)
        if pair is not None:  # otherwise its host has just removed it
            *_rest, host, name = one.split("/")
            found.append(_parse(pair.value, unquoted(host), unquoted(name)))
    return found


def hosts(consul: Consul, service: str) -> tuple[str, ...]:
    """Return the hosts that have a history."""
    return tuple(sorted({unquoted(one.split("/")[-2]) for one in consul.kv_keys(key(service, FOLDER, ""))}))


def write_to_disk(state_dir: Path, service: str, past: Past) -> None:
    """Add a reload to this host's bounded history on disk. Raise `SvcagentError` if that fails."""
    file = _file(state_dir, service)
    lines = [*_lines(file), past.encode()][-KEPT_ON_DISK:]
    write_atomically(file, "".join(f"{line}\n" for line in lines), mode=0o600)


def read_from_disk(state_dir: Path, service: str, limit: int) -> list[Past]:
    """Return this host's last reloads, the newest first. Raise `SvcagentError` if the file cannot be read."""
    return [_parse(line, "", "") for line in reversed(_lines(_file(state_dir, service))[-limit:])]


def _file(state_dir: Path, service: str) -> Path:
    return state_dir / f"history-{file_part(service)}.jsonl"


def _lines(file: Path) -> list[str]:
    return [line for line in read_local(file).decode(errors="replace").split("\n") if line.strip()]


def _order(past: Past) -> str:
    moment = past.began.astimezone(UTC) if past.began else datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{past.id}"


def _parse(text: bytes | str, node: str, name: str) -> Past:
    try:
        return Past.decode(text)
    except Unreadable as error:
        return Past(name, node, None, UNREADABLE, error=f"it cannot be read: {error}")
