"""Keeping CNAMEs that point at services' Consul DNS names: observe → plan → apply, one file per DNS provider.

Zones and servers (`zones`, `verify`) are imported by those who ask DNS: dnspython takes its time.
"""

from agent.cname.keep import Keeper, Result
from agent.cname.plan import Decision, Outcome, described, exit_code
from agent.cname.provider import Place, Provider, Record, Seen
from agent.cname.providers import PROVIDERS
from agent.cname.record import Wanted, located, wanted_records

__all__ = [
    "PROVIDERS",
    "Decision",
    "Keeper",
    "Outcome",
    "Place",
    "Provider",
    "Record",
    "Result",
    "Seen",
    "Wanted",
    "described",
    "exit_code",
    "located",
    "wanted_records",
]
