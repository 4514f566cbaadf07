"""The KV store and sessions."""

import base64
import json
from functools import cached_property
from typing import Any

from agent.consul import answers
from agent.consul.base import ConsulApi, checked, index_of, is_found, parsed, read_params
from agent.consul.failures import TRANSACTION
from agent.consul.model import KvOperation, KvPair, Session
from agent.http import HttpAnswer

MOST_OPERATIONS = 64
"""Operations of one transaction before Consul 1.14 (128 since)."""


class KvApi(ConsulApi):
    @cached_property
    def _readable_prefixes(self) -> set[str]:
        return set()

    def kv_get(
        self, key: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, KvPair | None]:
        new, pairs = self._transport.get(_parse_tree, f"/v1/kv/{key}", read_params(index, wait, consistent=consistent))
        return new, pairs[0] if pairs else None

    def kv_tree(
        self, prefix: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, tuple[KvPair, ...]]:
        """Return every key below a prefix (``…/``) in order, by one request.

        :raises Denied: the token does not show all keys, or there are none and the token could not see any.
        """
        params = [("recurse", "1"), *read_params(index, wait, consistent=consistent)]
        found = self._whole(_parse_tree, f"/v1/kv/{prefix}", params)
        if not found[1]:
            self._assert_may_read_keys(prefix)
        return found

    def kv_keys(self, prefix: str, separator: str = "", *, partly: bool = False) -> tuple[str, ...]:
        """Return the names of the keys below a prefix (``…/``) in order; with ``separator``, up to its next one.

        With ``partly``, the keys that the token may see are enough.

        :raises Denied: as in `kv_tree`.
        """
        params: list[tuple[str, Any]] = [("keys", "1")]
        if separator:
            params.append(("separator", separator))
        read = self._transport.get if partly else self._whole
        found = read(
            lambda answer: tuple(checked(answer, [str])) if is_found(answer) else (), f"/v1/kv/{prefix}", params
        )
        if not found:
            self._assert_may_read_keys(prefix)
        return found

    def _assert_may_read_keys(self, prefix: str) -> None:
        """Raise Denied without ``key:read``: Consul omits keys from a tree silently, but refuses a single key (1.8)."""
        if prefix not in self._readable_prefixes:
            self.kv_get(prefix)
            self._readable_prefixes.add(prefix)

    def kv_transaction(self, *operations: KvOperation) -> bool:
        """Apply all operations in one write. Return False if Consul refused one, and with it all.

        Reasons are: the lock is held, in its lock-delay, or its session is gone; the key was modified; another session
        holds the key. Only Consul's message shows which, so read the key to find out.
        """
        if len(operations) > MOST_OPERATIONS:
            raise ValueError(f"{len(operations)} operations do not fit into one transaction of Consul before 1.14")
        body = [{"KV": _operation(one)} for one in operations]

        def parse(raw: Any) -> list[tuple[str, str]]:
            return [(operations[one["OpIndex"]].key, one["What"]) for one in raw.get("Errors") or []]

        errors = self._transport.put(parsed(parse, answers.TRANSACTION), TRANSACTION, data=json.dumps(body))
        for key, message in errors:
            if error := self._transport.failures.denied_in_transaction(key, message):
                raise error
        return not errors

    def kv_put(self, key: str, value: str, **how: Any) -> bool:
        """Write a key. ``how``: ``flags``, and ``cas``, ``acquire`` or ``release``; False if Consul refuses these."""
        return bool(self._api.kv.put(key, value, **how))

    def kv_delete(self, key: str, cas: int | None = None) -> bool:
        """Delete a key. With ``cas``, return False if the key was modified since that index."""
        return bool(self._api.kv.delete(key, cas=cas))

    def create_session(self, name: str, ttl: int, *, behaviour: str = "release") -> str:
        """Create a session and return its id. It must be renewed every ``ttl`` seconds; expiry may take twice that.

        The session has no checks: a flapping node check would end it during a reload. ``behaviour`` is what happens to
        its keys when it ends: ``release`` or ``delete``.
        """
        return str(self._api.session.create(name=name, checks=[], ttl=ttl, behavior=behaviour))

    def renew_session(self, session: str) -> bool:
        """Renew a session. Return False if it no longer exists.

        A new leader also denies sessions that it has not loaded yet (Consul 1.8). A consistent read waits for them or
        fails.
        """
        path = f"/v1/session/renew/{session}"
        if self._transport.put(is_found, path):
            return True
        return self.session(session) is not None and self._transport.put(is_found, path)

    def destroy_session(self, session: str) -> None:
        """End a session. An absent session is no error."""
        self._api.session.destroy(session)

    def session(self, session: str) -> Session | None:
        """Return a session, or None. Raise `Denied` without session:read (before Consul 1.11: return None)."""
        found = self._whole(_SESSIONS, f"/v1/session/info/{session}", read_params())
        return found[0] if found else None

    def node_sessions(self, node: str) -> tuple[Session, ...]:
        """Return a node's living sessions. Raise `Denied` without session:read (before Consul 1.11: return none)."""
        return self._whole(_SESSIONS, f"/v1/session/node/{node}", read_params())


_SESSIONS = parsed(lambda raw: tuple(map(Session.parse, raw)), answers.SESSIONS)


def _parse_tree(answer: HttpAnswer) -> tuple[int, tuple[KvPair, ...]]:
    raw = checked(answer, answers.PAIRS) if is_found(answer) else ()
    return index_of(answer), tuple(map(KvPair.parse, raw))


def _operation(one: KvOperation) -> dict[str, Any]:
    value = None if one.value is None else base64.b64encode(one.value.encode()).decode()
    fields = {**vars(one), "value": value}
    return {name.capitalize(): field for name, field in fields.items() if field is not None}
