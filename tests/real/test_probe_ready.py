"""Readiness beside a real Consul agent and a real engine: which results count, and what is accepted."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.consul import Consul
from agent.definitions import Check, ConsulSettings, Ready, ReloadSection, Service, Settings
from agent.engine.client import Engine
from agent.errors import NotReady
from agent.registration import AgentState, ChangeAction, apply_change, make_plan, renew_checks
from agent.reload.checks import CheckedInstance
from agent.reload.probe import Prober, probe_status
from agent.reload.ready import Readiness
from agent.reload.settle import AgentView, ConsulView
from agent.reload.survey import Baseline, InstanceSurvey
from tests.lab import asking, parts
from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.real.engine_fixture import BUSYBOX, SLEEP, DockerHost, docker_host
from tests.real.probe_fixture import Origin, origin


@dataclass
class CheckedService:
    """An agent that runs scripts, with svcagent's connection to it."""

    ask: asking.Consul
    consul: Consul
    directory: Path
    engine: Engine
    service: Service = field(default_factory=lambda: Service(name="web"))

    def register(self, *checks: Check, until: str = "", **fields: Any) -> None:
        """Make the agent hold a service with these checks; wait for the first one's status, if one is given."""
        self.service = Service(name="web", checks=checks, **fields)
        plan = make_plan([self.service], AgentState(*self.consul.services_and_checks()))
        for change in plan:
            apply_change(self.consul, change, probe_status)
        assert [change.action for change in plan] in ([ChangeAction.CREATE], [ChangeAction.UPDATE], [ChangeAction.KEEP])
        if until:
            self.await_status(until)

    def reload(self, *, restart: bool, **ready: Any) -> ReloadSection:
        how: dict[str, Any] = {"restart": ("true",)} if restart else {"image": "web", "container": "app"}
        return ReloadSection(**how, ready=Ready(**{"timeout": 20.0, "interval": 0.05, "successes": 2, **ready}))

    def instance(self, reload: ReloadSection, prober: Prober | None = None) -> CheckedInstance:
        return CheckedInstance(self.service, reload, self.consul, self.engine, prober or Prober(), SystemClock())

    def survey(self, *, restart: bool = True, **ready: Any) -> Baseline:
        """What a survey of the instance that serves now finds."""
        reload = self.reload(restart=restart, **ready)
        return InstanceSurvey(self.instance(reload)).take()

    def in_consul(self, before: dict[str, str] | None = None) -> ConsulView:
        """What the agent shows of it, as of an instance that clients use."""
        return AgentView(self.instance(self.reload(restart=True))).observe(before or {})

    def readiness(self, before: dict[str, str] | None = None, *, restart: bool = True, **ready: Any) -> Readiness:
        """Of that service, restarted by a command or in the container ``app``."""
        reload = self.reload(restart=restart, **ready)
        return Readiness(self.instance(reload), lambda: before or {})

    def expecting(self, *before: dict[str, str], **how: Any) -> Readiness:
        """The same, which counts results from now on."""
        readiness = self.readiness(*before, **how)
        readiness.expect_fresh_results()
        return readiness

    def check_id(self, at: int = 0) -> str:
        """Of the check that was registered there."""
        return self.service.checks[at].id

    def status(self, at: int = 0) -> str:
        return str(self.ask.get("/v1/agent/checks")[self.check_id(at)]["Status"])

    def await_status(self, status: str, at: int = 0) -> None:
        wait_until(lambda: self.status(at) == status, 20, f"{self.check_id(at)} is {status}")

    def answer_with(self, code: int) -> list[str]:
        """A command whose exit code can be changed while it is a check."""
        file = self.directory / "code"
        file.write_text(str(code))
        return ["/bin/sh", "-c", f"exit $(cat {file})"]


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerHost]:
    """An engine that forwards ports by docker-proxy, as engines do by default."""
    with docker_host(has_proxy=True) as found:
        reference = found.latest
        found.engine.pull(reference, found.push("1"), lambda _: None)
        found.add_network("own", 64, internal=False)
        yield found


@pytest.fixture(scope="module")
def agent(docker: DockerHost) -> Iterator[tuple[asking.Consul, ConsulSettings, Path]]:
    """An agent that runs scripts, also inside that engine's containers."""
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory) | {"DOCKER_HOST": docker.server.url}
        server = parts.consul_server(ground.directory, address, environment, {"enable_script_checks": True})
        with server.running(), closing(asking.Consul(f"http://{address}:8500")) as ask:
            yield ask, Settings.load(None, {"CONSUL_HTTP_ADDR": f"{address}:8500"}).consul, ground.directory


@pytest.fixture
def site(agent: tuple[asking.Consul, ConsulSettings, Path], docker: DockerHost) -> Iterator[CheckedService]:
    ask, settings, directory = agent
    consul = Consul(settings)
    engine = Engine(docker.server.url, docker.environment, SystemClock(), docker.proc)
    try:
        yield CheckedService(ask, consul, directory, engine)
    finally:
        for name in ask.get("/v1/agent/services"):
            ask.deregister_service(name)
        for entry in docker.api.containers(all=True):
            docker.api.remove_container(entry["Id"], force=True)
        engine.close()
        consul.close()


@pytest.fixture
def web() -> Iterator[Origin]:
    with origin() as found:
        yield found


def script(argv: list[str], **fields: Any) -> Check:
    """A check that only Consul can run."""
    return Check(args=tuple(argv), interval="1s", timeout="1s", **fields)


def in_container(name: str) -> Check:
    return Check(docker_container_id=name, args=(BUSYBOX, "true"), interval="1s", timeout="5s")


def http(web: Origin, **fields: Any) -> Check:
    return Check(http=f"http://127.0.0.1:{web.port}/hc", **{"interval": "1s", "timeout": "1s", **fields})


def test_a_result_from_before_the_restart_does_not_count(site: CheckedService) -> None:
    site.register(script(site.answer_with(0)), until="passing")
    (site.directory / "code").write_text("2")
    readiness = site.expecting(timeout=3.0)

    with pytest.raises(NotReady) as caught:
        readiness.wait(is_fresh=True)
    assert site.check_id() in str(caught.value)
    assert caught.value.signature == f"{site.check_id()} consul critical"


def test_a_check_that_consul_runs_after_the_restart_counts_when_it_has_run(site: CheckedService) -> None:
    site.register(script(site.answer_with(0)), until="passing")
    readiness = site.expecting()

    assert site.status() == "critical"
    assert site.in_consul().unproven == (site.check_id(),)
    fault = readiness.missing_now()
    assert fault is not None
    assert "has not run check" in str(fault)
    assert fault.signature == ""
    readiness.wait(is_fresh=True)
    assert site.status() == "passing"
    assert site.in_consul().unproven == ()


def test_expecting_fresh_results_leaves_the_registration_as_it_is(site: CheckedService) -> None:
    """Renewed checks are the same checks: svcagent register has nothing to do, and maintenance stays."""
    site.register(script(site.answer_with(0)), Check(ttl="1h"), Check(alias_service="web"))
    site.ask.put("/v1/agent/service/maintenance/web?enable=true&reason=test")
    readiness = site.expecting()
    readiness.expect_fresh_results()

    plan = make_plan([site.service], AgentState(*site.consul.services_and_checks()))
    assert [change.action for change in plan] == [ChangeAction.KEEP]
    maintenance = site.consul.services()["web"].maintenance
    assert maintenance is not None
    assert maintenance.notes == "test"


def test_a_ttl_check_counts_when_the_service_has_reported_after_the_restart(site: CheckedService) -> None:
    site.register(Check(ttl="1h"))
    site.ask.put(f"/v1/agent/check/pass/{site.check_id()}")
    readiness = site.expecting()

    assert "has not run check" in str(readiness.missing_now())
    site.ask.put(f"/v1/agent/check/pass/{site.check_id()}")
    assert readiness.missing_now() is None
    assert site.in_consul().unproven == ()


def test_an_alias_check_counts_by_the_service_that_it_follows(site: CheckedService) -> None:
    """Consul does not run it, so that there is no older or newer result."""
    site.ask.put("/v1/agent/service/register", {"Name": "db", "Check": {"TTL": "1h", "Status": "critical"}})
    site.register(Check(alias_service="db"), until="critical")
    readiness = site.expecting()
    assert "service:web:alias_service" in str(readiness.missing_now())
    site.ask.put("/v1/agent/check/pass/service:db")
    readiness.wait()

    assert site.in_consul().unproven == ()


def test_a_docker_check_by_name_is_run_in_the_new_container(site: CheckedService, docker: DockerHost) -> None:
    reference = docker.latest
    docker.run("app", reference, SLEEP)
    site.register(in_container("app"), until="passing")
    docker.api.remove_container("app", force=True)
    docker.run("app", reference, SLEEP)
    readiness = site.expecting(restart=False)
    readiness.wait(is_fresh=True)

    assert site.status() == "passing"
    assert site.survey(restart=False).differences == ()


def test_a_check_that_is_missing_from_the_agent_is_critical_and_registered_again(site: CheckedService) -> None:
    """A process that was killed while it renewed the check left it out."""
    site.register(script(site.answer_with(0)), until="passing")
    site.ask.deregister_check(site.check_id())
    readiness = site.readiness()

    assert site.in_consul().unproven == (site.check_id(),)
    assert "not registered" in str(readiness.missing_now())
    readiness.wait()
    assert site.status() == "passing"


def test_a_foreign_registration_is_not_touched_and_its_result_counts_an_interval_later(site: CheckedService) -> None:
    check = script(site.answer_with(0))
    site.register(check)
    body = site.service.registration()
    site.ask.deregister_service("web")
    site.ask.put("/v1/agent/service/register", body)
    site.await_status("passing")
    readiness = site.expecting()

    assert site.status() == "passing"
    assert "may be older" in str(readiness.missing_now())
    readiness.wait()


@pytest.mark.parametrize("kind", ["http", "tcp", "args"])
def test_a_renewed_check_is_unproven_until_consul_has_run_it(site: CheckedService, web: Origin, kind: str) -> None:
    checks = {
        "http": http(web),
        "tcp": Check(tcp=f"127.0.0.1:{web.port}", interval="1s"),
        "args": script(["/bin/sh", "-c", "echo good"]),
    }
    site.register(checks[kind], until="passing")
    renew_checks(site.consul, site.service, {site.check_id(): "critical" if kind == "args" else "passing"})

    assert site.in_consul().unproven == (site.check_id(),)
    wait_until(lambda: site.in_consul().unproven == (), 10, "Consul has run it")


def test_what_consul_passes_and_svcagent_fails_is_a_difference(site: CheckedService, web: Origin) -> None:
    site.register(http(web, interval="1h", status="passing"))
    web.answers["/hc"] = lambda talk: talk.status("503 No")

    found = site.survey()

    assert len(found.differences) == 1
    assert site.check_id() in found.differences[0]
    assert "is passing in Consul" in found.differences[0]
    assert "answers 503" in found.differences[0]
    assert found.statuses == {site.check_id(): "critical"}


def test_a_check_that_fails_once_is_no_difference(site: CheckedService, web: Origin) -> None:
    site.register(http(web, interval="1h", status="passing"))
    answers = iter(["503 No", "200 OK"])
    web.answers["/hc"] = lambda talk: talk.status(next(answers))

    assert site.survey().differences == ()


def test_what_fails_for_both_is_no_difference(site: CheckedService, web: Origin) -> None:
    web.answers["/hc"] = lambda talk: talk.status("503 No")
    site.register(http(web), until="critical")

    found = site.survey()

    assert (found.differences, found.statuses) == ((), {site.check_id(): "critical"})


def test_a_survey_keeps_consuls_status_of_what_only_consul_runs_and_of_what_others_added(site: CheckedService) -> None:
    site.register(script(site.answer_with(1)), until="warning")
    added = {"ID": "added", "Name": "added", "ServiceID": "web", "TTL": "1h", "Status": "critical"}
    site.ask.put("/v1/agent/check/register", added)
    site.ask.put("/v1/agent/service/maintenance/web?enable=true")

    assert site.survey().statuses == {site.check_id(): "warning", "added": "critical"}


def test_a_docker_check_that_names_a_containers_id_is_a_difference(site: CheckedService, docker: DockerHost) -> None:
    container = docker.run("app", docker.latest, SLEEP)
    site.register(in_container(container[:12]), until="passing")

    (difference,) = site.survey(restart=False).differences

    assert site.check_id() in difference
    assert '"docker_container_id": "app"' in difference


def test_a_check_that_consul_runs_too_seldom_to_be_awaited_is_a_difference(site: CheckedService) -> None:
    site.register(Check(args=("/bin/true",), interval="30s", status="passing"))

    assert "reload.ready.timeout" in site.survey(timeout=20.0).differences[0]
    assert site.survey(timeout=60.0).differences == ()


def test_what_warned_before_the_reload_does_not_fail_it(site: CheckedService, web: Origin) -> None:
    web.answers["/hc"] = lambda talk: talk.status("429 Too Many Requests")
    site.register(http(web), script(site.answer_with(1)), until="warning")
    site.await_status("warning", at=1)

    before = dict(site.survey().statuses)
    readiness = site.expecting(before)
    readiness.wait()

    assert set(before.values()) == {"warning"}
    assert readiness.last_statuses == {site.check_id(): "warning"}


def test_a_new_warning_fails_the_new_version_and_not_one_that_returns(site: CheckedService, web: Origin) -> None:
    web.answers["/hc"] = lambda talk: talk.status("429 Too Many Requests")
    site.register(http(web))

    with pytest.raises(NotReady) as caught:
        site.readiness({site.check_id(): "passing"}, timeout=0.3).wait()
    assert caught.value.signature == f"{site.check_id()} http 429"
    site.readiness({site.check_id(): "passing"}).wait(is_returning=True)


def test_an_instance_that_was_critical_before_may_return_as_it_was(site: CheckedService, web: Origin) -> None:
    web.answers["/hc"] = lambda talk: talk.status("503 No")
    site.register(http(web), script(site.answer_with(2)), until="critical")
    before = {site.check_id(): "critical", site.check_id(1): "critical"}

    site.readiness(before).wait(is_returning=True)
    with pytest.raises(NotReady):
        site.readiness(before, timeout=0.3).wait()


def test_what_consul_passes_returns_though_svcagents_own_probe_fails(site: CheckedService, web: Origin) -> None:
    """And Consul's pass is one of after the return began."""
    web.answers["/hc"] = lambda talk: talk.status("200 OK" if "X-Asked-By: consul" in talk.request else "503 No")
    site.register(http(web, header={"X-Asked-By": ("consul",)}), until="passing")

    class Other(Prober):
        """It lacks what Consul has, like a certificate."""

        def probe(self, check: Check, limit: float) -> Any:
            return super().probe(check.replace(header={}), limit)

    reload = ReloadSection(restart=("true",), ready=Ready(timeout=20.0, interval=0.05, successes=2))
    instance = site.instance(reload, Other())
    readiness = Readiness(instance)

    assert len(InstanceSurvey(instance).take().differences) == 1
    readiness.wait(is_returning=True)

    assert readiness.last_statuses == {site.check_id(): "passing"}
    assert readiness.signatures == {f"{site.check_id()} http 503"}


def test_warm_up_that_fails_does_not_keep_an_instance_out_that_returns(site: CheckedService, web: Origin) -> None:
    site.register(http(web))
    web.answers["/warm"] = lambda talk: talk.status("404 Not Found")
    warmup = (f"http://127.0.0.1:{web.port}/warm",)

    with pytest.raises(NotReady) as caught:
        site.readiness(warmup=warmup).wait()
    returning = site.readiness(warmup=warmup)
    returning.wait(is_returning=True)

    assert caught.value.signature == "warm-up http 404"
    assert returning.signatures == {"warm-up http 404"}


def test_what_consul_shows_as_critical_later_is_reported_with_its_output(site: CheckedService) -> None:
    site.register(script(["/bin/sh", "-c", "echo no \033[31mdatabase; exit 2"]), until="critical")
    wait_until(lambda: site.in_consul().unproven == (), 10, "it has run")

    said = str(site.in_consul().fault)

    assert site.check_id() in said
    assert "database" in said
    assert said.isprintable()
    assert site.in_consul({site.check_id(): "critical"}).fault is None


def test_a_wait_asks_its_caller_in_each_round(site: CheckedService, web: Origin) -> None:
    site.register(http(web))
    web.answers["/hc"] = lambda talk: talk.status("503 No")
    rounds: list[int] = []

    class LostError(Exception):
        pass

    def each() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            raise LostError

    with pytest.raises(LostError):
        site.readiness().wait(each_round=each)


@pytest.fixture
def published(docker: DockerHost) -> Callable[[str], Check]:
    """Runs a shell command in a container with a published port; the TCP check of that port."""

    def run(command: str) -> Check:
        address = docker.repository.split(":")[0]
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        docker.run(
            "app",
            docker.latest,
            [BUSYBOX, "sh", "-c", command],
            ports=[8080],
            host_config={"network_mode": "own", "port_bindings": {8080: (address, port)}},
        )
        return Check(tcp=f"{address}:{port}", interval="1s", timeout="1s")

    return run


def test_a_published_port_counts_only_when_the_container_itself_listens(
    site: CheckedService, docker: DockerHost, published: Callable[[str], Check]
) -> None:
    """docker-proxy accepts before, and Consul calls that passing."""
    check = published(f"while [ ! -e /go ]; do {BUSYBOX} sleep 0.1; done; exec {BUSYBOX} httpd -f -p 8080")
    site.register(check, until="passing")
    readiness = site.readiness(restart=False)

    fault = readiness.missing_now()
    assert fault is not None
    assert "nothing listens on that port inside app" in str(fault)
    assert fault.signature == f"{site.check_id()} not listening"
    docker.executed("app", "touch", "/go")
    readiness.wait(is_fresh=True)


def test_a_listener_on_the_containers_loopback_is_not_reached_through_the_published_port(
    site: CheckedService, docker: DockerHost, published: Callable[[str], Check]
) -> None:
    site.register(published(f"exec {BUSYBOX} httpd -f -p 127.0.0.1:8080"))
    wait_until(lambda: "8080" in "8080" + docker.executed("app", "netstat", "-ltn"), 10, "it listens")

    assert "nothing listens" in str(site.readiness(restart=False).missing_now())


def test_a_container_that_is_stopped_or_gone_is_reported(site: CheckedService, docker: DockerHost, web: Origin) -> None:
    docker.run("app", docker.latest, SLEEP)
    site.register(http(web))
    readiness = site.readiness(restart=False)

    assert readiness.missing_now() is None
    docker.api.kill("app")
    wait_until(lambda: not docker.engine.container("app").is_running, 10, "it has stopped")
    assert "exit status 137" in str(readiness.missing_now())
    docker.api.remove_container("app", force=True)
    fault = readiness.missing_now()
    assert fault is not None
    assert fault.signature == "container gone"
