"""The exception tree: errors are distinguished by type, and each type has the exit code that the verb ends with.

A message says what happened, where, and what to do. It is printed unchanged. Programs and tests read the ``kind``:
docs/kinds.md lists all of them.
This module imports only `agent.data`.
"""

from agent.data import dataclass


def _kind_of(name: str) -> str:
    """Return a class's name in kebab-case."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).strip("_-")


class SvcagentError(Exception):
    """Any failure that svcagent expects. Exit code 1: it failed, and undid its changes or reported what remains.

    ``kind`` is the class's name in kebab-case (``lock-busy``), unless the error is raised with a more precise one.
    """

    exit_code = 1
    kind = "failed"

    def __init_subclass__(cls) -> None:
        cls.kind = _kind_of(cls.__name__)

    def __init__(self, message: str = "", *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or self.kind


class NotFound(SvcagentError):
    """A named service, container or image does not exist."""


class Denied(SvcagentError):
    """Consul, Docker or a registry refused the credentials, or their permissions do not suffice."""


class TokenUnusable(Denied):
    """The Consul token or its file cannot be used."""

    exit_code = 78


class Conflict(SvcagentError):
    """The named object exists, but svcagent did not create it and must not change it."""


class ChangedMeanwhile(Conflict):
    """What was about to be changed is not as it was when the change was planned; nothing was changed."""


class Rejected(SvcagentError):
    """The server understood the request and refused its content."""


class Unreachable(SvcagentError):
    """There was no usable answer. The state of the other side is unknown."""

    exit_code = 69


class UnexpectedAnswer(Unreachable):
    """A server sent an answer that svcagent cannot use, or the client library failed."""


class ConsulUnreachable(Unreachable):
    """The Consul agent cannot be reached, or has no cluster leader."""


class DockerUnreachable(Unreachable):
    """The Docker Engine cannot be reached."""


class DnsUnreachable(Unreachable):
    """A DNS server does not answer."""


class RegistryUnreachable(Unreachable):
    """The Docker Engine cannot reach the image's registry."""


class OutcomeUnknown(Unreachable):
    """A write was sent and no answer arrived in time, so it may or may not have taken effect."""


class TemporaryRefusal(SvcagentError):
    """A refusal that may pass without action: the lock is busy, or the guard refuses."""

    exit_code = 75


class LockBusy(TemporaryRefusal):
    """Another holder kept the lock for longer than the caller was willing to wait."""


class GuardRefused(TemporaryRefusal):
    """Draining this instance now would break a promise made to its clients or operators."""


class RateLimited(TemporaryRefusal):
    """An image registry refuses further requests for a while.

    ``retry_after`` is that time in seconds, if the registry gave one.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnexpectedError(SvcagentError):
    """An exception type that the called code should not raise: a bug in svcagent or in a library.

    Completed steps are undone as after every failure. The cause is ``__cause__``; the exit code is that of a bug.
    """

    exit_code = 3

    @classmethod
    def of(cls, error: Exception, what: str) -> "UnexpectedError":
        found = cls(
            f"{what} ended with an unexpected {type(error).__name__}: {error}. This is a bug in svcagent; please "
            "report it with the trace in the log"
        )
        found.__cause__ = error
        return found


class LockLost(SvcagentError):
    """The lock was held and is no longer held."""


class NotDrained(SvcagentError):
    """Clients were still sent to the instance when the drain timed out."""


class ConnectionsUnknown(SvcagentError):
    """The kernel does not show svcagent the connections to a port, so a drain cannot wait until they close."""


class NotReady(SvcagentError):
    """An instance did not become ready, or its container stopped during the wait.

    ``signature`` shows programs which check failed and how (``service:web:http http 503``). It says ``refused`` if no
    connection was accepted, and is empty if the cause is unknown.
    """

    def __init__(self, message: str = "", *, signature: str = "", kind: str = "") -> None:
        super().__init__(message, kind=kind)
        self.signature = signature


class CommandFailed(SvcagentError):
    """A command of the definition could not be started, exited with a status other than 0, or timed out.

    ``log_tail`` is the end of its output. ``summary`` is the message without it: only the summary may leave the host.
    """

    def __init__(self, summary: str, log_tail: str = "") -> None:
        super().__init__(f"{summary}. Its last lines:\n{log_tail}" if log_tail else summary)
        self.summary = summary
        self.log_tail = log_tail


class HookFailed(CommandFailed):
    """One of the operator's commands around a reload failed."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP ended a wait. The exit code is the shell's for that signal: 130, 143 or 129.

    Like KeyboardInterrupt it is not an `Exception`: libraries catch those and would turn the signal into a failure.
    """

    kind = "interrupted"

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum
        self.exit_code = 128 + signum


@dataclass(frozen=True, order=True)
class Fault:
    """One fault in one file.

    ``path`` is the place inside the file (``service.checks[0].interval``, or ``line 3 column 7`` in a file that is not
    JSON); it is empty for the whole file. ``remedy`` says what would be right.
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
