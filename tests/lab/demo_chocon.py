"""The demo's second story: proxies on all hosts, a CNAME that leads any client to a healthy one, and a rollout.

All load goes through the name: every request asks the organisation's DNS server for it, which follows the CNAME to
Consul.
"""

import argparse
import json
from collections.abc import Callable

from rich.console import Console

from tests.lab.chocon import CLIENTS_NAME, CLIENTS_PATH, LOCK, NAME, PORT, RECORD, Chocon
from tests.lab.ground import LabError
from tests.lab.lab import NO_SETTLE, PRODUCT_SETTLE, Lab
from tests.lab.names import ZONE, Names, naming
from tests.lab.report import Report, measured
from tests.lab.traffic import Load, Url
from tests.lab.view import Subject, View

URL = f"http://{CLIENTS_NAME}{CLIENTS_PATH}"


def run(options: argparse.Namespace, console: Console) -> list[Report]:
    say: Callable[[str], None] = (lambda _text: None) if options.json else (lambda text: console.print(text))
    say(f"starting a fleet of {options.hosts} hosts, and a BIND that forwards consul. to their agents …")
    with Lab(options.hosts) as lab, naming(lab) as names:
        chocon = Chocon(lab, settle=NO_SETTLE if options.no_settle else PRODUCT_SETTLE)
        chocon.start(options.load_seconds)
        say(f"{NAME} is registered and passing on all of them: version 1")
        say(f"$ curl {URL}\n{_curl(names)}")
        published = _publish(chocon, names)
        say(f"$ svcagent cname sync     on all hosts simultaneously: {RECORD}")
        for host, outcome in published.items():
            say(f"  {host}  {outcome}")
        say(f"$ curl {URL}\n{_curl(names)}")
        subject = Subject(LOCK, options.load_seconds, chocon.versions, chocon.passing)
        view = View(lab, subject, console, is_silent=options.json)
        load = Load(lab, rate=options.rate, dns=[names.resolver], url=Url(CLIENTS_NAME, PORT, CLIENTS_PATH))
        report = measured(lab, NAME, load, chocon.push, view, "1")
        report.more = {"url": URL, "cname": published, "serial": names.bind.serial(ZONE)}
        say("stopping the fleet …")
    return [report]


def _publish(chocon: Chocon, names: Names) -> dict[str, str]:
    """What became of the record on each host."""
    printed = chocon.everywhere("--json", "cname", "sync", env=names.environment())
    outcomes = {host: str(json.loads(text)["records"][0]["outcome"]) for host, text in printed.items()}
    if sorted(outcomes.values()) != ["created", *["in place"] * (len(outcomes) - 1)]:
        raise LabError(f"not one host created the record, and the others found it: {outcomes}")
    return outcomes


def _curl(names: Names) -> str:
    done = names.curl(URL)
    return (done.stdout or done.stderr).strip()
