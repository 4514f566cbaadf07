"""Remove the documents of hosts that have not been seen for 30 days and are not in Consul's catalog."""

from datetime import UTC, datetime, timedelta

from agent.consul import Consul, KvPair
from agent.fleet import cname_conflicts, history, host_state
from agent.fleet.document import key, unquoted

GONE_AFTER = timedelta(days=30)

MOST_DOCUMENTS = 100
"""Documents that one call removes; the next call continues."""


def remove_departed(consul: Consul, service: str, own_node: str, now: datetime) -> tuple[str, ...]:
    """Remove up to `MOST_DOCUMENTS` documents of departed hosts. Return the names of those hosts.

    A host has departed only if its host state and history are all older than `GONE_AFTER`. Each removal is a
    check-and-set, so a document that its host is writing stays. ``own_node`` is this host's: if the token cannot see it
    in the catalog, no host can be known to be absent.
    """
    states = consul.kv_tree(key(service, host_state.FOLDER, ""), consistent=True)[1]
    found: dict[str, list[KvPair]] = {}
    recent = {own_node}
    for pair in states:
        state = host_state.parse(pair)
        found.setdefault(state.node, []).append(pair)
        # An unreadable document has no age; a newer svcagent may have written it.
        if state.last_seen is None or now - state.last_seen < GONE_AFTER:
            recent.add(state.node)
    histories = _history(consul, service, now, recent)
    nodes = sorted((found.keys() | histories.keys()) - recent)
    if not nodes or not consul.is_node_known(own_node):
        return ()
    removed, left = [], MOST_DOCUMENTS
    for node in nodes:
        if left <= 0:
            break
        if not consul.is_node_known(node):
            pairs = found.get(node, [])
            for folder in sorted(histories.get(node, ())):
                pairs += consul.kv_tree(folder, consistent=True)[1]
            pairs = pairs[:left]
            left -= len(pairs)
            for pair in pairs:
                consul.kv_delete(pair.key, cas=pair.modify_index)
            removed.append(node)
    return tuple(removed)


def remove_old_claims(consul: Consul, service: str, now: datetime) -> None:
    """Remove claims on CNAMEs that no host has repeated for `GONE_AFTER`; hosts repeat them every hour."""
    pairs = consul.kv_tree(key(service, cname_conflicts.FOLDER, ""), consistent=True)[1]
    old = (pair for pair in pairs if (one := cname_conflicts.parse(pair)) is not None and now - one.at >= GONE_AFTER)
    for pair in list(old)[:MOST_DOCUMENTS]:
        consul.kv_delete(pair.key, cas=pair.modify_index)


def _history(consul: Consul, service: str, now: datetime, recent: set[str]) -> dict[str, set[str]]:
    """Return the history folders by node, and add the nodes with a recent page to ``recent``."""
    root = key(service, history.FOLDER, "")
    folders: dict[str, set[str]] = {}
    for name in consul.kv_keys(root):
        part, _slash, page = name.removeprefix(root).partition("/")
        node = unquoted(part)
        folders.setdefault(node, set()).add(f"{root}{part}/")
        if not _is_old(page, now):
            recent.add(node)
    return folders


def _is_old(page: str, now: datetime) -> bool:
    """True if a history page is old. Its name begins with its time."""
    try:
        began = datetime.strptime(page[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return True  # svcagent did not write it
    return now - began >= GONE_AFTER
