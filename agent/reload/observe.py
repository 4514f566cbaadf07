"""Looking at everything that the guard judges, and at which digest the fleet takes. Nothing is decided here."""

from agent.definitions import Reload, Service
from agent.errors import GuardRefused
from agent.fleet import Action, Decision, Pin, SeenDigests, agree, decide, observe, pause, quarantine, rollout
from agent.logs import WARNING, log
from agent.maintenance import Maintenance, parse
from agent.reload.edges import Edges
from agent.reload.guard import Observed, able_instances
from agent.reload.restart import Restarter
from agent.reload.restore import own_instance
from agent.reload.window import verdict, zone


class Observer:
    """One service of this host."""

    def __init__(
        self, service: Service, reload: Reload, restart: Restarter, edges: Edges, is_in_maintenance: bool
    ) -> None:
        self._service = service
        self._reload = reload
        self._restarter = restart
        self._edges = edges
        self._is_in_maintenance = is_in_maintenance
        self._seen = SeenDigests(edges.state_dir, service.name)
        self._pinned: str | None = None

    def look(self, wanted: str, *, is_queueing: bool = False, is_fetched: bool = True) -> Observed:
        """Everything, as it is now. ``is_fetched``: ``wanted`` is on this host, so that it tells its age."""
        edges, reload, now = self._edges, self._reload, self._edges.clock.now()
        _index, instances = edges.consul.instances(self._service.name)
        held = quarantine.find(edges.consul, self._service.name, wanted) if wanted else None
        window = verdict(reload.windows, zone(reload.timezone), now)
        min_age = reload.min_age if is_fetched else 0.0
        return Observed(
            instances=instances,
            node=edges.agent.node,
            service=self._service.name,
            service_id=self._service.id,
            min_healthy=reload.min_healthy,
            now=now,
            is_queueing=is_queueing,
            wanted=wanted,
            quarantine=held,
            pause=pause.find(edges.consul, self._service.name, now),
            image_created=self._restarter.built(wanted) if min_age else None,
            min_age=min_age,
            is_window_open=window.is_open,
            next_opening=window.opens_at,
            is_in_maintenance_allowed=self._is_in_maintenance,
        )

    def wanted(self, newest: str, running: str) -> tuple[str, str]:
        """Return the digest that this host would take, and why. Changes nothing.

        :raises GuardRefused: another digest is pinned, and this host has no reason to trust the pin.
        """
        consul, now = self._edges.consul, self._edges.clock.now()
        _index, instances = consul.instances(self._service.name)
        view = observe(consul, self._service.name, now)
        decision = decide(view, self._reload.image, newest, running, able_instances(instances), now)
        self._require_trusted(decision, view.pin, newest, running)
        return decision.wanted, decision.why

    def insisted(self, newest: str) -> str:
        """Pin the newest digest for all hosts, whatever is pinned: an operator wants it now.

        Return what that overrides, empty if nothing.
        """
        edges, service, now = self._edges, self._service.name, self._edges.clock.now()
        self._seen.note(self._reload.image, [newest], now)
        found, index = rollout.find(edges.consul, service)
        self._pinned = newest
        if found is not None and found.digest == newest:
            return ""
        rollout.pin(edges.consul, service, Pin(self._reload.image, newest, edges.agent.node, now), index)
        return f"the rollout of {found.digest}, pinned by {found.node}" if found is not None and found.digest else ""

    def agreed(self, newest: str, running: str) -> tuple[str, str]:
        """Return the digest that this host takes, and why; pin it for all hosts if this one is the first to find it.

        :raises GuardRefused: another digest is pinned, and this host has no reason to trust the pin.
        """
        edges = self._edges
        # What runs was the newest when it was taken, so every digest that was seen under the tag is remembered.
        self._seen.note(self._reload.image, [running, newest], edges.clock.now())
        _index, instances = edges.consul.instances(self._service.name)
        decision, view = agree(
            edges.consul,
            self._service.name,
            edges.agent.node,
            self._reload.image,
            newest,
            running,
            able_instances(instances),
            edges.clock,
        )
        self._require_trusted(decision, view.pin, newest, running)
        if view.pin is not None and view.pin.problem:
            log(f"the pin was replaced: {view.pin.problem}", level=WARNING, service=self._service.name)
        is_pinned_now = decision.action is not Action.KEEP
        self._pinned = decision.wanted if is_pinned_now else view.pin.digest if view.pin else ""
        return decision.wanted, decision.why

    def _require_trusted(self, decision: Decision, pinned: Pin | None, newest: str, running: str) -> None:
        """Refuse a digest that only the pin speaks for: whoever can write to Consul KV could choose what runs here."""
        wanted, image = decision.wanted, self._reload.image
        if pinned is None or self._edges.trusts_pins or wanted in (newest, running):
            return
        if wanted not in self._seen.of(image) | self._seen.ran():
            raise GuardRefused(rollout.untrusted(self._service.name, image, pinned, self._edges.agent.node))

    def require_pinned(self, digest: str) -> None:
        """Check, with the lock held, that hosts did not agree on another digest while this one waited.

        :raises GuardRefused: they have; the next reload takes that one.
        """
        found, _index = rollout.find(self._edges.consul, self._service.name)
        if self._pinned is not None and found is not None and found.digest not in ("", digest, self._pinned):
            raise GuardRefused(
                f"while {self._edges.agent.node} waited for its turn to take {digest}, {found.node} pinned "
                f"{found.digest}; run this again to take that one"
            )

    def own_maintenance(self) -> Maintenance | None:
        """What holds this host's instance out, as the catalog shows it."""
        _index, instances = self._edges.consul.instances(self._service.name)
        own = own_instance(instances, self._edges.agent.node, self._service.id)
        return parse(own.maintenance.notes) if own is not None and own.maintenance is not None else None
