"""When an instance counts as ready: by checks that are really asked, of a container that is made up."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.consul import CheckState, Consul
from agent.definitions import Check, Ready, ReloadSection, Service
from agent.engine.client import Engine
from agent.engine.model import Container
from agent.errors import ConsulUnreachable, DockerUnreachable, Interrupted, NotFound, NotReady, Rejected
from agent.reload.checks import CheckedInstance
from agent.reload.probe import Prober, ProbeStatus, advice
from agent.reload.ready import Readiness
from tests.support.http import QuietHandler, serving

CONTAINER = Container(
    id="new",
    name="web",
    image_id="sha256:1",
    image_ref="web:latest",
    is_running=True,
    exit_code=0,
    restart_count=0,
    started_at="",
    health=None,
    network_mode="host",
    pid=7,
    stop_timeout=None,
    restart_policy="no",
)


@dataclass
class FakeEngine:
    """Shows a container as each look is to find it; the last for ever."""

    looks: list[Container]

    def container(self, _name: str) -> Container:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class NoConsul:
    """Nobody may ask Consul where svcagent can ask itself."""


@dataclass
class OddConsul:
    """Raises an error when it is asked, and shows no check afterwards."""

    errors: list[BaseException]

    def checks(self) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        return {}


@dataclass
class Origin:
    """A web server that counts what it was asked."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    delays: dict[str, float] = field(default_factory=dict)
    redirect: str = ""


@pytest.fixture
def origin() -> Iterator[Origin]:
    """``/trickle`` answers a byte every 50 ms, ``/broken`` with 500; all after the seconds in ``delays``."""
    found, over = Origin(), threading.Event()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            over.wait(found.delays.get(self.path, 0.0))
            self.send_response({"/broken": 500, "/redirect": 302}.get(self.path, 200))
            if self.path == "/redirect":
                self.send_header("Location", found.redirect)
            self.end_headers()
            while self.path == "/trickle" and not over.wait(0.05):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return

    with serving(Handler) as address:
        found.url = f"http://{address}"
        try:
            yield found
        finally:
            over.set()


def readiness(origin: Origin, *looks: Container, restart: bool = False, **ready: Any) -> Readiness:
    service = Service(name="web", checks=(Check(http=f"{origin.url}/hc", interval="10s", timeout="1s"),))
    wanted = Ready(**{"timeout": 0.3, "interval": 0.01, **ready})
    reload = (
        ReloadSection(restart=("true",), ready=wanted)
        if restart
        else ReloadSection(image="web", container="web", ready=wanted)
    )
    engine = FakeEngine(list(looks))
    clock = SystemClock()
    return Readiness(
        CheckedInstance(service, reload, cast("Consul", NoConsul()), cast("Engine", engine), Prober(clock), clock)
    )


def test_every_check_must_succeed_several_times_in_a_row_and_warm_up_comes_last(origin: Origin) -> None:
    readiness(origin, CONTAINER, successes=2, warmup=(f"{origin.url}/a", f"{origin.url}/b")).wait()

    assert origin.asked == ["/hc", "/hc", "/a", "/b"]


def test_a_service_without_a_container_is_asked_by_its_checks_alone(origin: Origin) -> None:
    readiness(origin, restart=True, successes=2).wait(is_fresh=True)

    assert origin.asked == ["/hc", "/hc"]


STOPPED = replace(CONTAINER, is_running=False, exit_code=3)
GONE = [
    ([CONTAINER, CONTAINER, STOPPED], "exit status 3"),
    ([CONTAINER, CONTAINER, replace(CONTAINER, restart_count=1)], "restarts 1"),
    ([CONTAINER, CONTAINER, replace(CONTAINER, id="other")], "replaced by another one"),
]


@pytest.mark.parametrize(("looks", "said"), GONE)
def test_a_container_that_ended_is_not_waited_for(origin: Origin, looks: list[Container], said: str) -> None:
    """Exited, restarted or replaced: at once, with minutes left to wait."""
    with pytest.raises(NotReady, match=said):
        readiness(origin, *looks, timeout=60.0).wait()

    assert len(origin.asked) == 1


def test_a_container_started_by_this_reload_may_not_have_been_restarted_before_the_first_look(origin: Origin) -> None:
    """One that has run for long may have been, long ago."""
    restarted = replace(CONTAINER, restart_count=2)

    with pytest.raises(NotReady, match="restarts 2"):
        readiness(origin, restarted).wait(is_fresh=True)
    readiness(origin, restarted).wait()


def test_unhealthy_is_not_final_and_the_health_checks_output_is_reported(origin: Origin) -> None:
    """Docker goes on asking: it may be healthy yet; if not, the limit counts."""
    unhealthy = replace(CONTAINER, health="unhealthy", health_output="index not loaded")

    readiness(origin, unhealthy, unhealthy, replace(CONTAINER, health="healthy")).wait()
    with pytest.raises(NotReady, match="index not loaded"):
        readiness(origin, unhealthy).wait()


@pytest.mark.parametrize("path", ["/slow", "/trickle"])
def test_a_warm_up_request_has_its_own_limit(origin: Origin, path: str) -> None:
    """For the whole answer: one that comes byte by byte does not outlast it; the message names the key."""
    origin.delays = {"/slow": 5.0}
    clock = SystemClock()
    began = clock.monotonic()

    with pytest.raises(NotReady, match=r"reload\.ready\.warmup_timeout"):
        readiness(origin, CONTAINER, warmup=(f"{origin.url}{path}",), warmup_timeout=0.4).wait()

    assert 0.4 <= clock.monotonic() - began < 3


def test_a_warm_up_request_may_take_longer_than_the_limit_for_readiness(origin: Origin) -> None:
    origin.delays = {"/a": 0.4}

    readiness(origin, CONTAINER, timeout=0.2, warmup=(f"{origin.url}/a",)).wait()

    assert origin.asked[-1] == "/a"


def test_a_warm_up_request_that_is_refused_fails_the_new_instance(origin: Origin) -> None:
    with pytest.raises(NotReady) as caught:
        readiness(origin, CONTAINER, warmup=(f"{origin.url}/broken",)).wait()
    assert caught.value.signature == "warm-up http 500"


def test_a_container_that_ends_during_warm_up_is_reported_as_that(origin: Origin) -> None:
    with pytest.raises(NotReady) as caught:
        readiness(origin, CONTAINER, CONTAINER, STOPPED, successes=1, warmup=(f"{origin.url}/a",)).wait()
    assert caught.value.signature == "container exit 3"


def test_a_slow_body_is_judged_by_the_status_at_the_timeout(origin: Origin) -> None:
    """Consul does the same: it reads the body for its output, and ignores that it is cut off."""
    answer = Prober().probe(Check(http=f"{origin.url}/trickle", interval="10s", timeout="200ms"), 60.0)

    assert (answer.status, answer.message) == (ProbeStatus.PASSING, f"{origin.url}/trickle answers 200")


def test_a_port_without_a_listener_is_reported_with_the_reason() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"

        answer = Prober().probe(Check(http=url, interval="10s"), 1.0)

    assert (answer.status, answer.message, answer.failure) == (
        ProbeStatus.CRITICAL,
        f"{url}: Connection refused",
        "refused",
    )


@dataclass
class OddEngine:
    error: BaseException

    def container(self, _name: str) -> Container:
        raise self.error


ODD = [RuntimeError("odd"), OSError(5, "odd"), ValueError("odd"), UnicodeError("odd"), RecursionError(), MemoryError()]


def odd(consul: Any, engine: Any, *, timeout: float = 0.02) -> Readiness:
    """A service with a check that only Consul can run."""
    service = Service(name="web", checks=(Check(ttl="1h"),))
    reload = ReloadSection(image="web", container="web", ready=Ready(timeout=timeout, interval=0.01))
    return Readiness(
        CheckedInstance(service, reload, cast("Consul", consul), cast("Engine", engine), Prober(), SystemClock())
    )


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_an_exception_of_any_type_counts_as_not_ready(error: Exception) -> None:
    """Of the Engine as of Consul; unknown counts as no."""
    for readiness in (odd(OddConsul([error] * 1000), FakeEngine([CONTAINER])), odd(OddConsul([]), OddEngine(error))):
        with pytest.raises(NotReady, match=f"cannot be judged: {type(error).__name__}") as caught:
            readiness.wait()
        assert caught.value.signature == ""
        assert "cannot be judged" in str(readiness.missing_now())


@pytest.mark.parametrize("error", [ConsulUnreachable("gone"), DockerUnreachable("gone"), Interrupted(15)])
def test_what_the_caller_retries_and_signals_are_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)):
        odd(OddConsul([error]), FakeEngine([CONTAINER])).wait()
    with pytest.raises(type(error)):
        odd(OddConsul([]), OddEngine(error)).missing_now()


def test_a_container_that_is_gone_is_not_waited_for() -> None:
    with pytest.raises(NotReady) as caught:
        odd(OddConsul([]), OddEngine(NotFound("no container web")), timeout=60.0).wait()

    assert caught.value.signature == "container gone"


def test_a_container_that_was_unhealthy_before_or_returns_may_be_unhealthy(origin: Origin) -> None:
    """Consul's checks decide who is sent to it. One that is still starting is waited for."""
    unhealthy, starting = replace(CONTAINER, health="unhealthy"), replace(CONTAINER, health="starting")

    readiness(origin, unhealthy).wait(is_returning=True)
    assert readiness(origin, starting).missing_now(is_returning=True) is not None
    assert readiness(origin, unhealthy).missing_now() is not None


def test_an_unresolvable_redirect_is_a_critical_answer_in_one_line(origin: Origin) -> None:
    """The library below raises ValueError for this URL."""
    origin.redirect = "http://[10.0.0.1]:8080/"

    result = Prober().probe(Check(http=f"{origin.url}/redirect", interval="10s"), 1.0)

    assert (result.status, result.failure) == (ProbeStatus.CRITICAL, "redirects")
    assert "[10.0.0.1]" in result.message


@pytest.mark.parametrize(
    ("signature", "is_slow"),
    [
        ("service:web:http http 404", False),
        ("service:web:http http 500", False),
        ("service:web:http http 503", True),
        ("service:web:http http 429", True),
        ("service:web:http timeout", True),
        ("service:web:http tls", False),
        ("refused", False),
        ("service:web:tcp not listening", False),
        ("container unhealthy", True),
        ("service:web:grpc consul critical", True),
        ("", True),
    ],
)
def test_only_what_may_be_slow_is_advised_to_get_more_time(signature: str, is_slow: bool) -> None:
    assert ("ready.timeout" in advice(signature)) is is_slow


def test_a_heartbeat_counts_only_if_it_is_known_to_be_from_the_new_container() -> None:
    """If the renewal of the check failed, Consul may still show the old container's. A returning one served before."""

    class Heartbeats:
        def services(self) -> dict[str, Any]:
            raise Rejected("not registered")

        def checks(self) -> dict[str, CheckState]:
            return {"service:web:ttl": CheckState("service:web:ttl", "", "passing", "", "web")}

    readiness = odd(Heartbeats(), FakeEngine([CONTAINER]))
    with pytest.raises(Rejected):
        readiness.expect_fresh_results()

    assert "may be older" in str(readiness.missing_now())
    assert "may be older" not in str(readiness.missing_now(is_returning=True))
