"""The daemon of this host, for verbs that ask it: is it there, and a reload that it does, shown as if it were ours."""

import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.cli.maint_output import shown
from agent.cli.output import show_line, show_warning
from agent.cli.reload_output import Printer, show_result
from agent.clock import Interrupts
from agent.daemon.client import Client, NoDaemon, Reloading
from agent.data import dataclass
from agent.definitions import Service, Settings
from agent.errors import Interrupted, NotFound, SvcagentError
from agent.reload import Result


@dataclass(frozen=True)
class Wanted:
    """A reload's options. ``lock_timeout`` in seconds, None if it was not given."""

    is_forced: bool
    is_in_maintenance: bool
    lock_timeout: float | None


@dataclass(frozen=True)
class Found:
    """What the daemon of these very directories says of itself; without it, ``why_not`` in words."""

    status: Mapping[str, Any] | None
    why_not: str = ""


def find_daemon(settings: Settings) -> Found:
    """Ask whether there is one.

    That one may be there and cannot be asked is a warning: whatever a verb does, it can do without.
    """
    try:
        status = Client(settings.daemon.socket).status()
    except NoDaemon:
        return Found(None, "does not run")
    except SvcagentError as error:
        show_warning(str(error))
        return Found(None, "cannot be asked")
    ours = (settings.state_dir, settings.services_dir)
    theirs = (str(status.get("state_dir", "")), str(status.get("services_dir", "")))
    if [one.resolve() for one in ours] == [Path(one).resolve() for one in theirs]:
        return Found(status)
    return Found(None, f"runs, but for other directories: {theirs[0]} and {theirs[1]}")


def reload_in_daemon(settings: Settings, service: Service, wanted: Wanted, interrupts: Interrupts) -> int | None:
    """Have the daemon reload, and show it; the exit code, or None if there is no daemon that knows the service.

    :raises Interrupted: it was only looked on, and goes on.
    :raises DaemonGone: the daemon died meanwhile.
    """
    if find_daemon(settings).status is None:
        return None
    client = Client(settings.daemon.socket)
    try:
        with client.reload(
            service.id,
            force=wanted.is_forced,
            in_maintenance=wanted.is_in_maintenance,
            lock_timeout=wanted.lock_timeout,
        ) as reloading:
            return _show(reloading, client, service, wanted, interrupts)
    except NotFound:  # it has ended, or has not read the definition yet
        return None


def _show(reloading: Reloading, client: Client, service: Service, wanted: Wanted, interrupts: Interrupts) -> int:
    printer = Printer(service.name)
    is_ours = bool(reloading.head["is_started_here"])
    notice = "" if is_ours else _notice(service, reloading.head)
    if not is_ours:
        _warn_of_options(wanted, reloading.head)
    interrupted: Interrupted | None = None
    while True:
        try:
            with nullcontext() if interrupted else interrupts.allowed():
                reloading.wait()
        except Interrupted as signalled:
            if not is_ours:
                show_warning(f"the reload of {service.name} goes on, in the daemon; to see it: svcagent status")
                raise
            interrupted = signalled
            with suppress(NotFound):  # it has just ended by itself
                client.cancel(service.id)
            continue
        for record in reloading.take():
            if "result" in record:
                return show_result(_result(record["result"], service, interrupted))
            # As by cron, where a reload with nothing to do says nothing.
            if notice and (sys.stdout.isatty() or record.get("step", "check") != "check"):
                show_line(notice)
                notice = ""
            printer.replay(record)


def _notice(service: Service, head: Mapping[str, Any]) -> str:
    since = shown(datetime.fromisoformat(head["since"]))
    return f"the daemon reloads {service.name} already, since {since} ({head['why']}); this is that reload"


def _warn_of_options(wanted: Wanted, head: Mapping[str, Any]) -> None:
    """What was asked for and is not what runs."""
    lost = {
        "--force": wanted.is_forced and not head["is_forced"],
        "--in-maintenance": wanted.is_in_maintenance and not head["is_in_maintenance"],
        "--lock-timeout": wanted.lock_timeout is not None,
    }
    if names := [name for name, is_lost in lost.items() if is_lost]:
        show_warning(f"{', '.join(names)}: without effect on a reload that runs already; when it has ended, ask again")


def _result(document: Mapping[str, Any], service: Service, interrupted: Interrupted | None) -> Result:
    """What the daemon's reload left, with the exit code of the signal that came here, not of the one passed on."""
    known = {one.name: document[one.name] for one in fields(Result) if one.name in document}
    result = Result(**{"service": service.name, "node": "", "image": "", **known})
    if interrupted is not None and result.exit_code == Interrupted(signal.SIGTERM).exit_code:
        return replace(result, exit_code=interrupted.exit_code)
    return result
