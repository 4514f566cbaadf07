"""Whatever happens to files, agent and operators: the next registration converges, and touches nothing foreign."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.registration_fixture import RegistrationHost

NAMES = st.sampled_from(["a", "b", "c"])
FOREIGN = st.sampled_from(["a", "x"])
IDS = st.sampled_from(["one", "two", ""])
KINDS = st.sampled_from([{"http": "http://127.0.0.1:1/"}, {"tcp": "127.0.0.1:1"}, {"ttl": "1h"}])
SERVICE = st.tuples(st.integers(1, 2), st.lists(st.tuples(IDS, KINDS), min_size=1, max_size=2))
FILES = st.one_of(
    st.fixed_dictionaries({"a": SERVICE}, optional={"b": SERVICE}), st.dictionaries(NAMES, SERVICE, max_size=3)
)
# One argument for all that happens beside an edit: hypothesis leaves whole rules out of most sequences.
EVENTS = st.one_of(
    st.tuples(st.just("register_foreign"), FOREIGN, IDS, st.integers(1, 2)),
    st.tuples(st.just("deregister_foreign"), FOREIGN),
    st.tuples(st.just("maintain"), NAMES, st.booleans()),
    st.tuples(st.just("report"), IDS, st.sampled_from(["passing", "warning", "critical"])),
)


class Registrations(RuleBasedStateMachine):
    """Rules are what befalls a host; `converged` is what must follow each."""

    site: RegistrationHost

    @initialize()
    def begin(self) -> None:
        self.site.clear()
        self.maintained: set[str] = set()
        self.is_foreign: set[str] = set()
        self.is_restarted = False

    @rule(event=EVENTS)
    def happen(self, event: tuple[Any, ...]) -> None:
        """Somebody else, an operator or the service itself does something."""
        getattr(self, event[0])(*event[1:])

    @rule(files=FILES, event=EVENTS)
    def happen_to_edited(self, files: dict[str, tuple[int, list[tuple[str, dict[str, str]]]]], event: Any) -> None:
        self.happen(event)
        self.edit(files)

    @rule(files=FILES)
    def edit(self, files: dict[str, tuple[int, list[tuple[str, dict[str, str]]]]]) -> None:
        """The directory holds these files from now on, and no others."""
        for file in self.site.services_dir.iterdir():
            file.unlink()
        for name, (port, checks) in files.items():
            written = []
            for check_id, kind in checks:
                every = {} if "ttl" in kind else {"interval": "1h"}
                written.append(kind | every | ({"id": check_id} if check_id else {}))
            self.site.service(name, port=port, checks=written)

    def register_foreign(self, name: str, check: str, port: int) -> None:
        """Somebody else registers a service, with a check whose ID is free."""
        if name in self.site.services() and name not in self.is_foreign:
            return
        checks = [] if not check or check in self.site.checks() else [{"CheckID": check, "TTL": "1h"}]
        self.site.put("service/register", {"ID": name, "Name": name, "Port": port, "Checks": checks})
        self.is_foreign.add(name)

    def deregister_foreign(self, name: str) -> None:
        if name in self.is_foreign:
            self.site.host.ask.deregister_service(name)
            self.is_foreign.discard(name)
            self.maintained.discard(name)

    def maintain(self, name: str, is_on: bool) -> None:
        if name in self.site.services():
            self.site.put(f"service/maintenance/{name}?enable={str(is_on).lower()}&reason=disk")
            (self.maintained.add if is_on else self.maintained.discard)(name)

    def report(self, check: str, status: str) -> None:
        found = self.site.host.ask.get("/v1/agent/checks").get(check)
        if found and found["Type"] == "ttl":
            self.site.put(f"check/update/{check}", {"Status": status})

    @precondition(lambda self: self.maintained and not self.is_restarted)
    @rule()
    def restart_agent(self) -> None:
        """Once in a sequence: it takes seconds."""
        self.is_restarted = True
        server = self.site.host.server
        server.kill()
        server.restart()

    @invariant()
    def converged(self) -> None:
        foreign, before = self._foreign(), self._own()
        serving = self._serving()

        outcome = self.site("register", "--allow-empty")

        assert self._foreign() == foreign
        files = {file.stem for file in self.site.services_dir.iterdir()}
        own = self._own()
        if outcome.code == 78:  # two files claim one CheckID: they are left as they are, and nothing is removed
            changed = {name for name in own.keys() | before.keys() if own.get(name) != before.get(name)}
            faulty = {name for name in files if f"{name}.json" in outcome.err}
            assert not changed & faulty
            assert before.keys() <= own.keys()
            return
        refused = {name for name in files if f"{name}: not changed: " in outcome.err}
        assert outcome.code == (1 if refused else 0)
        assert files - refused <= own.keys() <= files
        plan = self.site.planned("--allow-empty")
        assert {name: one["action"] for name, one in plan.items()} == {
            name: "refuse" if name in refused else "keep" for name in files
        }
        self.maintained &= own.keys() | self.is_foreign
        held = {one.removeprefix("_service_maintenance:") for one in self.site.checks() if one.startswith("_service_")}
        assert held == self.maintained
        # Nothing listens where new http and tcp checks ask: where only TTL checks were added, it goes on serving.
        kinds = {name: self._kinds(name) for name in own}
        assert {name for name in serving if name in own and kinds[name] <= {"ttl"}} <= self._serving()

    def teardown(self) -> None:
        self.site.clear()

    def _own(self) -> dict[str, Any]:
        return {name: one for name, one in self.site.services().items() if name not in self.is_foreign}

    def _foreign(self) -> list[Any]:
        services, checks = self.site.services(), self.site.host.ask.get("/v1/agent/checks").values()
        held = [services[name] for name in sorted(self.is_foreign)]
        return held + [one for one in checks if one["ServiceID"] in self.is_foreign]

    def _kinds(self, name: str) -> set[str]:
        checks = self.site.host.ask.get("/v1/agent/checks").values()
        return {one["Type"] for one in checks if one["ServiceID"] == name and one["Type"] != "maintenance"}

    def _serving(self) -> set[str]:
        failing = {
            one["ServiceID"]
            for one in self.site.host.ask.get("/v1/agent/checks").values()
            if one["Status"] == "critical" and one["Type"] != "maintenance"
        }
        return set(self.site.services()) - failing


def test_any_sequence_of_events_ends_converged_and_leaves_foreign_things_alone(host: ConsulHost) -> None:
    wait_until(lambda: bool(host.ask.get("/v1/status/leader")), 10, "the server leads")
    directories = []

    class OnThisHost(Registrations):
        def __init__(self) -> None:
            super().__init__()
            directories.append(Path(tempfile.mkdtemp(dir=host.directory)))
            self.site = RegistrationHost(directories[-1], host)

    run_state_machine_as_test(
        OnThisHost,
        settings=settings(
            phases=[Phase.generate],  # each try to shorten a failure takes a second, and sequences are short
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for directory in directories:
        shutil.rmtree(directory)
