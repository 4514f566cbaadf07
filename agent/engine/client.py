"""`Engine`: what other rooms may ask of Docker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path

from agent.clock import Clock
from agent.definitions import PULL_SECONDS
from agent.engine import connections, lookup, prune, pull, reference, replace
from agent.engine.connection import Connection
from agent.engine.failures import RefusedAnswer
from agent.engine.host_clients import host_connections
from agent.engine.model import Container, Fetched, PullProgress, Replacement, moment
from agent.engine.recreate import DIGEST_LABEL
from agent.engine.swap import NEW_SUFFIX, Standing
from agent.errors import ConnectionsUnknown, NotFound
from agent.text import clean_lines

KILL_REPORT_SECONDS = 0.5
"""How long after a container's end the Engine may report that it was asked for."""


class Engine:
    """One host's Docker Engine.

    Every method raises `DockerUnreachable` when the Engine cannot be reached, and `OutcomeUnknown` when a change was
    asked for and no answer came. ``host``: as in DOCKER_HOST, which counts where it is None. ``proc``: where the
    process table of the Engine's PID namespace is mounted.
    """

    def __init__(self, host: str | None, environ: Mapping[str, str], clock: Clock, proc: Path = Path("/proc")) -> None:
        self._docker = Connection(host, environ)
        self._clock = clock
        self._proc = proc

    @property
    def address(self) -> str:
        """Where the Engine is looked for."""
        return self._docker.address

    def container(self, name: str) -> Container:
        """The container of that name. Raises `NotFound`."""
        return Container.of(lookup.existing(self._docker, name))

    def find(self, name: str) -> Container | None:
        """The container of that name, if there is one."""
        found = lookup.inspect(self._docker, name)
        return None if found is None else Container.of(found)

    def registry_digest(self, image: str) -> str:
        """The digest (``sha256:…``) that the registry has under the tag now; a reference's own, if it has one.

        Raises `NotFound`, `Denied`, `RateLimited`, `RegistryUnreachable`.
        """
        wanted = reference.parse(image)
        return wanted.digest or pull.registry_digest(self._docker, wanted)

    def runs_digest(self, container: Container, image: str, digest: str, fetched: Sequence[Fetched] = ()) -> bool:
        """True if the container was made from that digest of the image's repository.

        ``fetched``: as for `digest_of`. False where nobody knows what the container was made from.
        """
        return digest in self._digests_of(container, image, fetched)

    def digest_of(self, container: Container, image: str, fetched: Sequence[Fetched] = ()) -> str | None:
        """The digest of the image's repository that the container was made from; None when nobody knows it.

        ``fetched``: what svcagent brought here, which Docker may have no name for any more. Where the repository has
        the same image under several digests, it is the one svcagent took.
        """
        found = self._digests_of(container, image, fetched)
        with self._docker.question(f"inspect container {container.name}") as questions:
            labels = questions.inspect(container.id)["Config"].get("Labels") or {}
        taken = labels.get(DIGEST_LABEL)
        return taken if taken in found else next(iter(found), None)

    def image_id(self, image: str, digest: str) -> str:
        """Docker's ID of that digest of the image's repository. Raises `NotFound`."""
        wanted = reference.parse(image).at(digest)
        with self._docker.question(f"inspect image {wanted}") as questions:
            return str(questions.image(wanted)["Id"])

    def has_image(self, image: str, digest: str) -> bool:
        """Is that digest of the image's repository on this host?"""
        wanted = reference.parse(image)
        return digest in self._named_digests(wanted.at(digest), wanted.repository)

    def image_created(self, image: str, digest: str) -> datetime:
        """When that digest of the image's repository, which must be here, was built; in UTC.

        It is what its maker wrote into it. Reproducible builds write 1970, some builders nothing at all: such an image
        counts as old, whenever it was made. Raises `NotFound`.
        """
        wanted = reference.parse(image).at(digest)
        with self._docker.question(f"inspect image {wanted}") as questions:
            # Inside the call, so that a time nobody can read is reported as the Engine's answer.
            return moment(questions.image(wanted).get("Created"))

    def pull(
        self,
        image: str,
        digest: str,
        progress: Callable[[PullProgress], None],
        *,
        container: str | None = None,
        timeout: float = PULL_SECONDS,
    ) -> None:
        """Bring that digest of the image's repository here, and let the image's tag stand for it.

        ``progress`` is called when something has moved; what it raises ends the pull. ``container``: of an image for
        several platforms, take that of this container. ``timeout``: the seconds after which a download that stands
        still is given up; an extraction has ten times as long. Raises `NotFound`, `Denied`, `RateLimited`,
        `RegistryUnreachable`.
        """
        platform = replace.chosen_platform(self._docker, container) if container else ""
        pull.pull(self._docker, self._clock, reference.parse(image), digest, progress, timeout, platform)

    def check_recreatable(self, name: str) -> None:
        """Raises `Conflict`, with the way out, when the container cannot be recreated as it is, or be started again."""
        replace.check_recreatable(self._docker, self._proc, name, lookup.existing(self._docker, name))

    def prepare(self, name: str, image: str, digest: str) -> float:
        """Create the container's successor from that digest, which must be here already; the seconds it took.

        The container itself is left as it is. Whatever this raises, `discard` removes the successor again.
        Raises `Conflict` when an earlier replacement must be rolled back first, or when the successor would not be
        what the container is.
        """
        return replace.prepare(self._docker, self._proc, self._clock, name, reference.parse(image), digest)

    def discard(self, name: str) -> None:
        """Remove what `prepare` made, unless a `replace` has begun to use it."""
        replace.discard(self._docker, name)

    def replace(self, name: str, digest: str, stop_timeout: float | None) -> Replacement:
        """Stop the container and start its successor, which `prepare` made of that digest.

        The old one stays, stopped, as ``<name>.svcagent-old``. Whatever this raises, `roll_back` puts the old one back.
        ``stop_timeout``: seconds until the old one is killed; None: its own, else Docker's 10.
        Raises `Conflict` when the two are not as `prepare` left them, or could not be started for want of something
        on the host: nothing was stopped then. Raises `NotReady` when the image keeps the new one from starting.
        """
        return replace.replace(self._docker, self._proc, self._clock, name, digest, stop_timeout)

    def roll_back(self, name: str, restart_policy: str | None = None, *, finish_stop: bool = False) -> float | None:
        """Put the old container back under its name, with its restart policy, running; from wherever a `replace` ended.

        Seconds it took; None when there is nothing to roll back. The new container goes: read its `log_tail` first.
        ``restart_policy``: the old one's, as `Container.restart_policy` gave it before `replace`; it is needed only if
        the new container, which otherwise shows it, was removed. ``finish_stop``: an old container that still runs may
        be about to stop, since `replace` asked for that; it is stopped and started again. Raises `Conflict` when a
        container in the way is not svcagent's, `NotFound` when the old one is gone.
        """
        return replace.roll_back(self._docker, self._clock, name, restart_policy, finish_stop=finish_stop)

    def standing(self, name: str) -> Standing:
        """How far the last replacement of that container got, and what stands under its name now.

        All that a recovery decides on, whether or not a journal is left: with `Stand.NEW` it may become ready yet,
        `Stand.PREPARED` has to be discarded, and `Stand.MIXED` rolled back.
        """
        return replace.standing(self._docker, name)

    def start(self, name: str) -> None:
        """Start a container that is stopped; one that runs goes on. Raises `NotFound`."""
        replace.start(self._docker, name)

    def remove_old(self, name: str) -> None:
        """Remove what `replace` kept for a `roll_back`."""
        replace.remove_old(self._docker, name)

    def prune(
        self, image: str, keep: int, fetched: Sequence[Fetched] = (), ran: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Remove old images of the image's repository; the IDs removed.

        Never one that a container uses, that has a tag which svcagent did not give it, or that svcagent neither brought
        here nor ran. ``keep``: how many to keep, the newest first; the one in use counts as one. ``fetched``: what
        svcagent brought here, under which tags; ``ran``: the digests that it ran here.
        """
        return prune.prune(self._docker, reference.parse(image), keep, fetched, ran)

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines that the container printed; of a replacement that got no name, the new one's.

        Nothing where there is no such container, or its log driver cannot be read.
        """
        found = lookup.inspect(self._docker, name) or lookup.inspect(self._docker, name + NEW_SUFFIX)
        if found is None:
            return ""
        with self._docker.call(f"read the log of container {name}") as client:
            try:
                text: bytes = client.logs(found["Id"], stdout=True, stderr=True, tail=lines)
            except RefusedAnswer as error:
                if error.status == HTTPStatus.NOT_IMPLEMENTED:
                    return ""
                raise
        return clean_lines(text.decode(errors="replace"), lines)

    def stop_was_requested(self, name: str, started_at: str) -> bool:
        """True if somebody has asked the Engine to stop, restart or kill the container since it was started then.

        The Engine then reports the event `kill`, and none where a program ends by itself or the kernel kills it.
        ``started_at``: as in `Container`, of the run that ended; the container may run again by now.
        """
        found = lookup.existing(self._docker, name)
        began, ended = (moment(found["State"].get(field)) for field in ("StartedAt", "FinishedAt"))
        # It is reported after the signal was sent, so perhaps after the program has ended.
        until = max(began, ended + timedelta(seconds=KILL_REPORT_SECONDS))
        with self._docker.call(f"read the events of container {name}") as client:
            return client.kills(found["Id"], moment(started_at), until) > 0

    def connections(self, container: Container, port: int, address: str | None = None) -> int:
        """How many clients are connected to the container's service on ``port``; 0 when it does not run.

        ``port``: as clients name it, so the published one. ``address``: under host networking, the local address to
        count, where several services share a port; None or an unspecified one (``0.0.0.0``) counts all.
        The Engine must be on this machine: connections are read from its process table.
        Raises `ConnectionsUnknown` where they cannot be read.
        """
        if container.network_mode == "host":
            return host_connections(port, address)
        with self._docker.question(f"inspect container {container.name}") as questions:
            found = questions.inspect(container.id)
        if not found["State"]["Pid"]:
            return 0
        ports = connections.container_ports(found, port)
        return sum(len(connections.in_table(table, ports)) for table in self._tables(found["State"]["Pid"]))

    def is_listening(self, container: Container, port: int, address: str) -> bool | None:
        """True if something in the container listens where Docker forwards this address and port of the host to.

        None if Docker forwards them to no port of the container: then what accepts a connection there is the
        service itself. Otherwise it may be docker-proxy, which accepts before the service listens. The Engine must be
        on this machine, as for `connections`.
        """
        with self._docker.question(f"inspect container {container.name}") as questions:
            found = questions.inspect(container.id)
            owner = found["HostConfig"]["NetworkMode"].partition("container:")[2]
            publisher = questions.inspect(owner) if owner else found
        ports = connections.forwarded_ports(publisher, port, address)
        if not ports:
            return None
        return any(connections.has_listener(table, ports) for table in self._tables(found["State"]["Pid"]))

    def close(self) -> None:
        """Give the sockets back; the engine connects again when it is asked again."""
        self._docker.close()

    def _digests_of(self, container: Container, image: str, fetched: Sequence[Fetched]) -> tuple[str, ...]:
        """The digests of the image's repository that the container's image is known to have.

        Docker forgets them when an image loses its last name, as it does in the containerd store when its tag moves.
        """
        repository = reference.parse(image).repository
        known = self._named_digests(container.image_id, repository) + tuple(
            one.digest
            for one in fetched
            if one.image_id == container.image_id
            and reference.is_same_repository(reference.parse(one.image).repository, repository)
        )
        if known or not reference.is_of(container.image_ref, repository) or not self._names_images_by_digest():
            return known
        return (container.image_id,)

    def _named_digests(self, image: str, repository: str) -> tuple[str, ...]:
        try:
            with self._docker.question(f"inspect image {image}") as questions:
                return reference.digests_of(questions.image(image).get("RepoDigests"), repository)
        except NotFound:
            return ()

    def _names_images_by_digest(self) -> bool:
        """True for the containerd image store: an image's ID is the digest that its registry has."""
        with self._docker.question("say which image store it has") as questions:
            return questions.has_containerd_store()

    def _tables(self, pid: int) -> list[str]:
        """Both address families' tables; none when the process has just ended, or the machine has no IPv6.

        :raises ConnectionsUnknown: they may not be read.
        """
        tables = []
        for family in ("tcp", "tcp6"):
            try:
                tables.append((self._proc / str(pid) / "net" / family).read_text(encoding="ascii"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            except (OSError, ValueError) as error:
                raise ConnectionsUnknown(
                    f"cannot count connections: {self._proc}/{pid}/net/{family} cannot be read ({error}). Run svcagent "
                    "as root, or set drain.connections to false"
                ) from error
        return tables
