"""On an agent that denies by default: the shipped policy suffices, and what it lacks is named."""

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.errors import Denied, NotFound, Rejected
from agent.fleet.host_state import HostState, HostStatus, write_host_state
from tests.lab import asking
from tests.lab.ground import LabError, wait_until
from tests.lab.server import spawn, svcagent_argv
from tests.real.access_fixture import PACKAGING, Access, asked, consul_with
from tests.support.kinds import raises_kind
from tests.support.svcagent import Svcagent

MASTER = str(uuid.uuid4())
NODE = "server"
ACL = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
RULE = re.compile(r"^\w+ \"[\w/]*\" \{ policy = \"\w+\" \}$", re.MULTILINE)


def shipped_rules() -> list[str]:
    """The policy as it is packaged, its placeholders filled in."""
    text = (PACKAGING / "consul" / "policy.hcl").read_text()
    filled = (
        text.replace('"NODE"', f'"{NODE}"')
        .replace('"SERVICE"', '"web"')
        .replace("svcagent/SERVICE/", "svcagent/web/")
        .replace('"LOCK/"', '"web_reload/"')
    )
    return RULE.findall(filled)


@dataclass
class Acl:
    access: Access
    ask: asking.Consul

    def token(self, *rules: str) -> str:
        """A new token of exactly these rules."""
        name = f"p-{uuid.uuid4()}"
        self.ask.put("/v1/acl/policy", {"Name": name, "Rules": "\n".join(rules)})
        made: dict[str, str] = self.ask.put("/v1/acl/token", {"Policies": [{"Name": name}]})
        return made["SecretID"]

    def delete(self, token: str) -> None:
        with asked(self.access.address, token) as own:
            accessor = own.get("/v1/acl/token/self")["AccessorID"]
        self.ask.delete(f"/v1/acl/token/{accessor}")

    def settings(self, token: str) -> dict[str, str]:
        return {"CONSUL_HTTP_ADDR": f"{self.access.address}:8500", "CONSUL_HTTP_TOKEN": token}

    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask.get("/v1/agent/services")
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Acl]:
    with consul_with({"acl": ACL}) as access, asked(access.address, MASTER) as ask:

        def is_bootstrapped() -> bool:
            return bool(ask.get(f"/v1/health/node/{NODE}"))

        wait_until(lambda: not _refused(is_bootstrapped), 20, "the ACLs are in force and the node is in the catalog")
        yield Acl(access, ask)


def _named_node(acl: Acl) -> str:
    """Return what stands for the node in advice about an agent that refuses /v1/agent/self: later releases name it."""
    with acl.access.connection() as consul, pytest.raises(Denied) as caught:
        consul.agent_self()
    return NODE if f'"{NODE}"' in str(caught.value) else "NODE"


def _refused(question: Any) -> bool:
    try:
        return not question()
    except LabError:
        return True


@pytest.fixture
def acl(server: Acl) -> Iterator[Acl]:
    yield server
    for service_id in server.services():
        server.ask.deregister_service(service_id)
    server.ask.put("/v1/agent/maintenance?enable=false")


def _hold_lock(acl: Acl, token: str, prefix: str) -> None:
    with acl.access.connection(CONSUL_HTTP_TOKEN=token) as consul:
        consul.agent_self()
        with Lock(consul, prefix, "svcagent reload web", {"service": "web"}, SystemClock()) as lock:
            lock.acquire(Deadline.after(SystemClock(), 5))
            lock.check_held()


def test_the_shipped_policy_has_the_rules_that_this_test_knows() -> None:
    assert sorted(rule.split(" {")[0] for rule in shipped_rules()) == [
        f'agent "{NODE}"',
        'key_prefix "svcagent/web/"',
        'key_prefix "web_reload/"',
        f'node "{NODE}"',
        'node_prefix ""',
        'service "web"',
        f'session "{NODE}"',
        'session_prefix ""',
    ]


def test_the_shipped_policy_suffices(acl: Acl, svcagent: Svcagent) -> None:
    """Every verb that speaks to Consul alone, and the lock, with a token of that policy and nothing else."""
    token = acl.token(*shipped_rules())
    settings = acl.settings(token)
    svcagent.define("web")

    for argv in (
        ["register", "--wait", "5s"],
        ["register", "--dry-run"],
        ["maint", "enable", "web", "--reason", "disk"],
        ["maint", "status"],
        ["status"],
        ["pause", "web", "--reason", "release"],
        ["fleet", "web"],
        ["quarantine", "list"],
        ["quarantine", "clear", "web"],
        ["history", "web"],
        ["resume", "web"],
        ["maint", "disable", "web"],
        ["maint", "enable", "--node", "--reason", "disk"],
        ["maint", "disable", "--node"],
    ):
        result = svcagent(*argv, **settings)
        assert result.code == 0, (argv, result)
    for prefix in ("svcagent/web", "web_reload"):
        _hold_lock(acl, token, prefix)
    assert "web" in acl.services()
    assert svcagent("deregister", "web", **settings).code == 0
    assert "web" not in acl.services()


def test_the_reload_of_another_host_is_not_hidden_by_the_shipped_policy(acl: Acl, svcagent: Svcagent) -> None:
    """A session that Consul hides looks like one that ended: the version would be suspect while it is being taken."""
    acl.ask.put("/v1/catalog/register", {"Node": "other", "Address": "127.0.0.9"})
    session = acl.ask.put("/v1/session/create", {"Node": "other", "Checks": []})["ID"]
    digest = f"sha256:{'a' * 64}"
    state = HostState(digest, HostStatus.RELOADING, SystemClock().now(), service_id="web", step="ready")
    token = acl.token(*shipped_rules())
    with acl.access.connection(CONSUL_HTTP_TOKEN=token) as consul:
        write_host_state(consul, "web", "other", replace(state, session=session, wanted=digest))

    running = svcagent("--json", "quarantine", "list", "web", **acl.settings(token))
    acl.ask.put(f"/v1/session/destroy/{session}")
    ended = svcagent("--json", "quarantine", "list", "web", **acl.settings(token))

    assert json.loads(running.out) == []
    assert [(one["kind"], one["service"]) for one in json.loads(ended.out)] == [("suspect", "web")]
    acl.ask.delete("/v1/kv/svcagent/web/hosts?recurse")
    acl.ask.put("/v1/catalog/deregister", {"Node": "other"})


def test_the_shipped_policy_suffices_for_the_daemon(acl: Acl, svcagent: Svcagent) -> None:
    """It sees at once that the agent forgot the service; a reload beside it tells the fleet; nobody complains."""
    host = acl.access.address
    check = {"tcp": f"{host}:8500", "interval": "1s", "status": "passing"}
    reload = {"restart": ["/bin/true"], "min_healthy": 0, "drain": {"connections": False}}
    definition = {"service": {"name": "web", "port": 8500, "checks": [check]}, "reload": reload}
    (svcagent.services_dir / "web.json").write_text(json.dumps(definition))
    settings = {**acl.settings(acl.token(*shipped_rules())), "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    argv = [*svcagent_argv(), "--log-format", "json", "run"]
    with spawn(argv, svcagent.environment(**settings), stderr=subprocess.PIPE, text=True) as daemon:
        try:
            wait_until(lambda: "web" in acl.services(), 20, "it is registered")
            acl.ask.deregister_service("web")
            wait_until(lambda: "web" in acl.services(), 5, "it is registered again, before the minute is over")
            wait_until(lambda: bool(acl.ask.passing("web")), 20, "it is passing")
            reloaded = svcagent("reload", "web", **settings)
        finally:
            daemon.send_signal(signal.SIGTERM)
        _output, log = daemon.communicate(timeout=30)

    assert (reloaded.code, "not told" in reloaded.err) == (0, False), reloaded.text
    assert daemon.returncode == 0
    assert [line for line in map(json.loads, log.splitlines()) if line["level"] != "info"] == []


@pytest.mark.parametrize(
    ("without", "argv", "right"),
    [
        (["agent "], ["register", "--wait", "0s"], 'agent:read on "{node}": add to its policy: agent "{node}"'),
        # The rule that allows node maintenance lets this host's own node be read.
        (["node_prefix", "node "], ["maint", "enable", "web", "--reason", "x"], "node:read"),
        (["service"], ["register"], 'service:write on "web": add to its policy: service "web" { policy = "write" }'),
        (["service"], ["deregister", "web"], 'service:read on "web": add to its policy: service "web"'),
        (["service"], ["status"], 'service:read on "web": add to its policy: service "web" { policy = "write" }'),
        (
            ['key_prefix "svcagent/'],
            ["pause", "web", "--reason", "x"],
            'key_prefix "svcagent/web/" { policy = "write" }',
        ),
        (['key_prefix "svcagent/'], ["quarantine", "list"], 'key_prefix "svcagent/" { policy = "read" }'),
        (["node "], ["maint", "enable", "--node", "--reason", "x"], f'node "{NODE}" {{ policy = "write" }}'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_verb_names_the_rule(acl: Acl, svcagent: Svcagent, without: list[str], argv: list[str], right: str) -> None:
    """Each rule is necessary, and the message can be pasted into the policy."""
    acl.ask.put("/v1/agent/service/register", {"Name": "web"})
    wait_until(lambda: acl.ask.get("/v1/health/service/web"), 10, "the catalog has web")
    before = acl.services()
    svcagent.define("web")
    rules = [rule for rule in shipped_rules() if not rule.startswith(tuple(without))]

    result = svcagent("--json", *argv, **acl.settings(acl.token(*rules)))

    if "maint enable web" not in " ".join(argv):
        assert acl.services() == before
    assert result.code == 1
    assert right.replace("{node}", _named_node(acl)) in result.err
    assert '"kind": "consul-denied"' in result.out


@pytest.mark.parametrize(
    ("without", "prefix", "rule"),
    [
        ("session", "svcagent/web", f'session "{NODE}" {{ policy = "write" }}'),
        ('key_prefix "svcagent/', "svcagent/web", 'key_prefix "svcagent/web/" { policy = "write" }'),
        ('key_prefix "web_reload/', "web_reload", 'key_prefix "web_reload/" { policy = "write" }'),
        # The line before a lock is among svcagent's own keys, whatever the lock is called.
        ('key_prefix "svcagent/', "web_reload", 'key_prefix "svcagent/web/" { policy = "write" }'),
    ],
)
def test_the_lock_names_the_rule_that_it_lacks(acl: Acl, without: str, prefix: str, rule: str) -> None:
    token = acl.token(*(one for one in shipped_rules() if not one.startswith(without)))

    with pytest.raises(Denied, match=re.escape(rule)):
        _hold_lock(acl, token, prefix)


def test_a_lock_that_may_only_be_read_leaves_no_session(acl: Acl) -> None:
    """What a transaction is refused has no status of its own; the rule is named all the same."""
    rules = [one for one in shipped_rules() if not one.startswith('key_prefix "web_reload/')]
    token = acl.token(*rules, 'key_prefix "web_reload/" { policy = "read" }')

    with pytest.raises(
        Denied, match=r'lacks key:write on "web_reload/\.lock": add to its policy: key_prefix "web_reload/'
    ):
        _hold_lock(acl, token, "web_reload")

    assert not [one for one in acl.ask.get("/v1/session/list") if one["Name"].endswith("'web_reload'")]


def test_the_shipped_policy_suffices_for_a_lock_of_several(acl: Acl) -> None:
    """Contenders stand beside the lock's key, the turn beside the line."""
    token = acl.token(*shipped_rules())
    for prefix in ("svcagent/web", "web_reload"):
        with (
            acl.access.connection(CONSUL_HTTP_TOKEN=token) as consul,
            Lock(consul, prefix, "svcagent reload web", {"service": "web"}, SystemClock(), limit=2) as lock,
        ):
            lock.acquire(Deadline.after(SystemClock(), 5))
            with lock.turn(Deadline.after(SystemClock(), 5)):
                lock.check_held()


def test_a_maintenance_that_may_not_be_ended_keeps_no_other_enabled(acl: Acl, svcagent: Svcagent) -> None:
    """The token may read one service and write the other."""
    for name in ("hidden", "web"):
        acl.ask.put("/v1/agent/service/register", {"Name": name})
        enabled = svcagent("maint", "enable", name, "--reason", "x", "--for", "1s", **acl.settings(MASTER))
        assert enabled.code == 0, enabled.text
    limited = acl.settings(acl.token(*shipped_rules(), 'service "hidden" { policy = "read" }'))
    refusals: list[str] = []

    def is_over() -> bool:
        refusals.append(svcagent("maint", "expire", **limited).err)
        return "hidden" in refusals[-1]

    wait_until(is_over, 10, "their ends have come")

    assert 'service:write on "hidden"' in refusals[-1]
    wait_until(lambda: bool(acl.ask.passing("web")), 30, "the other is in service")
    assert not acl.ask.passing("hidden")


def test_a_hidden_service_is_not_taken_for_an_absent_one(acl: Acl) -> None:
    """Consul's list leaves it out; asked for by id it is refused. What is not there is absent with any token."""
    acl.ask.put("/v1/agent/service/register", {"ID": "web-1", "Name": "web"})
    with acl.access.connection(CONSUL_HTTP_TOKEN=acl.token('service "other" { policy = "write" }')) as consul:
        assert consul.services() == {}
        with pytest.raises(Denied, match=r'service "web" \{'):
            consul.services({"web-1": "web"})
        assert consul.services({"other": "other"}) == {}


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["", "dry"])
def test_deregistering_all_does_not_pass_over_what_is_hidden(acl: Acl, svcagent: Svcagent, more: list[str]) -> None:
    """The token that may not see a service of services.d cannot say that there is nothing to deregister."""
    svcagent.define("web")
    assert svcagent("register", **acl.settings(MASTER)).code == 0
    blind = acl.settings(acl.token(*(rule for rule in shipped_rules() if not rule.startswith("service"))))

    result = svcagent("--json", "deregister", "--all", *more, **blind)

    assert (result.code, result.kind) == (1, "consul-denied")
    assert 'service:read on "web"' in result.err
    assert "web" in acl.services()


def test_without_definitions_deregistering_all_says_what_it_cannot_know(acl: Acl, svcagent: Svcagent) -> None:
    """It works: whoever takes a host out of the fleet may have removed them first."""
    svcagent.define("web")
    assert svcagent("register", **acl.settings(MASTER)).code == 0
    (svcagent.services_dir / "web.json").write_text("{")
    blind = acl.settings(acl.token(*(rule for rule in shipped_rules() if not rule.startswith("service"))))

    hidden = svcagent("deregister", "--all", **blind)
    assert hidden.code == 0
    assert "nothing to deregister, as far as the Consul token may see" in hidden.out

    assert svcagent("deregister", "--all", **acl.settings(MASTER)).code == 0
    assert acl.services() == {}


def test_what_is_not_registered_is_not_found_under_acls_either(acl: Acl) -> None:
    """With ACLs on, Consul answers 500 instead of 404 for services and checks that are not there."""
    with acl.access.connection(CONSUL_HTTP_TOKEN=acl.token(*shipped_rules())) as consul:
        with pytest.raises(NotFound):
            consul.enable_maintenance("web", "x")
        with pytest.raises(NotFound):
            consul.disable_maintenance("web")
        consul.deregister_service("web")
        consul.deregister_check("web:1")


def test_a_token_that_consul_does_not_know(acl: Acl, svcagent: Svcagent, tmp_path: Path) -> None:
    """The message says which variable or file it came from, and never the token."""
    unknown = str(uuid.uuid4())
    (tmp_path / "token").write_text(f"{unknown}\n")
    svcagent.define("web")
    by_variable = acl.settings(unknown)
    by_file = acl.settings("") | {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token")}

    for settings, source in (
        (by_variable, "CONSUL_HTTP_TOKEN"),
        (by_file, f"{tmp_path}/token (from CONSUL_HTTP_TOKEN_FILE)"),
    ):
        for argv in (["register"], ["status"], ["maint", "status"]):
            result = svcagent("--json", *argv, **settings)
            assert (result.code, result.kind) == (1, "token-unknown")
            assert source in result.err
            assert unknown not in result.text


def test_without_any_token_the_message_says_so(acl: Acl, svcagent: Svcagent) -> None:
    svcagent.define("web")

    result = svcagent("--json", "register", **acl.settings(""))

    assert (result.code, result.kind) == (1, "consul-denied")
    assert f'agent "{_named_node(acl)}" {{ policy = "read" }}' in result.err


@pytest.mark.parametrize("how", ["renamed over", "written in place"])
def test_a_replaced_token_file_is_noticed_by_a_connection_in_use(acl: Acl, tmp_path: Path, how: str) -> None:
    """Also when its size and time stamp do not show it: the 403 makes svcagent look."""
    rules = shipped_rules()
    old, new = acl.token(*rules), acl.token(*rules)
    file = tmp_path / "token"
    file.write_text(old)
    with acl.access.connection(CONSUL_HTTP_TOKEN_FILE=str(file)) as consul:
        assert consul.agent_self().node == NODE
        if how == "renamed over":
            (tmp_path / "new").write_text(new)
            (tmp_path / "new").rename(file)
        else:
            stamp = file.stat()
            file.write_text(new)
            os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        acl.delete(old)

        assert consul.agent_self().node == NODE
        consul.kv_put("svcagent/web/rotated", "1")

        file.unlink()
        assert consul.agent_self().node == NODE


ODD_IDS = ["web/1", "web ?x=1&y#z", "100%25", "w\u00e9b+;", "web/"]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_odd_ids_are_addressed_as_they_are(acl: Acl, odd: str) -> None:
    """python-consul2 quotes an id once, all but its slashes, and Consul takes those as part of the id."""
    with acl.access.connection(CONSUL_HTTP_TOKEN=MASTER) as consul:
        consul.register_service({"ID": odd, "Name": "web", "Checks": [{"CheckID": f"c {odd}", "TTL": "1h"}]})
        consul.enable_maintenance(odd, "r")

        service = consul.services({odd: "web"})[odd]
        assert service.maintenance is not None

        consul.disable_maintenance(odd)
        consul.deregister_check(f"c {odd}")
        assert consul.services()[odd].checks == ()
        consul.kv_put(f"svcagent/{odd}", "v")
        assert consul.kv_get(f"svcagent/{odd}")[1] is not None
        consul.deregister_service(odd)
        assert odd not in consul.services()


@pytest.mark.parametrize("odd", ["a/../web", "..", "a//b", "/web", "./web"])
def test_an_id_that_consul_would_take_for_another_is_refused(acl: Acl, odd: str) -> None:
    """Consul's router makes ``a/../web`` to ``web``, and would put another service out."""
    acl.ask.put("/v1/agent/service/register", {"Name": "web"})
    with acl.access.connection(CONSUL_HTTP_TOKEN=MASTER) as consul:
        with raises_kind(Rejected, "request-invalid"):
            consul.enable_maintenance(odd, "r")
        _assert_in_service(consul)


def _assert_in_service(consul: Consul) -> None:
    assert consul.services()["web"].maintenance is None


def _keys(acl: Acl) -> list[dict[str, Any]]:
    """All keys; there must be one, for Consul answers 404 where there is none."""
    found: list[dict[str, Any]] = acl.ask.get("/v1/kv/?recurse")
    return found


def test_the_doctor_names_every_right_that_the_token_lacks(acl: Acl, svcagent: Svcagent) -> None:
    """With the shipped policy there is none. Asking changes nothing."""
    svcagent.define("web")
    file = svcagent.services_dir / "web.json"
    reload = {"restart": ["/bin/true"], "lock": "web_reload", "min_healthy": 0}
    service = {"name": "web", "port": 8500, "checks": [{"tcp": "127.0.0.1:8500", "interval": "1h"}]}
    file.write_text(json.dumps({"service": service, "reload": reload}))
    rules = [rule for rule in shipped_rules() if not rule.startswith('node "')]
    acl.ask.put("/v1/kv/theirs", "1")
    keys = _keys(acl)

    def lacking(*rules: str) -> set[str]:
        result = svcagent("--json", "doctor", "--only", "consul", **acl.settings(acl.token(*rules)))
        found = [one for one in json.loads(result.out) if one["check"] == "rights" and one["level"] != "ok"]
        assert all(one["level"] == "error" for one in found), found
        return {one["remedy"].removeprefix("add to its policy: ").split(" {")[0] for one in found}

    assert lacking(*rules) == set()
    for kind in ("key_prefix ", "service ", "session ", "node_prefix "):
        missing = {rule.split(" {")[0] for rule in rules if rule.startswith(kind)}
        assert lacking(*(rule for rule in rules if not rule.startswith(kind))) == missing != set()
    assert _keys(acl) == keys
    assert acl.ask.get("/v1/session/list") == []
    assert set(acl.services()) == set()
