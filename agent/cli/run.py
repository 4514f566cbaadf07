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

    Registers changes of services.d within a second. Logs files with faults; their last good versions stay active.
    Runs reloads on their schedules, and retries one that failed for a temporary reason. Recovers crashed reloads
    within a minute. Only one daemon runs per host; cron and operators may run reloads at the same time. On SIGTERM,
    returns drained services and exits.
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
