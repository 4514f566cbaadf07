"""What every DNS provider keeps to. A provider joins by a `Stage` of its own, and a row of `STAGES`.

Every provider writes record and marker at the same moment.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from agent.cname.provider import Provider, RecordPlace
from tests.real.cname_fixture import Dns, dns_server
from tests.real.route53_fixture import simulator


class Stage(Protocol):
    """A zone, a provider that keeps it, and somebody who changes it by other means."""

    @property
    def compares(self) -> bool:
        """True if a write applies only if the zone is exactly as the caller saw it."""

    def provider(self) -> Provider:
        """A connection of its own, with all rights."""

    def powerless(self) -> Provider:
        """One whose credentials are good and may not write."""

    def unreachable(self) -> Provider:
        """One whose server is not there."""

    def place(self, name: str) -> RecordPlace:
        """Of a name inside the zone."""

    def put(self, name: str, ttl: int, kind: str, *values: str) -> None:
        """Replace all records of one type at a complete name, by other means."""

    def take(self, name: str, kind: str) -> None:
        """Take all records of one type away, by other means."""

    def version(self) -> object:
        """Something that differs after every change of the zone."""


@dataclass(frozen=True)
class Rfc2136Stage:
    """BIND."""

    dns: Dns
    compares: bool = True

    def provider(self) -> Provider:
        return self.dns.provider()

    def powerless(self) -> Provider:
        """With a key that no policy names."""
        return self.dns.provider(self.dns.stranger)

    def unreachable(self) -> Provider:
        return self.dns.provider(at=(self.dns.bind.address, self.dns.bind.port + 1))

    def place(self, name: str) -> RecordPlace:
        return self.dns.place(name)

    def put(self, name: str, ttl: int, kind: str, *values: str) -> None:
        self.dns.put(name, ttl, kind, *values)

    def take(self, name: str, kind: str) -> None:
        self.dns.take(name, kind)

    def version(self) -> object:
        return self.dns.serial


@contextmanager
def _rfc2136() -> Iterator[Stage]:
    with dns_server() as dns:
        yield Rfc2136Stage(dns)


STAGES: Mapping[str, Callable[[], AbstractContextManager[Stage]]] = {"rfc2136": _rfc2136, "route53": simulator}
"""By the name that the provider has in `agent.cname.provider.PROVIDERS`."""
