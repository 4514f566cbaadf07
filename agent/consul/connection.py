"""The connection to the Consul agent, as the settings say; `failures` says what its errors mean."""

from urllib.parse import urlsplit

from agent.consul.tls import make_context
from agent.definitions import ConsulSettings
from agent.http import Answer, KeptConnection

UNIX = "unix://"


class Connection(KeptConnection):
    """One connection to the agent."""

    def __init__(self, settings: ConsulSettings, connect_seconds: float) -> None:
        parts = urlsplit(settings.address)
        # No proxy and no bundle of authorities of the environment: they are not meant for the agent on this host.
        super().__init__(
            parts.hostname or "consul",
            parts.port,
            connect_seconds,
            socket_path=settings.address.removeprefix(UNIX) if settings.address.startswith(UNIX) else None,
            tls=make_context(settings) if parts.scheme == "https" else None,
            server_name=(settings.tls_server_name or parts.hostname or "").rstrip("."),
        )


def is_filtered(answer: Answer) -> bool:
    """True if Consul left out what the token may not see. Consul says so from 1.11 on, to requests with a token."""
    return str(answer.headers.get("X-Consul-Results-Filtered-By-ACLs", "")).lower() == "true"
