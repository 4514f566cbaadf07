"""The organisation's own DNS in a lab: a BIND that holds the zone of the proxies' names and forwards Consul's, and
clients whose resolver it is.

Clients see what any program on a real host sees: glibc reads ``/etc/resolv.conf``, which knows no ports, so BIND is at
port 53 of an address of its own, and each client's mount namespace has another file in that place.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bind import Bind, Key, Zone, grants, make_key
from tests.lab.host import environment_in
from tests.lab.lab import Lab
from tests.lab.server import PATH

ZONE = "ccnproxy-https."
LAST = 200
"""The last part of BIND's address; hosts' are far below."""

# Without hints of its own BIND would ask the world for the root zone.
HINTS = ". 3600000 NS nobody.invalid.\nnobody.invalid. 3600000 A {nobody}\n"
OPTIONS = "recursion yes; dnssec-validation no; max-ncache-ttl 5; servfail-ttl 0;"

VIEW = """
mount --bind "$1/resolv.conf" "$(realpath /etc/resolv.conf)"
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
shift
exec "$@"
"""


@dataclass(frozen=True)
class Names:
    """The server, the key that svcagent has, and the files that make a program its client."""

    bind: Bind
    key: Key
    directory: Path

    @property
    def resolver(self) -> tuple[str, int]:
        return self.bind.address, self.bind.port

    def environment(self) -> dict[str, str]:
        """What svcagent needs to know to keep the zone."""
        return {
            "SVCAGENT_DNS_SERVER": self.bind.endpoint,
            "SVCAGENT_DNS_RESOLVER": self.bind.endpoint,
            "SVCAGENT_DNS_KEY_FILE": str(self.key.file),
        }

    def as_client(self, *argv: str) -> list[str]:
        """The command line of a program whose system resolver asks this server alone."""
        view = ("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", VIEW)
        return [*view, "client", str(self.directory), *argv]

    def curl(self, url: str) -> "subprocess.CompletedProcess[str]":
        """Fetch, as a client; five seconds at most."""
        argv = self.as_client("curl", "--silent", "--show-error", "--fail", "--max-time", "5", "--noproxy", "*", url)
        return subprocess.run(argv, env={"PATH": PATH}, capture_output=True, text=True, check=False)

    def update(self, *lines: str) -> None:
        """An administrator changes the zone by hand; lines as nsupdate reads them."""
        script = "\n".join([f"server {self.bind.address} {self.bind.port}", f"zone {ZONE}", *lines, "send", ""])
        argv = ["nsupdate", "-v", "-k", str(self.key.file)]
        subprocess.run(argv, input=script, env={"PATH": PATH}, capture_output=True, text=True, check=True)


@contextmanager
def naming(lab: Lab) -> Iterator[Names]:
    """DNS for a lab, while it runs: the zone is empty, and every name of Consul's is asked of the hosts' agents."""
    directory = lab.directory / "bind"
    directory.mkdir()
    address = lab.address(LAST)
    key = make_key(directory, "svcagent")
    hints = directory / "root.hints"
    hints.write_text(HINTS.format(nobody=lab.address(LAST + 1)))
    (directory / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:2 attempts:2\n")
    (directory / "nsswitch.conf").write_text("hosts: files dns\n")
    agents = " ".join(f"{host.dns[0]} port {host.dns[1]};" for host in lab.hosts)
    bind = Bind(
        "bind",
        directory,
        address,
        environment_in(lab.directory, directory),
        zones=[Zone(ZONE, grants(key, ZONE))],
        keys=[key],
        options=OPTIONS,
        more=f"""
zone "." {{ type hint; file "{hints}"; }};
zone "consul" {{ type forward; forward only; forwarders {{ {agents} }}; }};
""",
        port=53,
    )
    with bind.running():
        yield Names(bind, key, directory)
