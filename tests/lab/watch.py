"""What Consul DNS says and what clients are told, one after the other and over and over, until standard input ends.

    python -m tests.lab.watch 127.0.0.2:8600 production.chocon.service.dc1.consul example.jp.ccnproxy-https

A line of JSON for every question: who was asked, when, when the answer came (seconds on one clock), and the addresses.
Clients ask through the system's resolver.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Callable

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

SECONDS = 2.0
"""Until Consul must have answered."""

PACE = 0.002
"""Seconds between two rounds, so that it does not take the machine from those it watches."""


def consul(server: tuple[str, int], name: str) -> list[str]:
    """The addresses of Consul's answer; none when it does not answer."""
    try:
        reply = dns.query.udp(dns.message.make_query(name, "A"), server[0], timeout=SECONDS, port=server[1])
    except dns.exception.DNSException:
        return []
    return sorted(str(one) for found in reply.answer if found.rdtype == dns.rdatatype.A for one in found)


def clients(name: str) -> list[str]:
    """The addresses that the system's resolver gives a client."""
    try:
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return sorted(str(address[0]) for *_, address in found)


def main(server: str, target: str, name: str) -> None:
    host, _, port = server.rpartition(":")
    asked: dict[str, Callable[[], list[str]]] = {
        "consul": lambda: consul((host, int(port)), target),
        "clients": lambda: clients(name),
    }
    while not select.select([sys.stdin], [], [], 0)[0]:
        for who, ask in asked.items():
            begin = time.monotonic()
            addresses = ask()
            line = {"who": who, "asked": begin, "answered": time.monotonic(), "addresses": addresses}
            print(json.dumps(line), flush=True)
        time.sleep(PACE)


if __name__ == "__main__":
    main(*sys.argv[1:])
