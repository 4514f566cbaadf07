"""The plan of ``register`` and ``plan``: the definitions are read, checked against the agent, and compared with it."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from agent.consul import AgentSelf
from agent.data import dataclass
from agent.definitions import Definition, Loaded, Service
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.registration.driver import Registration
from agent.registration.plan import Change, ChangeAction
from agent.registration.requirements import unmet_requirements
from agent.text import some_of


@dataclass(frozen=True)
class RegistrationOptions:
    """``may_remove``: the operator agreed to the removals."""

    names: frozenset[str]
    wait: float
    is_dry: bool = False
    is_adopting: bool = False
    is_empty_allowed: bool = False
    may_remove: bool = False


@dataclass
class Planner:
    """Makes a plan from the files of ``directory`` and the agent, before any write.

    It leaves out files with faults, and then removes nothing, because any of them may define the service.
    ``await_agent`` waits for the agent. ``load`` returns the definitions and calls its argument for the agent's address
    if they need it. ``report_faults`` gets all faults and the other files' definitions.
    """

    directory: Path
    registration: Registration
    options: RegistrationOptions
    await_agent: Callable[[], AgentSelf]
    load: Callable[[Callable[[], str]], Loaded]
    report_faults: Callable[[Iterable[Fault], Iterable[Definition]], None]
    definitions: tuple[Definition, ...] = ()
    faults: tuple[Fault, ...] = ()

    @cached_property
    def agent(self) -> AgentSelf:
        return self.await_agent()

    @property
    def services(self) -> list[Service]:
        return [service for definition in self.definitions for service in definition.services]

    def read(self) -> None:
        """Read the definitions. Their faults are reported even if no agent answers."""
        if self.options.is_empty_allowed and self._is_missing():
            self.definitions, self.faults = (), ()
            return
        found = self.load(lambda: self.agent.address)
        self.definitions, self.faults = found.definitions, found.faults

    def _is_missing(self) -> bool:
        """True if there is no such directory; False if that cannot be known, which `load` reports."""
        try:
            self.directory.stat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    def plan(self) -> tuple[Change, ...]:
        options = self.options
        if faults := unmet_requirements(self.definitions, self.agent, options.names):
            self._leave_out(faults)
        # Consul refuses to register a service that the token may not see; a mere plan would show it as absent.
        expected = {service.id: service.name for service in self.services} if options.is_dry else {}
        plan = self.registration.plan(
            self.services,
            options.names,
            expected=expected,
            is_adopting=options.is_adopting,
            has_consent=options.may_remove or (options.is_empty_allowed and not self.definitions),
            may_remove=lambda _service_id: not self.faults,
        )
        removed = [change.service_id for change in plan if change.action is ChangeAction.REMOVE]
        if removed and not self.definitions and not options.is_empty_allowed:
            raise SvcagentError(
                f"{self.directory} contains no definitions, so {some_of(removed)} would be removed. "
                "If that is intended, run: svcagent register --allow-empty",
                kind="no-definitions",
            )
        return plan

    def _leave_out(self, faults: list[Fault]) -> None:
        if self.options.names:
            raise BadDefinition(faults)
        files = {fault.file for fault in faults}
        self.definitions = tuple(one for one in self.definitions if str(one.file) not in files)
        self.faults += tuple(faults)
        self.report_faults(self.faults, self.definitions)
