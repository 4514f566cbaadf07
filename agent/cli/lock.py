import click

from agent.cli import context
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table
from agent.consul import SESSION_SECONDS, Holder, LockForm, LockStatus, lock_status, queue_of
from agent.maintenance import iso
from agent.text import short_digest


@click.group(epilog="Example: svcagent lock status keyword-suggest")
def lock() -> None:
    """Show the lock that lets hosts reload a service one after the other."""


@lock.command(
    epilog="\b\nExamples:\n  svcagent lock status keyword-suggest\n  svcagent --json lock status keyword-suggest"
)
@click.argument("name", shell_complete=context.complete_name)
@output_options
def status(name: str) -> None:
    """Show the holders and the queue of the lock of NAME.

    Holders that use consul lock are shown too, with node and command. Waiters that use consul lock are not shown: they
    are not in the queue, and compete with its first host.
    """
    settings = context.settings()
    definition, section = context.reloaded_definition(settings, name)
    service = definition.service.name
    with context.consul(settings) as consul:
        found = lock_status(consul, section.lock_prefix(service), queue_of(service))
    if current().as_json:
        show_document(_document(found))
        return
    if found.holders or found.waiters:
        rows = [("holder", *_row(holder)) for holder in found.holders]
        rows += [(f"waiter {place}", *_row(waiter)) for place, waiter in enumerate(found.waiters, 1)]
        show_table(("LOCK", "NODE", "PID", "WHAT", "SINCE", "STEP", "DIGEST", "SESSION"), rows)
    show_line(_summary(found))
    if found.holders:
        show_line(_advice(found))


def _summary(found: LockStatus) -> str:
    waiting = f"{len(found.waiters)} waiting" if found.waiters else "none waiting"
    if found.form is LockForm.NONE or not found.holders:
        return f"the lock {found.prefix} is free, {waiting}"
    return f"the lock {found.prefix} is held by {len(found.holders)} of at most {found.limit}, {waiting}"


def _advice(found: LockStatus) -> str:
    """Return advice about a lock that seems stuck, so that no operator deletes its keys."""
    first = found.holders[0]
    process = f"ps -p {first.pid}" if first.pid is not None else "ps ax"
    return (
        f"A crashed holder loses the lock when its session expires, within {2 * SESSION_SECONDS} s, or earlier if "
        "svcagent register or\nreload runs on its host. A holder that is still listed after that is running; check it "
        f"on {first.node or 'its node'} ({process}). To release\nthe lock anyway, destroy its session: "
        f"curl -X PUT $CONSUL_HTTP_ADDR/v1/session/destroy/{first.session}\nA reload that loses its lock starts no "
        "further disruptive step, and restores its service."
    )


def _row(holder: Holder) -> tuple[str, ...]:
    return (
        holder.node or "-",
        str(holder.pid) if holder.pid is not None else "-",
        holder.command or holder.name or "-",
        shown(holder.since) if holder.since else "-",
        holder.step or "-",
        short_digest(holder.digest) or "-",
        holder.session,
    )


def _document(found: LockStatus) -> dict[str, object]:
    return {
        "lock": found.prefix,
        "form": str(found.form),
        "limit": found.limit,
        "holders": [_details(holder) for holder in found.holders],
        "waiters": [_details(waiter) | {"place": place} for place, waiter in enumerate(found.waiters, 1)],
    }


def _details(holder: Holder) -> dict[str, object]:
    return {
        "session": holder.session,
        "session_name": holder.name or None,
        "node": holder.node or None,
        "pid": holder.pid,
        "command": holder.command or None,
        "service": holder.service or None,
        "digest": holder.digest or None,
        "step": holder.step or None,
        "since": iso(holder.since) if holder.since else None,
    }
