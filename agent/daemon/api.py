"""The local API of the daemon: HTTP/1.1 with JSON, on a Unix socket and, if set, on a loopback address.

What is asked for is done by the `Backend`; here is only how it is asked and who may ask. Whoever may open the socket may
start a reload; over TCP, where nobody is known, questions are answered and nothing is done.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""One line of a reload's log, a JSON object; the last one is ``{"result": …}``."""


class Subscription(Protocol):
    """One looker-on at a reload that runs, with its records from the first on. Used by one thread, not the loop's.

    ``is_started_here``: this very call started it. ``why`` and ``since``: of the reload. ``pid``: of its process, None
    where there is none yet. ``is_forced`` and ``is_in_maintenance``: what the reload that runs was asked with.
    """

    is_started_here: bool
    since: datetime
    why: str
    pid: int | None
    is_forced: bool
    is_in_maintenance: bool

    def get(self, timeout: float) -> Record | None:
        """The next record, None if none comes within ``timeout`` seconds. None follows ``{"result": …}``."""

    def close(self) -> None:
        """Look on no more; the reload goes on."""


class Backend(Protocol):
    """What the daemon answers with; called from the threads of requests, several at once.

    Errors are those of `agent.errors`, told with their texts and exit codes. An unknown ``name`` (of a service or its
    id) is `NotFound`, its text naming those there are.
    """

    def status(self) -> Mapping[str, Any]:
        """The status document (`agent.daemon.status.Status.document`)."""

    def schedule(self) -> Sequence[Mapping[str, Any]]:
        """What runs next, and when."""

    def history(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Past reloads of this host, the newest first."""

    def metrics(self) -> tuple[bytes, str] | None:
        """The metrics and their content type; None where metrics are off."""

    def reload(
        self, name: str, *, force: bool, in_maintenance: bool, lock_timeout: float | None, asker: str
    ) -> Subscription:
        """Start a reload, or look on at the one of that service that runs.

        ``lock_timeout``: seconds; None as if ``--lock-timeout`` were not given. ``asker``: who asks, for ``why``.

        :raises NotFound: no such service, or it has no reload section.
        :raises NotNow: the daemon is stopping.
        """

    def cancel(self, name: str) -> None:
        """Ask the reload that runs to put its service back and to end.

        :raises NotFound: no such service, or none of its reloads runs.
        """
