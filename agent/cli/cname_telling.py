"""Notifications of ``cname sync`` about conflicts in DNS: one per conflict and fleet, until the record is in place."""

from collections.abc import Sequence

from agent import logs
from agent.cli import context
from agent.cli.cname_wiring import Site
from agent.cli.delivering import Deliveries, assert_possible
from agent.cli.output import show_warning
from agent.cname import RecordOutcome, SyncResult
from agent.errors import ConsulUnreachable, SvcagentError
from agent.notify import sent
from agent.notify.notices import Notice, conflict, due_conflict


def notify_conflicts(here: Site, results: Sequence[SyncResult]) -> None:
    """Notify of conflicts of this host's records. Only a record that is in place, uncontested, ends its conflict.

    Other outcomes without an error do not. For example, a record may yield to a newer generation while two hosts
    contend.
    """
    found: list[Notice] = []
    for one in results:
        if one.outcome in (RecordOutcome.CONFLICT, RecordOutcome.IN_PLACE):
            try:
                found += _due(here, one)
            except ConsulUnreachable as error:
                logs.log(f"not looked for what people should be told: {error}", record=one.place.name)
            except SvcagentError as error:
                show_warning(
                    f"{one.place.name}: no notification of its conflict is sent: {error}", record=one.place.name
                )
    deliveries = Deliveries("cname sync", context.system_clock())
    deliveries.send(found)
    deliveries.wait()


def _due(here: Site, result: SyncResult) -> tuple[Notice, ...]:
    wanted = result.wanted
    if wanted is None:
        return ()
    notice = None
    if result.outcome is RecordOutcome.CONFLICT:
        notice = conflict(wanted.service, wanted.name, wanted.owner, result.why, here.agent.node)

    def decide(told: frozenset[str]) -> tuple[tuple[Notice, ...], frozenset[str]]:
        notices, after = due_conflict(notice, wanted.owner, told)
        if notices:
            assert_possible()
        return notices, after

    return sent.take(here.consul, sent.place(wanted.service, wanted.name), decide)
