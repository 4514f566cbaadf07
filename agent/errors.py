"""The exception tree: what can go wrong, told apart by type, each with the exit code it ends a verb with.

A message says what happened, where, and what to do about it; it is printed as it stands.
This module imports nothing of the package.
"""

from dataclasses import dataclass


class SvcagentError(Exception):
    """Anything svcagent foresees. Exit code 1: failed, and repaired, or said what is left."""

    exit_code = 1


class NotFound(SvcagentError):
    """The thing named is not there: a service, a container, an image."""


class Denied(SvcagentError):
    """Consul, Docker or a registry refused the credentials, or their rights do not suffice."""


class Conflict(SvcagentError):
    """The thing named is there but is not ours to change."""


class Rejected(SvcagentError):
    """The server understood the request and refused its content."""


class Unreachable(SvcagentError):
    """No answer, or none that could be used. Nothing is known about the other side's state."""

    exit_code = 69


class ConsulUnreachable(Unreachable):
    """The Consul agent cannot be reached, or has no cluster leader."""


class DockerUnreachable(Unreachable):
    """The Docker Engine cannot be reached."""


class DnsUnreachable(Unreachable):
    """A DNS server does not answer."""


class RegistryUnreachable(Unreachable):
    """The Docker Engine cannot reach the image's registry."""


class OutcomeUnknown(Unreachable):
    """A write was sent and no answer came in time: it may or may not have been carried out."""


class NotNow(SvcagentError):
    """A refusal that may pass by itself: the lock is busy, or the guard says no."""

    exit_code = 75


class LockBusy(NotNow):
    """Another holder kept the lock for longer than the caller was willing to wait."""


class GuardRefused(NotNow):
    """Draining this instance now would break a promise made to its clients or operators."""


class LockLost(SvcagentError):
    """The lock was held and is held no longer."""


class NotDrained(SvcagentError):
    """Clients were still being sent to the instance when the time to drain it was over."""


class NotReady(SvcagentError):
    """An instance did not become ready, or its container stopped while it was awaited."""


class CommandFailed(SvcagentError):
    """A command of the definition could not be started, ended with another status than 0, or took too long."""


class HookFailed(CommandFailed):
    """One of the operator's own commands around a reload failed."""


class Unforeseen(SvcagentError):
    """An exception that nobody foresaw, caught where other services or files have to go on: a bug in svcagent."""

    exit_code = 3

    @classmethod
    def of(cls, error: BaseException) -> "Unforeseen":
        """Wrap it. Its trace is logged where it was caught."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return cls(f"a bug in svcagent ({text}); its trace is in the log, please report it")


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP ended a wait. The exit code is the shell's for that signal: 130, 143 or 129.

    Not an `Exception`, as KeyboardInterrupt is none: libraries catch those, and would make a failure of it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum
        self.exit_code = 128 + signum


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong in one file.

    ``path`` is the place inside the file (``service.checks[0].interval``, or ``line 3 column 7`` where the file is
    not JSON), empty for the file as a whole. ``remedy`` says what would be right.
    """

    file: str
    path: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return f"{where}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class BadDefinition(SvcagentError):
    """Definitions or settings that cannot be used: every fault of every file, so that one report is enough."""

    exit_code = 78

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))
