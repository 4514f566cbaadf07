"""The marker: a TXT record with the owner and generation of a CNAME, and the record as it was published.

A CNAME allows no TXT record at its own name (servers drop it silently), and a record below a wildcard would end the
wildcard for its subtree (RFC 4592). So all markers of a zone are below ``_svcagent.<zone>``, where one
``update-policy`` line permits them, under the record's own name with ``cname-`` before the first label:

    *.example.org.       cname-_wildcard._svcagent.example.org.
    www.example.org.     cname-www._svcagent.example.org.
    *.eu.example.org.    cname-_wildcard.eu._svcagent.example.org.
"""

import re

from agent.cname.provider import Place, Record
from agent.data import dataclass
from agent.definitions import MARKERS, WILDCARD

PREFIX = "cname-"

_FORMAT = re.compile(
    r"heritage=svcagent v=1 owner=(?P<owner>\S+) gen=(?P<gen>\d{1,18}) ttl=(?P<ttl>\d{1,10}) target=(?P<target>\S+)"
)


@dataclass(frozen=True)
class Marker:
    """``owner`` is the logical service, ``<service>/<tag>/<dc>``, equal on all hosts that publish the record.

    ``record`` is as published, which distinguishes a manual change from another definition.
    """

    owner: str
    gen: int
    record: Record


def place(zone: str, name: str) -> Place:
    """Return where the record and its marker are. The name is inside the zone and not its apex."""
    first, dot, rest = name.removesuffix(zone).partition(".")
    return Place(zone, name, f"{PREFIX}{WILDCARD if first == '*' else first}{dot}{rest}{MARKERS}.{zone}")


def render(marker: Marker) -> str:
    """Return the text of the TXT record. `parse` reverses it."""
    record = marker.record
    return f"heritage=svcagent v=1 owner={marker.owner} gen={marker.gen} ttl={record.ttl} target={record.target}"


def parse(text: str) -> Marker | None:
    """Return the marker in a text; None if svcagent did not write it."""
    found = _FORMAT.fullmatch(text)
    if found is None:
        return None
    return Marker(found["owner"], int(found["gen"]), Record(found["target"], int(found["ttl"])))
