"""A real BIND: its zones, its keys, and all that a test does to it.

Every zone of a primary is dynamic, in a file of the server's own directory, as BIND needs to keep its journal there.
BIND listens only on addresses that an interface has, so each server's address is put on the loopback interface first
(root), labelled, and taken off with the server; what a dead run left there is taken off by the next one.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from tests.lab.server import PATH, Server

PORT = 5300
CONTROL_PORT = 5953
LABEL = "lo:svcagent"
LABS = "svcagent-lab"
"""The directory that holds those of all labs: see `ground`."""


@dataclass(frozen=True)
class Key:
    """A TSIG key; `file` is as ``tsig-keygen`` prints it, and as named includes it."""

    name: str
    file: Path

    @property
    def secret(self) -> str:
        found = re.search(r'secret "([^"]+)"', self.file.read_text())
        assert found is not None
        return found[1]


@dataclass(frozen=True)
class Zone:
    """A dynamic zone of a primary.

    ``grants`` are the lines of its ``update-policy``; ``records`` is zone-file text beside SOA and NS; ``options`` are
    further statements of its ``zone`` block; ``secondaries`` are name servers of the zone besides the primary itself,
    label and address.
    """

    name: str
    grants: tuple[str, ...] = ()
    records: str = ""
    options: str = ""
    secondaries: tuple[tuple[str, str], ...] = ()
    minimum: int = 5

    def text(self, address: str) -> str:
        servers = (("ns1", address), *self.secondaries)
        lines = [
            "$TTL 60",
            # Absence is remembered for the lesser of the SOA's TTL and its minimum (RFC 2308).
            f"@ {self.minimum} IN SOA ns1 hostmaster 1 3600 600 86400 {self.minimum}",
            *(f"@ IN NS {label}" for label, _address in servers),
            *(f"{label} IN A {found}" for label, found in servers),
            self.records,
        ]
        return "\n".join(lines) + "\n"


def make_key(directory: Path, name: str, algorithm: str = "hmac-sha256") -> Key:
    """A key of its own, readable by its owner alone."""
    made = subprocess.run(["tsig-keygen", "-a", algorithm, name], capture_output=True, text=True, check=True)
    file = directory / f"{name}.key"
    file.touch(mode=0o600)
    file.write_text(made.stdout)
    return Key(name, file)


def grants(key: Key, zone: str, wildcard: str = "*") -> tuple[str, ...]:
    """The lines that svcagent needs for the names below ``zone``."""
    return (f"grant {key.name} name {wildcard}.{zone} CNAME;", f"grant {key.name} subdomain _svcagent.{zone} TXT;")


class Bind(Server):
    """One named, on TCP and UDP of one address. ``zones`` are those it is primary for."""

    def __init__(
        self,
        name: str,
        directory: Path,
        address: str,
        environment: Mapping[str, str],
        *,
        zones: Sequence[Zone] = (),
        keys: Sequence[Key] = (),
        options: str = "recursion no;",
        more: str = "",
        port: int = PORT,
    ) -> None:
        """``options`` go into the options block, ``more`` stands after all else (zones of other types, …)."""
        self.address = address
        self.port = port
        self.directory = directory
        self._control = make_key(directory, "control")
        self._rndc_conf = directory / "rndc.conf"
        self._rndc_conf.write_text(
            f'include "{self._control.file}";\n'
            f'options {{ default-key "control"; default-server {address}; default-port {CONTROL_PORT}; }};\n'
        )
        self.config = directory / "named.conf"
        for zone in zones:
            (directory / _file_of(zone.name)).write_text(zone.text(address))
        text = "\n".join([self._head(options), *map(_included, keys), *map(_block, zones), more])
        self.config.write_text(text)
        argv = ("named", "-g", "-4", "-n", "1", "-c", str(self.config))
        super().__init__(name, argv, directory / "named.log", environment, self._is_answering)

    def start(self) -> None:
        """Start the process, at an address that the loopback interface has by then."""
        _sweep(self.directory)
        if self.address not in _labelled():
            _ip("address", "add", f"{self.address}/32", "dev", "lo", "label", LABEL)
        super().start()

    def discard(self) -> None:
        """End it as fast as possible, and give its address back."""
        super().discard()
        if self.address in _labelled():
            _ip("address", "del", f"{self.address}/32", "dev", "lo")

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"

    def _head(self, options: str) -> str:
        control = self._control
        return f"""
include "{control.file}";
controls {{ inet {self.address} port {CONTROL_PORT} allow {{ any; }} keys {{ "{control.name}"; }}; }};
options {{
  directory "{self.directory}";
  pid-file "{self.directory}/named.pid";
  session-keyfile "{self.directory}/session.key";
  listen-on port {self.port} {{ {self.address}; }};
  listen-on-v6 {{ none; }};
  query-source address {self.address};
  notify-source {self.address};
  transfer-source {self.address};
  allow-transfer {{ any; }};
  notify-delay 0;
  serial-query-rate 1000;
  {options}
}};
"""

    def rndc(self, *arguments: str) -> str:
        done = subprocess.run(
            ["rndc", "-c", str(self._rndc_conf), *arguments],
            env=dict(self._environment),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def frozen_zone(self, zone: str) -> Iterator[None]:
        """No updates of the zone inside the block, as while its file is edited by hand."""
        self.rndc("freeze", zone)
        try:
            yield
        finally:
            self.rndc("thaw", zone)

    def query(self, name: str, kind: str, seconds: float = 5) -> dns.message.Message:
        """One answer over TCP, whatever it is."""
        return dns.query.tcp(dns.message.make_query(name, kind), self.address, timeout=seconds, port=self.port)

    def lookup(self, name: str, kind: str) -> tuple[str, ...]:
        """The answer's records of one type, sorted, as in a zone file."""
        wanted = dns.rdatatype.from_text(kind)
        return tuple(
            sorted(
                record.to_text()
                for rrset in self.query(name, kind).answer
                if rrset.rdtype == wanted
                for record in rrset
            )
        )

    def serial(self, zone: str) -> int:
        (soa,) = self.lookup(zone, "SOA")
        return int(soa.split()[2])

    def _is_answering(self) -> bool:
        own = re.findall(r'^zone "([^"]+)" \{ type primary;', self.config.read_text(), re.MULTILINE)
        try:
            # A server that answers while it still loads says SERVFAIL for its own zones.
            return all(self.query(zone, "SOA", 1).rcode() == dns.rcode.NOERROR for zone in own) and bool(
                own or self.query("localhost.", "SOA", 1)
            )
        except (OSError, EOFError, dns.exception.DNSException):
            return False


def _ip(*arguments: str) -> str:
    ip = shutil.which("ip", path=PATH) or "ip"
    return subprocess.run([ip, *arguments], capture_output=True, text=True, check=True).stdout


def _labelled() -> tuple[str, ...]:
    return tuple(re.findall(r"inet ([0-9.]+)/32", _ip("-o", "-4", "address", "show", "dev", "lo", "label", LABEL)))


def _sweep(directory: Path) -> None:
    """Take off the addresses of blocks that nobody has: a lab's directory is named for its block."""
    root = next(parent for parent in directory.parents if parent.name == LABS)
    for address in _labelled():
        _net, second, third, _last = address.split(".")
        if not (root / f"{second}-{third}").exists():
            _ip("address", "del", f"{address}/32", "dev", "lo")


def _file_of(zone: str) -> str:
    return f"{zone.strip('.')}.zone"


def _included(key: Key) -> str:
    return f'include "{key.file}";'


def _block(zone: Zone) -> str:
    policy = "update-policy { " + " ".join(zone.grants) + " };" if zone.grants else ""
    file = _file_of(zone.name)
    return f'zone "{zone.name.strip(".")}" {{ type primary; file "{file}"; {policy} {zone.options} }};'
