"""Apply a registration plan, one service at a time. Applying it again changes nothing.

If svcagent is killed, the next run finishes: a service is registered with svcagent's mark or not at all.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from agent.consul import Consul, ServerFailed, maintenance_check, maintenance_check_id
from agent.data import dataclass
from agent.definitions import Check, Service
from agent.errors import Conflict, SvcagentError, UnexpectedError, Unreachable
from agent.registration.mark import HOLD, leaving
from agent.registration.plan import Change, ChangeAction

Report: TypeAlias = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Failure:
    service_id: str
    error: SvcagentError


class CollectedFailures:
    """Collects the failures of single services, so that the registration of the others continues.

    ``report`` is called with the service ID and the exception if the exception is a bug.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.found: list[Failure] = []

    @contextmanager
    def collected(self, service_id: str) -> Iterator[None]:
        """Record the error of the block. Raise `Unreachable`: without Consul, no other service can be registered
        either.
        """
        try:
            yield
        except SvcagentError as error:
            if isinstance(error, Unreachable) and not isinstance(error, ServerFailed):
                raise
            self.found.append(Failure(service_id, error))
        except Exception as error:  # noqa: BLE001 - a bug in one service must not stop the others
            self._report(service_id, error)
            self.found.append(Failure(service_id, UnexpectedError.of(error, f"the registration of {service_id}")))


def apply_change(consul: Consul, change: Change, probe: Callable[[Check], str]) -> bool:
    """Create, update or remove a service. Return False if there was nothing to do.

    ``probe`` returns the current status of a check. It is called for new checks of a service that clients are sent to.
    With Consul's default status, critical, such a check would take the service out of service until its first run.
    """
    match change.action:
        case ChangeAction.CREATE | ChangeAction.UPDATE:
            _register(consul, change, probe)
        case ChangeAction.REMOVE:
            consul.deregister_service(change.service_id)
        case ChangeAction.KEEP | ChangeAction.REFUSE:
            return False
    return True


def restore_node_maintenance(consul: Consul, text: str) -> None:
    """Enable the node's maintenance again, before its services are registered.

    :raises Conflict: another process enabled a different one at the same moment.
    """
    consul.enable_node_maintenance(text)
    _assert_in_maintenance(consul, "", text, "the maintenance of this host was enabled again as before", " --node")


def renew_checks(consul: Consul, service: Service, statuses: Mapping[str, str]) -> None:
    """Make the agent show these statuses, by check ID, until it has run the checks again.

    Use it only for a service in maintenance, because each check is missing for a moment: registering over a check keeps
    its old status (Consul 1.8), so it is deregistered first.
    """
    for check in service.checks:
        if check.id in statuses:
            consul.deregister_check(check.id)
            consul.register_check({**check.registration(), "ServiceID": service.id, "Status": str(statuses[check.id])})


def _register(consul: Consul, change: Change, probe: Callable[[Check], str]) -> None:
    body = _with_statuses(change, probe)
    if change.replaces:
        consul.deregister_service(change.replaces)
    if change.maintenance is not None:
        # Registered together with the service, it leaves no moment in service.
        check = maintenance_check(change.service_id, change.maintenance)
        body["Checks"] = [*body["Checks"], {"CheckID": maintenance_check_id(change.service_id), **check}]
    replaced = change.replaced_checks or {}
    stale = list(change.stale_checks)
    if change.action is ChangeAction.UPDATE and "critical" in replaced.values():
        # Otherwise clients would be sent to the service while its failing check is replaced.
        hold = {"ID": HOLD + change.service_id, "Name": "being replaced by svcagent", "TTL": "1h", "Status": "critical"}
        consul.register_check({**hold, "ServiceID": change.service_id})
        stale.append(hold["ID"])
    for check_id in replaced:
        # If it were only registered over, the old check would keep running next to the new one (Consul 1.8).
        consul.deregister_check(check_id)
    if stale:
        consul.register_service(leaving(body, stale))
        for check_id in stale:
            consul.deregister_check(check_id)
    consul.register_service(body)
    if change.maintenance is not None:
        what = f"{change.service_id} was registered in maintenance as before"
        _assert_in_maintenance(consul, change.service_id, change.maintenance, what)


def _assert_in_maintenance(consul: Consul, service_id: str, text: str, what: str, argument: str = "") -> None:
    held = consul.checks().get(maintenance_check_id(service_id))
    if held is None or held.status != "critical" or held.notes != text:
        raise Conflict(
            f"{what}, but the Consul agent shows {'none' if held is None else 'another one'}: another process changed "
            f"it at the same time. See: svcagent maint status{argument}",
            kind="maintenance-changed",
        )


def _with_statuses(change: Change, probe: Callable[[Check], str]) -> dict[str, Any]:
    """Return the body with the initial status of new checks where it is known; Consul keeps that of all others."""
    known = {
        **{check_id: status for check_id, status in (change.replaced_checks or {}).items() if status},
        **{check.id: str(probe(check)) for check in change.new_checks},
    }
    body = dict(change.body or {})
    body["Checks"] = [
        {"Status": known[check["CheckID"]], **check} if check["CheckID"] in known else check for check in body["Checks"]
    ]
    return body
