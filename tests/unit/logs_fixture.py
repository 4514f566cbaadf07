"""What the tests of logs share: logging as it was, standard error as a file of their own, and a journal's socket."""

import array
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent import logs

LENGTH = struct.Struct("<Q")


@pytest.fixture
def fresh_logs() -> Iterator[None]:
    """Logging as at the start of a process, and the same afterwards."""
    logs.set_up(logs.Format.TEXT, is_verbose=False)
    yield
    logs.set_up(logs.Format.TEXT, is_verbose=False)


def records(text: str) -> list[dict[str, Any]]:
    """Lines of JSON; that there is anything else fails."""
    return [json.loads(line) for line in text.splitlines()]


class Journal:
    """A journal's socket, and what came through it, by the protocol in systemd's docs/JOURNAL_NATIVE_PROTOCOL.md."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = self._listening()

    def _listening(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(self.path))
        listening.setblocking(False)
        return listening

    def received(self) -> list[dict[str, str]]:
        """The entries that came since it was last asked."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(_entry(self._datagram()))
        return found

    def _datagram(self) -> bytes:
        """One entry, which is in a file of its own where it is too long for a datagram."""
        size = array.array("i").itemsize
        data, passed, _flags, _address = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(size))
        if not passed:
            return data
        assert data == b""
        [descriptor] = array.array("i", passed[0][2][:size])
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            return file.read()

    def stop(self) -> None:
        self._socket.close()
        self.path.unlink()

    def start(self) -> None:
        self._socket = self._listening()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def journal(directory: Path) -> Iterator[Journal]:
    found = Journal(directory / "socket")
    try:
        yield found
    finally:
        found.close()


def _entry(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        head, _newline, rest = data.partition(b"\n")
        name, is_short, value = head.partition(b"=")
        if is_short:
            data = rest
        else:
            [length] = LENGTH.unpack_from(rest)
            value, data = rest[LENGTH.size :][:length], rest[LENGTH.size + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found
