"""The format of the settings file ``svcagent.toml``, which the environment and the options share."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from agent.definitions.faults import InvalidValue, shown
from agent.definitions.strict_model import BOOLEAN, TEXT, ListOf, ObjectOf, StrictModel, choice, optional
from agent.definitions.values import (
    FILE_PATH,
    HOST_PORT,
    NON_EMPTY,
    POSITIVE_SECONDS,
    SECRET,
    Secret,
    host,
    host_port,
)

DEFAULT_ADDRESS = "http://127.0.0.1:8500"

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]/?#\s]*)(?::([0-9]{1,5}))?")


def _address(value: str) -> str:
    """Return ``scheme://host``, with the port if one is given, or ``unix:///path``."""
    problem, remedy = (
        f"{shown(value)} is not Consul's address",
        'write it like "127.0.0.1:8500" or "unix:///run/consul"',
    )
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    if "@" in rest:
        raise InvalidValue("Consul's address contains a user name", "remove the part before the @")
    if scheme == "unix":
        if not re.fullmatch(r"/\S+", rest):
            raise InvalidValue(problem, remedy)
        return value
    found = _AUTHORITY.fullmatch(rest.removesuffix("/"))
    if scheme not in {"http", "https"} or found is None or not value:
        raise InvalidValue(problem, remedy)
    if found[2] and not 1 <= int(found[2]) <= 65535:
        raise InvalidValue(problem, "write a port from 1 to 65535")
    name = found[1] or "127.0.0.1"
    host(name.strip("[]"))
    return f"{scheme}://{name}" + (f":{found[2]}" if found[2] else "")


def _docker_host(value: str) -> str:
    user, at, _ = value.rpartition("@")
    scheme = value.partition("://")[0]
    # The address is in every message about the Engine. ssh has a user name, and Docker refuses a password there.
    if at and scheme != "unix" and (scheme != "ssh" or ":" in user.removeprefix("ssh://")):
        raise InvalidValue("Docker's address contains a user name or password", "remove the part before the @")
    if not re.fullmatch(r"unix:///\S+|(tcp|http|https|ssh)://[^\s/]\S*", value):
        raise InvalidValue(
            f"{shown(value)} is not a Docker host", 'write it like "unix:///run/docker.sock" or "tcp://10.0.0.7:2376"'
        )
    try:
        has_port = scheme == "unix" or urlsplit(value).port != 0
    except ValueError:
        has_port = False
    if not has_port:
        raise InvalidValue(f"the port of {shown(value)} is not valid", "write a port from 1 to 65535")
    return value


def _dns_server(value: str) -> str:
    """Return host and port. The default port is that of DNS."""
    is_with_port = re.fullmatch(r"\[[^\]]*\]:\d+|[^:]*:\d+", value)
    return host_port(value if is_with_port else f"[{value}]:53" if ":" in value else f"{value}:53")


class ConsulTable(StrictModel):
    """``[consul]``: how to reach the local Consul agent."""

    address: str = optional(TEXT.also(_address), "The agent's HTTP address.", DEFAULT_ADDRESS)
    token: Secret | None = optional(SECRET, "The ACL token.")
    token_file: Path | None = optional(FILE_PATH, "A file that contains the ACL token; takes precedence over token.")
    ca_file: Path | None = optional(FILE_PATH, "The certificate authority's certificate.")
    ca_path: Path | None = optional(FILE_PATH, "A directory of certificate authorities' certificates.")
    client_cert: Path | None = optional(FILE_PATH, "svcagent's own certificate.")
    client_key: Path | None = optional(FILE_PATH, "The key of svcagent's own certificate.")
    verify: bool = optional(BOOLEAN, "Verify the agent's certificate.", True)
    tls_server_name: str | None = optional(NON_EMPTY, "The name that the agent's certificate is for.")


class DockerTable(StrictModel):
    """``[docker]``: how to reach the Docker Engine."""

    host: str | None = optional(TEXT.also(_docker_host), "The engine's address.")


class DnsTable(StrictModel):
    """``[dns]``: how to keep CNAMEs."""

    provider: str = optional(NON_EMPTY, "The default provider of records.", "rfc2136")
    server: str | None = optional(TEXT.also(_dns_server), "The zones' primary server, which accepts their updates.")
    key_file: Path | None = optional(FILE_PATH, "The key for updates, in tsig-keygen's format.")
    key_name: str | None = optional(NON_EMPTY, "The key's name, if it is not in a file.")
    key_algorithm: str = optional(NON_EMPTY, "The key's algorithm, if it is not in a file.", "hmac-sha256")
    key_secret: Secret | None = optional(SECRET, "The key's secret in base64, if it is not in a file.")
    allow_weak_keys: bool = optional(BOOLEAN, "Accept a key of hmac-md5 or hmac-sha1, with a warning.", False)
    sign_queries: bool = optional(
        BOOLEAN, "Also sign queries to the primary server, if a view or allow-query requires the key.", False
    )
    resolver: str | None = optional(
        TEXT.also(_dns_server), "The resolver that clients use; the host's own if left out."
    )
    timeout: float = optional(POSITIVE_SECONDS, "The time limit of a DNS query.", 5.0)


def _listen_address(value: str) -> str:
    """Return host and port. A port alone means this host only, because there is no authentication."""
    return host_port(f"127.0.0.1:{value.removeprefix(':')}" if re.fullmatch(r":?[0-9]+", value) else value)


class DaemonTable(StrictModel):
    """``[daemon]``: ``svcagent run``."""

    status_file: Path = optional(
        FILE_PATH, "The daemon's status file, which svcagent status reads.", Path("/run/svcagent/status.json")
    )
    listen: str | None = optional(
        TEXT.also(_listen_address), "The address and port of /metrics; a port alone listens on 127.0.0.1."
    )


class MetricsTable(StrictModel):
    """``[metrics]``: metrics without the daemon."""

    textfile_dir: Path | None = optional(
        FILE_PATH, "The directory of node_exporter's textfile collector; reload and register write there."
    )


def _notifier(value: str) -> str:
    """Require a scheme, but not a known one: only Apprise knows them, and it is slow to import."""
    if not re.match(r"[A-Za-z0-9]+://", value):
        raise InvalidValue("not a URL", 'write it as Apprise does, like "mailto://user:password@example.com"')
    return value


class NotifyTable(StrictModel):
    """``[notify]``: notifications of rollouts."""

    urls: tuple[Secret, ...] = optional(
        ListOf(TEXT.also(_notifier, Secret)), "Notification URLs in Apprise's format; they may contain secrets.", ()
    )
    stuck_after: float = optional(
        POSITIVE_SECONDS, "Report a rollout as stuck after this long without progress.", 1800.0
    )


class FleetTable(StrictModel):
    trust_pins: bool = optional(
        BOOLEAN,
        "Accept any digest that is pinned in Consul KV. Use this only if ACLs restrict writes there: "
        "with it, write access is the right to deploy.",
        False,
    )


class LogTable(StrictModel):
    format: str = optional(
        choice("auto", "text", "json", "journal"),
        "text is key=value; auto is journal under systemd, else text.",
        "auto",
    )
    share_tails: bool = optional(
        BOOLEAN,
        "Publish the last lines that a failed container or command printed, in Consul KV and in "
        "notifications. They may contain secrets; without this they stay in the logs of the host.",
        False,
    )


class SettingsFile(StrictModel):
    services_dir: Path = optional(FILE_PATH, "The directory of service definitions.", Path("/etc/svcagent/services.d"))
    state_dir: Path = optional(FILE_PATH, "The directory of svcagent's journals.", Path("/var/lib/svcagent"))
    consul: ConsulTable = optional(ObjectOf(ConsulTable), "How to reach the local Consul agent.", ConsulTable())
    docker: DockerTable = optional(ObjectOf(DockerTable), "How to reach the Docker Engine.", DockerTable())
    dns: DnsTable = optional(ObjectOf(DnsTable), "How to manage CNAMEs.", DnsTable())
    daemon: DaemonTable = optional(ObjectOf(DaemonTable), "svcagent run.", DaemonTable())
    metrics: MetricsTable = optional(ObjectOf(MetricsTable), "Metrics without the daemon.", MetricsTable())
    notify: NotifyTable = optional(ObjectOf(NotifyTable), "Where to send notifications of rollouts.", NotifyTable())
    fleet: FleetTable = optional(ObjectOf(FleetTable), "Rollouts.", FleetTable())
    log: LogTable = optional(ObjectOf(LogTable), "Logs.", LogTable())
    drain_dns: tuple[str, ...] = optional(
        ListOf(HOST_PORT),
        "DNS servers whose answers must no longer contain a draining service; the local agent if empty.",
        (),
    )
