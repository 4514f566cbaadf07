"""Observes everything that the guard judges, and the digest that the fleet takes. Decides nothing."""

import shlex

from agent.errors import GuardRefused
from agent.fleet import (
    Pin,
    SeenDigests,
    VersionAction,
    VersionDecision,
    agree,
    decide,
    find_suspects,
    observe,
    rollout,
)
from agent.logs import WARNING, log
from agent.maintenance import Maintenance
from agent.reload.dependencies import ReloadContext
from agent.reload.drain import Drainer
from agent.reload.guard import Observed, able_instances
from agent.reload.instance import maintenance_of, own_instance
from agent.reload.window import window_state, zone
from agent.text import short_digest


class Observer:
    def __init__(self, context: ReloadContext, drainer: Drainer, *, is_in_maintenance: bool) -> None:
        self._service = context.service
        self._section = context.section
        self._restarter = context.restarter
        self._deps = context.deps
        self._drainer = drainer
        self._is_in_maintenance = is_in_maintenance
        self._seen = SeenDigests(context.deps.state_dir, context.service.name)
        self._pinned: str | None = None

    def look(
        self,
        wanted: str,
        *,
        is_queueing: bool = False,
        own_reload: str = "",
        differences: tuple[str, ...] = (),
    ) -> Observed:
        """Observe everything now.

        ``own_reload``: the ID of a reload that has already enabled its maintenance. ``differences``: found by the
        comparison of the checks before the drain.
        """
        deps, section, now = self._deps, self._section, self._deps.clock.now()
        _index, instances = deps.consul.instances(self._service.name)
        view = observe(deps.consul, self._service.name, now)
        own = (deps.agent.node, self._service.id)
        prefix = section.lock_prefix(self._service.name)
        vanished = find_suspects(deps.consul, self._service.name, prefix, wanted, own) if wanted else ()
        return Observed(
            instances,
            deps.agent.node,
            self._service,
            section,
            now,
            view,
            is_queueing=is_queueing,
            own_reload=own_reload,
            wanted=wanted,
            suspect=next(iter(vanished), None),
            image_created=self._restarter.image_created(wanted) if section.min_age else None,
            min_age=section.min_age,
            window=window_state(section.windows, zone(section.timezone), now),
            is_in_maintenance_allowed=self._is_in_maintenance,
            stopped=self._restarter.stopped(),
            differences=differences,
            remembered=self._drainer.dns_cache_seconds(),
        )

    def wanted(self, newest: str, running: str) -> tuple[str, str]:
        """Return the digest that this host would take, and why. Changes nothing.

        :raises GuardRefused: another digest is pinned, and this host does not trust the pin.
        """
        consul, now = self._deps.consul, self._deps.clock.now()
        _index, instances = consul.instances(self._service.name)
        view = observe(consul, self._service.name, now)
        decision = decide(view, self._section.image, newest, running, able_instances(instances), now)
        self._require_trusted(decision, view.pin, newest, running)
        return decision.wanted, self._why(decision, newest)

    def pin_forced(self, newest: str) -> str:
        """Pin the newest digest for all hosts because an operator forces it; return what that overrides, or nothing."""
        deps, service, now = self._deps, self._service.name, self._deps.clock.now()
        self._seen.note(self._section.image, [newest], now)
        found, index = rollout.find(deps.consul, service)
        self._pinned = newest
        if found is not None and found.digest == newest:
            return ""
        rollout.pin(deps.consul, service, Pin(self._section.image, newest, deps.agent.node, now), index)
        return (
            f"the rollout of {short_digest(found.digest)}, pinned by {found.node}"
            if found is not None and found.digest
            else ""
        )

    def agree_on_digest(self, newest: str, running: str) -> tuple[str, str]:
        """Return the digest that this host takes, and why, like `wanted`.

        Pin it for all hosts if this host is the first to find it.
        """
        deps = self._deps
        # The running digest was the newest when it was taken, so every digest that was seen under the tag is recorded.
        self._seen.note(self._section.image, [running, newest], deps.clock.now())
        _index, instances = deps.consul.instances(self._service.name)
        decision, view = agree(
            deps.consul,
            self._service.name,
            deps.agent.node,
            self._section.image,
            newest,
            running,
            able_instances(instances),
            deps.clock,
        )
        self._require_trusted(decision, view.pin, newest, running)
        if view.pin is not None and view.pin.problem:
            log(f"the pin was replaced: {view.pin.problem}", level=WARNING, service=self._service.name)
        is_pinned_now = decision.action is not VersionAction.KEEP
        self._pinned = decision.wanted if is_pinned_now else view.pin.digest if view.pin else ""
        return decision.wanted, self._why(decision, newest)

    def _why(self, decision: VersionDecision, newest: str) -> str:
        if decision.wanted == newest:
            return decision.why
        force = shlex.join(["svcagent", "reload", self._service.name, "--force"])
        return f"{decision.why}. To take the newer {short_digest(newest)} on all hosts instead, run: {force}"

    def _require_trusted(self, decision: VersionDecision, pinned: Pin | None, newest: str, running: str) -> None:
        """Refuse a digest that only the pin names: otherwise write access to Consul KV would suffice to choose it."""
        wanted, image = decision.wanted, self._section.image
        if pinned is None or self._deps.trusts_pins or wanted in (newest, running):
            return
        if not self._seen.knows(image, wanted):
            raise GuardRefused(
                rollout.untrusted(self._service.name, image, pinned, self._deps.agent.node), kind="pin-untrusted"
            )

    def require_pinned(self, digest: str) -> None:
        """With the lock held, raise `GuardRefused` if hosts agreed on another digest while this one waited."""
        found, _index = rollout.find(self._deps.consul, self._service.name)
        if self._pinned is not None and found is not None and found.digest not in ("", digest, self._pinned):
            raise GuardRefused(
                f"while {self._deps.agent.node} waited for the lock to take {short_digest(digest)}, "
                f"{found.node} pinned "
                f"{short_digest(found.digest)}. To take that one, run the command again",
                kind="pin-changed",
            )

    def own_maintenance(self) -> Maintenance | None:
        """Return the maintenance of this host's instance, as the catalog shows it."""
        _index, instances = self._deps.consul.instances(self._service.name)
        return maintenance_of(own_instance(instances, self._deps.agent.node, self._service.id))
