"""The marker: a TXT record that says whose a CNAME is, of which generation, and what it was published as. Pure.

It cannot stand beside the CNAME, where every other type is silently dropped, nor below a wildcard, where it would end
the wildcard for its subtree (RFC 4592). So all markers of a zone stand below ``_svcagent.<zone>``, where one
``update-policy`` line permits them, each under its record's own name with ``cname-`` before the first label:

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
    """``owner`` is the logical service, ``<service>/<tag>/<dc>``: the same on every host that publishes it.

    The record is in it as it was published, so that a change by hand can be told from another definition.
    """

    owner: str
    gen: int
    record: Record


def place(zone: str, name: str) -> Place:
    """Where the record of this name and its marker stand; the name is inside the zone and not its apex."""
    first, dot, rest = name.removesuffix(zone).partition(".")
    return Place(zone, name, f"{PREFIX}{WILDCARD if first == '*' else first}{dot}{rest}{MARKERS}.{zone}")


def render(marker: Marker) -> str:
    """The text of the TXT record. What `parse` makes of it is the same marker."""
    record = marker.record
    return f"heritage=svcagent v=1 owner={marker.owner} gen={marker.gen} ttl={record.ttl} target={record.target}"


def parse(text: str) -> Marker | None:
    """The marker that a text is; None when svcagent did not write it."""
    found = _FORMAT.fullmatch(text)
    if found is None:
        return None
    return Marker(found["owner"], int(found["gen"]), Record(found["target"], int(found["ttl"])))
