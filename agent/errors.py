"""The exception tree: what can go wrong, told apart by type, each with the exit code it ends a verb with.

A message says what happened, where, and what to do about it; it is printed as it stands.
This module imports nothing of the package.
"""

from agent.data import dataclass


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


class UnexpectedAnswer(Unreachable):
    """A server answered something that svcagent cannot use, or the library that asked it failed."""


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


class RateLimited(NotNow):
    """An image registry answers no more requests for a while.

    ``retry_after``: the seconds until it does, as far as it said so.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unforeseen(SvcagentError):
    """An exception of a type that the code under it should not raise: a bug, of svcagent or of a library.

    What was begun is undone like after every failure. The cause is its ``__cause__``; the exit code is a bug's.
    """

    exit_code = 3

    @classmethod
    def of(cls, error: Exception, what: str) -> "Unforeseen":
        """Wrap an exception that ended ``what``."""
        found = cls(
            f"{what} ended with an unexpected {type(error).__name__}: {error}. This is a bug in svcagent; please "
            "report it with the trace in the log"
        )
        found.__cause__ = error
        return found


class LockLost(SvcagentError):
    """The lock was held and is held no longer."""


class NotDrained(SvcagentError):
    """Clients were still being sent to the instance when the time to drain it was over."""


class ConnectionsUnknown(SvcagentError):
    """The kernel does not let svcagent see the connections to a port, so a drain cannot wait for their end."""


class NotReady(SvcagentError):
    """An instance did not become ready, or its container stopped during the wait.

    ``signature`` says for programs which check failed and how (``service:web:http http 503``): ``refused`` where no
    connection was accepted, empty where the cause is unknown.
    """

    def __init__(self, message: str = "", *, signature: str = "") -> None:
        super().__init__(message)
        self.signature = signature


class CommandFailed(SvcagentError):
    """A command of the definition could not be started, ended with another status than 0, or took too long.

    ``log_tail`` is the end of what it printed, ``summary`` the message without it: only that may leave the host.
    """

    def __init__(self, summary: str, log_tail: str = "") -> None:
        super().__init__(f"{summary}. Its last lines:\n{log_tail}" if log_tail else summary)
        self.summary = summary
        self.log_tail = log_tail


class HookFailed(CommandFailed):
    """One of the operator's own commands around a reload failed."""


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
