"""Clients of the service, as a process of its own: each request asks Consul DNS anew, and none is ever tried again.

    python -m tests.lab.load --dns 127.0.0.2:8600 --name keyword-suggest.service.dc1.consul --port 8080

Whatever a client without retries would notice counts as a failed request: no address, refused, reset, five seconds
without the whole answer, another status than 200, a body cut short. A line of JSON every 0.2 s says how it goes.
SIGTERM, SIGINT or the end of standard input lets the requests under way finish and prints the last line, with the last
failures.

It shares nothing with svcagent, so that it can be believed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import stat
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

REPORT_EVERY = 0.2
CATCH_UP = 0.1
"""Seconds of requests that a late generator sends at once; what it missed beyond is not sent at all."""


class Failed(Exception):
    """The request got an answer, but not a good one."""


@dataclass
class Attempt:
    resolver: tuple[str, int]
    step: str = "dns"
    address: str | None = None


@dataclass
class Tally:
    requests: int = 0
    failures: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=20))

    def served(self, version: str) -> None:
        self.requests += 1
        self.versions[version] += 1

    def failed(self, at: float, attempt: Attempt, error: Exception) -> None:
        self.requests += 1
        self.failures += 1
        what = f"{attempt.step}: {_named(error)}"
        self.errors[what] += 1
        resolver = "{}:{}".format(*attempt.resolver)
        self.recent.append({"t": round(at, 3), "address": attempt.address, "resolver": resolver, "what": what})


class Question:
    """One name's A query, built once; only its ID changes."""

    def __init__(self, name: str) -> None:
        self._rest = dns.message.make_query(name, "A").to_wire()[2:]

    async def ask(self, resolver: tuple[str, int]) -> str:
        loop = asyncio.get_running_loop()
        number = random.randbytes(2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.connect(resolver)
            connection.send(number + self._rest)
            wire = await loop.sock_recv(connection, 4096)
            while wire[:2] != number:
                wire = await loop.sock_recv(connection, 4096)
        answer = dns.message.from_wire(wire)
        if answer.rcode() != dns.rcode.NOERROR:
            raise Failed(dns.rcode.to_text(answer.rcode()).lower())
        for records in answer.answer:
            if records.rdtype == dns.rdatatype.A:
                return str(records[0])
        raise Failed("no address")


async def fetch(address: str, port: int, request: bytes, attempt: Attempt) -> str:
    """Fetch once over a new connection; the version that answered."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (address, port))
        attempt.step = "http"
        await loop.sock_sendall(connection, request)
        answer = b""
        while part := await loop.sock_recv(connection, 65536):
            answer += part
    return version_in(answer)


def version_in(answer: bytes) -> str:
    """The second word of a whole, good answer's body."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise Failed("cut short in its head" if answer else "closed without an answer")
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ", 2)[1] != "200":
        raise Failed(f"status {status.split(' ', 2)[1]}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if len(body) != int(headers["content-length"]):
        raise Failed(f"{len(body)} of {headers['content-length']} bytes")
    return body.split()[1].decode()


class Generator:
    """Workers that share one steady schedule; one that waits for an answer leaves its turn to the others."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._question = Question(options.name)
        host = options.name if options.port == 80 else f"{options.name}:{options.port}"
        self._request = f"GET {options.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self._tally = Tally()
        self._stopping = asyncio.Event()
        self._begin = self._next = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        # A terminal or /dev/null says nothing by its end; a pipe's end is the end of whoever started this.
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            loop.add_reader(0, self._read_input)
        self._begin = self._next = loop.time()
        async with asyncio.TaskGroup() as tasks:
            reports = tasks.create_task(self._report())
            workers = [tasks.create_task(self._work(number)) for number in range(self._options.workers)]
            await asyncio.gather(*workers)
            reports.cancel()
        self._print(final=True, failed=list(self._tally.recent))

    async def _work(self, number: int) -> None:
        resolvers = self._options.dns
        turn = number
        while await self._is_my_turn():
            await self._one(Attempt(resolvers[turn % len(resolvers)]))
            turn += 1

    async def _is_my_turn(self) -> bool:
        loop = asyncio.get_running_loop()
        at = max(self._next, loop.time() - CATCH_UP)
        self._next = at + 1 / self._options.rate
        await asyncio.sleep(at - loop.time())
        return not self._stopping.is_set()

    async def _one(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._options.timeout):
                attempt.address = await self._question.ask(attempt.resolver)
                attempt.step = "connect"
                version = await fetch(attempt.address, self._options.port, self._request, attempt)
        except (Failed, OSError, dns.exception.DNSException, ValueError, LookupError) as error:
            self._tally.failed(loop.time() - self._begin, attempt, error)
        else:
            self._tally.served(version)

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        before, reported = 0, 0
        while True:
            reported += 1
            await asyncio.sleep(self._begin + reported * REPORT_EVERY - loop.time())
            self._print(per_second=round((self._tally.requests - before) / REPORT_EVERY, 1))
            before = self._tally.requests

    def _print(self, **more: Any) -> None:
        tally = self._tally
        at = asyncio.get_running_loop().time() - self._begin
        line = {
            "t": round(at, 3),
            "requests": tally.requests,
            "failures": tally.failures,
            "versions": tally.versions,
            "errors": tally.errors,
            "per_second": round(tally.requests / at, 1) if at else 0.0,
            **more,
        }
        print(json.dumps(line), flush=True)

    def _read_input(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self._stopping.set()


def _named(error: Exception) -> str:
    """What went wrong, in words short enough to count by."""
    known: dict[type[Exception], str] = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset",
        BrokenPipeError: "reset",
        TimeoutError: "timeout",
    }
    return known.get(type(error)) or (str(error) if isinstance(error, Failed) else repr(error))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.load", description=__doc__)
    parser.add_argument("--dns", type=_address, action="append", required=True, help="ADDRESS:PORT; asked in turn")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--path", default="/")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=400, help="requests per second, all workers together")
    parser.add_argument("--timeout", type=float, default=5, help="seconds for one request, DNS included")
    options = parser.parse_args(argv)

    async def load() -> None:
        await Generator(options).run()

    asyncio.run(load())


if __name__ == "__main__":
    main(sys.argv[1:])
