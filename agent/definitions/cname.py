"""A CNAME that points at the service's Consul DNS name. Only its shape is looked at here."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from agent.definitions.faults import Wrong, shown
from agent.definitions.part import Part
from agent.definitions.values import Filled, Label

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def _domain(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value.rstrip(".")) > 253:
        raise Wrong(f"{shown(value)} is not a DNS name", 'write it like "www.example.com."')
    return value


def _owner(value: str) -> str:
    """A wildcard is one only as the whole of the first label."""
    if value != "*":
        _domain(value.removeprefix("*."))
    return value


class Cname(Part):
    """One CNAME record."""

    name: Annotated[str, AfterValidator(_owner)] = Field(
        description="The record's name, complete when it ends in a dot, else inside the zone; * may be its first label."
    )
    tag: Label | None = Field(None, description="Point at the instances with this tag only.")
    zone: Annotated[str, AfterValidator(_domain)] | None = Field(None, description="The zone that holds the record.")
    ttl: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="The record's time to live, seconds."
    )
    target: Annotated[str, AfterValidator(_domain)] | None = Field(
        None, description="Where the record points; <tag>.<service>.service.<dc>.<domain>. if left out."
    )
    provider: Filled | None = Field(None, description="The DNS provider that keeps the zone.")
    gen: Annotated[int, Field(ge=0)] = Field(
        0, description="The generation of this definition: of hosts that disagree, the highest wins."
    )
