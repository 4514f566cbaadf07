"""The local API of the daemon: what it answers with, and where that is asked for. Plain HTTP/1.1 with JSON.

What is asked for is done by the `Backend`. How one request is read and answered is in `api_request`, where connections
come from in `api_server`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""One line of a reload's log, a JSON object; the last one is ``{"result": …}``."""

ADDRESSES = (
    "GET /v1/status",
    "GET /v1/schedule",
    "GET /v1/schedule/NAME",
    "GET /v1/history/NAME",
    "GET /metrics",
    "POST /v1/reload/NAME",
    "POST /v1/reload/NAME/cancel",
)
"""All that can be asked for."""

RELOAD_JOB = "reload "
"""What the name of a job begins with that reloads the service whose id follows."""

HEARTBEAT_SECONDS = 5.0
"""Of a reload that tells nothing, at the latest: whoever looks on knows that the daemon lives."""


class Subscription(Protocol):
    """One looker-on at a reload that runs, with its records from the first on. Used by one thread, not the loop's."""

    @property
    def is_started_here(self) -> bool:
        """Did this very call start it?"""

    @property
    def since(self) -> datetime:
        """When it was started."""

    @property
    def why(self) -> str:
        """Who or what wanted it."""

    @property
    def pid(self) -> int | None:
        """Of its process; None where there is none yet."""

    @property
    def is_forced(self) -> bool:
        """Does it run with ``--force``?"""

    @property
    def is_in_maintenance(self) -> bool:
        """Does it run with ``--in-maintenance``?"""

    def get(self, timeout: float) -> Record | None:
        """The next record; None if none comes within ``timeout`` seconds. The last one is ``{"result": …}``."""

    def close(self) -> None:
        """Look on no more; the reload goes on."""


class Backend(Protocol):
    """What the daemon answers with; called from the threads of requests, several at once.

    Errors are those of `agent.errors`, told with their texts and exit codes. An unknown ``name``, of a service or its
    id, is `NotFound`, its text naming those there are.
    """

    def status(self) -> Mapping[str, Any]:
        """The status document (`agent.daemon.status.Status.document`)."""

    def schedule(self, name: str | None) -> Sequence[Mapping[str, Any]]:
        """What runs next, and when, the first one first: a ``job`` and ``at``. With ``name``, its reload alone."""

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
