import os

import click

from agent.cli import context
from agent.cli.options import current


@click.command(
    epilog="\b\nExamples:\n  svcagent run\n  as a service: systemctl enable --now svcagent\n"
    "  to read services.d again: systemctl reload svcagent, or kill -HUP"
)
def run() -> int:
    """Run the daemon: registration, scheduled reloads, CNAME sync, maintenance expiry, recovery.

    Registers changes of services.d within a second. A file with faults is logged, and its last good version stays in
    force. Reloads run on their schedules; one that failed for a reason that may pass is tried again. Crashed reloads
    are recovered within a minute. There is one daemon on a host; reloads from cron or by hand may run as well. SIGTERM
    returns services that a reload has drained, and ends the daemon.
    """
    import asyncio

    from agent.daemon.daemon import Daemon, only_daemon

    current().verbose = True
    settings = context.settings()
    state_dir = context.state_directory(settings)
    options = ["--state-dir", str(state_dir)]
    if current().config:
        options += ["--config", str(current().config)]
    if current().log_format:
        options += ["--log-format", str(current().log_format)]
    with only_daemon(state_dir):
        asyncio.run(Daemon(settings, context.system_clock(), os.environ, options).run())
    return 0
