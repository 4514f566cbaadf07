"""One connection to the local Consul agent, and how the responses of its API are read."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from agent.consul.transport import Transport
from agent.definitions import ConsulSettings
from agent.http import HttpAnswer
from agent.shapes import Shape, require

if TYPE_CHECKING:
    from agent.consul.api import Api

T = TypeVar("T")

LONGEST_WAIT = 25.0
"""Seconds of one blocking query. Consul adds a sixteenth; some builds of 1.22 cut off every response after 30 s."""


class ConsulApi:
    """A connection that must not be used by two threads at a time.

    Every method of its subclasses raises `ConsulUnreachable` (nothing is known), `OutcomeUnknown` (a write got no
    response), `Denied` or `Rejected`. No method returns False for such an error. A read with ``index`` (of an earlier
    response) waits up to ``wait`` seconds for a change.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._transport = Transport(settings)

    @cached_property
    def _api(self) -> "Api":
        from agent.consul.api import Api  # slow to import, and not needed to register

        return Api(self._transport)

    def close(self) -> None:
        self._transport.close()

    def hang_up(self) -> None:
        """Abort the request that another thread waits for on this connection. No other method is thread-safe."""
        self._transport.hang_up()

    def stay_connected(self, seconds: float) -> None:
        """Keep an idle connection open for ``seconds``. Raise `ConsulUnreachable` if it fails or ends."""
        self._transport.stay_connected(seconds)

    def _whole(self, parse: Callable[[HttpAnswer], T], path: str, params: list[tuple[str, Any]] | None = None) -> T:
        """Read a complete list. Raise `Denied` if Consul reports that it omitted what the token may not see."""

        def parse_whole(answer: HttpAnswer) -> T:
            if is_filtered(answer):
                raise self._transport.failures.lacking("GET", path)
            return parse(answer)

        return self._transport.get(parse_whole, path, params)


def is_filtered(answer: HttpAnswer) -> bool:
    """True if Consul omitted what the token may not see. Consul reports this since 1.11, for requests with a token."""
    return str(answer.headers.get("X-Consul-Results-Filtered-By-ACLs", "")).lower() == "true"


def read_params(index: int | None = None, wait: float = 0.0, *, consistent: bool = True) -> list[tuple[str, Any]]:
    """Return the parameters of a read from the leader (``consistent``), or of a blocking query (with ``index``)."""
    waiting = [] if index is None else [("index", index), ("wait", wait_text(wait))]
    return [*waiting, *([("consistent", "1")] if consistent else [])]


def wait_text(seconds: float) -> str:
    """Format a wait. Consul takes a wait of zero for its default of five minutes."""
    return f"{min(max(seconds, 0.001), LONGEST_WAIT):.3f}s"


def is_found(answer: HttpAnswer) -> bool:
    return answer.code != 404


def checked(answer: HttpAnswer, shape: Shape) -> Any:
    """Return the response's JSON if it has that shape. null counts as an empty list: Go writes nil slices so."""
    if answer.code == 404:
        raise LookupError("not found, where something always is")
    found = answer.json
    if found is None and isinstance(shape, list):
        return []
    require(found, shape)
    return found


def parsed(parse: Callable[[Any], T], shape: Shape) -> Callable[[HttpAnswer], T]:
    """Return a callback that checks and parses the JSON inside the request, where `Transport` reports a wrong shape."""
    return lambda answer: parse(checked(answer, shape))


def index_of(answer: HttpAnswer) -> int:
    """Return the index of a blocking query, an unsigned number of 64 bits."""
    found = int(answer.headers["X-Consul-Index"])
    if not 0 <= found < 1 << 64:
        raise ValueError("an index out of range")
    return found
