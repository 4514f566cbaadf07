"""``svcagent cname`` on a real BIND, a secondary, a resolver and a Consul server, as hosts and operators run it."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab.bind import Bind
from tests.lab.ground import LabError, wait_until
from tests.real.cname_fixture import Dns, dns_server, resolver, secondary, written_key
from tests.real.conftest import ConsulHost
from tests.real.notify_fixture import Endpoint, settings_file
from tests.support.svcagent import Result, Svcagent

ZONE = "ccnproxy-https."
RECORD = f"*.{ZONE}"
MARKER = f"cname-_wildcard._svcagent.{ZONE}"
TARGET = "production.chocon.service.dc1.consul."
CHOCON = {
    "service": {"name": "chocon", "tags": ["production"], "port": 80, "checks": [{"ttl": "1h", "status": "passing"}]},
    "cname": [{"name": RECORD, "tag": "production"}],
}


class CnameHost(Svcagent):
    """One host's svcagent, and the servers that it works with. ``options``: of svcagent, before the verb."""

    def __init__(self, home: Path, dns: Dns, resolver: Bind, consul: ConsulHost, *options: str) -> None:
        super().__init__(
            home,
            CONSUL_HTTP_ADDR=f"{consul.address}:8500",
            SVCAGENT_DNS_SERVER=dns.bind.endpoint,
            SVCAGENT_DNS_KEY_FILE=str(dns.key.file),
            SVCAGENT_DNS_RESOLVER=resolver.endpoint,
            SVCAGENT_DNS_TIMEOUT="3s",
        )
        self.dns, self.resolver, self.consul, self.options = dns, resolver, consul, options

    def define_chocon(self, **cname: Any) -> None:
        self.write("chocon", {**CHOCON, "cname": [{"name": RECORD, "tag": "production", **cname}]})

    def cname(self, *arguments: str, **settings: str) -> Result:
        result = self(*self.options, "cname", *arguments, **settings)
        assert "Traceback" not in result.err, result.err
        return result

    def doctor(self, *arguments: str, **settings: str) -> Result:
        result = self("doctor", "--only", "cname", *arguments, **settings)
        assert "Traceback" not in result.err, result.err
        return result

    def outcome(self, *arguments: str, code: int = 0, **settings: str) -> dict[str, Any]:
        """What it says of the one record."""
        result = self.cname(*arguments, "--json", **settings)
        assert result.code == code, result.text
        (record,) = json.loads(result.out)["records"]
        found: dict[str, Any] = record
        return found


@pytest.fixture(scope="module")
def servers(host: ConsulHost) -> Iterator[tuple[Dns, Bind, Bind]]:
    """The primary, its secondary, and the resolver."""
    with (
        dns_server(ZONE, secondaries=1) as dns,
        secondary(dns) as second,
        resolver(dns, (host.address, 8600)) as resolving,
    ):
        yield dns, second, resolving


@pytest.fixture
def site(host: ConsulHost, servers: tuple[Dns, Bind, Bind], tmp_path: Path) -> Iterator[CnameHost]:
    """chocon defined, and passing in Consul; nothing in the zone."""
    dns, second, resolving = servers
    register(host)
    wait_until(lambda: second.serial(ZONE) == dns.serial, 10, "the secondary has caught up")
    site = CnameHost(tmp_path, dns, resolving, host)
    site.define_chocon()
    yield site
    dns.clear("*", "www")
    resolving.rndc("flush")
    host.ask.delete("/v1/kv/svcagent/?recurse")


def register(host: ConsulHost, status: str = "passing") -> None:
    """chocon in the agent; in the catalog when this returns."""
    check = {"CheckID": "chocon-real", "TTL": "1h", "Status": status}
    host.ask.deregister_service("chocon")
    body = {"ID": "chocon", "Name": "chocon", "Tags": ["production"], "Port": 80, "Checks": [check]}
    host.ask.put("/v1/agent/service/register", {**body, "Address": host.address})
    wait_until(lambda: bool(host.ask.passing("chocon")) == (status == "passing"), 10, "the catalog shows chocon")


def test_sync_creates_the_record_and_then_has_nothing_to_do(site: CnameHost) -> None:
    """Silent the second time, for cron; the zone is found by asking for it."""
    before = site.dns.serial

    created = site.outcome("sync")
    again = site.cname("sync")

    assert (created["outcome"], created["is_done"], created["unverified"]) == ("created", True, [])
    assert (created["zone"], created["target"], created["owner"]) == (ZONE, TARGET, "chocon/production/dc1")
    assert (again.code, again.text) == (0, "")
    assert site.dns.serial == before + 1
    assert site.dns.bind.lookup(RECORD, "CNAME") == (TARGET,)
    assert "owner=chocon/production/dc1 gen=0" in site.dns.bind.lookup(MARKER, "TXT")[0]


def test_a_sync_writes_the_textfile(site: CnameHost, tmp_path: Path) -> None:
    """What became of every record, also a conflict; a plan tells nothing, a missing directory fails nothing."""
    file = tmp_path / "svcagent_cname.prom"

    def state(*arguments: str, code: int = 0) -> str:
        site.outcome(*arguments, code=code, SVCAGENT_TEXTFILE_DIR=str(tmp_path))
        return next((line for line in file.read_text().splitlines() if line.startswith("svcagent_cname_state{")), "")

    assert state("sync") == f'svcagent_cname_state{{record="{RECORD}",state="in place"}} 1.0'
    site.define_chocon(target="elsewhere.example.com.")
    assert "in place" in state("sync", "--dry-run", code=1)
    assert "conflict" in state("sync", code=1)
    unwritten = site.cname("sync", SVCAGENT_TEXTFILE_DIR=str(tmp_path / "nowhere"))
    assert (unwritten.code, "metrics of this command are not written" in unwritten.err) == (1, True)


@pytest.mark.parametrize("arguments", [("plan",), ("sync", "--dry-run")])
def test_a_plan_changes_nothing(site: CnameHost, arguments: tuple[str, ...]) -> None:
    before = site.dns.serial

    printed = site.cname(*arguments)
    planned = site.outcome(*arguments)

    assert "to be created" in printed.out
    assert (planned["outcome"], planned["is_done"]) == ("created", False)
    assert site.dns.serial == before


def test_a_plan_knows_what_the_key_may_not_do(site: CnameHost) -> None:
    planned = site.outcome("plan", code=1, SVCAGENT_DNS_KEY_FILE=str(site.dns.stranger.file))

    assert planned["outcome"] == "refused"
    assert f"grant stranger name {RECORD} CNAME;" in planned["why"]


def test_questions_that_are_signed(site: CnameHost) -> None:
    """With the setting every verb works as without it; status and doctor then need the key too."""
    signed = {"SVCAGENT_DNS_SIGN_QUERIES": "true"}

    assert site.outcome("sync", SVCAGENT_DNS_SIGN_QUERIES="true")["outcome"] == "created"
    assert [site.cname(verb, **signed).code for verb in ("plan", "status")] == [0, 0]
    assert site.doctor(**signed).code == 0
    nobody = site.cname("status", **signed, SVCAGENT_DNS_KEY_FILE="", SVCAGENT_DNS_SERVER=site.dns.bind.endpoint)
    assert (nobody.code, "dns.key_file" in nobody.err) == (78, True)


def test_a_weak_key_is_refused_or_warned_of_once(site: CnameHost, tmp_path: Path) -> None:
    """The refusal names the setting; the warning comes once, however many messages are signed."""
    weak = {"SVCAGENT_DNS_KEY_FILE": str(written_key(tmp_path, "svcagent", "hmac-md5", site.dns.key.secret).file)}

    refused = site.cname("plan", **weak)
    warned = site.cname("plan", **weak, SVCAGENT_DNS_ALLOW_WEAK_KEYS="true")

    assert (refused.code, "dns.allow_weak_keys = true" in refused.err) == (78, True)
    assert (warned.code, warned.err.count("hmac-md5, which is weak")) == (1, 1)
    assert "BADKEY" in warned.text


def test_an_unanswered_target(site: CnameHost) -> None:
    """Exit 75: it may be answered later; --force publishes it now; once published, it is kept in any case."""
    register(site.consul, "critical")

    for verb in ("plan", "sync"):
        assert site.outcome(verb, code=75)["outcome"] == "not now"
    assert site.outcome("sync", "--force")["outcome"] == "created"
    site.dns.take(RECORD, "CNAME")
    assert site.outcome("sync")["outcome"] == "repaired"


def test_a_check_that_fails_changes_no_record(site: CnameHost) -> None:
    """Consul DNS takes instances in and out; the CNAME stays."""
    site.cname("sync")
    before = site.dns.serial

    register(site.consul, "critical")

    assert site.outcome("sync")["outcome"] == "in place"
    assert site.dns.serial == before


def test_a_definition_that_is_gone_removes_nothing(site: CnameHost) -> None:
    """A directory may be empty for a moment on one host of many."""
    site.cname("sync")
    (site.services_dir / "chocon.json").unlink()

    result = site.cname("sync")

    assert (result.code, "no definition has a CNAME" in result.out) == (0, True)
    assert site.dns.bind.lookup(RECORD, "CNAME") == (TARGET,)


def test_a_conflict_is_loud(site: CnameHost) -> None:
    """On standard error, also with --quiet, and in the exit code."""
    site.dns.put(RECORD, 60, "CNAME", "elsewhere.example.net.")

    result = site.cname("sync", "--quiet")

    assert (result.code, result.out) == (1, "")
    assert "conflict" in result.err
    assert "elsewhere.example.net." in result.err


def test_definitions_of_one_generation_are_a_conflict_on_every_host(site: CnameHost) -> None:
    """Also on those whose record stands: they hear it from the others through Consul KV. A higher gen settles it."""
    site.cname("sync")
    before = site.dns.serial

    site.define_chocon(ttl=300)
    on_another = site.outcome("sync", code=1)
    # The other host's word, as one of another name has it.
    _say_as(site, "host2")
    site.define_chocon()
    here = [site.outcome(verb, code=1) for verb in ("sync", "plan", "sync")]
    assert site.dns.serial == before
    site.define_chocon(ttl=300, gen=1)
    settled = site.outcome("sync")
    after = site.outcome("sync")

    assert on_another["outcome"] == "conflict"
    assert [one["outcome"] for one in here] == ["conflict"] * 3
    assert all("host2 wants" in one["why"] for one in here)
    assert (settled["outcome"], after["outcome"]) == ("changed", "in place")


def test_a_host_that_withdraws_no_longer_counts(site: CnameHost) -> None:
    site.cname("sync")
    site.define_chocon(ttl=300)
    site.cname("sync")
    assert _keys(site) == [f"svcagent/chocon/cname/_wildcard.{ZONE.rstrip('.')}/server"]

    site.define_chocon()

    assert site.outcome("sync")["outcome"] == "in place"
    assert _keys(site) == []


def _keys(site: CnameHost) -> list[str]:
    try:
        found: list[str] = site.consul.ask.get("/v1/kv/svcagent/?keys&consistent")
    except LabError:
        return []
    return found


def _say_as(site: CnameHost, node: str) -> None:
    """Make the word of the local host in Consul KV another host's."""
    (key,) = _keys(site)
    (pair,) = site.consul.ask.get(f"/v1/kv/{key}?consistent")
    said = json.loads(base64.b64decode(pair["Value"]))
    assert datetime.fromisoformat(said["at"]) <= datetime.now(UTC)
    site.consul.ask.delete(f"/v1/kv/{key}")
    site.consul.ask.put(f"/v1/kv/{key.rpartition('/')[0]}/{node}", said)


def test_an_older_generation_gives_way_quietly(site: CnameHost) -> None:
    """A host whose files are not rolled out yet: exit 0, and nothing on standard error."""
    site.define_chocon(gen=2)
    site.cname("sync")
    site.define_chocon(gen=1, ttl=5)

    result = site.cname("sync")

    assert (result.code, result.err) == (0, "")
    assert "deferred" in result.out


@pytest.mark.parametrize(
    ("cname", "said"),
    [
        ({"name": ZONE}, "is the apex of its zone"),
        ({"name": "www.example.org.", "zone": ZONE}, "not in the zone"),
        ({"name": "www.*.example.org."}, "* must be the whole first label"),
        ({"name": "www"}, "is unknown"),
        ({"tag": "a.b"}, "cannot be looked up"),
        ({"tag": ["a", "b"]}, "is an array, not a string"),
        ({"provider": "bind9"}, "there is no DNS provider 'bind9'"),
        ({"target": f"x.{ZONE}"}, "points at itself"),
    ],
)
def test_faults_are_reported_before_anything_is_sent(site: CnameHost, cname: dict[str, Any], said: str) -> None:
    before = site.dns.serial
    site.define_chocon(**cname)

    result = site.cname("sync")

    assert result.code == 78
    assert said in result.err
    assert "chocon.json: cname[0]" in result.err
    assert site.dns.serial == before


def test_a_dotted_service_is_a_fault(site: CnameHost) -> None:
    """Consul DNS would read another service's name from it."""
    file = site.services_dir / "chocon.json"
    file.write_text(json.dumps({**CHOCON, "service": {"name": "chocon.v2"}}))

    result = site.cname("plan")

    assert result.code == 78
    assert '"chocon.v2" cannot be looked up in DNS' in result.err


def test_two_definitions_of_one_record_are_a_fault(site: CnameHost) -> None:
    other = {**CHOCON, "service": {"name": "other"}}
    (site.services_dir / "other.json").write_text(json.dumps(other))

    result = site.cname("sync")

    assert result.code == 78
    assert "other.json: cname[0].name" in result.err
    assert "chocon.json (cname[0])" in result.err


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"SVCAGENT_DNS_SERVER": ""}, 78, "dns.server"),
        ({"SVCAGENT_DNS_KEY_FILE": ""}, 78, "require a key"),
        ({"SVCAGENT_DNS_KEY_FILE": "/nowhere.key"}, 78, "does not exist"),
        ({"SVCAGENT_DNS_SERVER": "127.0.0.1:9"}, 69, "does not answer"),
        ({"CONSUL_HTTP_ADDR": "127.0.0.1:9"}, 69, "cannot reach"),
    ],
)
def test_settings_and_silence_as_exit_codes(site: CnameHost, settings: dict[str, str], code: int, said: str) -> None:
    result = site.cname("sync", **settings)

    assert result.code == code, result.text
    assert said in result.err


def test_an_unknown_name_is_a_usage_error(site: CnameHost) -> None:
    """It lists those there are; a record's name and its service's are both known."""
    assert site.cname("plan", "nobody").code == 2
    assert RECORD in site.cname("plan", "nobody").err
    for name in ("chocon", RECORD, RECORD.rstrip("."), RECORD.upper()):
        assert site.cname("plan", name).code == 0


def test_the_key_is_never_shown(site: CnameHost, tmp_path: Path) -> None:
    """Neither in a log nor in an error; a key that everybody can read is warned of."""
    exposed = tmp_path / "exposed.key"
    exposed.write_text(site.dns.key.file.read_text())
    exposed.chmod(0o644)

    result = site.cname("sync", "-v", SVCAGENT_DNS_KEY_FILE=str(exposed))
    in_environment = site.cname(
        "sync", "-v", SVCAGENT_DNS_KEY_FILE="", SVCAGENT_DNS_KEY_NAME="svcagent", SVCAGENT_DNS_KEY_SECRET="c2VjcmV0"
    )

    assert result.code == 0
    assert f"chmod o-r {exposed}" in result.err
    assert in_environment.code == 1
    assert "BADSIG" in in_environment.err
    for secret in (site.dns.key.secret, "c2VjcmV0"):
        assert secret not in result.text + in_environment.text


def test_a_key_of_the_environment(site: CnameHost) -> None:
    secret = site.dns.key.secret

    created = site.outcome(
        "sync", SVCAGENT_DNS_KEY_FILE="", SVCAGENT_DNS_KEY_NAME="svcagent", SVCAGENT_DNS_KEY_SECRET=secret
    )

    assert created["outcome"] == "created"


def test_adopting_marks_the_record_and_leaves_it(site: CnameHost) -> None:
    site.dns.put(RECORD, 60, "CNAME", TARGET)
    assert site.outcome("sync", code=1)["outcome"] == "conflict"

    adopted = site.outcome("adopt", "chocon")

    assert adopted["outcome"] == "adopted"
    assert site.outcome("adopt", "chocon")["outcome"] == "in place"
    assert site.outcome("sync")["outcome"] == "in place"


def test_what_is_not_as_the_definition_says_is_not_adopted(site: CnameHost) -> None:
    site.dns.put(RECORD, 60, "CNAME", "elsewhere.example.net.")

    refused = site.outcome("adopt", RECORD, code=1)

    assert "elsewhere.example.net." in refused["why"]
    assert site.dns.bind.lookup(MARKER, "TXT") == ()


def test_remove_takes_what_was_published(site: CnameHost) -> None:
    """Record and marker; a second time there is nothing to do."""
    site.cname("sync")

    removed = site.outcome("remove", RECORD)
    again = site.outcome("remove", RECORD)

    assert (removed["outcome"], again["outcome"]) == ("removed", "absent")
    assert site.dns.bind.lookup(RECORD, "CNAME") == ()
    assert site.dns.bind.lookup(MARKER, "TXT") == ()


@pytest.mark.parametrize("changed", ["value", "marker", "no marker", "generation"])
def test_remove_leaves_what_is_not_as_it_was_published(site: CnameHost, changed: str) -> None:
    site.cname("sync")
    if changed == "value":
        site.dns.put(RECORD, 60, "CNAME", "elsewhere.example.net.")
    elif changed == "marker":
        site.dns.put(MARKER, 60, "TXT", '"hands off"')
    elif changed == "no marker":
        site.dns.take(MARKER, "TXT")
    else:
        site.define_chocon(gen=1)
    before = site.dns.serial

    refused = site.outcome("remove", RECORD, code=1)

    assert refused["outcome"] == "conflict"
    assert site.dns.serial == before


def test_a_record_that_no_definition_has_any_more_is_removed_by_naming_its_owner(site: CnameHost) -> None:
    site.cname("sync")
    (site.services_dir / "chocon.json").unlink()

    unsure = site.outcome("remove", RECORD, code=1)
    wrong = site.outcome("remove", RECORD, "--owner", "web/production/dc1", code=1)
    right = site.outcome("remove", RECORD, "--owner", "chocon/production/dc1")

    assert "--owner chocon/production/dc1" in unsure["why"]
    assert "belongs to chocon/production/dc1" in wrong["why"]
    assert right["outcome"] == "removed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("www",), 2),
        (("a.*.b.",), 2),
        ((f"{'a' * 64}.b.",), 2),
        ((ZONE,), 2),
        (("www", "--zone", "b..c"), 2),
        (("www.elsewhere.test.",), 1),
        (("www.elsewhere.test.", "--zone", "elsewhere.test."), 1),
        (("www", "--zone", ZONE), 0),
        (("chocon",), 0),
    ],
)
def test_what_can_be_named_to_be_removed(site: CnameHost, arguments: tuple[str, ...], code: int) -> None:
    """A complete name, or one with its zone; the record does not exist."""
    result = site.cname("remove", *arguments)

    assert result.code == code, result.text


def test_status_shows_every_server_and_the_resolver(site: CnameHost, servers: tuple[Dns, Bind, Bind]) -> None:
    """Down to the addresses of passing instances. No key is needed."""
    site.cname("sync")

    result = site.cname("status", "--json", SVCAGENT_DNS_KEY_FILE="")

    assert result.code == 0, result.text
    (report,) = json.loads(result.out)
    serial = site.dns.serial
    assert [(one["name"], one["serial"], one["record"]) for one in report["servers"]] == [
        (f"ns1.{ZONE}", serial, {"target": TARGET, "ttl": 60}),
        (f"ns2.{ZONE}", serial, {"target": TARGET, "ttl": 60}),
    ]
    assert report["servers"][1]["address"] == servers[1].endpoint
    assert (report["resolver"]["target"], report["resolver"]["addresses"]) == (TARGET, [site.consul.address])
    assert report["passing"] == [site.consul.address]
    assert TARGET in site.cname("status").out


def test_status_without_a_record(site: CnameHost) -> None:
    result = site.cname("status")

    assert result.code == 1
    assert result.err.count("the record does not exist; expected: CNAME") == 2
    assert "returns no CNAME" in result.err


def test_status_with_an_instance_that_does_not_pass(site: CnameHost) -> None:
    """Consul DNS names instances in the state warning, too."""
    site.cname("sync")
    register(site.consul)
    site.consul.ask.put("/v1/agent/check/warn/chocon-real")
    wait_until(lambda: not site.consul.ask.passing("chocon"), 10, "the catalog shows the warning")

    result = site.cname("status")

    assert result.code == 1
    assert f"returns {site.consul.address}, where no instance of chocon passes" in result.err


def test_status_with_a_server_that_is_silent(site: CnameHost, servers: tuple[Dns, Bind, Bind]) -> None:
    """Exit 69; what the others say is shown all the same."""
    site.cname("sync")
    servers[1].freeze()
    try:
        result = site.cname("status", SVCAGENT_DNS_TIMEOUT="500ms")
    finally:
        servers[1].thaw()

    assert result.code == 69
    assert f"ns2.{ZONE}" in result.err
    assert f"resolver {site.resolver.endpoint}" in result.out


def test_a_secondary_that_lags_is_named(host: ConsulHost, site: CnameHost) -> None:
    """By sync, which waits for it no longer than it was told, and by status, until it has caught up."""
    with (
        dns_server(ZONE, secondaries=1, is_notifying=False) as dns,
        secondary(dns) as second,
        resolver(dns, (host.address, 8600)) as resolving,
    ):
        lagging = CnameHost(site.home, dns, resolving, host)

        synced = lagging.outcome("sync", "--wait", "300ms")
        behind = lagging.cname("status")
        second.rndc("refresh", ZONE)
        wait_until(lambda: second.serial(ZONE) == dns.serial, 10, "the secondary has caught up")
        caught_up = lagging.cname("status")

    assert synced["outcome"] == "created"
    assert len(synced["unverified"]) == 1
    assert synced["unverified"][0].startswith(f"ns2.{ZONE}")
    assert behind.code == 1
    assert "its serial 1 is behind 2" in behind.err
    assert caught_up.code == 0, caught_up.text


def test_doctor_finds_nothing_where_all_is_well(site: CnameHost) -> None:
    assert site.doctor("--strict").code == 0, site.doctor().text
    site.cname("sync")

    result = site.doctor("--strict", "--json", "--only", "dns")

    assert result.code == 0, result.text
    found = json.loads(result.out)
    assert {one["level"] for one in found} == {"ok"}
    assert any("is BIND 9." in one["what"] for one in found)


@pytest.mark.parametrize(
    ("options", "is_forwarding", "line"),
    [
        ("recursion no;", True, "recursion yes;"),
        ("recursion yes; dnssec-validation no;", False, 'zone "consul" { type forward; forward only;'),
        ("recursion yes; dnssec-validation auto;", True, 'validate-except { "consul"; };'),
        ("recursion yes; dnssec-validation auto;", True, 'validate-except { "ccnproxy-https"; };'),
        ("recursion yes; dnssec-validation no; min-cache-ttl 30;", True, "min-cache-ttl 0;"),
        ("recursion yes; dnssec-validation no; min-ncache-ttl 30;", True, "min-ncache-ttl 0;"),
    ],
)
def test_doctor_names_the_line_that_lacks_in_the_resolver(
    host: ConsulHost, site: CnameHost, options: str, is_forwarding: bool, line: str
) -> None:
    site.cname("sync")
    consul_dns = (host.address, 8600)
    with resolver(site.dns, consul_dns, options=options, is_forwarding=is_forwarding, last=10) as resolving:
        result = site.doctor(SVCAGENT_DNS_RESOLVER=resolving.endpoint, SVCAGENT_DNS_TIMEOUT="8s")

    assert result.code == 1
    assert line in result.out, result.text


def test_doctor_names_what_the_key_lacks(site: CnameHost) -> None:
    result = site.doctor(SVCAGENT_DNS_KEY_FILE=str(site.dns.stranger.file))

    assert result.code == 1
    assert f"grant stranger subdomain _svcagent.{ZONE} TXT;" in result.out


def test_doctor_names_a_zone_that_remembers_absence_for_long(host: ConsulHost, site: CnameHost) -> None:
    with dns_server(ZONE, minimum=86400) as dns:
        result = CnameHost(site.home, dns, site.resolver, host).doctor()

    assert result.code == 1
    assert f"set the last number (minimum) in the SOA of {ZONE} to 60" in result.out


def test_doctor_suggests_signed_questions_where_the_zone_asks_for_the_key(host: ConsulHost, site: CnameHost) -> None:
    with dns_server(ZONE) as dns:
        config = dns.bind.config.read_text()
        dns.bind.config.write_text(config.replace("notify no;", 'notify no; allow-query { key "svcagent"; };', 1))
        dns.bind.rndc("reconfig")
        result = CnameHost(site.home, dns, site.resolver, host).doctor()

    assert result.code == 1
    assert "sign_queries = true" in result.out, result.out


def test_a_conflict_is_reported_once_until_the_record_is_in_place(site: CnameHost, tmp_path: Path) -> None:
    """By the first host that finds it, again when it returns, and never by hosts without endpoints."""
    foreign = "elsewhere.example.com."
    with Endpoint() as endpoint:
        notifying = CnameHost(
            tmp_path, site.dns, site.resolver, site.consul, "--config", str(settings_file(tmp_path, [endpoint.url]))
        )
        site.dns.put(RECORD, 60, "CNAME", foreign)
        assert site.cname("sync").code == 1
        assert [notifying.cname("sync").code for _time in range(3)] == [1, 1, 1]
        [message] = endpoint.messages
        assert message["title"] == f"chocon: conflict in DNS, {RECORD} differs from its definition"
        assert foreign in message["message"]

        site.dns.take(RECORD, "CNAME")
        assert [notifying.cname("sync").code for _time in range(2)] == [0, 0]
        site.dns.clear("*")
        site.dns.put(RECORD, 60, "CNAME", foreign)
        assert notifying.cname("sync").code == 1
        wait_until(lambda: len(endpoint.messages) == 2, 60, "people are notified again", every=0.1)
