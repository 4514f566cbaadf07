"""Plans that need an operator's consent before they are applied. Pure."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from agent.data import dataclass
from agent.errors import SvcagentError
from agent.registration.last_seen import LastSeen
from agent.registration.mark import is_own
from agent.registration.plan import AgentState, Change, ChangeAction
from agent.text import counted, some_of

MOST_REMOVALS = 2
"""The number of services that may be removed without consent, even if they are more than half."""


class ConsentNeeded(SvcagentError):
    """A plan would remove more than svcagent removes without an operator's consent."""


@dataclass(frozen=True)
class Objection:
    """Why a plan needs consent, and which of its actions are withheld until then."""

    kind: str
    text: str
    actions: frozenset[ChangeAction]

    def withholds(self, change: Change) -> bool:
        return change.action in self.actions


def find_objection(plan: Iterable[Change], world: AgentState, directory: Path, last: LastSeen) -> Objection | None:
    """Return why a plan for the definitions of ``directory`` needs consent, or None if it needs none.

    - It removes more than `MOST_REMOVALS` services and more than half of those that svcagent registered.
    - It removes or changes services that were registered from another directory.
    """
    own = {one.id for one in world.services.values() if is_own(one)}
    own = own.intersection(last.agreed) or own
    removed = [one.service_id for one in plan if one.action is ChangeAction.REMOVE]
    changed = [one.service_id for one in plan if one.action is ChangeAction.UPDATE]
    place = shlex.quote(str(directory))
    command = f"svcagent --services-dir {place} register --allow-removals"
    if last.is_other_directory(directory) and (removed or changed):
        services = counted(len(removed), "service")
        found = f"{services} would be removed and {len(changed)} changed ({some_of(removed + changed)})"
        text = (
            f"the services of this host were registered from {last.directory}, not from {directory}: {found}. If "
            f"{directory} is the right directory, run: {command}"
        )
        return Objection("other-directory", text, frozenset({ChangeAction.REMOVE, ChangeAction.UPDATE}))
    if len(removed) > MOST_REMOVALS and 2 * len(removed) > len(own):
        text = (
            f"{len(removed)} of the {len(own)} services that svcagent registered on this host would be removed "
            f"({some_of(removed)}), because {directory} does not define them any more. More than {MOST_REMOVALS} and "
            f"more than half need consent. If that is intended, run: {command}"
        )
        return Objection("too-many-removals", text, frozenset({ChangeAction.REMOVE}))
    return None
