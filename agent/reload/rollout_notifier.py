"""Notifications of a reload about its rollout. `agent.notify.notices` decides which are due, once for the fleet.

Each look costs a few reads of Consul, and does not delay a drain: the first is before the pull, long before the lock,
the second after the reload, when the lock is released.
"""

from collections.abc import Collection
from contextlib import closing
from datetime import timedelta
from functools import partial
from types import TracebackType

from agent.clock import Interrupts
from agent.consul import Consul
from agent.definitions import ReloadSection, Settings
from agent.errors import ConsulUnreachable, SvcagentError
from agent.fleet import observe, rollout
from agent.fleet.rollout_progress import RolloutProgress
from agent.fleet.suspect import find_all_suspects
from agent.notify import sent
from agent.notify.delivery import Deliveries
from agent.notify.notices import Notice, NoticeKind, due, is_closed
from agent.reload.guard import able_instances
from agent.reload.window import is_open, zone


class RolloutNotifier:
    def __init__(
        self, settings: Settings, reload: ReloadSection, interrupts: Interrupts, deliveries: Deliveries
    ) -> None:
        self._settings = settings
        self._service = deliveries.service
        self._reload = reload
        self._interrupts = interrupts
        self._deliveries = deliveries
        self._is_idle = True

    def reload_begins(self, consul: Consul) -> None:
        """Send what is due at the start: the reload has found a version to take, and pinned it."""
        self._is_idle = False
        self._send_due(consul, {NoticeKind.STARTED})

    def __enter__(self) -> "RolloutNotifier":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Send what is due, also for other hosts: this host may have had nothing to do, or may have been refused."""
        is_foreseen = error is None or (isinstance(error, SvcagentError) and not isinstance(error, ConsulUnreachable))
        if is_foreseen and self._interrupts.pending is None:
            with closing(Consul(self._settings.consul)) as consul:
                self._send_due(consul, tuple(NoticeKind))
        self._deliveries.wait()

    def _send_due(self, consul: Consul, kinds: Collection[NoticeKind]) -> None:
        problem = f"{self._service}: no notifications about its rollout are sent"
        with self._deliveries.failures_reported(problem, service=self._service):
            self._deliveries.send(self._due(consul, kinds))

    def _due(self, consul: Consul, kinds: Collection[NoticeKind]) -> tuple[Notice, ...]:
        where = sent.place(self._service)
        if self._is_idle and is_closed(rollout.find(consul, self._service)[0], sent.find(consul, where)[0]):
            return ()
        progress = self._progress(consul)
        return sent.take(consul, where, lambda keys: due(progress, keys, kinds))

    def _progress(self, consul: Consul) -> RolloutProgress:
        now = self._deliveries.clock.now()
        _index, instances = consul.instances(self._service)
        awaited = able_instances(instances)
        view = observe(consul, self._service, now)
        return RolloutProgress(
            self._service,
            view,
            awaited,
            now,
            timedelta(seconds=self._settings.notify.stuck_after),
            held_out=frozenset((one.node, one.service_id) for one in instances if not one.is_node_dead) - awaited,
            down=frozenset((one.node, one.service_id) for one in instances if one.is_node_dead),
            suspects=find_all_suspects(consul, self._service, self._reload.lock_prefix(self._service)),
            min_age=timedelta(seconds=self._reload.min_age),
            is_open=partial(is_open, self._reload.windows, zone(self._reload.timezone)),
        )
