"""``svcagent notify``, and who tells what, on a real Consul and real HTTP endpoints."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from agent import logs
from agent.cli.cname import notify_of_conflicts
from agent.cli.cname_context import CnameContext
from agent.cli.options import Options
from agent.cli.reload_here import rollout_notified
from agent.clock import Interrupts
from agent.cname import PublishedRecord, RecordOutcome, SyncResult, WantedRecord
from agent.consul import Consul
from agent.definitions import Settings, load
from agent.definitions.windows import window
from agent.errors import ConsulUnreachable, GuardRefused
from agent.fleet import HostState, Pin, Quarantine, quarantine, rollout, write_host_state
from agent.notify import sent
from agent.notify.delivery import WAIT_SECONDS
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.notify_fixture import PASSWORD, Endpoint, hanging, settings_file
from tests.support.svcagent import Result, Svcagent
from tests.support.threads import concurrently

# Apprise's, or of a plugin of it; svcagent does not run with warnings as errors.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

OLD, NEW, NEXT = (f"sha256:{digit * 64}" for digit in "012")
IMAGE = "registry.example.com/web:latest"
HOSTS = ("host1", "host2", "host3")
LIBRARY_SECONDS = 10
"""What loading Apprise takes on a busy machine, at most."""
_numbers = count(1)


def _now() -> datetime:
    """Asked in each test: a rollout that began when the tests were loaded may be stuck when they run."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A verb's way of logging is its process's; the next test has its own."""
    yield
    logs.set_up(logs.Format.TEXT, is_verbose=False)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as found:
        yield found


@pytest.fixture
def notify_test(svcagent: Svcagent, tmp_path: Path) -> Callable[..., Result]:
    """``svcagent notify test`` with these endpoints; nothing that it prints may give away their secrets."""

    def run(*urls: str, options: tuple[str, ...] = ()) -> Result:
        result = svcagent("--config", str(settings_file(tmp_path, urls)), *options, "notify", "test")
        assert PASSWORD not in result.text
        assert "Traceback" not in result.err
        return result

    return run


def test_a_test_message_reaches_every_endpoint(notify_test: Callable[..., Result], endpoint: Endpoint) -> None:
    with Endpoint() as second:
        result = notify_test(endpoint.url, second.url)

    assert result.code == 0, result
    assert result.out == "notify.urls[0] json://127.0.0.1: sent\nnotify.urls[1] json://127.0.0.1: sent\n"
    assert endpoint.titles == second.titles == ["svcagent: this is a test"]


def test_a_failing_endpoint_is_named_and_others_get_it(notify_test: Callable[..., Result], endpoint: Endpoint) -> None:
    """One refuses, nobody listens at another, a third hangs: exit 1."""
    with Endpoint(status=403) as refusing, Endpoint() as gone, hanging() as silent:
        gone.__exit__()
        result = notify_test(refusing.url, endpoint.url, gone.url, silent, options=("--json", "-v"))

    assert result.code == 1
    assert [one["is_taken"] for one in json.loads(result.out)] == [False, True, False, False]
    assert endpoint.titles == ["svcagent: this is a test"]
    assert "notify.urls[0] json://127.0.0.1: not delivered: HTTP status 403" in result.err
    assert "notify.urls[2] json://127.0.0.1: not delivered: connection refused" in result.err
    assert "notify.urls[1]" not in result.err


@pytest.mark.parametrize(
    "url", ["nosuchthing://hush-hush:1/x", "slack://hush-hush", "mailto://", "json://svcagent:hush-hush@"]
)
def test_an_unknown_url_has_its_position(notify_test: Callable[..., Result], endpoint: Endpoint, url: str) -> None:
    result = notify_test(endpoint.url, url)

    assert result.code == 78
    assert "notify.urls[1]: Apprise does not support this URL" in result.err
    assert endpoint.messages == []


def test_of_an_endpoint_with_a_token_as_its_host_only_the_scheme_is_shown(notify_test: Callable[..., Result]) -> None:
    """Slack's and Telegram's tokens, and ntfy's topic, which is as good as a password; none of them is reached."""
    result = notify_test("ntfy://hush-hush?mode=private", options=("--json",))

    assert result.code == 1
    assert [one["name"] for one in json.loads(result.out)] == ["ntfy://…"]


def test_without_endpoints_there_is_nothing_to_try(svcagent: Svcagent) -> None:
    result = svcagent("notify", "test")

    assert result.code == 78
    assert "notify.urls: missing" in result.err


@pytest.mark.parametrize("urls", ['"slack://hush-hush"', '[["hush-hush"]]', '["hush-hush"]', "[7]"])
def test_a_bad_setting_does_not_show_its_value(svcagent: Svcagent, tmp_path: Path, urls: str) -> None:
    """Found without Apprise, by every verb."""
    file = tmp_path / "svcagent.toml"
    file.write_text(f"[notify]\nurls = {urls}\n")
    result = svcagent("--config", str(file), "validate")

    assert result.code == 78
    assert "notify.urls" in result.err
    assert PASSWORD not in result.text


def test_where_apprise_is_not_installed_it_says_how_to(
    notify_test: Callable[..., Result], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    result = notify_test(endpoint.url)

    assert result.code == 1
    assert "pip install 'svcagent[notify]'" in result.err


def test_apprise_itself_is_kept_silent(tmp_path: Path) -> None:
    """It logs URLs, and so do the libraries below it; whatever the log's format, no line of theirs is written."""
    code = (
        "import logging\n"
        "from agent.definitions import Secret\n"
        "from agent import logs\n"
        "from agent.notify.endpoints import endpoints\n"
        "logs.set_up(logs.Format.TEXT, is_verbose=True)\n"
        "logging.getLogger('apprise').warning('hush-hush')\n"
        "endpoints([Secret('nosuchthing://x')])\n"
        "for name in ('apprise', 'urllib3.connectionpool', None): logging.getLogger(name).critical('hush-hush')\n"
        "logs.log('svcagent goes on')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert result.stderr.count(PASSWORD) == 1
    assert "svcagent goes on" in result.stderr


class Fleet:
    """Hosts of one service, by what they have told each other, and what they do after a reload."""

    def __init__(self, host: ConsulHost, consul: Consul, directory: Path) -> None:
        self.name = f"web{next(_numbers)}"
        self.consul = consul
        self._host = host
        self._directory = directory
        service = {"name": self.name, "port": 1, "checks": [{"tcp": "127.0.0.9:1", "interval": "1h"}]}
        definition = {"service": service, "reload": {"image": IMAGE, "container": self.name}}
        (directory / "services.d").mkdir()
        (directory / "services.d" / f"{self.name}.json").write_text(json.dumps(definition))
        [self.definition] = load(directory / "services.d", {})
        for node in HOSTS:
            body = {"Node": node, "Address": "127.0.0.9", "Service": {"Service": self.name, "Port": 1}}
            host.ask.put("/v1/catalog/register", body)

    def pinned(self, digest: str = NEW, minutes: float = 1) -> None:
        """A rollout that began so long ago."""
        _found, index = rollout.find(self.consul, self.name)
        rollout.pin(self.consul, self.name, Pin(IMAGE, digest, "host1", _now() - timedelta(minutes=minutes)), index)

    def run(self, digest: str, *nodes: str) -> None:
        """These hosts, or all, took it just now."""
        for node in nodes or HOSTS:
            write_host_state(self.consul, self.name, node, HostState(digest, "running", _now()))

    @contextmanager
    def reloading(self, *urls: str, interrupts: Interrupts | None = None) -> Iterator[Callable[[Consul], None]]:
        """What one host's reload does about people, with these endpoints."""
        file = settings_file(self._directory, urls)
        settings = Settings.load(file, {"CONSUL_HTTP_ADDR": f"{self._host.address}:8500"})
        assert self.definition.reload is not None
        with (
            click.Context(click.Command("reload"), obj=Options(config=str(file))),
            rollout_notified(settings, self.name, self.definition.reload, interrupts or Interrupts()) as notify_begun,
        ):
            yield notify_begun

    def reload(self, *urls: str, error: Exception | None = None) -> None:
        """It had nothing to do, or ended with this."""
        with self.reloading(*urls):
            if error is not None:
                raise error

    def told(self) -> frozenset[str]:
        return sent.find(self.consul, sent.place(self.name))[0]


@pytest.fixture
def fleet(host: ConsulHost, consul: Consul, tmp_path: Path) -> Fleet:
    return Fleet(host, consul, tmp_path)


def test_of_hosts_that_end_concurrently_one_notifies(fleet: Fleet, endpoint: Endpoint) -> None:
    """Three of them, and later again: one message in all, with all that a person needs."""
    fleet.pinned()
    fleet.run(NEW)
    concurrently(lambda _number: fleet.reload(endpoint.url), range(3))
    endpoint.wait_for(1)
    fleet.reload(endpoint.url)

    [message] = endpoint.messages
    assert message["title"].startswith(
        f"{fleet.name}: rollout of web:latest ({NEW[:19]}) finished, 3 of 3 hosts run it"
    )
    assert (message["type"], f"svcagent history {fleet.name}" in message["message"]) == ("success", True)
    assert fleet.told() == {f"finished {NEW}"}


def test_each_kind_is_notified_once_per_rollout(fleet: Fleet, endpoint: Endpoint) -> None:
    """Started late by another host than the one that pinned it, bad, then replaced by a better one, finished."""
    fleet.run(OLD)
    fleet.pinned()
    fleet.reload(endpoint.url)
    quarantine.put(fleet.consul, fleet.name, Quarantine(NEW, "host1", _now(), "web exited with 1", IMAGE))
    write_host_state(fleet.consul, fleet.name, "host1", HostState(OLD, "rolled back", _now()))
    fleet.pinned(NEXT)
    concurrently(lambda _number: fleet.reload(endpoint.url), range(3))
    fleet.run(NEXT)
    concurrently(lambda _number: fleet.reload(endpoint.url), range(3))
    endpoint.wait_for(4)

    said = [
        title.removeprefix(f"{fleet.name}: ") for title in sorted(endpoint.titles, key=lambda one: NEXT[:19] in one)
    ]
    assert sorted(one["type"] for one in endpoint.messages) == ["failure", "info", "info", "success"]
    assert f"{NEW[:19]} rolled back on host1 and quarantined" in said
    assert len(said) == 4


def test_a_stuck_rollout_is_notified_by_a_host_that_is_done_or_refused(fleet: Fleet, endpoint: Endpoint) -> None:
    """Whoever looks first; a reload that was refused looks too, and one that found no Consul does not."""
    fleet.run(OLD)
    fleet.pinned(minutes=40)
    with pytest.raises(ConsulUnreachable):
        fleet.reload(endpoint.url, error=ConsulUnreachable("gone"))
    assert fleet.told() == frozenset()
    with pytest.raises(GuardRefused):
        fleet.reload(endpoint.url, error=GuardRefused("not now"))
    endpoint.wait_for(2)

    assert sum("is stuck, 0 of 3 hosts run it" in one for one in endpoint.titles) == 1


def test_outside_its_windows_a_waiting_rollout_is_not_stuck(fleet: Fleet, endpoint: Endpoint) -> None:
    fleet.run(OLD)
    fleet.pinned(minutes=40)
    assert fleet.definition.reload is not None
    begin = f"{_now() + timedelta(hours=3):%H:%M}-{_now() + timedelta(hours=4):%H:%M}"
    closed = {"windows": (window(begin),), "timezone": "UTC"}
    always, fleet.definition = (
        fleet.definition,
        replace(fleet.definition, reload=fleet.definition.reload.replace(**closed)),
    )
    fleet.reload(endpoint.url)
    assert fleet.told() == {f"started {NEW}"}
    assert "No window of the service is open" in endpoint.messages[0]["message"]

    fleet.definition = always
    fleet.reload(endpoint.url)
    assert fleet.told() == {f"started {NEW}", f"stuck {NEW}"}


def _site(consul: Consul, node: str) -> CnameContext:
    """A host's side, as far as telling needs it."""
    found: Any = SimpleNamespace(consul=consul, agent=SimpleNamespace(node=node))
    return cast("CnameContext", found)


def test_of_hosts_that_find_a_dns_conflict_concurrently_one_notifies(
    consul: Consul, another: Callable[[], Consul], endpoint: Endpoint, tmp_path: Path
) -> None:
    """Those whose record stands and those whose does not; a host that gives way ends nothing, one in place does."""
    record = PublishedRecord("web.service.dc1.consul.", 60)
    wanted = WantedRecord("www.example.com.", record, "web/-/dc1", 0, "rfc2136", "web", "example.com.")
    found = SyncResult(wanted.place, RecordOutcome.CONFLICT, "an A record stands there", wanted)
    hosts = iter([_site(another(), node) for node in HOSTS])
    where = sent.place("web", wanted.name)
    config = str(settings_file(tmp_path, [endpoint.url]))

    def sync(here: CnameContext, outcome: RecordOutcome = RecordOutcome.CONFLICT) -> None:
        with click.Context(click.Command("cname"), obj=Options(config=config)):
            notify_of_conflicts(here, [replace(found, outcome=outcome)])

    concurrently(lambda _number: sync(next(hosts)), range(3))
    here = _site(consul, "host4")
    sync(here, RecordOutcome.DEFERRED)
    sync(here)
    assert endpoint.titles == ["web: conflict in DNS, www.example.com. differs from its definition"]
    assert len(sent.find(consul, where)[0]) == 1

    sync(here, RecordOutcome.IN_PLACE)
    assert sent.find(consul, where)[0] == frozenset()


def test_the_start_is_notified_when_the_pull_begins(fleet: Fleet, endpoint: Endpoint, consul: Consul) -> None:
    """The step begins as soon as the notice is noted, whatever the endpoint does."""
    fleet.run(OLD)
    fleet.pinned(minutes=40)
    with hanging() as silent, fleet.reloading(silent, endpoint.url) as notify_begun:
        assert fleet.told() == frozenset()
        began = time.monotonic()
        notify_begun(consul)
        seconds = time.monotonic() - began
        assert fleet.told() == {f"started {NEW}"}
        endpoint.wait_for(1)

    assert seconds < WAIT_SECONDS
    assert "started, 0 of 3 hosts run it" in endpoint.titles[0]


def test_an_endpoint_that_hangs_or_refuses_is_warned_of_and_others_get_theirs(
    fleet: Fleet, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of the verb is not far behind; the secrets of the URLs are nowhere."""
    fleet.pinned()
    fleet.run(NEW)
    with Endpoint(status=500) as refusing, hanging() as silent:
        began = time.monotonic()
        fleet.reload(silent, refusing.url, endpoint.url)
        seconds = time.monotonic() - began

    said = capsys.readouterr().err
    assert seconds < LIBRARY_SECONDS + WAIT_SECONDS
    assert len(endpoint.messages) == 1
    assert "notification" in said
    assert re.search(r"svcagent --config \S+ notify test", said)
    assert PASSWORD not in said


def test_a_process_that_delivers_shows_no_secret_and_ends_by_itself(fleet: Fleet) -> None:
    """Its command line is what every user of the host can read; it holds neither endpoint nor message."""
    fleet.pinned()
    fleet.run(NEW)
    wait_until(lambda: not _deliveries(), 60, "those of earlier tests have ended")
    with hanging() as silent:
        messages = threading.Thread(target=fleet.reload, args=(silent,))
        messages.start()
        wait_until(lambda: len(_deliveries()) == 1, 20, "one process delivers")
        [(pid, argv, session)] = _deliveries()
        wait_until(lambda: not _deliveries(), 60, "it has ended")
        messages.join(20)

    assert session == pid
    assert argv[-2:] == ["notify", "deliver"]
    assert PASSWORD not in " ".join(argv)
    assert fleet.name not in " ".join(argv)


def _deliveries() -> list[tuple[int, list[str], int]]:
    """Processes of this test that deliver: pid, arguments, session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_text().split("\0")[:-1]
            parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
            pid = int(process.name)
            if argv[-1:] == ["deliver"] and parent == os.getpid():
                found.append((pid, argv, os.getsid(pid)))
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_where_apprise_is_not_installed_another_host_may_notify(
    fleet: Fleet, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning, with what to install, and only when there is something to tell; nothing is noted."""
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "apprise", None)
        fleet.reload(endpoint.url)
        assert capsys.readouterr().err == ""
        fleet.pinned()
        fleet.run(NEW)
        fleet.reload(endpoint.url)
        assert capsys.readouterr().err.count("pip install 'svcagent[notify]'") == 1
        assert fleet.told() == frozenset()

    fleet.reload(endpoint.url)
    assert len(endpoint.messages) == 1


@pytest.mark.parametrize("notes", [{"v": 2}, {"v": 1, "told": "finished"}, {"v": 1, "told": [7]}, []])
def test_unreadable_notes_give_nothing_but_the_remedy(
    fleet: Fleet, endpoint: Endpoint, host: ConsulHost, capsys: pytest.CaptureFixture[str], notes: object
) -> None:
    """A newer svcagent's, say: two versions that replaced each other's would tell everything again and again."""
    fleet.pinned()
    fleet.run(NEW)
    host.ask.put(f"/v1/kv/{sent.place(fleet.name)}", notes)
    fleet.reload(endpoint.url)

    assert f"consul kv delete {sent.place(fleet.name)}" in capsys.readouterr().err
    assert endpoint.messages == []


def test_without_endpoints_nothing_is_noted(fleet: Fleet) -> None:
    fleet.pinned()
    fleet.run(NEW)
    fleet.reload()

    assert fleet.told() == frozenset()


def test_a_host_with_nothing_to_do_sends_few_requests_after_all_notifications(fleet: Fleet, endpoint: Endpoint) -> None:
    """Two reads of Consul, the pin and what was told, at each of cron's runs."""
    fleet.pinned()
    fleet.run(NEW)
    fleet.reload(endpoint.url)
    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        real = Consul.kv_get

        def noted(own: Consul, key: str, *arguments: Any, **how: Any) -> Any:
            asked.append(key)
            return real(own, key, *arguments, **how)

        patched.setattr(Consul, "kv_get", noted)
        patched.setattr(Consul, "kv_tree", lambda *_arguments, **_how: asked.append("a tree"))
        fleet.reload(endpoint.url)

    assert asked == [f"svcagent/{fleet.name}/rollout", f"svcagent/{fleet.name}/notified"]


def test_a_message_is_delivered_though_the_one_who_began_it_is_killed(tmp_path: Path, endpoint: Endpoint) -> None:
    """It is in a session of its own, and holds nothing of the other's open."""
    file = settings_file(tmp_path, [endpoint.url])
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from agent.notify.delivery import Deliveries\n"
        "from agent.notify.notices import conflict\n"
        "from agent.clock import SystemClock\n"
        "notice = conflict('web', 'www.example.com.', 'web', 'why', 'host1')\n"
        f"Deliveries('web', SystemClock(), {str(file)!r}, print).send([notice])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)

    endpoint.wait_for(1)
    assert endpoint.titles == ["web: conflict in DNS, www.example.com. differs from its definition"]


def test_a_stopping_host_neither_reads_nor_waits(fleet: Fleet) -> None:
    """SIGTERM came: what is due is left to the next reload, and a delivery under way goes on by itself."""
    fleet.run(OLD)
    fleet.pinned()
    interrupts = Interrupts()
    with hanging() as silent, interrupts.caught():
        with fleet.reloading(silent, interrupts=interrupts) as notify_begun:
            notify_begun(fleet.consul)
            fleet.run(NEW)
            os.kill(os.getpid(), signal.SIGTERM)
            began = time.monotonic()
        seconds = time.monotonic() - began
        wait_until(lambda: not _deliveries(), 60, "the delivery has ended")

    assert seconds < WAIT_SECONDS
    assert fleet.told() == {f"started {NEW}"}
