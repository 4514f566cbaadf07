"""The JSON with which a lock's holder or waiter describes itself in its key, and its text form.

Other tools leave the value empty (`consul lock`) or write anything. Then only the session is known.
"""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.consul.client import Consul
from agent.data import dataclass
from agent.errors import Denied
from agent.text import clean

VERSION = 1
LONGEST = 512 * 1024
"""Bytes of a value, Consul's own limit (``limits.kv_max_value_size``)."""
LONGEST_TEXT = 256
LARGEST_PID = 1 << 22
"""Linux's own limit (proc(5), ``pid_max``)."""

LONGEST_DETAIL = 200
"""Characters of each text from KV that a message quotes."""


@dataclass(frozen=True)
class Holder:
    """The known facts about a holder or waiter. ``name`` is its session's, for those that left no details."""

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
        """True if more than the session id is known."""
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
    return json.dumps({"v": VERSION, **details}, separators=(",", ":"))


def decode(value: bytes) -> dict[str, Any]:
    """Return the JSON object in a key's value; empty if it is not a usable one."""
    if len(value) > LONGEST:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError, MemoryError):  # not JSON, nested too deeply, too large
        return {}
    return found if isinstance(found, dict) else {}


def parse(session: str, value: bytes) -> Holder:
    """Return the holder of a key; only its session if the details are missing or unreadable."""
    return holder_of(session, decode(value))


def holder_of(session: str, found: dict[str, Any]) -> Holder:
    texts = {name: found.get(name, "") for name in ("node", "command", "service", "digest", "step")}
    if not texts["node"] or not all(_is_usable(text) for text in texts.values()):
        return Holder(session)
    pid = found.get("pid")
    is_pid = isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid <= LARGEST_PID
    return Holder(session, pid=pid if is_pid else None, since=_moment(found.get("since")), **texts)


def session_name(command: str, prefix: str) -> str:
    """Return a session name in the format of `consul lock`. ``command`` begins with ``svcagent``."""
    return f"Consul lock for '{command}' at '{prefix}'"


def named(consul: Consul, holder: Holder) -> Holder:
    """Return the holder with its session's name and node, if it left no details and the token may see the session."""
    session = None
    if not holder.is_described:
        with suppress(Denied):
            session = consul.session(holder.session)
    return holder if session is None else replace(holder, node=session.node, name=session.name)


def _is_usable(text: object) -> bool:
    """False for what a terminal or log cannot show: other types, lone surrogates, control characters."""
    return isinstance(text, str) and len(text) <= LONGEST_TEXT and (not text or text.isprintable())


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
