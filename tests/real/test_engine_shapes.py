"""Containers of unusual shapes on a real engine, and connections counted where the kernel refuses to be asked."""

import ctypes
import errno
import platform
import socket
import struct
import subprocess
import sys

import pytest

from tests.real.engine_fixture import BUSYBOX, SLEEP, DockerHost, newer


def _write(docker: DockerHost, path: str) -> None:
    docker.executed("app", "sh", "-c", f"echo kept > {path}/file")


@pytest.mark.parametrize("binds", [["/data"], ["/data/"], ["/data", "named:/named"]])
def test_a_bind_without_a_source_keeps_its_data(docker: DockerHost, image: str, binds: list[str]) -> None:
    docker.run("app", image, SLEEP, host_config={"binds": binds})
    _write(docker, "/data")
    digest = newer(docker, image)

    docker.engine.check_recreatable("app")
    docker.replace("app", image, digest, None)
    docker.engine.remove_old("app")
    again = newer(docker, image, content="3")
    docker.replace("app", image, again, None)

    assert docker.executed("app", "cat", "/version") == "3"
    assert docker.executed("app", "cat", "/data/file") == "kept"


def test_a_tmpfs_over_a_volume_of_the_image_is_replaced(docker: DockerHost) -> None:
    """Docker shows an anonymous volume there, and refuses both in one create."""
    cmd = f'CMD ["{BUSYBOX}", "sleep", "3600"]'
    image = docker.latest
    docker.engine.pull(image, docker.push("1", "VOLUME /data", cmd), lambda _progress: None)
    docker.run("app", image, host_config={"tmpfs": {"/data": ""}})
    digest = docker.push("2", "VOLUME /data", cmd)
    docker.engine.pull(image, digest, lambda _progress: None)

    docker.replace("app", image, digest, None)

    assert docker.executed("app", "cat", "/version") == "2"
    assert "tmpfs /data " in docker.executed("app", "cat", "/proc/mounts")


def _refuse_netlink() -> None:
    """Install the seccomp filter of ``RestrictAddressFamilies=~AF_NETLINK``: socket(2) of it is EAFNOSUPPORT."""
    load, jump_if_equal, answer, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    program = [
        (load, 0, 0, 0),  # the number of the system call
        (jump_if_equal, 0, 3, number),
        (load, 0, 0, 16),  # its first argument
        (jump_if_equal, 0, 1, socket.AF_NETLINK),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(set_seccomp, filter_mode, header, 0, 0) == 0, ctypes.get_errno()


COUNT = """
import sys
from pathlib import Path
from agent.engine import host_clients, sockets
from tests.real.test_engine_shapes import _refuse_netlink
_refuse_netlink()
sockets._TABLES = Path(sys.argv[2])
port = int(sys.argv[1])
print(sorted((str(one.local[0]), str(one.remote[0]), one.state, one.inode > 0) for one in sockets.server_ends(port)))
print(sorted(one.remote[1] for one in sockets.client_ends(port)))
print(host_clients.host_connections(port))
"""


def _counted(port: int, tables: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-c", COUNT, str(port), tables)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_connections_are_counted_where_sock_diag_is_refused() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.10", port), timeout=5),
            socket.create_connection(("::1", port), timeout=5),
        ):
            accepted = [server.accept()[0] for _ in range(2)]
            done = _counted(port, "/proc/net")
            for one in accepted:
                one.close()

    ends = [("127.0.0.10", "127.0.0.1", 1, True), ("::1", "::1", 1, True)]
    assert done.stdout.splitlines() == [str(ends), str([port, port]), "2"], done.stderr


def test_a_drain_that_can_count_nowhere_is_a_typed_error_with_the_remedy() -> None:
    done = _counted(8080, "/nowhere")
    assert "agent.errors.ConnectionsUnknown: " in done.stderr
    assert "AF_NETLINK" in done.stderr
    assert "drain.connections" in done.stderr
