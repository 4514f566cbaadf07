"""Notifications of ``reload`` about its rollout. `agent.notify.notices` decides which are due, once for the fleet.

Each look costs a few reads of Consul, and does not delay a drain: the first is before the pull, long before the lock,
the second after the reload, when the lock is released.
"""

from collections.abc import Collection
from datetime import timedelta
from functools import partial
from types import TracebackType

from agent import logs
from agent.cli import context
from agent.cli.delivering import Deliveries, assert_possible
from agent.cli.output import show_warning
from agent.clock import Interrupts
from agent.consul import Consul
from agent.definitions import Definition, ReloadSection, Settings
from agent.errors import ConsulUnreachable, SvcagentError
from agent.fleet import observe, rollout
from agent.fleet.rollout_progress import RolloutProgress
from agent.fleet.suspect import find_all_suspects
from agent.notify import sent
from agent.notify.notices import Notice, NoticeKind, due, is_closed
from agent.reload.guard import able_instances
from agent.reload.window import is_open, zone


class RolloutNotifier:
    def __init__(self, settings: Settings, definition: Definition, interrupts: Interrupts) -> None:
        assert definition.reload is not None  # noqa: S101 - for mypy: who asks is about to reload it
        self._settings = settings
        self._service = definition.service.name
        self._reload: ReloadSection = definition.reload
        self._clock = context.system_clock()
        self._interrupts = interrupts
        self._deliveries = Deliveries(self._service, self._clock, lambda: interrupts.pending is not None)
        self._is_idle = True

    def reload_begins(self, consul: Consul) -> None:
        """Send what is due at the start: the reload has found a version to take, and pinned it."""
        self._is_idle = False
        self._look(consul, {NoticeKind.STARTED})

    def __enter__(self) -> "RolloutNotifier":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Send what is due, also for other hosts: this host may have had nothing to do, or may have been refused."""
        is_foreseen = error is None or (isinstance(error, SvcagentError) and not isinstance(error, ConsulUnreachable))
        if is_foreseen and self._interrupts.pending is None:
            with context.consul(self._settings) as consul:
                self._look(consul, tuple(NoticeKind))
        self._deliveries.wait()

    def _look(self, consul: Consul, kinds: Collection[NoticeKind]) -> None:
        """Send what is due. A failure to send does not fail the reload."""
        try:
            self._deliveries.send(self._due(consul, kinds))
        except ConsulUnreachable as error:
            logs.log(f"not looked for what people should be told: {error}", service=self._service)
        except SvcagentError as error:
            show_warning(f"{self._service}: no notification about its rollout is sent: {error}", service=self._service)

    def _due(self, consul: Consul, kinds: Collection[NoticeKind]) -> tuple[Notice, ...]:
        where = sent.place(self._service)
        if self._is_idle and is_closed(rollout.find(consul, self._service)[0], sent.find(consul, where)[0]):
            return ()
        course = self._course(consul)

        def decide(told: frozenset[str]) -> tuple[tuple[Notice, ...], frozenset[str]]:
            notices, after = due(course, told, kinds)
            if notices:
                assert_possible()
            return notices, after

        return sent.take(consul, where, decide)

    def _course(self, consul: Consul) -> RolloutProgress:
        now = self._clock.now()
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
