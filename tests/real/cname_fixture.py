"""A BIND for the CNAME tests: one zone, svcagent's key, and an administrator who changes it by other means."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update

from agent.cname.marker import Marker, place, render
from agent.cname.provider import PublishedRecord, RecordPlace, ZoneView
from agent.cname.queries import DnsServer
from agent.cname.rfc2136 import Rfc2136
from agent.cname.tsig import from_file
from tests.lab.bind import PORT, Bind, Key, Zone, make_key
from tests.lab.ground import Ground, claimed, wait_until
from tests.lab.host import environment_in

ZONE = "example.test."
TIMEOUT = 3.0
"""Seconds that a server may take: long for a busy machine, short for those who wait for it."""

OWNER = "chocon/production/dc1"
TARGET = "production.chocon.service.dc1.consul."
OTHER_TARGET = "production.chocon2.service.dc1.consul."

UPDATE_OPCODE = 5


@dataclass(frozen=True)
class Dns:
    """The server, svcagent's key, one that nothing is granted to, and the administrator's."""

    bind: Bind
    ground: Ground
    key: Key
    stranger: Key
    admin: Key
    zone: str = ZONE

    def provider(
        self, key: Key | None = None, *, at: tuple[str, int] | None = None, timeout: float = TIMEOUT
    ) -> Rfc2136:
        """svcagent's provider; at another address and port, if something stands between."""
        host, port = at or (self.bind.address, self.bind.port)
        return Rfc2136(DnsServer(host, port, timeout), from_file((key or self.key).file))

    def place(self, name: str) -> RecordPlace:
        return place(self.zone, f"{name}.{self.zone}")

    def put(self, name: str, ttl: int, kind: str, *values: str) -> None:
        """The administrator replaces all records of one type."""
        update = self._update()
        update.delete(dns.name.from_text(name), kind)
        update.add(dns.name.from_text(name), ttl, kind, *values)
        self._send(update)

    def take(self, name: str, kind: str) -> None:
        """The administrator takes all records of one type away."""
        update = self._update()
        update.delete(dns.name.from_text(name), kind)
        self._send(update)

    def clear(self, *names: str) -> None:
        update = self._update()
        for name in names:
            update.delete(dns.name.from_text(self.place(name).name))
            update.delete(dns.name.from_text(self.place(name).marker))
        self._send(update)

    @property
    def serial(self) -> int:
        return self.bind.serial(self.zone)

    def _update(self) -> dns.update.UpdateMessage:
        key = from_file(self.admin.file)
        return dns.update.UpdateMessage(self.zone, keyring=dns.tsig.Key(key.name, key.secret, key.algorithm))

    def _send(self, update: dns.update.UpdateMessage) -> None:
        reply = dns.query.tcp(update, self.bind.address, timeout=10, port=self.bind.port)
        assert reply.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(reply.rcode())


def marked(target: str = TARGET, *, ttl: int = 60, gen: int = 0, owner: str = OWNER) -> tuple[PublishedRecord, str]:
    """A record and the text of its marker."""
    record = PublishedRecord(target, ttl)
    return record, render(Marker(owner, gen, record))


def view(record: PublishedRecord, marker: str) -> ZoneView:
    """Return a place with this record and its marker."""
    return ZoneView(record, markers=(marker,))


@contextmanager
def dns_server(
    zone: str = ZONE,
    *,
    grants: Sequence[str] = (),
    zones: Sequence[Zone] = (),
    secondaries: int = 0,
    is_notifying: bool = True,
    minimum: int = 5,
    more: str = "",
) -> Iterator[Dns]:
    """A running BIND that is primary for one zone and for ``zones``. ``grants``: svcagent's rights, if not all.

    ``secondaries``: how many name servers the zone names besides it, at the addresses that follow; see `secondary`.
    ``more``: further statements of the zone's block.
    """
    with claimed() as ground:
        directory = ground.directory / "bind"
        directory.mkdir()
        key, stranger, admin = (make_key(ground.directory, name) for name in ("svcagent", "stranger", "admin"))
        everything = (f"grant svcagent subdomain {zone} CNAME;", f"grant svcagent subdomain _svcagent.{zone} TXT;")
        granted = (*(grants or everything), "grant admin zonesub ANY;")
        others = [(f"ns{number}", ground.address(number)) for number in range(2, 2 + secondaries)]
        notified = " ".join(f"{address} port {PORT};" for _name, address in others)
        notify = f"notify explicit; also-notify {{ {notified} }};" if notified and is_notifying else "notify no;"
        own = Zone(zone, granted, options=f"{notify} {more}", secondaries=tuple(others), minimum=minimum)
        bind = Bind(
            "bind",
            directory,
            ground.address(1),
            environment_in(ground.directory, ground.directory),
            zones=[own, *zones],
            keys=[key, stranger, admin],
        )
        with bind.running():
            yield Dns(bind, ground, key, stranger, admin, zone)


@contextmanager
def secondary(dns: Dns, number: int = 2, more: str = "") -> Iterator[Bind]:
    """A running secondary of the zone, which has it. ``more``: further statements of the zone's block."""
    zone = dns.zone.rstrip(".")
    primary = f"{dns.bind.address} port {dns.bind.port}"
    text = f'zone "{zone}" {{ type secondary; primaries {{ {primary}; }}; file "secondary.zone"; {more} }};'
    with _another(dns, f"ns{number}", number, keys=[dns.key], more=text) as bind:
        wait_until(lambda: bool(bind.lookup(dns.zone, "SOA")), 20, "the secondary has the zone")
        yield bind


@contextmanager
def resolver(
    dns: Dns, consul_dns: tuple[str, int], *, options: str = "", is_forwarding: bool = True, last: int = 9
) -> Iterator[Bind]:
    """A running resolver that sends ``consul.`` to a Consul agent and the zone to its primary.

    ``options`` may replace ``recursion yes; dnssec-validation no;``; not ``is_forwarding``: it knows no ``consul.``.
    """
    host, port = consul_dns
    forwarded = f"{dns.bind.address} port {dns.bind.port}"
    more = [f'zone "{dns.zone.rstrip(".")}" {{ type forward; forward only; forwarders {{ {forwarded}; }}; }};']
    if is_forwarding:
        more.append(f'zone "consul" {{ type forward; forward only; forwarders {{ {host} port {port}; }}; }};')
    options = options or "recursion yes; dnssec-validation no;"
    with _another(dns, f"resolver{last}", last, options=options, more="\n".join(more)) as bind:
        yield bind


@contextmanager
def _another(
    dns: Dns, name: str, last: int, *, keys: Sequence[Key] = (), options: str = "recursion no;", more: str = ""
) -> Iterator[Bind]:
    directory = dns.ground.directory / name
    directory.mkdir(exist_ok=True)
    environment = environment_in(dns.ground.directory, dns.ground.directory)
    bind = Bind(name, directory, dns.ground.address(last), environment, keys=keys, options=options, more=more)
    with bind.running():
        yield bind


@dataclass
class Faults:
    """What happens to messages on their way, for a `Listener` in front of a server.

    ``swallowed``: updates that change something do not reach the server. ``lost``: they do, and the answer does not
    come back. ``torn``: half of the answer does. Each is a number of messages to which it still happens. Messages of
    prerequisites alone, and questions, pass.
    """

    target: tuple[str, int]
    swallowed: int = 0
    lost: int = 0
    torn: int = 0

    def serve(self, connection: socket.socket) -> None:
        message = _received(connection)
        is_change = self.is_update(message) and struct.unpack("!H", message[8:10])[0] > 0
        if is_change and self._take("swallowed"):
            return
        if is_change:
            self.before_change()
        with socket.create_connection(self.target, 10) as onward:
            onward.sendall(struct.pack("!H", len(message)) + message)
            reply = self.answer(message, _received(onward))
        if is_change and self._take("lost"):
            return
        framed = struct.pack("!H", len(reply)) + reply
        connection.sendall(framed[: len(framed) // 2] if is_change and self._take("torn") else framed)

    def is_update(self, message: bytes) -> bool:
        """Is it an update, with or without anything to change?"""
        return (message[2] >> 3) & 15 == UPDATE_OPCODE

    def before_change(self) -> None:
        """What happens right before the server gets one."""

    def answer(self, _message: bytes, reply: bytes) -> bytes:
        return reply

    def _take(self, what: str) -> bool:
        left: int = getattr(self, what)
        setattr(self, what, max(0, left - 1))
        return left > 0


def _received(connection: socket.socket) -> bytes:
    (length,) = struct.unpack("!H", _exactly(connection, 2))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionResetError("closed")
        data += more
    return data


def written_key(directory: Path, name: str, algorithm: str, secret: str) -> Key:
    file = directory / f"{name}-{algorithm}.key"
    file.touch(mode=0o600)
    file.write_text(f'key "{name}" {{\n\talgorithm {algorithm};\n\tsecret "{secret}";\n}};\n')
    return Key(name, file)
