"""svcagent's own connection to a Consul agent."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.consul import Consul
from agent.definitions import Settings


@contextmanager
def consul_at(address: str) -> Iterator[Consul]:
    """A connection to this address, closed at the end of the block."""
    connection = Consul(Settings.load(None, {"CONSUL_HTTP_ADDR": address}).consul)
    try:
        yield connection
    finally:
        connection.close()
