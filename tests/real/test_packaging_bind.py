"""What ``packaging/bind`` ships is loaded by the real server as it stands, at the paths that it names.

The server is alone on a network of its own, where its port 53 and its addresses are nobody else's, and has directories
of the test in the place of the machine's.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.bind import make_key
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.lab.parts import BUSYBOX
from tests.lab.server import PATH, REPOSITORY, Server

PACKAGING = REPOSITORY / "packaging" / "bind"
ZONE = "ccnproxy-https"

ENTER = f"""
{BUSYBOX} ip link set lo up
mount --bind "$1/etc" /etc/bind
mount --bind "$1/lib" /var/lib/bind
mount --bind "$1/cache" /var/cache/bind
mount -t tmpfs tmpfs /run
mkdir /run/named
shift
exec "$@"
"""


@dataclass(frozen=True)
class Boxed:
    """The server's network and directories, and what programs in there say."""

    server: Server
    directory: Path

    def run(self, *argv: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        enter = ["nsenter", "--target", str(self.server.pid), "--net", "--mount"]
        return subprocess.run(
            [*enter, *argv], input=text, env={"PATH": PATH}, capture_output=True, text=True, timeout=20, check=False
        )

    def dig(self, *question: str) -> str:
        return self.run("dig", "@127.0.0.1", "+tries=1", "+time=5", *question).stdout

    def update(self, key: str, line: str) -> str:
        """What nsupdate says, nothing if all is well."""
        done = self.run("nsupdate", "-k", f"/etc/bind/{key}.key", text=f"server 127.0.0.1\nzone {ZONE}\n{line}\nsend\n")
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def box() -> Iterator[Boxed]:
    """A named that runs the shipped files."""
    with claimed() as ground:
        directory = ground.directory
        for part in ("etc", "lib", "cache"):
            (directory / part).mkdir()
        for file in PACKAGING.glob("*"):
            shutil.copy(file, directory / ("lib" if file.suffix == ".zone" else "etc"))
        make_key(directory / "etc", "svcagent")
        alone = ("unshare", "--net", "--mount", "--propagation", "private", "sh", "-e", "-c", ENTER, "box")
        argv = (*alone, str(directory), "named", "-g", "-4", "-n", "1")
        server = Server(
            "named",
            argv,
            directory / "named.log",
            environment_in(directory, directory),
            lambda: "NOERROR" in boxed.dig(ZONE, "SOA"),
        )
        boxed = Boxed(server, directory)
        with server.running():
            yield boxed


def test_bind_finds_nothing_wrong_with_it(box: Boxed) -> None:
    done = box.run("named-checkconf", "-z")

    assert (done.returncode, done.stdout.split(), done.stderr) == (
        0,
        ["zone", f"{ZONE}/IN:", "loaded", "serial", "1"],
        "",
    )


@pytest.mark.parametrize(
    "line",
    [
        f"update add *.{ZONE}. 60 CNAME production.chocon.service.dc1.consul.",
        f'update add cname-_wildcard._svcagent.{ZONE}. 60 TXT "heritage=svcagent"',
    ],
)
def test_svcagent_may_write_its_record_and_its_marker(box: Boxed, line: str) -> None:
    assert box.update("svcagent", line) == ""

    _update, _add, name, _ttl, kind, value = line.split()
    assert value in box.dig("+short", name, kind)


@pytest.mark.parametrize(
    "line",
    [
        f"update add www.{ZONE}. 60 CNAME elsewhere.example.com.",
        f"update add *.{ZONE}. 60 A 192.0.2.1",
        f"update add {ZONE}. 60 TXT mine",
        f"update delete ns.{ZONE}.",
    ],
)
def test_svcagent_may_write_nothing_else(box: Boxed, line: str) -> None:
    assert "REFUSED" in box.update("svcagent", line)


def test_names_of_consul_are_asked_of_the_agent_alone(box: Boxed) -> None:
    """Here is none, so there is no answer: nobody else was asked, and DNSSEC does not deny the name."""
    log = box.server.log.stat().st_size
    answer = box.dig("production.chocon.service.dc1.consul", "A")

    assert "status: SERVFAIL" in answer
    with box.server.log.open() as file:
        file.seek(log)
        asked = [line for line in file if "chocon" in line]
    assert asked
    assert all("127.0.0.1#8600" in line for line in asked)
