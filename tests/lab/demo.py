"""The demo: a service rolls from one image to the next on several hosts, under load, and every request is counted.

    python -m tests.lab.demo --hosts 3 --load-seconds 0.2 --compare

Run by ``scripts/demo``. Real servers, real clients; ``--compare`` runs the shell script that svcagent replaces on the
same fleet before it; ``--chocon`` shows proxies that clients reach through a CNAME: see `demo_chocon`. The exit code
says whether svcagent lost a request.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from rich.console import Console

from tests.lab import demo_chocon
from tests.lab.demo_options import parsed
from tests.lab.ground import LabError, wait_until
from tests.lab.lab import LOCK, NO_SETTLE, PRODUCT_SETTLE, Lab
from tests.lab.origin import run_origin
from tests.lab.report import SETTLED, Report, document, measured, summarise
from tests.lab.traffic import Load
from tests.lab.view import Subject, View

NAME = "keyword-suggest"


def main() -> int:
    """Run it; 0 when svcagent lost no request, 1 when it did, 2 when the lab could not do its part."""
    options = parsed()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        reports = (demo_chocon.run if options.chocon else _run)(options, console)
    except KeyboardInterrupt:
        console.print("interrupted; the fleet is gone")
        return 130
    except LabError as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    if options.json:
        print(json.dumps([document(report) for report in reports], indent=2))
    else:
        summarise(reports, _title(options), console)
    return 0 if reports[-1].is_lossless else 1


def _title(options: argparse.Namespace) -> str:
    settle = ", no settle" if options.no_settle else ""
    return f"{options.hosts} hosts, {options.load_seconds:g} s of index loading{settle}"


def _run(options: argparse.Namespace, console: Console) -> list[Report]:
    say: Callable[[str], None] = (lambda _text: None) if options.json else (lambda text: console.print(text))
    say(f"starting a fleet of {options.hosts} hosts: a Consul agent and a Docker Engine each, a registry, a server …")
    reports = []
    with Lab(options.hosts) as lab:
        lab.push("1")
        for host in lab.hosts:
            lab.write_definition(host, settle=NO_SETTLE if options.no_settle else PRODUCT_SETTLE)
            lab.run_service(host, options.load_seconds)
        for host in lab.hosts:
            registered = lab.svcagent(host, "register")
            if registered.wait(60):
                raise LabError(f"svcagent register on {host.name}: {_errors_of(registered)}")
        lab.wait_passing(seconds=60)
        say(f"{NAME} is registered and passing on all of them: version 1")
        subject = Subject(LOCK, options.load_seconds, lab.versions, lab.consul().passing)
        view = View(lab, subject, console, is_silent=options.json)
        if options.compare:
            reports.append(_under_the_script(lab, options, view))
            lab.wait_passing(seconds=60)
        load = Load(lab, rate=options.rate)
        reports.append(measured(lab, NAME, load, lab.push, view, "2" if options.compare else "1"))
        say("stopping the fleet …")
    return reports


def _under_the_script(lab: Lab, options: argparse.Namespace, view: View) -> Report:
    with Load(lab, rate=options.rate) as load:
        load.wait_for(requests=SETTLED)
        lab.push("2")
        began = time.monotonic()
        with view.showing("consul lock … check_and_reload", load, dict) as tick:
            runs = run_origin(lab, load_seconds=options.load_seconds, tick=tick)
        seconds = time.monotonic() - began
        load.wait_for(requests=SETTLED)
        summary = load.stop()
    wait_until(lambda: set(lab.versions().values()) == {"2"}, 60, "the script has brought every host to version 2")
    return Report("shell script", "1", lab.versions(), seconds, summary, [run.exit_code for run in runs])


def _errors_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.read()


if __name__ == "__main__":
    sys.exit(main())
