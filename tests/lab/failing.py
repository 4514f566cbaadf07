"""svcagent with one exception at an exact place: ``python -m tests.lab.failing PLAN ARGUMENT…``.

A place is a step (``drain``), or a call of a dependency in it (``drain/Consul.checks``), as a run without a place in
its plan records them. The table of steps is the only thing known here, so a new step and a new method have places of
their own. The exception is raised in the process that really runs, before what it takes the place of, or after it.
"""

import functools
import importlib
import json
import pkgutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import agent
from agent import files
from agent.cli import main
from agent.consul import Consul, Lock, ask_dns
from agent.engine.client import Engine
from agent.reload.journal import Journal
from agent.reload.probe import Prober
from agent.reload.runner import StepRunner

ERRORS: dict[str, Callable[[], Exception]] = {
    "RuntimeError": lambda: RuntimeError("made by a test"),
    "OSError": lambda: OSError(5, "made by a test"),
    "ValueError": lambda: ValueError("made by a test"),
    "UnicodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "made by a test"),
    "RecursionError": lambda: RecursionError("made by a test"),
    "MemoryError": lambda: MemoryError("made by a test"),
}
DEPENDENCIES = (Engine, Consul, Journal, Prober, Lock)
FUNCTIONS = (ask_dns, files.write_atomically)


@dataclass(frozen=True)
class Plan:
    """``place`` is empty to record places only. ``log``: a file that gets each place when it is first reached.

    ``is_after``: the call, or the step, is carried out first. ``is_lasting``: raised every time, not only the first.
    """

    log: str
    place: str = ""
    error: str = "RuntimeError"
    is_after: bool = False
    is_lasting: bool = False

    def encode(self) -> str:
        """The first argument of the command line."""
        return json.dumps(asdict(self))


class Fault:
    """Carries a plan out in this process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seen: set[str] = set()
        self._step = "start"
        self._is_over = False

    def arm(self) -> None:
        """Wrap the steps, and every public method and function of the dependencies."""
        StepRunner._take = self._step_taken(StepRunner._take)  # type: ignore[method-assign]  # noqa: SLF001  # made here
        for kind in DEPENDENCIES:
            bases = [base for base in reversed(kind.__mro__) if base.__module__.startswith("agent.")]
            methods = {name: method for base in bases for name, method in vars(base).items()}
            for name, method in methods.items():
                if not name.startswith("_") and callable(method) and not isinstance(method, type):
                    setattr(kind, name, self._called(f"{kind.__name__}.{name}", method))
        # They are imported by name: every module that has one gets the wrapped one.
        for module in pkgutil.walk_packages(agent.__path__, "agent."):
            if module.name != "agent.__main__":
                importlib.import_module(module.name)
        for function in FUNCTIONS:
            wrapped = self._called(function.__name__, function)
            for found in list(sys.modules.values()):
                if found.__name__.startswith("agent.") and vars(found).get(function.__name__) is function:
                    setattr(found, function.__name__, wrapped)

    def _step_taken(self, take: Callable[..., Any]) -> Callable[..., Any]:
        def taken(runner: StepRunner, step: str, action: Callable[[], Any], announce: Any) -> Any:
            self._step = str(step)
            try:
                return take(runner, step, self._called("", action), announce)
            finally:
                self._step = f"after {step}"

        return taken

    def _called(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            is_main = threading.current_thread() is threading.main_thread()
            place = "/".join(filter(None, (self._step if is_main else "another thread", name)))
            self._record(place)
            if not self._plan.is_after:
                self._fail(place)
            found = function(*arguments, **options)
            if self._plan.is_after:
                self._fail(place)
            return found

        return called

    def _record(self, place: str) -> None:
        if place not in self._seen:
            self._seen.add(place)
            with Path(self._plan.log).open("a") as log:
                log.write(f"{place}\n")

    def _fail(self, place: str) -> None:
        if place == self._plan.place and (self._plan.is_lasting or not self._is_over):
            self._is_over = True
            self._record(f"raised at {place}")
            raise ERRORS[self._plan.error]()


if __name__ == "__main__":
    Fault(Plan(**json.loads(sys.argv.pop(1)))).arm()
    main()
