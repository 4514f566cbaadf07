"""`Engine`: the operations on Docker that other packages use."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path

from agent.clock import Clock
from agent.definitions import PULL_SECONDS
from agent.engine import connections, lookup, prune, pull, reference
from agent.engine.connection import EngineConnection
from agent.engine.failures import RefusedAnswer
from agent.engine.host_clients import host_connections
from agent.engine.model import Container, Fetched, PullProgress, moment
from agent.engine.recreate import DIGEST_LABEL
from agent.engine.replace import ContainerReplacer
from agent.engine.stopped import is_stop_signal
from agent.engine.swap import NEW_SUFFIX
from agent.errors import ConnectionsUnknown, NotFound
from agent.text import clean_lines

KILL_REPORT_SECONDS = 0.5
"""How long after a container's end the Engine may report the request that ended it."""


class Engine(ContainerReplacer):
    """One host's Docker Engine.

    Every method raises `DockerUnreachable` if the Engine cannot be reached, and `OutcomeUnknown` if the answer to a
    change did not come. ``host``: as DOCKER_HOST, which is used if it is None. ``proc``: where the process table of the
    Engine's PID namespace is mounted.
    """

    def __init__(self, host: str | None, environ: Mapping[str, str], clock: Clock, proc: Path = Path("/proc")) -> None:
        super().__init__(EngineConnection(host, environ), clock, proc)

    @property
    def address(self) -> str:
        return self._docker.address

    def container(self, name: str) -> Container:
        """Return the container of that name. Raise `NotFound`."""
        return Container.of(lookup.existing(self._docker, name))

    def find(self, name: str) -> Container | None:
        """Return the container of that name, or None."""
        found = lookup.inspect(self._docker, name)
        return None if found is None else Container.of(found)

    def registry_digest(self, image: str) -> str:
        """Return the registry's digest (``sha256:…``) of the tag now; a reference's own, if it has one. Raise as
        `pull`.
        """
        wanted = reference.parse(image)
        return wanted.digest or pull.registry_digest(self._docker, wanted)

    def runs_digest(self, container: Container, image: str, digest: str, fetched: Sequence[Fetched] = ()) -> bool:
        """True if the container is known to be made from that digest. ``fetched``: as for `digest_of`."""
        return digest in self._digests_of(container, image, fetched)

    def digest_of(self, container: Container, image: str, fetched: Sequence[Fetched] = ()) -> str | None:
        """Return the digest of the image's repository that the container was made from; None if it is unknown.

        ``fetched``: the images that svcagent pulled, for which Docker may have no name any more. If the repository has
        the same image under several digests, the one that svcagent took is returned.
        """
        found = self._digests_of(container, image, fetched)
        with self._docker.query(f"inspect container {container.name}") as queries:
            labels = queries.inspect(container.id)["Config"].get("Labels") or {}
        taken = labels.get(DIGEST_LABEL)
        return taken if taken in found else next(iter(found), None)

    def image_id(self, image: str, digest: str) -> str:
        """Return Docker's ID of that digest of the image's repository. Raise `NotFound`."""
        wanted = reference.parse(image).at(digest)
        with self._docker.query(f"inspect image {wanted}") as queries:
            return str(queries.image(wanted)["Id"])

    def has_image(self, image: str, digest: str) -> bool:
        wanted = reference.parse(image)
        return digest in self._named_digests(wanted.at(digest), wanted.repository)

    def image_created(self, image: str, digest: str) -> datetime:
        """Return when that digest of the image's repository was built, in UTC. Raise `NotFound` if it is not here.

        The builder writes this time. Reproducible builds write 1970, some builders nothing: such an image counts as
        old.
        """
        wanted = reference.parse(image).at(digest)
        with self._docker.query(f"inspect image {wanted}") as queries:
            # Inside the call, so that a time that cannot be parsed is reported as the Engine's answer.
            return moment(queries.image(wanted).get("Created"))

    def pull(
        self,
        image: str,
        digest: str,
        progress: Callable[[PullProgress], None],
        *,
        container: str | None = None,
        timeout: float = PULL_SECONDS,
    ) -> None:
        """Pull that digest of the image's repository, and make the image's tag refer to it.

        ``progress`` is called when something has moved; an exception that it raises ends the pull. ``container``: pull
        a multi-platform image for the platform of this container. ``timeout``: the seconds after which a stalled
        download is given up; an extraction has ten times as long. Raise `NotFound`, `Denied`, `RateLimited` or
        `RegistryUnreachable`.
        """
        platform = self._chosen_platform(container) if container else ""
        pull.pull(self._docker, self._clock, reference.parse(image), digest, progress, timeout, platform)

    def prune(
        self, image: str, keep: int, fetched: Sequence[Fetched] = (), ran: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Remove old images of the image's repository; return the IDs removed.

        An image is kept if a container uses it, if it has a tag that svcagent did not give it, or if svcagent neither
        pulled nor ran it here. ``keep``: how many to keep, the newest first; the one in use counts as one. ``fetched``:
        the images that svcagent pulled here, with their tags; ``ran``: the digests that it ran here.
        """
        return prune.prune(self._docker, reference.parse(image), keep, fetched, ran)

    def log_tail(self, name: str, lines: int = 20) -> str:
        """Return the last lines of the container's log, or of its successor's if there is none; empty if unreadable."""
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
        """True if anybody asked the Engine to stop, restart or kill the container since it was started then.

        The Engine reports a `kill` event for that, and none if a program ends by itself or the kernel kills it. Other
        signals, such as the SIGHUP of a log rotation, do not ask a program to end.
        ``started_at``: as in `Container`, of the run that ended; the container may run again by now.
        """
        found = lookup.existing(self._docker, name)
        began, ended = (moment(found["State"].get(field)) for field in ("StartedAt", "FinishedAt"))
        # It is reported after the signal was sent, so perhaps after the program has ended.
        until = max(began, ended + timedelta(seconds=KILL_REPORT_SECONDS))
        with self._docker.call(f"read the events of container {name}") as client:
            signals = client.signals(found["Id"], moment(started_at), until)
        return any(is_stop_signal(signal, found["Config"].get("StopSignal")) for signal in signals)

    def connections(self, container: Container, port: int, address: str | None = None) -> int:
        """Return how many clients are connected to the container's service on ``port``; 0 if it does not run.

        ``port``: the published one, which clients use. ``address``: under host networking, the local address to count,
        if several services share a port; None or an unspecified one (``0.0.0.0``) counts all. The Engine must be on
        this machine, because its process table is read. Raise `ConnectionsUnknown` if that is impossible.
        """
        if container.network_mode == "host":
            return host_connections(port, address)
        with self._docker.query(f"inspect container {container.name}") as queries:
            found = queries.inspect(container.id)
        if not found["State"]["Pid"]:
            return 0
        ports = connections.container_ports(found, port)
        return sum(len(connections.in_table(table, ports)) for table in self._tables(found["State"]["Pid"]))

    def is_listening(self, container: Container, port: int, address: str) -> bool | None:
        """True if something in the container listens where Docker forwards this address and port of the host.

        None if Docker forwards them to no port of the container: then the service itself accepts connections there.
        Otherwise it may be docker-proxy, which accepts before the service listens. The Engine must be on this machine,
        as for `connections`.
        """
        with self._docker.query(f"inspect container {container.name}") as queries:
            found = queries.inspect(container.id)
            owner = found["HostConfig"]["NetworkMode"].partition("container:")[2]
            publisher = queries.inspect(owner) if owner else found
        ports = connections.forwarded_ports(publisher, port, address)
        if not ports:
            return None
        return any(connections.has_listener(table, ports) for table in self._tables(found["State"]["Pid"]))

    def close(self) -> None:
        self._docker.close()

    def _digests_of(self, container: Container, image: str, fetched: Sequence[Fetched]) -> tuple[str, ...]:
        """Return the digests of the image's repository that the container's image is known to have.

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
            with self._docker.query(f"inspect image {image}") as queries:
                return reference.digests_of(queries.image(image).get("RepoDigests"), repository)
        except NotFound:
            return ()

    def _names_images_by_digest(self) -> bool:
        """True for the containerd image store, where an image's ID is the digest that its registry has."""
        with self._docker.query("report its image store") as queries:
            return queries.has_containerd_store()

    def _tables(self, pid: int) -> list[str]:
        """Return both address families' tables, if the process and IPv6 exist. Raise `ConnectionsUnknown`."""
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
