"""The operator's own commands around a reload: when each runs, and its environment. `command` runs them.

====================  ======================================  ===================================
hook                  runs                                    on failure
====================  ======================================  ===================================
``before_drain``      with the lock, before any change        the reload stops, nothing is changed
``after_drain``       no client is left, the old one runs     the service is restored as it was
``after_restart``     the new instance has been started       the old one is restored
``after_return``      clients are back, on the new instance   a warning
``on_failure``        the reload has failed and was undone    a warning
====================  ======================================  ===================================
"""

from contextlib import nullcontext
from enum import StrEnum

from agent.errors import HookFailed
from agent.logs import log
from agent.reload.command import Command, require_program, run_checked, without_secrets
from agent.reload.dependencies import ReloadContext


class Hook(StrEnum):
    BEFORE_DRAIN = "before_drain"
    AFTER_DRAIN = "after_drain"
    AFTER_RESTART = "after_restart"
    AFTER_RETURN = "after_return"
    ON_FAILURE = "on_failure"


WARN_ONLY = frozenset({Hook.AFTER_RETURN, Hook.ON_FAILURE})
"""Their failure does not change the reload: there is nothing left to stop."""


class HookRunner:
    def __init__(self, context: ReloadContext) -> None:
        self._context = context

    def run(self, hook: Hook, result: str = "reloaded") -> None:
        """Run the operator's command for this hook, if there is one. If a hook in `WARN_ONLY` fails, that is a note.

        ``result``: how the reload ended, for hooks that run at its end. Raise `HookFailed` if the command could not be
        started, exited with a status other than 0, or took too long.
        """
        command = self._command(hook)
        if command is None:
            return
        deps, record, progress = self._context.deps, self._context.entry.record, self._context.progress
        step = str(progress.failed_step or progress.step)
        # All are set, so that a script may require them; digests are empty if there is no image or it is unknown.
        variables = {
            "SVCAGENT_HOOK": str(hook),
            "SVCAGENT_SERVICE": record.service,
            "SVCAGENT_SERVICE_ID": record.service_id,
            "SVCAGENT_NODE": deps.agent.node,
            "SVCAGENT_RELOAD": record.reload_id,
            "SVCAGENT_STEP": step,
            "SVCAGENT_DIGEST": record.digest,
            "SVCAGENT_DIGEST_BEFORE": record.digest_before,
        }
        if hook in WARN_ONLY:
            variables["SVCAGENT_RESULT"] = result
        waiting = nullcontext if hook in WARN_ONLY else deps.interrupts.allowed
        try:
            finished = run_checked(command, without_secrets(deps.environ) | variables, deps.clock, waiting)
        except HookFailed as error:
            if hook not in WARN_ONLY:
                raise
            progress.note(str(error))
            return
        if finished.output:
            log(finished.output, service=record.service, reload=record.reload_id, step=step, hook=str(hook))

    def check_programs(self) -> None:
        """Raise `HookFailed` if a hook's program cannot be started: better now than when the service is drained."""
        for hook in Hook:
            if (command := self._command(hook)) is not None:
                require_program(command, without_secrets(self._context.deps.environ))

    def _command(self, hook: Hook) -> Command | None:
        hooks, service = self._context.section.hooks, self._context.entry.record.service
        argv: tuple[str, ...] | None = getattr(hooks, hook)
        if argv is None:
            return None
        return Command(f"hook {hook} of {service}", argv, hooks.timeout, "reload.hooks.timeout", HookFailed)
