"""The sources of settings: the file, the environment, the options. Each is read completely, with all its faults.

Consul's and Docker's own variables have the meaning that Consul and Docker give them, with one exception. A word that
Consul cannot read as true or false is a fault here; Consul would warn and continue without verifying certificates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.data import dataclass
from agent.definitions.faults import Finding, shown, untrusted
from agent.definitions.settings_file import SettingsFile
from agent.definitions.strict_model import StrictModel
from agent.definitions.validate import validate
from agent.errors import Fault
from agent.files import NotRegularFile, Untrusted, read_trusted_path

DEFAULT_FILE = Path("/etc/svcagent/svcagent.toml")
"""Read if it exists, when no other file is given."""

SIZE_LIMIT = 1024 * 1024

VARIABLES: Mapping[str, str] = {
    "SVCAGENT_SERVICES_DIR": "services_dir",
    "SVCAGENT_STATE_DIR": "state_dir",
    "CONSUL_HTTP_ADDR": "consul.address",
    "CONSUL_HTTP_TOKEN": "consul.token",
    "CONSUL_HTTP_TOKEN_FILE": "consul.token_file",
    "CONSUL_HTTP_SSL_VERIFY": "consul.verify",
    "CONSUL_CACERT": "consul.ca_file",
    "CONSUL_CAPATH": "consul.ca_path",
    "CONSUL_CLIENT_CERT": "consul.client_cert",
    "CONSUL_CLIENT_KEY": "consul.client_key",
    "CONSUL_TLS_SERVER_NAME": "consul.tls_server_name",
    "DOCKER_HOST": "docker.host",
    "SVCAGENT_DNS_PROVIDER": "dns.provider",
    "SVCAGENT_DNS_SERVER": "dns.server",
    "SVCAGENT_DNS_KEY_FILE": "dns.key_file",
    "SVCAGENT_DNS_KEY_NAME": "dns.key_name",
    "SVCAGENT_DNS_KEY_ALGORITHM": "dns.key_algorithm",
    "SVCAGENT_DNS_KEY_SECRET": "dns.key_secret",
    "SVCAGENT_DNS_ALLOW_WEAK_KEYS": "dns.allow_weak_keys",
    "SVCAGENT_DNS_SIGN_QUERIES": "dns.sign_queries",
    "SVCAGENT_DNS_RESOLVER": "dns.resolver",
    "SVCAGENT_DNS_TIMEOUT": "dns.timeout",
    "SVCAGENT_STATUS_FILE": "daemon.status_file",
    "SVCAGENT_LISTEN": "daemon.listen",
    "SVCAGENT_TEXTFILE_DIR": "metrics.textfile_dir",
    "SVCAGENT_LOG_FORMAT": "log.format",
}
"""The setting of each environment variable. An empty variable counts as unset, as for Consul and Docker."""

NONE_IF_EMPTY = frozenset({"SVCAGENT_TEXTFILE_DIR"})
"""An empty variable of these removes the value of the settings file: the daemon writes the metrics for its children."""

SSL_VARIABLE = "CONSUL_HTTP_SSL"

OPTIONS: Mapping[str, str] = {"--services-dir": "services_dir", "--state-dir": "state_dir"}

_SWITCHES = frozenset({"consul.verify", "dns.allow_weak_keys", "dns.sign_queries"})

_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


@dataclass(frozen=True)
class SettingValue:
    """One setting as a source gives it: ``file`` is the file, variable or option, ``path`` the place in a file."""

    value: Any
    file: str
    path: str = ""

    def fault(self, problem: str, remedy: str = "") -> Fault:
        return Fault(self.file, self.path, problem, remedy)


Source = tuple[dict[str, SettingValue], list[Fault]]
"""Settings by dotted name, and the faults of those that cannot be used."""


def from_file(config: Path | None) -> Source:
    """Return the settings of the file. ``config`` must exist; the default file may be missing."""
    file = config or DEFAULT_FILE
    try:
        content, _ = read_trusted_path(file, SIZE_LIMIT + 1)
    except FileNotFoundError:
        return {}, [Fault(str(file), "", "no such file", "create it, or give another --config")] if config else []
    except Untrusted as error:
        return {}, [untrusted(str(file), error)]
    except (NotRegularFile, IsADirectoryError) as error:
        problem = str(error) if isinstance(error, NotRegularFile) else "is a directory, not a file"
        return {}, [Fault(str(file), "", problem, "give another --config")]
    except OSError as error:
        return {}, [Fault(str(file), "", f"the file cannot be read: {error.strerror}", "allow svcagent to read it")]
    if len(content) > SIZE_LIMIT:
        return {}, [Fault(str(file), "", f"larger than {SIZE_LIMIT // 1024} KiB", "give another --config")]
    import tomllib  # most hosts have no such file

    try:
        tree = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        return {}, [Fault(str(file), "", "not UTF-8", "save the file as UTF-8")]
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rstrip(")").partition(" (at ")
        problem = f"not TOML: {message[:1].lower()}{message[1:]}"
        return {}, [Fault(str(file), place.replace(",", ""), problem, 'write it like services_dir = "/srv/services.d"')]
    except (RecursionError, ValueError):
        problem = "nested too deeply, or contains a number with thousands of digits"
        return {}, [Fault(str(file), "", problem, 'write it like services_dir = "/srv/services.d"')]
    values, found = _validated(tree)
    given = {name: SettingValue(value, str(file), name) for name, value in values.items()}
    faults = [finding.at(file) for finding in found]
    faults.extend(
        one.fault(f"{shown(str(one.value))} is a relative path", "write an absolute path")
        for one in given.values()
        if isinstance(one.value, Path) and not one.value.is_absolute()
    )
    return given, faults


def from_environment(environ: Mapping[str, str]) -> Source:
    """Return the settings of svcagent's variables. Others are ignored."""
    faults: list[Fault] = []
    raw: dict[str, Any] = {}
    for variable, name in VARIABLES.items():
        text = environ.get(variable)
        if text:
            raw[name] = _boolean(variable, text, faults) if name in _SWITCHES else text
    given, found = _single_values(raw, {name: variable for variable, name in VARIABLES.items()})
    given |= {VARIABLES[one]: SettingValue(None, one) for one in NONE_IF_EMPTY if environ.get(one) == ""}
    return given, faults + found


def requires_tls(environ: Mapping[str, str]) -> tuple[bool, list[Fault]]:
    """True if the environment requires https: for every address that is not a socket, even with ``http://``."""
    faults: list[Fault] = []
    text = environ.get(SSL_VARIABLE)
    return bool(text) and bool(_boolean(SSL_VARIABLE, str(text), faults)), faults


def from_options(options: Mapping[str, object]) -> Source:
    """Return the settings of the command line. None is not given. Raise TypeError for a name that is not an option."""
    if unknown := options.keys() - set(OPTIONS.values()):
        raise TypeError(f"not settings: {', '.join(sorted(unknown))}")
    raw = {name: str(value) for name, value in options.items() if value is not None}
    return _single_values(raw, {name: option for option, name in OPTIONS.items()})


def _single_values(raw: dict[str, Any], by: Mapping[str, str]) -> Source:
    """Return settings that come from one variable or option each, whose names are in ``by``."""
    given: dict[str, SettingValue] = {}
    faults: list[Fault] = []
    # One at a time, so that a bad one does not hide the faults of the others.
    for name, value in raw.items():
        values, found = _validated(nested({name: value}))
        given |= {name: SettingValue(value, by[name]) for name, value in values.items()}
        faults.extend(Fault(by[name], "", finding.problem, finding.remedy) for finding in found)
    return given, faults


def _validated(tree: dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    settings, found, _ = validate(tree, SettingsFile)
    return ({} if settings is None else dict(_flat(settings))), found


def _flat(part: StrictModel, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in part.given:
        value = getattr(part, name)
        values |= _flat(value, f"{prefix}{name}.") if isinstance(value, StrictModel) else {f"{prefix}{name}": value}
    return values


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Split dotted names: ``consul.token`` goes into the object ``consul``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        table, _, key = name.rpartition(".")
        (tree.setdefault(table, {}) if table else tree)[key] = value
    return tree


def _boolean(variable: str, text: str, faults: list[Fault]) -> bool:
    if text not in _BOOLEANS:
        faults.append(Fault(variable, "", f"{shown(text)} is not a boolean", 'write "true" or "false"'))
    return _BOOLEANS.get(text, True)
