"""What is told of bad definitions: the file, the place, what is wrong, what would be right."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.definitions import load
from agent.errors import BadDefinition, Fault
from tests.support.nobody import as_nobody

HTTP = {"http": "http://127.0.0.1:8080/hc", "interval": "10s"}
LONG = "x" * 600


def faults(directory: Path) -> list[Fault]:
    with pytest.raises(BadDefinition) as caught:
        load(directory)
    return list(caught.value.faults)


def service(**fields: Any) -> dict[str, Any]:
    return {"service": {"name": "web", **fields}}


def check(**fields: Any) -> dict[str, Any]:
    return service(checks=[fields])


def http(**fields: Any) -> dict[str, Any]:
    return check(**(HTTP | fields))


def reload(**fields: Any) -> dict[str, Any]:
    return service(checks=[HTTP]) | {"reload": {"image": "web", "container": "web", **fields}}


def restart(**fields: Any) -> dict[str, Any]:
    return service(checks=[HTTP]) | {"reload": {"restart": ["systemctl", "restart", "web"], **fields}}


def cname(**fields: Any) -> dict[str, Any]:
    return service() | {"cname": [{"name": "www.example.com.", **fields}]}


CHECK = "service.checks[0]"
PLACES = {service: "service", http: CHECK, reload: "reload", restart: "reload", cname: "cname[0]"}


def each(make: Callable[..., Any], key: str, values: Iterable[Any], said: str) -> list[tuple[Any, str, str]]:
    """A row for each value of one key."""
    return [(make(**{key: value}), f"{PLACES[make]}.{key}", said) for value in values]


PORT = {"name": "http", "port": 80, "default": True}
IMAGES_OF_DOCKER_REFUSED = (
    *("Web", "web:a b", "web:", "", "https://registry/web"),
    *("registry-/web", "a./b", "b--/1", "-/web", "a.:5/b", "r.example.com:x/web", "a/b_", "a/.b", "[::1/web"),
)
UNADDRESSABLE = ("web http://127.0.0.1:8080/hc", "web//hc", "/web", "web//", "/", ".", "..", "web/../1", "web/.")
NO_DURATION = 'is not a duration; write a number with a unit, like "10s" or "1m30s"'

BAD: list[tuple[Any, str, str]] = [
    # The document
    ({}, "service", "missing"),
    (service() | {"services": [{"name": "b"}]}, "services", '"service" and "services" are both in this file'),
    ({"services": []}, "services", "the list is empty"),
    ({"services": {"name": "web"}}, "services", "is an object, not an array"),
    ({"service": [{"name": "web"}]}, "service", "is an array, not an object"),
    ({"service": "web"}, "service", '"web" is a string, not an object'),
    ({"service": None}, "service", "null is not allowed"),
    (service() | {"servce": {}}, "servce", 'write "service" if that is what you mean'),
    (service() | {"zzz": 1}, "zzz", 'use "cname", "reload", "service" or "services"'),
    (service() | {"checks": []}, "checks", "write it inside the service"),
    (service() | {"Service": {}}, "Service", '"service" and "Service" are the same key'),
    (
        {"services": [{"name": "web", "checks": [HTTP]}], "reload": {"image": "a", "container": "web"}},
        "reload",
        'cannot have "reload"',
    ),
    # The service
    ({"service": {}}, "service.name", 'missing; add "name": the name that clients look up'),
    *each(service, "name", ("a.b", "a b", "-a", "a-", "ä", "", "web\n"), "cannot be looked up in DNS"),
    (service(name="a" * 64), "service.name", "at most 63"),
    (service(name=7), "service.name", '7 is a number, not a string; write "7" in quotes'),
    (service(name="Consul", id="c"), "service.name", "reserved for Consul's servers"),
    (service(id="consul"), "service.id", "reserved for Consul's servers"),
    (service(id="a\tb"), "service.id", "is not a valid ID"),
    (service(id=" a"), "service.id", "without spaces around"),
    *each(service, "id", UNADDRESSABLE, "cannot address it"),
    *each(http, "id", UNADDRESSABLE, "cannot address it"),
    (service(port=0), "service.port", "0 is out of range; write a number that is at least 1"),
    (service(port=99999), "service.port", "at most 65535"),
    (service(port=-1), "service.port", "at least 1"),
    (service(port="8080"), "service.port", '"8080" is a string, not an integer; write 8080 without quotes'),
    (service(port=80.0), "service.port", "80.0 is a number, not an integer"),
    (service(port=True), "service.port", "is a boolean, not an integer"),
    (service(port=None), "service.port", "null is not allowed; leave the key out"),
    (service(tags="production"), "service.tags", 'write ["production"]'),
    (service(tags=["a", 1]), "service.tags[1]", "not a string"),
    (service(tags=[""]), "service.tags[0]", "is not a valid tag"),
    (service(tags=[None]), "service.tags[0]", "null is not allowed"),
    *each(service, "address", ("0.0.0.0", "::"), "wildcard address"),
    *each(service, "address", ("not an address", "1.2.3", "[::1]"), "neither an IP address nor a host name"),
    (service(meta={"a.b": "c"}), "service.meta", 'refuses the key "a.b"'),
    (service(meta={"": "c"}), "service.meta", 'refuses the key ""'),
    (service(meta={"k" * 129: "c"}), "service.meta", "at most 128"),
    (service(meta={"a": "x" * 513}), "service.meta", "513 bytes long; write at most 512"),
    (service(meta={"a": "ä" * 257}), "service.meta", "514 bytes long"),
    *each(service, "meta", ({"consul-a": "c"}, {"Svcagent-Fingerprint": "c"}), "is reserved"),
    (service(meta={"a": 1}), "service.meta.a", "1 is a number, not a string"),
    (service(meta={str(n): "" for n in range(64)}), "service.meta", "64 pairs are too many"),
    (service(meta={"a": "\ud800"}), "service.meta.a", "surrogate pair"),
    (service(meta=["a"]), "service.meta", "is an array, not an object"),
    (service(weights={"passing": 0}), "service.weights.passing", "at least 1"),
    (service(weights={"passing": 65536}), "service.weights.passing", "at most 65535"),
    (service(weights={"warning": -1}), "service.weights.warning", "at least 0"),
    (service(weights={"critical": 1}), "service.weights.critical", "unknown key"),
    (service(tagged_addresses={"lan": {"port": 1}}), "service.tagged_addresses.lan.address", "missing"),
    (service(tagged_addresses={"lan": "10.0.0.7"}), "service.tagged_addresses.lan", "not an object"),
    (service(tagged_addresses={"lan": {"address": "a", "prot": 1}}), "service.tagged_addresses.lan.prot", '"port"'),
    (service(enable_tag_override="yes"), "service.enable_tag_override", '"yes" is a string, not a boolean'),
    (service(enable_tag_override=1), "service.enable_tag_override", "1 is a number, not a boolean"),
    (service(token="hush"), "service.token", "CONSUL_HTTP_TOKEN_FILE"),
    (service(connect={}), "service.connect", "does not register proxies"),
    (service(Tags=[], tags=[]), "service.tags", "are the same key"),
    (service(checks=HTTP), "service.checks", "is an object, not an array"),
    (
        service(check={"ttl": "1s"}, checks=[{"ttl": "1s"}] * 30),
        "service.checks",
        "31 checks are too many; write at most 30",
    ),
    (service(checks=["http://127.0.0.1/"]), CHECK, "is a string, not an object"),
    (service(check={"ttl": "10"}), "service.check.ttl", NO_DURATION),
    # Checks
    (check(), CHECK, 'the check has no type; add "http", "tcp"'),
    (check(interval="10s"), CHECK, "the check has no type"),
    (check(http="http://127.0.0.1/"), f"{CHECK}.interval", "missing"),
    (check(tcp="127.0.0.1:80"), f"{CHECK}.interval", "missing"),
    (check(grpc="127.0.0.1:80"), f"{CHECK}.interval", "missing"),
    (check(args=["true"]), f"{CHECK}.interval", "missing"),
    (check(docker_container_id="web", interval="10s"), f"{CHECK}.args", "missing"),
    (http(tcp="127.0.0.1:80"), CHECK, '"http" and "tcp" are in one check'),
    (http(ttl="10s"), CHECK, '"http" and "ttl" are in one check'),
    (check(ttl="10s", interval="10s"), f"{CHECK}.interval", 'type "ttl" does not use it'),
    (check(ttl="10s", timeout="10s"), f"{CHECK}.timeout", "does not use it"),
    (check(os_service="sshd", interval="10s"), f"{CHECK}.os_service", '["systemctl", "is-active", "--quiet", "sshd"]'),
    (
        service(checks=[{**HTTP, "failures_before_warning": 3, "failures_before_critical": 2}]),
        f"{CHECK}.failures_before_warning",
        "write 2 or less",
    ),
    (
        service(checks=[{**HTTP, "failures_before_warning": 1}]),
        f"{CHECK}.failures_before_warning",
        "raise failures_before_critical",
    ),
    (check(alias_service=""), f"{CHECK}.alias_service", "is empty"),
    (check(alias_service="db", interval="10s"), f"{CHECK}.interval", "does not use it"),
    (check(tcp="127.0.0.1:80", interval="10s", method="GET"), f"{CHECK}.method", "does not use it"),
    (check(tcp="127.0.0.1:80", interval="10s", header={}), f"{CHECK}.header", "does not use it"),
    (
        check(tcp="127.0.0.1:80", interval="10s", tls_server_name="a"),
        f"{CHECK}.tls_server_name",
        'add "tcp_use_tls": true',
    ),
    (check(tcp="127.0.0.1:80", interval="10s", tls_skip_verify=True), f"{CHECK}.tls_skip_verify", "does not use it"),
    (http(tcp_use_tls=True), f"{CHECK}.tcp_use_tls", 'type "http" does not use it'),
    (check(args=["a"], interval="10s", shell="/bin/sh"), f"{CHECK}.shell", "does not use it"),
    (http(interval="10"), f"{CHECK}.interval", f'"10" {NO_DURATION}'),
    (http(interval="1d"), f"{CHECK}.interval", f'"1d" {NO_DURATION}'),
    (http(interval=""), f"{CHECK}.interval", f'"" {NO_DURATION}'),
    (http(interval=10), f"{CHECK}.interval", "10 is a number, not a duration"),
    (http(interval=["10s"]), f"{CHECK}.interval", "is an array, not a duration"),
    *each(http, "interval", ("-5s", "0s"), "must be greater than 0"),
    (http(interval="100ms"), f"{CHECK}.interval", "shorter than Consul's minimum"),
    (http(timeout="-1s"), f"{CHECK}.timeout", "must be greater than 0"),
    (check(ttl=30), f"{CHECK}.ttl", "not a duration"),
    (http(deregister_critical_service_after="30s"), f"{CHECK}.deregister_critical_service_after", '"1m" or more'),
    *each(
        http,
        "http",
        ("127.0.0.1:8080/hc", "ftp://127.0.0.1/", "http:///hc", "http://h:99999/", "http://[::1/", ""),
        "not an http or https URL",
    ),
    (http(http="http://h/a b"), f"{CHECK}.http", "contains a space"),
    (http(method="bo gus"), f"{CHECK}.method", "not an HTTP method"),
    (http(header={"A": "b"}), f"{CHECK}.header.A", "not an array"),
    (http(header={"A b": ["c"]}), f"{CHECK}.header", "not the name of an HTTP header"),
    (http(header={"A": ["b\r\nC: d"]}), f"{CHECK}.header", "contains a control character"),
    (http(status="ok"), f"{CHECK}.status", 'write one of "passing", "warning" or "critical"'),
    (http(output_max_size=0), f"{CHECK}.output_max_size", "at least 1"),
    (http(output_max_size=2**20 + 1), f"{CHECK}.output_max_size", "at most 1048576"),
    *(
        (http(**{key: 2**31}), f"{CHECK}.{key}", "at most 2147483647")
        for key in ("success_before_passing", "failures_before_critical")
    ),
    (
        http(failures_before_critical=2**31 - 1, failures_before_warning=2**31),
        f"{CHECK}.failures_before_warning",
        "write 2147483647 or less",
    ),
    (reload(max_parallel=2**31), "reload.max_parallel", "at most 2147483647"),
    *each(
        http,
        "http",
        ("http://[::1]8080/hc", "http://[::1]x/", "http://me@[::1]8/"),
        "not an http or https URL",
    ),
    (http(success_before_passing=-1), f"{CHECK}.success_before_passing", "at least 0"),
    (http(tls_skip_verify="true"), f"{CHECK}.tls_skip_verify", "not a boolean"),
    (http(timeut="5s"), f"{CHECK}.timeut", 'write "timeout" if that is what you mean'),
    (http(id="_service_maintenance:web"), f"{CHECK}.id", "Consul reserves"),
    (http(id="a", CheckID="b"), f"{CHECK}.CheckID", '"id" and "CheckID" are the same key'),
    (http(service_id="web"), f"{CHECK}.service_id", "belongs to the service that contains it"),
    (http(token="hush"), f"{CHECK}.token", "registers with its own token"),
    (check(tcp="127.0.0.1", interval="10s"), f"{CHECK}.tcp", "is not host:port"),
    (check(tcp="127.0.0.1:0", interval="10s"), f"{CHECK}.tcp", "port 0 is out of range"),
    (check(tcp="::1:80", interval="10s"), f"{CHECK}.tcp", "is not host:port"),
    (check(tcp="http://127.0.0.1:80", interval="10s"), f"{CHECK}.tcp", "is not host:port"),
    (check(grpc="127.0.0.1/svc", interval="10s"), f"{CHECK}.grpc", "is not host:port"),
    (check(grpc="127.0.0.1:80/a b", interval="10s"), f"{CHECK}.grpc", "not host:port/service"),
    (check(args=[], interval="10s"), f"{CHECK}.args", "the command is empty"),
    (check(args="true", interval="10s"), f"{CHECK}.args", "not an array"),
    (
        check(script="/usr/local/bin/check-http -u 'http://127.0.0.1:8080/hc'", interval="10s", timeout="5s"),
        f"{CHECK}.script",
        'write {"http": "http://127.0.0.1:8080/hc", "interval": "10s"} instead',
    ),
    (
        check(script="/usr/local/bin/check-disk"),
        f"{CHECK}.script",
        'write {"args": ["/bin/sh", "-c", "/usr/local/bin/check-disk"], "interval": "10s"} instead',
    ),
    # Reload
    (service(checks=[HTTP]) | {"reload": {"container": "web"}}, "reload.image", 'missing; add "image"'),
    (service(checks=[HTTP]) | {"reload": {"image": "web"}}, "reload.container", 'missing; add "container"'),
    (service() | {"reload": {"image": "web", "container": "web"}}, "service.checks", "needs an http or tcp check"),
    (
        service(checks=[{"ttl": "10s"}]) | {"reload": {"image": "web", "container": "web"}},
        "service.checks",
        "needs an http or tcp check",
    ),
    (service(checks=[HTTP]) | {"reload": {}}, "reload", 'add "image" and "container", or "restart"'),
    (restart(image="web"), "reload.image", 'remove it or "restart"'),
    (restart(container="web"), "reload.container", 'a service with "restart" has none'),
    (restart(keep_images=2), "reload.keep_images", "applies to a container"),
    (restart(tag_file="/tag"), "reload.tag_file", "applies to a container"),
    (restart(min_age="1h"), "reload.min_age", "applies to a container"),
    (restart(rollback=True), "reload.rollback", "applies to a container"),
    (restart(stop_timeout="1s"), "reload.stop_timeout", "applies to a container"),
    *each(restart, "restart", ([], [" "]), "the command is empty"),
    (restart(restart=["a", "b\0"]), "reload.restart", "NUL character"),
    (restart(restart="systemctl restart web"), "reload.restart", 'write ["systemctl", "restart", "web"]'),
    (restart(restart="sh -c 'a b'"), "reload.restart", 'write ["sh", "-c", "a b"]'),
    (restart(restart="it's"), "reload.restart", 'write ["it\'s"]'),
    (restart(restart=["systemctl restart", "web"]), "reload.restart", 'as an item: ["systemctl", "restart", "web"]'),
    (restart(hooks={"on_failure": ["mail root"]}), "reload.hooks.on_failure", 'as an item: ["mail", "root"]'),
    (restart(restart=["a", 1]), "reload.restart[1]", "not a string"),
    (restart(restart=None), "reload.restart", "null is not allowed"),
    (restart(restart_timeout="0s"), "reload.restart_timeout", "greater than 0"),
    (reload(restart_timeout="1m"), "reload.restart_timeout", 'requires "restart"'),
    (reload(min_age="-1h"), "reload.min_age", "must not be negative"),
    (reload(windows=[]), "reload.windows", "the list is empty; add a window, or leave the key out"),
    (reload(windows="22:00-06:00"), "reload.windows", 'write ["22:00-06:00"]'),
    (reload(windows=[5]), "reload.windows[0]", "is a number, not a time window"),
    (reload(windows=[{"begin": 5}]), "reload.windows[0]", "is an object, not a time window"),
    (reload(windows=["22-06"]), "reload.windows[0]", 'write it like "22:00-06:00", "Mon-Fri 01:00-05:00"'),
    (reload(windows=["01:00-02:00", "1:00-2:00"]), "reload.windows[1]", "is not a time window"),
    (reload(windows=["25:00-26:00"]), "reload.windows[0]", "is not a time window"),
    (reload(windows=["24:00-06:00"]), "reload.windows[0]", "is not a time window"),
    (reload(windows=["01:00-05:00 Mon"]), "reload.windows[0]", "is not a time window"),
    (reload(windows=["05:00-05:00"]), "reload.windows[0]", 'write "00:00-24:00" for a whole day'),
    (reload(windows=["Mo 01:00-05:00"]), "reload.windows[0]", '"Mo" is not a day; write Mon, Tue, Wed'),
    (reload(windows=["Mon- 01:00-05:00"]), "reload.windows[0]", "is not a day"),
    (reload(windows=["Mon-Wed-Fri 01:00-05:00"]), "reload.windows[0]", "is not a day"),
    (reload(hooks=[]), "reload.hooks", "not an object"),
    (reload(hooks={"before_drain": []}), "reload.hooks.before_drain", "the command is empty"),
    (reload(hooks={"after_drain": "/bin/true"}), "reload.hooks.after_drain", 'write ["/bin/true"]'),
    (reload(hooks={"after_drian": ["/bin/true"]}), "reload.hooks.after_drian", 'write "after_drain" if'),
    (reload(hooks={"timeout": "0s"}), "reload.hooks.timeout", "greater than 0"),
    (reload(max_parallel=0), "reload.max_parallel", "at least 1"),
    *each(reload, "image", IMAGES_OF_DOCKER_REFUSED, "not an image name"),
    (reload(image="web@sha256:" + "0" * 64), "reload.image", "is pinned to a digest"),
    *each(reload, "image", ("sha256:" + "0" * 64, "0" * 64), "an image ID"),
    *each(reload, "container", ("/web", "w"), "not a container name"),
    *each(reload, "schedule", ("@daily", "0 0 * * * *"), "write five fields"),
    (reload(schedule="61 * * * *"), "reload.schedule", "minute 61 is out of range (0-59)"),
    (reload(schedule="0 0 31 2 *"), "reload.schedule", "never occurs; write a day of the month that exists"),
    *each(reload, "timezone", ("Mars/Olympus", "../passwd", "Europe"), "not a time zone"),
    (reload(jitter="-1s"), "reload.jitter", "must not be negative"),
    (reload(jitter=60), "reload.jitter", "not a duration"),
    *each(
        reload,
        "lock",
        ("", "/a", "a/", "a//b", "a/.lock", "web:reload", "web%2Freload", "web reload", "a/../b", "a..b", "a/./b"),
        "not a lock prefix",
    ),
    (service(port=80, ports=[PORT]), "service.ports", '"port" and "ports" are both in one service'),
    (service(ports=[]), "service.ports", "exactly one port must be the default"),
    (service(ports=[{**PORT, "default": False}]), "service.ports", 'write "default": true in one of them'),
    (service(ports=[PORT, {**PORT, "default": False}]), "service.ports", '"http" is the name of 2 ports'),
    (service(ports=[{**PORT, "port": 0}]), "service.ports[0].port", "1"),
    (
        service(checks=[HTTP], ports=[PORT]) | {"reload": {"image": "web", "container": "web"}},
        "service.ports",
        "cannot drain a service with several ports",
    ),
    *each(reload, "lock", ("svcagent", "svcagent/web/hosts"), "reserved for svcagent's documents"),
    *each(
        reload, "min_healthy", (-1, "101%", "2", True, {"value": 1}), "neither a number of instances nor a percentage"
    ),
    (reload(drain={"max": "-1s"}), "reload.drain.max", "must not be negative"),
    (reload(drain={"max": 30}), "reload.drain.max", "30 is a number, not a duration"),
    (reload(drain={"min": 1e308}), "reload.drain.min", "not a duration"),
    (reload(drain={"min": 10**400}), "reload.drain.min", "not a duration"),
    (reload(drain={"min": "10s", "max": "5s"}), "reload.drain.max", '"5s" is shorter than drain.min; write "10s"'),
    (reload(drain={"min": "40s"}), "reload.drain.max", '"30s" (the default) is shorter'),
    (reload(drain={"connections": "no"}), "reload.drain.connections", "not a boolean"),
    (reload(drain="30s"), "reload.drain", "not an object"),
    (reload(ready={"timeout": "0s"}), "reload.ready.timeout", "greater than 0"),
    (reload(ready={"successes": 0}), "reload.ready.successes", "at least 1"),
    (reload(ready={"interval": "0s"}), "reload.ready.interval", "greater than 0"),
    (reload(ready={"warmup": ["/a"]}), "reload.ready.warmup[0]", "not an http or https URL"),
    (reload(ready={"warmup_timeout": "0s"}), "reload.ready.warmup_timeout", "greater than 0"),
    (reload(ready={"warmup": "http://h/"}), "reload.ready.warmup", "not an array"),
    (reload(stop_timeout="soon"), "reload.stop_timeout", NO_DURATION),
    (reload(rollback=0), "reload.rollback", "not a boolean"),
    (reload(keep_images=0), "reload.keep_images", "at least 1"),
    (reload(tag_file="tag"), "reload.tag_file", "is a relative path"),
    (reload(tag_file=5), "reload.tag_file", "not a path"),
    (reload(imgae="x"), "reload.imgae", 'write "image" if'),
    # CNAMEs
    (service() | {"cname": {"name": "a"}}, "cname", "is an object, not an array"),
    (service() | {"cname": [{}]}, "cname[0].name", "missing"),
    *each(cname, "name", ("a..b", "a.*.b", "*a.b", "a" * 64, ""), "not a DNS name"),
    (cname(tag="a.b"), "cname[0].tag", "cannot be looked up in DNS"),
    (cname(zone="*"), "cname[0].zone", "not a DNS name"),
    (cname(ttl=-1), "cname[0].ttl", "at least 0"),
    (cname(ttl="60s"), "cname[0].ttl", "not an integer"),
    (cname(target="http://x"), "cname[0].target", "not a DNS name"),
    (cname(provider=""), "cname[0].provider", "is empty"),
    (cname(gen=1.5), "cname[0].gen", "not an integer"),
    (cname(gen=-1), "cname[0].gen", "at least 0"),
    (cname(nmae="x"), "cname[0].nmae", 'write "name" if'),
]


@pytest.mark.parametrize(("content", "path", "said"), BAD)
def test_one_fault_is_reported_once_with_its_place(tmp_path: Path, content: Any, path: str, said: str) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps(content))

    (fault,) = faults(tmp_path)

    assert (fault.file, fault.path) == (str(file), path)
    assert said in f"{fault.problem}; {fault.remedy}"
    assert "hush" not in str(fault)


# Python 3.13 and later name the place of the comma itself.
AFTER_THE_COMMA = 15 if sys.version_info >= (3, 13) else 16
UNREADABLE: list[tuple[bytes, str, str]] = [
    (b"", "", "the file is empty"),
    (b" \n", "", "the file is empty"),
    (b"[]", "", "does not contain a JSON object"),
    (b'"x"', "", "does not contain a JSON object"),
    (b"null", "", "does not contain a JSON object"),
    (b"\xef\xbb\xbf{}", "", "byte order mark"),
    (b'{"service":\n {"name": "\xff"}}', "line 2 column 12", "not UTF-8"),
    (b'{"service": \xc3\xa4\xff}', "line 1 column 14", "not UTF-8"),
    (b'{"service": {},}', f"line 1 column {AFTER_THE_COMMA}", "no comma after the last item"),
    (b"{\n  'service': {}}", "line 2 column 3", "double quotes"),
    (b'{"service": {}\n} x', "line 2 column 3", "extra data"),
    (b'{"service": {"port": NaN}}', "line 1 column 22", "NaN is not JSON"),
    (b'{"a": "NaN",\n "b": -Infinity}', "line 2 column 7", "-Infinity is not JSON"),
    (b'{"service": {"name": "a\tb"}}', "line 1 column 24", "invalid control character"),
    (b'{"service": {"port": ' + b"1" * 5000 + b"}}", "", "thousands of digits"),
    (b'{"service": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "", "nested too deeply"),
    (b'{"service": ' + b"[" * 700 + b"]" * 700 + b"}", "", "nested too deeply"),
    (b'{"service": ' + b"[" * 32 + b"]" * 32 + b"}", "", "nested too deeply"),
    (b'{"service": {"name": "' + b"x" * 2**20 + b'"}}', "", "larger than 1024 KiB"),
    (b'{"service": {"name": "a", "name": "b"}}', "service.name", "occurs more than once"),
    (b'{"service": {"name": "a", "meta": {"k": "1", "k": "2"}}}', "service.meta.k", "occurs more than once"),
    (b'{"service": {"name": "a", "tags": ["\\ud800"]}}', "service.tags[0]", "surrogate pair"),
    (b'{"service": {"name": "a", "meta": {"\\ud800": "x"}}}', "service.meta", "Consul refuses the key"),
]


@pytest.mark.parametrize(("content", "path", "said"), UNREADABLE)
def test_what_is_no_json_object_is_reported_with_its_line(tmp_path: Path, content: bytes, path: str, said: str) -> None:
    file = tmp_path / "web.json"
    file.write_bytes(content)

    (fault,) = faults(tmp_path)

    assert (fault.file, fault.path) == (str(file), path)
    assert said in f"{fault.problem}; {fault.remedy}"
    str(fault).encode()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.mkdir(), "a directory, not a file"),
        (lambda file: file.symlink_to("nowhere"), 'the symbolic link points to "nowhere", which does not exist'),
        (lambda file: file.symlink_to(file), "cannot be read"),
        (lambda file: os.mkfifo(file), "not a file"),
        (lambda file: file.symlink_to("/dev/null"), "not a file"),
    ],
)
def test_what_is_not_a_file_is_reported(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "web.json")

    (fault,) = faults(tmp_path)

    assert said in fault.problem


def test_a_file_that_may_not_be_read_is_reported(open_directory: Path) -> None:
    (open_directory / "web.json").write_text("{}")
    (open_directory / "web.json").chmod(0)

    with as_nobody():
        found = faults(open_directory)

    assert [fault.problem for fault in found] == ["the file cannot be read: Permission denied"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "services.d"

    assert faults(directory) == [
        Fault(str(directory), "", "no such directory", "create it, or name another with --services-dir")
    ]


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "services.d"
    file.touch()

    assert [fault.problem for fault in faults(file)] == ["not a directory"]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"service": {"nmae": "web"}}, "service.nmae"),
        ({"servce": {"name": "web"}}, "servce"),
        (service(checks=[{"htpp": "http://127.0.0.1/", "interval": "10s"}]), f"{CHECK}.htpp"),
        (service(checks=[{"tcp": "127.0.0.1:80", "intervall": "10s"}]), f"{CHECK}.intervall"),
        (service(checks=[HTTP]) | {"reload": {"imgae": "web", "container": "web"}}, "reload.imgae"),
        (service(checks=[HTTP]) | {"reload": {"imgae": "web", "restrat": ["true"]}}, "reload.imgae"),
        (reload() | service(checks=HTTP), "service.checks"),
        (reload() | service(cheks=[HTTP]), "service.cheks"),
    ],
)
def test_the_consequences_of_a_fault_are_not_reported(tmp_path: Path, content: Any, path: str) -> None:
    (tmp_path / "web.json").write_text(json.dumps(content))

    first, *others = faults(tmp_path)

    assert first.path == path
    assert all("restrat" in other.path for other in others)


def test_an_unknown_key_gets_no_hint_at_its_opposite(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(json.dumps(reload(hooks={"before_restart": ["true"]})))

    (fault,) = faults(tmp_path)

    assert [f'"{name}"' in fault.remedy for name in ("before_drain", "after_restart", "on_failure")] == [True] * 3


def test_the_remedy_for_another_type_is_an_example(tmp_path: Path) -> None:
    content = reload(settle="5s") | {"cname": "www.example.com."}
    (tmp_path / "web.json").write_text(json.dumps(content))

    told = {fault.path: fault.remedy for fault in faults(tmp_path)}

    assert told == {
        "cname": 'write it like [{"name": "www.example.com."}]',
        "reload.settle": 'write it like {"canary": "10s", "each": "1s"}',
    }


def test_five_faults_in_two_files_make_one_report(tmp_path: Path) -> None:
    """A field, a field beside it, what spans fields, an unknown key, and what spans files."""
    bad_check = {"http": "127.0.0.1/hc", "timeout": "5"}
    (tmp_path / "a.json").write_text(json.dumps(service(port="80", checks=[bad_check])))
    (tmp_path / "b.json").write_text(json.dumps(service(prot=80)))

    told = [(Path(fault.file).name, fault.path) for fault in faults(tmp_path)]

    assert told == [
        ("a.json", "service.checks[0].http"),
        ("a.json", "service.checks[0].interval"),
        ("a.json", "service.checks[0].timeout"),
        ("a.json", "service.name"),
        ("a.json", "service.port"),
        ("b.json", "service.name"),
        ("b.json", "service.prot"),
    ]


def test_the_report_is_readable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(http(interval="10")))

    with pytest.raises(BadDefinition) as caught:
        load(tmp_path)

    assert str(caught.value) == (
        f'{tmp_path}/a.json: service.checks[0].interval: "10" is not a duration; '
        'write a number with a unit, like "10s" or "1m30s"'
    )
    assert caught.value.exit_code == 78


def write(directory: Path, **files: Any) -> None:
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("a", "b", "path", "what"),
    [
        (service(), service(), "service.name", 'the service ID "web" is also used by'),
        (service(id="x"), service(name="x"), "service.name", 'the service ID "x" is also used by'),
        (service(), {"services": [{"name": "b"}, {"name": "c", "id": "web"}]}, "services[1].id", 'service ID "web"'),
        (http(id="c"), service(id="w2", check=HTTP | {"id": "c"}), "service.check.id", 'the CheckID "c"'),
        (http(), service(id="w2", checks=[HTTP, HTTP | {"id": "service:web:http"}]), "service.checks[1].id", "CheckID"),
        (
            reload(),
            {"service": {"name": "b", "checks": [HTTP]}, "reload": {"image": "b", "container": "web"}},
            "reload.container",
            'the container "web" is also used by',
        ),
        (service(), service(name="Web"), "service.name", "differs only by case"),
        (service(id="x"), service(name="b", id="X"), "service.id", "differs only by case"),
        (service(id="x"), service(name="WEB", id="y"), "service.name", "differs only by case"),
        (http(id="c"), service(id="w2", check=HTTP | {"id": "C"}), "service.check.id", "differs only by case"),
    ],
)
def test_what_belongs_to_one_is_not_used_by_another(tmp_path: Path, a: Any, b: Any, path: str, what: str) -> None:
    write(tmp_path, a=a, b=b)

    first, fault = faults(tmp_path)

    assert (fault.file, fault.path) == (str(tmp_path / "b.json"), path)
    assert what in fault.problem
    assert "a.json" in fault.problem
    assert first.file == str(tmp_path / "a.json")
    assert "b.json" in first.problem


def test_a_check_id_used_twice_in_one_service_is_reported(tmp_path: Path) -> None:
    write(tmp_path, a=service(checks=[HTTP | {"id": "c"}, HTTP | {"id": "c"}]))

    (fault,) = faults(tmp_path)

    assert fault.path == "service.checks[1].id"
    assert "also used by service.checks[0].id" in fault.problem


def test_instances_of_one_service_share_its_name(tmp_path: Path) -> None:
    write(tmp_path, a=service(id="x"), b=service(id="y"))

    assert len(load(tmp_path)) == 2


def test_container_names_differ_by_case(tmp_path: Path) -> None:
    """Docker distinguishes them."""
    other = {"service": {"name": "b", "checks": [HTTP]}, "reload": {"image": "b", "container": "Web"}}
    write(tmp_path, a=reload(), b=other)

    assert len(load(tmp_path)) == 2


@pytest.mark.parametrize("name", ["a_b", "_a", "a_", "_", "A_1-b"])
def test_names_with_underscores_are_accepted(tmp_path: Path, name: str) -> None:
    write(tmp_path, a=service(name=name))

    assert load(tmp_path)[0].service.name == name


def test_services_may_share_a_lock(tmp_path: Path) -> None:
    other = {"service": {"name": "b", "checks": [HTTP]}, "reload": {"image": "b", "container": "bb", "lock": "one"}}
    write(tmp_path, a=reload(lock="one"), b=other)

    assert len(load(tmp_path)) == 2


@pytest.mark.parametrize("key", ["header", "Header", "HEADER_"])
@pytest.mark.parametrize("value", ["hush\0", "hush\ud83d", "${hush", "${hush}", "${hush\0}"])
def test_a_faulty_value_below_a_secret_key_is_not_repeated(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "web.json").write_text(json.dumps(http(**{key: {"Authorization": [value]}})))

    found = faults(tmp_path)

    assert found
    assert "hush" not in str(found)


def test_a_long_value_of_half_characters_hides_no_other_fault(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(json.dumps(service(meta={"a": "\ud83d" * 200}, port=0)))

    assert {fault.path for fault in faults(tmp_path)} == {"service.meta.a", "service.meta", "service.port"}


def test_a_long_value_is_shortened_and_a_secret_is_not_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=service(name=LONG),
        b=check(http="ftp://me:hush@host/", interval="10s") | {"x": 1},
        c=service(id="c", checks=[HTTP | {"header": {"Authorization": "hush"}}]),
    )

    told = "\n".join(map(str, faults(tmp_path)))

    assert "hush" not in told
    assert LONG not in told
    assert '"xxx' in told
