"""python-consul2's calls on our transport.

It reads CONSUL_HTTP_ADDR itself, breaks on addresses with a scheme, a socket or IPv6 in them, and has no time limits.
So its client is built here without its constructor, with a `Transport` where it would have its own. Imported when the
first of its calls is made: it imports requests, which registration has no use for.
"""

import consul.base

from agent.consul.transport import Transport


class Api(consul.base.Consul):  # type: ignore[misc]  # python-consul2 ships no types
    """Its constructor would read and misread the environment."""

    def __init__(self, transport: Transport) -> None:
        self.http = transport
        self.token = None  # the transport sends it
        self.dc = None
        self.consistency = "default"
        self.agent = consul.base.Consul.Agent(self)
        self.kv = consul.base.Consul.KV(self)
        self.session = consul.base.Consul.Session(self)
