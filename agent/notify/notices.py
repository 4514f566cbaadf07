"""The notices about a service's rollouts and DNS records: which ones are due, and their texts. No I/O.

Each kind of notice is a row of `NOTICES`: a function that yields the notices of a rollout. `notified` records what any
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
from agent.fleet.host_state import HostState, HostStatus, InstanceKey, host_names, state_of, states_on
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin
from agent.fleet.rollout_progress import RolloutProgress
from agent.text import clean, counted, short_digest, without_credentials

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
        """The key by which it is recorded as sent."""
        return f"{self.kind} {self.subject}"


def due(
    course: RolloutProgress, told: Collection[str], kinds: Collection[NoticeKind] = tuple(NoticeKind)
) -> tuple[tuple[Notice, ...], frozenset[str]]:
    """Return the due notices of these kinds, and the keys of all that then count as sent.

    ``told`` are the keys of sent notices. Outdated notices are recorded but not sent. Keys of other rollouts and of
    cleared quarantines are dropped.
    """
    found = [notice for kind, row in NOTICES.items() if kind in kinds for notice in row(course)]
    subjects = {_subject(entry) for entry in course.view.quarantine.values()}
    subjects |= {one.wanted for one in course.suspects}
    if course.pin is not None:
        subjects.add(course.pin.digest)
    kept = {key for key in told if key.partition(" ")[2] in subjects}
    news = (one for one in found if one.at is None or abs(course.now - one.at) < NEWS)
    return tuple(one for one in news if one.key not in told), frozenset(kept | {one.key for one in found})


def is_closed(pin: Pin | None, told: Collection[str]) -> bool:
    """True if a host with nothing to do has no notice to send either."""
    return pin is None or f"{NoticeKind.FINISHED} {pin.digest}" in told


def _started(course: RolloutProgress) -> Iterator[Notice]:
    pin = course.pin
    if pin is None or not course.is_incomplete:
        return
    waits = () if course.is_open(course.now) else ("It is outside the service's windows; hosts wait for them.",)
    yield Notice(
        NoticeKind.STARTED,
        pin.digest,
        pin.since,
        Tone.INFO,
        f"{course.service}: rollout of {_name(pin)} started, {_of_all(course)} run it",
        _body(
            _what(pin),
            _who(pin),
            *_far(course),
            *waits,
            f"To follow it: {_command('fleet', course.service, '--watch')}",
        ),
    )


def _finished(course: RolloutProgress) -> Iterator[Notice]:
    pin, done = course.pin, course.host_progress.done
    states = [state_of(course.view.hosts, instance) for instance in done]
    last = max((state.since for state in states if state is not None and state.since), default=None)
    if pin is None or pin.since is None or last is None or course.host_progress.missing:
        return
    took = _length(max(last - pin.since, timedelta()))
    yield Notice(
        NoticeKind.FINISHED,
        pin.digest,
        last,
        Tone.SUCCESS,
        f"{course.service}: rollout of {_name(pin)} finished, {_of_all(course)} run it after {took}",
        _body(
            _what(pin), f"{_who(pin)}, took {took}", *_far(course), f"Details: {_command('history', course.service)}"
        ),
    )


def _quarantined(course: RolloutProgress) -> Iterator[Notice]:
    """Yield a notice once the host has restored the old version, or has failed to for too long."""
    for entry in course.view.quarantine.values():
        if entry.since is None or course.is_reloading(entry.node):
            continue
        short = short_digest(entry.digest)
        standings = {state.state for state in states_on(course.view.hosts, entry.node)}
        how = next(
            (text for standing, text in _HOW.items() if standing in standings), "failed on {} and is quarantined"
        )
        yield Notice(
            NoticeKind.QUARANTINED,
            _subject(entry),
            entry.since,
            Tone.FAILURE,
            f"{course.service}: {short} {how.format(entry.node)}",
            _body(
                f"{entry.image or 'an image'} is {entry.digest}",
                f"why: {_first_line(entry.why)}",
                "No host takes it. Push a better image. What is known about it: "
                f"{_command('quarantine', 'list', course.service)}",
                f"If the fault was not the image's: {_command('quarantine', 'clear', course.service, entry.digest)}",
            ),
        )


def _suspect(course: RolloutProgress) -> Iterator[Notice]:
    """Yield one notice per digest, even if several hosts disappeared with it."""
    for digest in sorted({one.wanted for one in course.suspects}):
        vanished = [one for one in course.suspects if one.wanted == digest]
        nodes = {one.node for one in vanished}
        yield Notice(
            NoticeKind.SUSPECT,
            digest,
            None,
            Tone.FAILURE,
            f"{course.service}: {short_digest(digest)} is suspect: {_names(nodes)} disappeared while taking it",
            _body(
                *(suspect.what_happened(one) for one in vanished[:MOST_HOSTS]),
                "No other host takes it.",
                f"What to do: {suspect.what_to_do(course.service, vanished[0])}",
            ),
        )


def _stuck(course: RolloutProgress) -> Iterator[Notice]:
    pin = course.pin
    if pin is None or not course.is_stuck or course.view.pause is not None:
        return
    for_long = _length(course.stalled_for)
    yield Notice(
        NoticeKind.STUCK,
        pin.digest,
        None,
        Tone.WARNING,
        f"{course.service}: rollout of {_name(pin)} is stuck, {_of_all(course)} run it, without progress "
        f"for {for_long}",
        _body(
            _what(pin),
            _who(pin),
            *_far(course),
            *(
                _told(instance[0], state_of(course.view.hosts, instance))
                for instance in sorted(course.host_progress.missing)[:MOST_HOSTS]
            ),
            f"What blocks a host: {_command('why', course.service)}, on that host. "
            f"All hosts: {_command('fleet', course.service)}",
        ),
    )


def _paused(course: RolloutProgress) -> Iterator[Notice]:
    pin, pause = course.pin, course.view.pause
    if pin is None or pause is None or not course.is_stuck:
        return
    yield Notice(
        NoticeKind.PAUSED,
        pin.digest,
        None,
        Tone.INFO,
        f"{course.service}: rollout of {_name(pin)} waits, because reloads are paused; {_of_all(course)} run it",
        _body(
            _what(pin),
            _who(pin),
            *_far(course),
            f"Paused {pause.describe(_shown)}",
            f"To resume: {_command('resume', course.service)}",
        ),
    )


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
        _body(f"{record}: {_first_line(why)}", f"as {node} sees it. To see it: svcagent cname plan"),
    )


def due_conflict(found: Notice | None, owner: str, told: frozenset[str]) -> tuple[tuple[Notice, ...], frozenset[str]]:
    """Like `due`, for one record. ``found`` is the conflict of ``owner``, None if it is resolved.

    The keys of other owners stay, or two owners of one record would be reported alternately.
    """
    if found is None:
        return (), told - {f"{NoticeKind.CONFLICT} {owner}"}
    return (() if found.key in told else (found,)), told | {found.key}


_HOW: Mapping[str, str] = {
    HostStatus.ROLLED_BACK: "rolled back on {} and quarantined",
    HostStatus.STRANDED: "failed on {}, WHICH IS OUT OF SERVICE, and is quarantined",
    HostStatus.RELOADING: "failed on {}, whose reload has not ended, and is quarantined",
}


def _subject(entry: Quarantine) -> str:
    return f"{entry.digest}@{_shown(entry.since)}" if entry.since else entry.digest


def _body(*lines: str) -> str:
    return "\n".join(lines)


def _name(pin: Pin) -> str:
    """Return the image without its registry, for a title."""
    return f"{pin.image.rpartition('/')[2]} ({short_digest(pin.digest)})"


def _what(pin: Pin) -> str:
    return f"{pin.image} is {pin.digest}"


def _who(pin: Pin) -> str:
    return f"pinned by {pin.node}" + (f" at {_shown(pin.since)}" if pin.since else "")


def _of_all(course: RolloutProgress) -> str:
    done, everyone = len(course.host_progress.hosts_done), len(_nodes(course.awaited))
    return f"{done} of {counted(everyone, 'host')}"


def _far(course: RolloutProgress) -> Iterator[str]:
    for what, nodes in (
        ("run it", course.host_progress.hosts_done),
        ("do not yet", course.host_progress.hosts_missing),
        ("in maintenance, and not waited for", _nodes(course.held_out)),
        ("down, and not waited for", _nodes(course.down)),
    ):
        if nodes:
            yield f"{what}: {_names(nodes)}"


def _told(node: str, state: HostState | None) -> str:
    if state is None:
        return f"{node} has published nothing yet"
    since = f" since {_shown(state.since)}" if state.since else ""
    return f"{node}: {state.state}{since}" + (f": {_first_line(state.error)}" if state.error else "")


def _names(nodes: Collection[str]) -> str:
    return host_names(nodes, MOST_HOSTS)


def _nodes(instances: Collection[InstanceKey]) -> frozenset[str]:
    return frozenset(node for node, _service_id in instances)


def _command(*arguments: str) -> str:
    return shlex.join(("svcagent", *arguments))


def _first_line(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "")
    return without_credentials(clean(line, LONGEST_WHY))


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _length(span: timedelta) -> str:
    return durations.text(round(span.total_seconds()))
