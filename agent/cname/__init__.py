"""CNAMEs that point at services' Consul DNS names: observe → plan → apply, with one file per DNS provider.

`zones` and `verify` are not exported here because they import dnspython, which is slow.
"""

from agent.cname.plan import RecordDecision, RecordOutcome, described, exit_code
from agent.cname.provider import PROVIDERS, OpenedProviders, Provider, PublishedRecord, RecordPlace, ZoneView
from agent.cname.record import WantedRecord, located, wanted_records
from agent.cname.sync import CnameSync, SyncResult
