"""The keys of a lock in Consul, and the names of its sessions."""

import re
from contextlib import suppress
from dataclasses import replace

from agent.consul.client import Consul
from agent.consul.lock_form import Form
from agent.consul.lock_holder import Holder
from agent.consul.lock_semaphore import Semaphore
from agent.consul.lock_single import Single
from agent.errors import Denied

OWN = "svcagent"


def lock_key(prefix: str) -> str:
    """Return the key that `consul lock` uses below a prefix."""
    return f"{prefix}/.lock"


def queue_of(service: str) -> str:
    """Return the prefix of a service's queue. It is in lower case because Consul ignores the case of service names."""
    return f"{OWN}/{service.lower()}/queue"


def queue_for(prefix: str) -> str:
    """Return the prefix of the queue for a lock of which only the prefix is known."""
    return queue_of(prefix.removeprefix(f"{OWN}/").removesuffix("/lock"))


def turn_of(queue: str) -> str:
    """Return the key, next to the queue, that gives one of several holders the turn."""
    folder, _slash, _name = queue.rpartition("/")
    return f"{folder}/turn"


def form_of(consul: Consul, prefix: str, limit: int) -> Form:
    """Return the form that `consul lock -n LIMIT` uses."""
    return Single(consul, lock_key(prefix)) if limit == 1 else Semaphore(consul, prefix, limit)


def session_name(command: str, prefix: str) -> str:
    """Return a session name in the format of `consul lock`. ``command`` begins with ``svcagent``."""
    return f"Consul lock for '{command}' at '{prefix}'"


def is_own_name(name: str, prefix: str) -> bool:
    return re.fullmatch(rf"Consul lock for '{OWN}\b[^']*' at '{re.escape(prefix)}'", name) is not None


def named(consul: Consul, holder: Holder) -> Holder:
    """Return the holder with its session's name and node, if it left no details and the token may see the session."""
    session = None
    if not holder.is_described:
        with suppress(Denied):
            session = consul.session(holder.session)
    return holder if session is None else replace(holder, node=session.node, name=session.name)
