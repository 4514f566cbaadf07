"""The notices about a service's rollouts and DNS records: which ones are due, and their texts. No I/O.

Each kind of notice is a row of `NOTICES`: a function that yields the notices of a rollout. `sent` records what any
host has sent, so each notice is sent once per fleet.

A rollout is identified by its digest: pinning it again does not start another one. A quarantine is identified by digest
and time, so an image that fails again after it was cleared is reported again.
"""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from agent.data import dataclass
from agent.definitions import durations
from agent.fleet import suspect
from agent.fleet.host_state import HostState, HostStatus, InstanceKey, state_of, states_on
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin
from agent.fleet.rollout_progress import RolloutProgress
from agent.text import counted, redacted, short_digest, some_of

MOST_HOSTS = 10
"""Hosts that a message names."""

NEWS = timedelta(days=1)
"""Older events are not reported, such as last month's pin when notifications are first set up."""

LONGEST_WHY = 300
"""Characters of a reason in a message. The rest and the container's output stay where only operators read them."""


class NoticeKind(StrEnum):
    STARTED = "started"
    FINISHED = "finished"
    QUARANTINED = "quarantined"
    SUSPECT = "suspect"
    STUCK = "stuck"
    PAUSED = "paused"
    CONFLICT = "conflict"


class Tone(StrEnum):
    """The severity, by Apprise's names."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Notice:
    """One message. ``subject`` distinguishes it from others of the same kind.

    ``at`` is when the event happened; None for a lasting condition.
    """

    kind: NoticeKind
    subject: str
    at: datetime | None
    tone: Tone
    title: str
    body: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.subject}"


def due(
    rollout: RolloutProgress, sent: Collection[str], kinds: Collection[NoticeKind] = tuple(NoticeKind)
) -> tuple[tuple[Notice, ...], frozenset[str]]:
    """Return the due notices of these kinds, and the keys of all that then count as sent.

    ``sent`` are the keys of sent notices. Outdated notices are recorded but not sent. Keys of other rollouts and of
    cleared quarantines are dropped.
    """
    found = [notice for kind, row in NOTICES.items() if kind in kinds for notice in row(rollout)]
    subjects = {_subject(entry) for entry in rollout.view.quarantine.values()}
    subjects |= {one.wanted for one in rollout.suspects}
    if rollout.pin is not None:
        subjects.add(rollout.pin.digest)
    kept = {key for key in sent if key.partition(" ")[2] in subjects}
    news = (one for one in found if one.at is None or abs(rollout.now - one.at) < NEWS)
    return tuple(one for one in news if one.key not in sent), frozenset(kept | {one.key for one in found})


def is_closed(pin: Pin | None, sent: Collection[str]) -> bool:
    """True if a host with nothing to do has no notice to send either."""
    return pin is None or f"{NoticeKind.FINISHED} {pin.digest}" in sent


def _of_rollout(
    kind: NoticeKind,
    rollout: RolloutProgress,
    pin: Pin,
    at: datetime | None,
    tone: Tone,
    title: str,
    *lines: str,
    took: str = "",
) -> Notice:
    """Return a notice that names the image, who pinned it, and the hosts. ``{}`` in the title: how many run it."""
    progress = rollout.host_progress
    run_it = f"{len(progress.hosts_done)} of {counted(len(_nodes(rollout.awaited)), 'host')} run it"
    hosts = {
        "run it": progress.hosts_done,
        "do not run it yet": progress.hosts_missing,
        "in maintenance (not waited for)": _nodes(rollout.held_out),
        "down (not waited for)": _nodes(rollout.down),
    }
    body = (
        f"{pin.image} is {pin.digest}",
        f"pinned by {pin.node}" + (f" at {_shown(pin.since)}" if pin.since else "") + took,
        *(f"{what}: {some_of(sorted(nodes), MOST_HOSTS)}" for what, nodes in hosts.items() if nodes),
        *lines,
    )
    name = f"{pin.image.rpartition('/')[2]} ({short_digest(pin.digest)})"  # without the registry
    title = f"{rollout.service}: rollout of {name} {title.format(run_it)}"
    return Notice(kind, pin.digest, at, tone, title, "\n".join(body))


def _started(rollout: RolloutProgress) -> Iterator[Notice]:
    pin = rollout.pin
    if pin is None or not rollout.is_incomplete:
        return
    waits = (
        () if rollout.is_open(rollout.now) else ("No window of the service is open now; hosts wait for the next one.",)
    )
    follow = f"To watch it: {_command('fleet', rollout.service, '--watch')}"
    yield _of_rollout(NoticeKind.STARTED, rollout, pin, pin.since, Tone.INFO, "started, {}", *waits, follow)


def _finished(rollout: RolloutProgress) -> Iterator[Notice]:
    pin, done = rollout.pin, rollout.host_progress.done
    states = [state_of(rollout.view.hosts, instance) for instance in done]
    last = max((state.since for state in states if state is not None and state.since), default=None)
    if pin is None or pin.since is None or last is None or rollout.host_progress.missing:
        return
    took = _length(max(last - pin.since, timedelta()))
    title, details = f"finished, {{}} after {took}", f"Details: {_command('history', rollout.service)}"
    yield _of_rollout(NoticeKind.FINISHED, rollout, pin, last, Tone.SUCCESS, title, details, took=f", took {took}")


def _quarantined(rollout: RolloutProgress) -> Iterator[Notice]:
    """Yield a notice once the host has restored the old version, or has failed to for too long."""
    for entry in rollout.view.quarantine.values():
        if entry.since is None or rollout.is_reloading(entry.node):
            continue
        found = {state.state for state in states_on(rollout.view.hosts, entry.node)}
        what = next((text for status, text in _FAILED.items() if status in found), "failed on {} and is quarantined")
        lines = (
            f"{entry.image or 'an image'} is {entry.digest}",
            f"cause: {_first_line(entry.why)}",
            f"No host takes it. Push a better image. Details: {_command('quarantine', 'list', rollout.service)}",
            f"If the image was not at fault: {_command('quarantine', 'clear', rollout.service, entry.digest)}",
        )
        title = f"{rollout.service}: {short_digest(entry.digest)} {what.format(entry.node)}"
        yield Notice(NoticeKind.QUARANTINED, _subject(entry), entry.since, Tone.FAILURE, title, "\n".join(lines))


def _suspect(rollout: RolloutProgress) -> Iterator[Notice]:
    """Yield one notice per digest, even if several hosts disappeared with it."""
    for digest in sorted({one.wanted for one in rollout.suspects}):
        vanished = [one for one in rollout.suspects if one.wanted == digest]
        names = some_of(sorted({one.node for one in vanished}), MOST_HOSTS)
        lines = (
            *(suspect.what_happened(one) for one in vanished[:MOST_HOSTS]),
            "No other host takes it.",
            f"To resolve it: {suspect.what_to_do(rollout.service, vanished[0])}",
        )
        title = f"{rollout.service}: {short_digest(digest)} is suspect: {names} disappeared while taking it"
        yield Notice(NoticeKind.SUSPECT, digest, None, Tone.FAILURE, title, "\n".join(lines))


def _stuck(rollout: RolloutProgress) -> Iterator[Notice]:
    pin = rollout.pin
    if pin is None or not rollout.is_stuck or rollout.view.pause is not None:
        return
    title = f"is stuck, {{}}, without progress for {_length(rollout.stalled_for)}"
    missing = sorted(rollout.host_progress.missing)[:MOST_HOSTS]
    lines = [_host_line(instance[0], state_of(rollout.view.hosts, instance)) for instance in missing]
    blocked = (
        f"To see what blocks a host, run on it: {_command('why', rollout.service)}. "
        f"All hosts: {_command('fleet', rollout.service)}"
    )
    yield _of_rollout(NoticeKind.STUCK, rollout, pin, None, Tone.WARNING, title, *lines, blocked)


def _paused(rollout: RolloutProgress) -> Iterator[Notice]:
    pin, pause = rollout.pin, rollout.view.pause
    if pin is None or pause is None or not rollout.is_stuck:
        return
    lines = f"Paused {pause.describe(_shown)}", f"To resume: {_command('resume', rollout.service)}"
    title = "waits: reloads are paused; {}"
    yield _of_rollout(NoticeKind.PAUSED, rollout, pin, None, Tone.INFO, title, *lines)


NOTICES: Mapping[NoticeKind, Callable[[RolloutProgress], Iterator[Notice]]] = {
    NoticeKind.STARTED: _started,
    NoticeKind.FINISHED: _finished,
    NoticeKind.QUARANTINED: _quarantined,
    NoticeKind.SUSPECT: _suspect,
    NoticeKind.STUCK: _stuck,
    NoticeKind.PAUSED: _paused,
}
"""The kinds of notices about rollouts, and the functions that yield them."""


def conflict(service: str, record: str, owner: str, why: str, node: str) -> Notice:
    """Return the notice about a record that cannot be published as defined. Its owner identifies it."""
    return Notice(
        NoticeKind.CONFLICT,
        owner,
        None,
        Tone.FAILURE,
        f"{service}: conflict in DNS, {record} differs from its definition",
        f"{record}: {_first_line(why)}\nReported by {node}. To see all records: svcagent cname plan",
    )


def due_conflict(found: Notice | None, owner: str, sent: frozenset[str]) -> tuple[tuple[Notice, ...], frozenset[str]]:
    """Like `due`, for one record. ``found`` is the conflict of ``owner``, None if it is resolved.

    The keys of other owners stay, or two owners of one record would be reported alternately.
    """
    if found is None:
        return (), sent - {f"{NoticeKind.CONFLICT} {owner}"}
    return (() if found.key in sent else (found,)), sent | {found.key}


_FAILED: Mapping[str, str] = {
    HostStatus.ROLLED_BACK: "rolled back on {} and quarantined",
    HostStatus.STRANDED: "failed on {}, WHICH IS OUT OF SERVICE, and is quarantined",
    HostStatus.RELOADING: "failed on {}, whose reload has not ended, and is quarantined",
}


def _subject(entry: Quarantine) -> str:
    return f"{entry.digest}@{_shown(entry.since)}" if entry.since else entry.digest


def _host_line(node: str, state: HostState | None) -> str:
    if state is None:
        return f"{node} has not published a state yet"
    since = f" since {_shown(state.since)}" if state.since else ""
    return f"{node}: {state.state}{since}" + (f": {_first_line(state.error)}" if state.error else "")


def _nodes(instances: Collection[InstanceKey]) -> frozenset[str]:
    return frozenset(node for node, _service_id in instances)


def _command(*arguments: str) -> str:
    return shlex.join(("svcagent", *arguments))


def _first_line(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "")
    return redacted(line, LONGEST_WHY)


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _length(span: timedelta) -> str:
    return durations.text(round(span.total_seconds()))
