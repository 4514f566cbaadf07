"""The connection to the Consul agent as the settings describe it. `failures` explains its errors."""

from urllib.parse import urlsplit

from agent.consul.tls import make_context
from agent.definitions import ConsulSettings
from agent.http import Answer, KeptConnection

UNIX = "unix://"


class Connection(KeptConnection):
    def __init__(self, settings: ConsulSettings, connect_seconds: float) -> None:
        parts = urlsplit(settings.address)
        # Ignore the environment's proxy and CA bundle: they are not meant for the agent on this host.
        super().__init__(
            parts.hostname or "consul",
            parts.port,
            connect_seconds,
            socket_path=settings.address.removeprefix(UNIX) if settings.address.startswith(UNIX) else None,
            tls=make_context(settings) if parts.scheme == "https" else None,
            server_name=(settings.tls_server_name or parts.hostname or "").rstrip("."),
        )


def is_filtered(answer: Answer) -> bool:
    """True if Consul omitted what the token may not see. Consul reports this since 1.11, for requests with a token."""
    return str(answer.headers.get("X-Consul-Results-Filtered-By-ACLs", "")).lower() == "true"
