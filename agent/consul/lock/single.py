"""The form of ``consul lock -n 1``: one key, held by one session.

Source: Consul's ``api/lock.go`` and ``command/lock`` (1.8). The key is ``<prefix>/.lock``; the session's behaviour is
``release``. svcagent may set the value: Consul's own holders leave it empty and ignore it.
"""

from agent.consul.client import Consul
from agent.consul.lock.form import Look
from agent.consul.lock.holder import parse
from agent.consul.model import KvOperation
from agent.errors import Conflict

LOCK_FLAGS = 0x2DDCCBC058A50C18


class Single:
    behaviour = "release"

    def __init__(self, consul: Consul, key: str) -> None:
        self._consul = consul
        self._key = key

    def look(self, index: int | None = None, wait: float = 0.0) -> Look:
        new, pair = self._consul.kv_get(self._key, index, wait)
        if pair is not None and pair.flags != LOCK_FLAGS:
            raise Conflict(
                f"the key {self._key} is in use as something other than a lock of one holder (`consul lock -n N` "
                "with N above 1?). Use the same -n (reload.max_parallel) everywhere, or give this definition a "
                "reload.lock of its own. If a crash left it and svcagent lock status shows no holder: consul kv "
                f"delete {self._key}",
                kind="lock-key-in-use",
            )
        holders = () if pair is None or pair.session is None else (parse(pair.session, pair.value),)
        return Look(new, holders, is_free=not holders)

    def take(self, session: str, value: str, spent: str | None) -> bool:
        return self._consul.kv_transaction(
            KvOperation("lock", self._key, value, LOCK_FLAGS, session=session),
            *([KvOperation("delete", spent)] if spent else []),
        )

    def is_held(self, session: str) -> bool:
        _index, pair = self._consul.kv_get(self._key, consistent=True)
        return pair is not None and pair.session == session

    def watch(self, session: str, index: int | None, wait: float) -> tuple[int | None, bool]:
        index, pair = self._consul.kv_get(self._key, index, wait, consistent=True)
        return index, pair is not None and pair.session == session

    def rewrite(self, session: str, value: str) -> bool:
        return self._consul.kv_transaction(
            KvOperation("check-session", self._key, session=session),
            KvOperation("lock", self._key, value, LOCK_FLAGS, session=session),
        )

    def give_back(self, session: str) -> None:
        held = KvOperation("check-session", self._key, session=session)
        if not self._consul.kv_transaction(held, KvOperation("delete", self._key)):
            self.clear()

    def clear(self) -> None:
        _index, pair = self._consul.kv_get(self._key)
        if pair is not None and pair.session is None and pair.flags == LOCK_FLAGS:
            self._consul.kv_delete(self._key, cas=pair.modify_index)
