"""Who holds a lock or waits for it: the JSON that svcagent leaves as its keys' values, and how it is told to people.

Pure. Others' keys are empty (`consul lock`) or hold what they like: then the session alone is known.
"""

import json
from datetime import UTC, datetime
from typing import Any

from agent.data import dataclass
from agent.text import clean

VERSION = 1
LONGEST = 512 * 1024
"""Bytes of a value: as many as Consul stores (``limits.kv_max_value_size``)."""
LONGEST_TEXT = 256
LARGEST_PID = 1 << 22
"""Linux's own limit (proc(5), ``pid_max``)."""

LONGEST_DETAIL = 200
"""Characters of each text of a holder that a message repeats: it comes from KV."""


@dataclass(frozen=True)
class Holder:
    """One holder or waiter, as far as it is known. ``name`` is its session's, for those who left no details."""

    session: str
    node: str = ""
    pid: int | None = None
    command: str = ""
    service: str = ""
    digest: str = ""
    step: str = ""
    since: datetime | None = None
    name: str = ""

    @property
    def is_described(self) -> bool:
        """Is more known than the session's id?"""
        return bool(self.node)

    def __str__(self) -> str:
        if not self.node:
            return clean(f"session {self.session}", LONGEST_DETAIL)
        node = clean(self.node, LONGEST_DETAIL)
        if not self.command:
            return f"{clean(self.name, LONGEST_DETAIL) or 'a session'} on {node}"
        details = [clean(self.command, LONGEST_DETAIL)]
        if self.pid is not None:
            details.append(f"pid {self.pid}")
        if self.since is not None:
            details.append(f"since {self.since:%H:%M:%S} UTC")
        if self.step:
            details.append(f"now at {clean(self.step, LONGEST_DETAIL)}")
        return f"{node} ({', '.join(details)})"


def encode(details: dict[str, Any]) -> str:
    """The value of a key."""
    return json.dumps({"v": VERSION, **details}, separators=(",", ":"))


def decode(value: bytes) -> dict[str, Any]:
    """Return what somebody left as a key's value; nothing if it is no JSON object that can be used."""
    if len(value) > LONGEST:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError, MemoryError):  # no JSON, nested too deeply, too large
        return {}
    return found if isinstance(found, dict) else {}


def parse(session: str, value: bytes) -> Holder:
    """The holder of a key, by its details; by its session alone if it left none that can be read."""
    return holder_of(session, decode(value))


def holder_of(session: str, found: dict[str, Any]) -> Holder:
    """The same, of details that were decoded already."""
    texts = {name: found.get(name, "") for name in ("node", "command", "service", "digest", "step")}
    if not texts["node"] or not all(_is_usable(text) for text in texts.values()):
        return Holder(session)
    pid = found.get("pid")
    is_pid = isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid <= LARGEST_PID
    return Holder(session, pid=pid if is_pid else None, since=_moment(found.get("since")), **texts)


def _is_usable(text: object) -> bool:
    """False for what cannot be written to a terminal or a log: other types, half characters, control characters."""
    return isinstance(text, str) and len(text) <= LONGEST_TEXT and (not text or text.isprintable())


def _moment(text: object) -> datetime | None:
    """In UTC; None for what is no moment, has no time zone, or lies outside the calendar."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
