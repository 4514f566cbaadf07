"""python-consul2's calls over svcagent's own `Transport`.

python-consul2 reads CONSUL_HTTP_ADDR itself, fails on addresses with a scheme, a socket path or IPv6, and has no
timeouts. `Api` therefore skips its constructor and sets a `Transport` as its HTTP client. The module is imported when
the first of its calls is made, because it imports requests, which registration does not need.
"""

import consul.base

from agent.consul.transport import Transport


class Api(consul.base.Consul):  # type: ignore[misc]  # python-consul2 ships no types
    """Skip the parent's constructor, which misreads the environment."""

    def __init__(self, transport: Transport) -> None:
        self.http = transport
        self.token = None  # the transport sends it
        self.dc = None
        self.consistency = "default"
        self.agent = consul.base.Consul.Agent(self)
        self.kv = consul.base.Consul.KV(self)
        self.session = consul.base.Consul.Session(self)
