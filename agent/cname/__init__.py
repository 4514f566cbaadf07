"""CNAMEs that point at services' Consul DNS names: observe → plan → apply, with one file per DNS provider.

`zones` and `verify` are not exported here because they import dnspython, which is slow.
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
