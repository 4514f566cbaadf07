"""What the verbs of ``svcagent cname`` work with: the wanted records, their providers, the DNS servers."""

import contextlib
from collections.abc import Iterator
from functools import partial

import click

from agent.cli import context
from agent.cli.output import show_warning
from agent.cname import CnameSync, OpenedProviders, WantedRecord, located, wanted_records
from agent.cname.conflicts import Conflicts
from agent.cname.sync import has_instances
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.definitions import DnsSettings, complete
from agent.errors import BadDefinition


@dataclass(frozen=True)
class CnameContext:
    """This host's part in its CNAMEs. ``wanted`` are the records that were asked for, with their zones."""

    dns: DnsSettings
    consul: Consul
    agent: AgentSelf
    wanted: tuple[WantedRecord, ...]
    providers: OpenedProviders

    @property
    def sync(self) -> CnameSync:
        conflicts = Conflicts(self.consul, self.agent.node, context.system_clock())
        return CnameSync(self.providers, lambda target: has_instances(self.agent, target), conflicts)


@contextlib.contextmanager
def cname_context(names: tuple[str, ...] = (), *, is_lenient: bool = False) -> Iterator[CnameContext]:
    """Yield what the verb needs, after reading everything and reporting every fault, before any write.

    ``names`` are services or records; empty for all. ``is_lenient`` also permits names that no definition has.
    """
    chosen = context.settings()
    with contextlib.ExitStack() as stack:
        consul = stack.enter_context(context.consul(chosen))
        agent = consul.agent_self()
        loaded = context.good_definitions(chosen, lambda: agent.address)
        everything = wanted_records(loaded.definitions, agent.datacenter, agent.domain, chosen.dns.provider)
        wanted = tuple(one for one in everything if not names or one.is_named(names))
        for name in names:
            if not is_lenient and not any(one.is_named((name,)) for one in wanted):
                if loaded.faults:
                    raise BadDefinition(list(loaded.faults))
                there = ", ".join(sorted({one.name for one in everything})) or "none"
                where = chosen.services_dir
                near = context.did_you_mean(name, (one.name for one in everything))
                raise click.BadParameter(
                    f"no CNAME in {where} is called {name!r} or points to that service; defined: {there}{near}"
                )
        context.leave_out_faulty_files(loaded.faults, loaded.definitions, is_all=not names)
        providers = OpenedProviders(chosen.dns, show_warning)
        stack.callback(providers.close)
        yield CnameContext(chosen.dns, consul, agent, located(wanted, partial(find_zone, chosen.dns)), providers)


def find_zone(dns: DnsSettings, name: str) -> str:
    from agent.cname import signing

    return signing.find_zone(dns, name)


complete_record = context.completer(lambda definition: (complete(one.name, one.zone) for one in definition.cname))
