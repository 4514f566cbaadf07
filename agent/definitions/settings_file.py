"""The settings file ``svcagent.toml``: its shape, which the environment and the options share."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from agent.definitions.faults import Wrong, shown
from agent.definitions.part import Part
from agent.definitions.values import FilePath, Filled, HostPort, PositiveSeconds, host, host_port

DEFAULT_ADDRESS = "http://127.0.0.1:8500"

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]/?#\s]*)(?::([0-9]{1,5}))?")


def _address(value: str) -> str:
    """``scheme://host``, with a port if one is given, or ``unix:///path``."""
    problem, remedy = (
        f"{shown(value)} is not Consul's address",
        'write it like "127.0.0.1:8500" or "unix:///run/consul"',
    )
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    if "@" in rest:
        raise Wrong("Consul's address holds a user name", "leave out what stands before the @")
    if scheme == "unix":
        if not re.fullmatch(r"/\S+", rest):
            raise Wrong(problem, remedy)
        return value
    found = _AUTHORITY.fullmatch(rest.removesuffix("/"))
    if scheme not in {"http", "https"} or found is None or not value:
        raise Wrong(problem, remedy)
    if found[2] and not 1 <= int(found[2]) <= 65535:
        raise Wrong(problem, "write a port from 1 to 65535")
    name = found[1] or "127.0.0.1"
    host(name.strip("[]"))
    return f"{scheme}://{name}" + (f":{found[2]}" if found[2] else "")


def _docker_host(value: str) -> str:
    if not re.fullmatch(r"unix:///\S+|(tcp|http|https|ssh)://[^\s/]\S*", value):
        raise Wrong(
            f"{shown(value)} is not a Docker host", 'write it like "unix:///run/docker.sock" or "tcp://10.0.0.7:2376"'
        )
    return value


def _dns_server(value: str) -> str:
    """A host, or an address, with the port that DNS has if none is given."""
    is_with_port = re.fullmatch(r"\[[^\]]*\]:\d+|[^:]*:\d+", value)
    return host_port(value if is_with_port else f"[{value}]:53" if ":" in value else f"{value}:53")


class ConsulTable(Part):
    """How to reach the local Consul agent, as ``[consul]`` in the settings file has it."""

    address: Annotated[str, AfterValidator(_address)] = Field(DEFAULT_ADDRESS, description="The agent's HTTP address.")
    token: SecretStr | None = Field(None, description="The ACL token.")
    token_file: FilePath | None = Field(None, description="A file that holds the ACL token; wins over a token.")
    ca_file: FilePath | None = Field(None, description="The certificate authority's certificate.")
    ca_path: FilePath | None = Field(None, description="A directory of certificate authorities' certificates.")
    client_cert: FilePath | None = Field(None, description="svcagent's own certificate.")
    client_key: FilePath | None = Field(None, description="The key of svcagent's own certificate.")
    verify: bool = Field(True, description="Verify the agent's certificate.")
    tls_server_name: Filled | None = Field(None, description="The name that the agent's certificate is for.")


class DockerTable(Part):
    """How to reach the Docker Engine, as ``[docker]`` in the settings file has it."""

    host: Annotated[str, AfterValidator(_docker_host)] | None = Field(None, description="The engine's address.")


class DnsTable(Part):
    """How to keep CNAMEs, as ``[dns]`` in the settings file has it."""

    provider: Filled = Field("rfc2136", description="The provider of records that name none.")
    server: Annotated[str, AfterValidator(_dns_server)] | None = Field(
        None, description="The zones' primary server, which takes their updates."
    )
    key_file: FilePath | None = Field(None, description="The key of updates, as tsig-keygen writes it.")
    key_name: Filled | None = Field(None, description="The key's name, if it is not in a file.")
    key_algorithm: Filled = Field("hmac-sha256", description="The key's algorithm, if it is not in a file.")
    key_secret: SecretStr | None = Field(None, description="The key's secret in base64, if it is not in a file.")
    allow_weak_keys: bool = Field(False, description="Accept a key of hmac-md5 or hmac-sha1, with a warning.")
    sign_queries: bool = Field(
        False, description="Sign questions to the primary server too: a view, or allow-query, asks for the key."
    )
    resolver: Annotated[str, AfterValidator(_dns_server)] | None = Field(
        None, description="The server that clients ask; the host's own resolver if left out."
    )
    timeout: PositiveSeconds = Field(5.0, description="How long one answer of a DNS server may take.")


def _listen_address(value: str) -> str:
    """An address with a port; a port alone means this host only, because there is no authentication."""
    return host_port(f"127.0.0.1:{value.removeprefix(':')}" if re.fullmatch(r":?[0-9]+", value) else value)


class DaemonTable(Part):
    """``svcagent run``, as ``[daemon]`` in the settings file has it."""

    status_file: FilePath = Field(
        Path("/run/svcagent/status.json"), description="The file in which it says what it does, for svcagent status."
    )
    listen: Annotated[str, AfterValidator(_listen_address)] | None = Field(
        None, description="The address and port of /metrics; a port alone listens on 127.0.0.1."
    )


class MetricsTable(Part):
    """Metrics without the daemon, as ``[metrics]`` in the settings file has it."""

    textfile_dir: FilePath | None = Field(
        None, description="The directory of node_exporter's textfile collector; reload and register write there."
    )


def _notifier(value: SecretStr) -> SecretStr:
    """Apprise alone knows which schemes there are, and it is slow to import: here only that there is one."""
    if not re.match(r"[A-Za-z0-9]+://", value.get_secret_value()):
        raise Wrong("this is no URL", 'write it as Apprise does, like "mailto://user:password@example.com"')
    return value


class NotifyTable(Part):
    """Whom to tell of rollouts, as ``[notify]`` in the settings file has it."""

    urls: tuple[Annotated[SecretStr, AfterValidator(_notifier)], ...] = Field(
        (), description="Where to, as Apprise writes it; they may hold secrets."
    )
    stuck_after: PositiveSeconds = Field(1800.0, description="Without progress for so long, a rollout is stuck.")


class FleetTable(Part):
    """Rollouts, as ``[fleet]`` in the settings file has them."""

    trust_pins: bool = Field(
        False,
        description="Take any digest that is pinned in Consul KV. Only where ACLs restrict who can write there: that "
        "right is the right to deploy then.",
    )


class LogTable(Part):
    """Logs, as ``[log]`` in the settings file has it."""

    format: Literal["auto", "text", "json", "journal"] = Field(
        "auto", description="text is key=value; auto is journal where systemd gives it, else text."
    )
    share_tails: bool = Field(
        False,
        description="Publish the last lines that a failed container or command printed, in Consul KV and in "
        "notifications. They may contain secrets; without this they stay in the logs of the host.",
    )


class SettingsFile(Part):
    """``svcagent.toml``."""

    services_dir: FilePath = Field(Path("/etc/svcagent/services.d"), description="Where the definitions are.")
    state_dir: FilePath = Field(Path("/var/lib/svcagent"), description="Where svcagent keeps its journals.")
    consul: ConsulTable = Field(ConsulTable(), description="How to reach the local Consul agent.")
    docker: DockerTable = Field(DockerTable(), description="How to reach the Docker Engine.")
    dns: DnsTable = Field(DnsTable(), description="How to keep CNAMEs.")
    daemon: DaemonTable = Field(DaemonTable(), description="svcagent run.")
    metrics: MetricsTable = Field(MetricsTable(), description="Metrics without the daemon.")
    notify: NotifyTable = Field(NotifyTable(), description="Whom to tell of rollouts.")
    fleet: FleetTable = Field(FleetTable(), description="Rollouts.")
    log: LogTable = Field(LogTable(), description="Logs.")
    drain_dns: tuple[HostPort, ...] = Field(
        (), description="DNS servers that must not name a draining service any more; the local agent's if empty."
    )
