"""The operator's own commands around a reload: when each runs, and what it is told. How commands run: `command`.

====================  ======================================  ===================================
hook                  runs                                    when it fails
====================  ======================================  ===================================
``before_drain``      under the lock, before anything         the reload stops, nothing is changed
``after_drain``       no client is left, the old one runs     the service is put back as it was
``after_restart``     the new instance has been started       the old one is put back
``after_return``      clients are back, on the new instance   a warning
``on_failure``        the reload has failed and is put back   a warning
====================  ======================================  ===================================
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

from agent.clock import Clock
from agent.data import dataclass
from agent.definitions import Hooks
from agent.errors import HookFailed
from agent.reload.command import Command, Finished, carry_out, without_secrets


class Hook(StrEnum):
    """A moment at which an operator may want to do something."""

    BEFORE_DRAIN = "before_drain"
    AFTER_DRAIN = "after_drain"
    AFTER_RESTART = "after_restart"
    AFTER_RETURN = "after_return"
    ON_FAILURE = "on_failure"


WARN_ONLY = frozenset({Hook.AFTER_RETURN, Hook.ON_FAILURE})
"""Their failure changes nothing about the reload: there is nothing left to stop."""


@dataclass(frozen=True)
class Occasion:
    """What a hook is told.

    ``reload`` is the reload's ID; ``step`` the step of the reload that it belongs to, for ``on_failure`` the one that
    failed; ``digest`` what is wanted, ``digest_before`` what ran, both empty where there is no image or it is unknown;
    ``result`` how the reload ended, for those hooks that run at its end.
    """

    service: str
    service_id: str
    node: str
    reload: str
    step: str
    digest: str = ""
    digest_before: str = ""
    result: str = ""

    def variables(self, hook: Hook) -> dict[str, str]:
        """As environment variables; all are set, so that a script may insist on them."""
        told = {
            "SVCAGENT_HOOK": str(hook),
            "SVCAGENT_SERVICE": self.service,
            "SVCAGENT_SERVICE_ID": self.service_id,
            "SVCAGENT_NODE": self.node,
            "SVCAGENT_RELOAD": self.reload,
            "SVCAGENT_STEP": self.step,
            "SVCAGENT_DIGEST": self.digest,
            "SVCAGENT_DIGEST_BEFORE": self.digest_before,
        }
        return told | ({"SVCAGENT_RESULT": self.result} if hook in WARN_ONLY else {})


def run_hook(
    hooks: Hooks,
    hook: Hook,
    occasion: Occasion,
    environ: Mapping[str, str],
    clock: Clock,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Finished | None:
    """Run the definition's command for that moment; None when it has none.

    ``environ``: the agent's own, of which the secrets are kept back. ``waiting``: as for `command.run`.

    :raises HookFailed: it could not be started, ended with another status than 0, or took too long.
    """
    argv: tuple[str, ...] | None = getattr(hooks, hook)
    if argv is None:
        return None
    command = Command(f"hook {hook} of {occasion.service}", argv, hooks.timeout, "reload.hooks.timeout", HookFailed)
    return carry_out(command, without_secrets(environ) | occasion.variables(hook), clock, waiting)
