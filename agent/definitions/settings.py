"""Settings from ``svcagent.toml``, the environment and options; later sources override earlier ones."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from agent.definitions.faults import shown, untrusted
from agent.definitions.settings_file import DEFAULT_ADDRESS, ConsulTable, DnsTable, DockerTable, SettingsFile
from agent.definitions.sources import SettingValue, from_environment, from_file, from_options, nested, requires_tls
from agent.definitions.strict_model import TEXT, ObjectOf, optional
from agent.errors import BadDefinition, Fault
from agent.files import NotRegularFile, Untrusted, read_trusted_path

_TOKENS = ("consul.token", "consul.token_file")
_KEYS = ("dns.key_file", "dns.key_name", "dns.key_algorithm", "dns.key_secret")
_FILES = ("consul.ca_file", "consul.client_cert", "consul.client_key", "dns.key_file")
_PAIRS = (
    ("consul.client_cert", "consul.client_key"),
    ("consul.client_key", "consul.client_cert"),
    ("dns.key_name", "dns.key_secret"),
    ("dns.key_secret", "dns.key_name"),
    ("dns.key_algorithm", "dns.key_secret"),
)


class ConsulSettings(ConsulTable):
    """How to reach the local Consul agent. ``…_source`` names the file, variable or option, for messages."""

    address_source: str = optional(TEXT, "", "default")
    token_source: str = optional(TEXT, "", "")
    token_file_source: str = optional(TEXT, "", "")

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the default port of Consul's own client: that of HTTP or HTTPS, not 8500."""
        address = given.get("address", DEFAULT_ADDRESS)
        if address.startswith("unix:") or re.search(r":[0-9]+$", address):
            return given
        return {**given, "address": f"{address}:{443 if address.startswith('https') else 80}"}


class DockerSettings(DockerTable):
    """How to reach the Docker Engine, with the source. None means Docker's default."""

    source: str = optional(TEXT, "", "default")


class DnsSettings(DnsTable):
    """How to keep CNAMEs, with the source of the key."""

    key_secret_source: str = optional(TEXT, "", "")


class Settings(SettingsFile):
    consul: ConsulSettings = optional(ObjectOf(ConsulSettings), "", ConsulSettings())
    docker: DockerSettings = optional(ObjectOf(DockerSettings), "", DockerSettings())
    dns: DnsSettings = optional(ObjectOf(DnsSettings), "", DnsSettings())

    @classmethod
    def load(cls, config: Path | None, environ: Mapping[str, str], **options: str | Path | None) -> Self:
        """Return settings from all sources. An option that is None is not given.

        ``config`` is the settings file, which must exist. None means the default file, which may be missing.

        :raises BadDefinition: with all faults of all sources.
        """
        chosen: dict[str, SettingValue] = {}
        faults: list[Fault] = []
        for given, found in (from_file(config), from_environment(environ), from_options(options)):
            faults.extend(found)
            # Consul prefers a token file to a token, but a later source to an earlier one. DNS keys do too.
            for names in (_TOKENS, _KEYS):
                if not given.keys().isdisjoint(names):
                    for name in names:
                        chosen.pop(name, None)
            chosen.update(given)
        is_tls, found = requires_tls(environ)
        faults.extend(found)
        faults.extend(_unusable(chosen))
        if faults:
            raise BadDefinition(faults)
        tree = _tree(chosen, is_tls)
        tables = {
            name: key.kind.model(**tree[name])
            for name, key in cls.keys.items()
            if name in tree and isinstance(key.kind, ObjectOf)
        }
        return cls(**{**tree, **tables})


def _tree(chosen: Mapping[str, SettingValue], is_tls: bool) -> dict[str, Any]:
    tree = nested({name: given.value for name, given in chosen.items()})
    consul, docker = tree.setdefault("consul", {}), tree.setdefault("docker", {})
    if is_tls:
        consul["address"] = consul.get("address", DEFAULT_ADDRESS).replace("http://", "https://", 1)
    for name in ("address", "token", "token_file"):
        if f"consul.{name}" in chosen:
            consul[f"{name}_source"] = chosen[f"consul.{name}"].file
    if "docker.host" in chosen:
        docker["source"] = chosen["docker.host"].file
    if "dns.key_secret" in chosen:
        tree["dns"]["key_secret_source"] = chosen["dns.key_secret"].file
    return tree


def _unusable(chosen: Mapping[str, SettingValue]) -> Iterator[Fault]:
    """Report missing files and incomplete pairs now, rather than by a failed handshake later."""
    for name in chosen.keys() & {*_FILES, "consul.ca_path"}:
        path = chosen[name].value
        shown_path, what = shown(str(path)), "file" if name in _FILES else "directory"
        try:
            if not (path.is_file() if name in _FILES else path.is_dir()):
                yield chosen[name].fault(f"the {what} {shown_path} does not exist", "create it or correct the path")
                continue
        except OSError as error:
            problem = f"{shown_path} cannot be read: {error.strerror}"
            yield chosen[name].fault(problem, "allow svcagent to read it")
            continue
        if name in _FILES:
            try:
                read_trusted_path(path, 1)
            except Untrusted as error:
                yield untrusted(str(path), error)
            except (OSError, NotRegularFile):
                pass  # reported where the file is needed
    for name, other in _PAIRS:
        if name in chosen and other not in chosen:
            key = other.partition(".")[2]
            yield chosen[name].fault(f"requires {key}", f"add {key}")
