"""``svcagent run``."""

import os

import click

from agent.cli import wiring
from agent.cli.options import current


@click.command(
    epilog="\b\nExamples:\n  svcagent run\n  as a service: systemctl enable --now svcagent\n"
    "  to read services.d again: systemctl reload svcagent, or kill -HUP"
)
def run() -> int:
    """The daemon: register, reload, keep CNAMEs and end maintenance, each in its time.

    Watches services.d and takes changes up within a second. A file with faults is logged, and the version before it
    stays in force. Reloads run on their schedules; what stands in the way of one is logged and it is tried again. One
    daemon a host; reloads from cron or by hand may run beside it. SIGTERM puts back what a reload took out and ends.
    """
    import asyncio

    from agent.daemon.daemon import Daemon
    from agent.daemon.single import only_daemon

    current().verbose = True
    settings = wiring.settings()
    state_dir = wiring.state_directory(settings)
    options = ["--state-dir", str(state_dir)]
    if current().config:
        options += ["--config", str(current().config)]
    with only_daemon(state_dir):
        asyncio.run(Daemon(settings, wiring.system_clock(), os.environ, options).run())
    return 0
