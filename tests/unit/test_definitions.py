"""What a good definition becomes."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.definitions import (
    Check,
    CommandRestart,
    ContainerRestart,
    Definition,
    Drain,
    Hooks,
    MinHealthy,
    Ready,
    ReloadSection,
    Service,
    Settle,
    load,
    schema,
)

SERVICES_D = Path(__file__).parents[2] / "services.d"
HTTP = {"http": "http://127.0.0.1:8080/hc", "interval": "10s"}


def loaded(directory: Path, content: Any) -> Definition:
    (directory / "web.json").write_text(json.dumps(content))
    (definition,) = load(directory)
    return definition


def test_the_services_of_the_origin_load() -> None:
    chocon, suggest = load(SERVICES_D)

    assert [chocon.service.name, suggest.service.name] == ["chocon", "keyword-suggest"]
    assert suggest.reload is not None
    assert suggest.reload.lock_prefix(suggest.service.name) == "keyword_suggest_reload"
    assert [(cname.name, cname.tag) for cname in chocon.cname] == [("*.ccnproxy-https.", "production")]


def test_a_directory_without_definitions_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / ".hidden.json").write_text("not JSON")
    (tmp_path / "README").write_text("not JSON")

    assert load(tmp_path) == ()


def test_what_is_left_out_gets_the_documented_defaults(tmp_path: Path) -> None:
    definition = loaded(
        tmp_path, {"service": {"name": "web", "checks": [HTTP]}, "reload": {"image": "web", "container": "web"}}
    )

    assert definition.reload == ReloadSection(
        image="web:latest",
        container="web",
        min_healthy=MinHealthy(value=1),
        drain=Drain(min=0.0, max=30.0, connections=True),
    )
    assert definition.reload is not None
    assert definition.reload.lock_prefix("web") == "svcagent/web/lock"
    assert (definition.reload.ready.timeout, definition.reload.ready.successes) == (120.0, 3)
    assert (definition.reload.stop_timeout, definition.reload.keep_images, definition.reload.rollback) == (
        None,
        2,
        True,
    )
    assert definition.service.id == "web"


def test_a_registration_says_in_the_apis_words_what_the_file_says(tmp_path: Path) -> None:
    service = {
        "id": "web-1",
        "name": "web",
        "tags": ["production", "urlprefix-/web"],
        "port": 8080,
        "address": "10.0.0.7",
        "meta": {"version": "3"},
        "tagged_addresses": {"wan": {"address": "web1.example.com", "port": 80}},
        "weights": {"passing": 5},
        "enable_tag_override": True,
        "checks": [HTTP, {"id": "own", "name": "alive", "ttl": "30s"}],
    }
    definition = loaded(tmp_path, {"service": service})

    assert definition.service.registration() == {
        "ID": "web-1",
        "Name": "web",
        "Tags": ["production", "urlprefix-/web"],
        "Port": 8080,
        "Address": "10.0.0.7",
        "Meta": {"version": "3"},
        "TaggedAddresses": {"wan": {"Address": "web1.example.com", "Port": 80}},
        "Weights": {"Passing": 5, "Warning": 1},
        "EnableTagOverride": True,
        "Checks": [
            {
                "CheckID": "service:web-1:http",
                "Name": "Service 'web' check",
                "HTTP": "http://127.0.0.1:8080/hc",
                "Interval": "10s",
            },
            {"CheckID": "own", "Name": "alive", "TTL": "30s"},
        ],
    }


def test_a_check_registered_alone_has_its_id_under_the_other_name() -> None:
    (check,) = Service(name="web", checks=(Check(tcp="127.0.0.1:80", interval="5s"),)).checks

    assert check.registration() == {
        "ID": "service:web:tcp",
        "Name": "Service 'web' check",
        "TCP": "127.0.0.1:80",
        "Interval": "5s",
    }


def test_the_spellings_of_the_api_mean_the_same(tmp_path: Path) -> None:
    snake = {
        "http": "https://127.0.0.1/",
        "interval": "10s",
        "check_id": "own",
        "tls_skip_verify": True,
        "output_max_size": 100,
        "success_before_passing": 2,
        "deregister_critical_service_after": "10m",
        "header": {"X-My_Header": ["1"]},
    }
    camel = {
        "HTTP": "https://127.0.0.1/",
        "Interval": "10s",
        "CheckID": "own",
        "TLSSkipVerify": True,
        "OutputMaxSize": 100,
        "SuccessBeforePassing": 2,
        "DeregisterCriticalServiceAfter": "10m",
        "Header": {"X-My_Header": ["1"]},
    }
    one = loaded(
        tmp_path, {"service": {"name": "web", "enable_tag_override": True, "meta": {"A_b": "1"}, "check": snake}}
    )
    other = loaded(
        tmp_path, {"Service": {"Name": "web", "EnableTagOverride": True, "Meta": {"A_b": "1"}, "Check": camel}}
    )

    assert one.services == other.services
    assert one.service.meta == {"A_b": "1"}
    assert one.service.checks[0].header == {"X-My_Header": ("1",)}


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"HTTP": "http://[::1]:80/", "Interval": "10s"}, "http"),
        ({"TCP": "[::1]:80", "interval": "10s"}, "tcp"),
        ({"GRPC": "localhost:9090/my.Service", "GRPCUseTLS": True, "interval": "10s"}, "grpc"),
        ({"TTL": "1m30s"}, "ttl"),
        ({"script_args": ["/bin/true"], "interval": "10s"}, "args"),
        ({"ScriptArgs": ["/bin/true"], "interval": "10s"}, "args"),
        ({"DockerContainerID": "web", "shell": "/bin/sh", "args": ["true"], "interval": "10s"}, "docker"),
        ({"AliasService": "db"}, "alias_service"),
        ({"alias_service": "db", "alias_node": "db1"}, "alias_service"),
        ({"AliasNode": "db1"}, "alias_node"),
    ],
)
def test_every_kind_of_check_is_known(tmp_path: Path, given: dict[str, Any], kind: str) -> None:
    definition = loaded(tmp_path, {"service": {"name": "web", "checks": [given]}})

    assert [(check.kind, check.id) for check in definition.service.checks] == [(kind, f"service:web:{kind}")]


def test_computed_check_ids_count_within_their_kind(tmp_path: Path) -> None:
    checks = [{"ttl": "10s"}, HTTP, {"ttl": "20s"}, {"ttl": "30s", "id": "own"}, {"ttl": "40s"}]
    definition = loaded(tmp_path, {"service": {"id": "w", "name": "web", "check": HTTP, "checks": checks}})

    assert [check.id for check in definition.service.checks] == [
        "service:w:http",
        "service:w:ttl",
        "service:w:http:2",
        "service:w:ttl:2",
        "own",
        "service:w:ttl:4",
    ]


def test_several_services_are_in_one_file(tmp_path: Path) -> None:
    definition = loaded(tmp_path, {"services": [{"name": "web", "id": "a"}, {"name": "web", "id": "b"}]})

    assert [service.id for service in definition.services] == ["a", "b"]
    assert definition.reload is None


def test_times_of_a_check_are_seconds_to_svcagent() -> None:
    check = Check(tcp="127.0.0.1:80", interval="1m30s")

    assert (check.interval_seconds, check.timeout_seconds) == (90.0, 10.0)
    assert Check(ttl="5s").interval_seconds == 0.0
    assert Check(tcp="127.0.0.1:80", interval="1m", timeout="1.5s").timeout_seconds == 1.5


def test_a_reload_with_everything(tmp_path: Path) -> None:
    given = {
        "image": "localhost:5000/team/web_app:v1.2",
        "container": "web",
        "schedule": "*/10 0-6 * * MON-FRI",
        "timezone": "UTC",
        "jitter": "1m",
        "lock": "svcagent/other",
        "windows": ["Mon-Fri 22:00-06:00", "sat,Sun 00:00-24:00"],
        "max_parallel": 3,
        "min_healthy": "50%",
        "drain": {"min": "0s", "max": "1m30s", "connections": False},
        "ready": {"timeout": "5m", "successes": 1, "interval": "250ms", "warmup": ["http://127.0.0.1:8080/a"]},
        "hooks": {"before_drain": ["/usr/local/bin/tell", "$HOME *"], "timeout": "5s"},
        "min_age": "1h",
        "pull_timeout": "90s",
        "stop_timeout": "0s",
        "rollback": False,
        "keep_images": 5,
        "tag_file": "/var/lib/web/tag",
    }
    reload = loaded(tmp_path, {"service": {"name": "web", "checks": [HTTP]}, "reload": given}).reload

    assert reload is not None
    assert reload.image == "localhost:5000/team/web_app:v1.2"
    assert reload.min_healthy == MinHealthy(value=50, is_percent=True)
    assert reload.drain == Drain(min=0.0, max=90.0, connections=False)
    assert (reload.jitter, reload.stop_timeout, reload.ready.interval) == (60.0, 0.0, 0.25)
    assert reload.lock_prefix("web") == "svcagent/other"
    assert [(sorted(window.days), window.begin, window.end) for window in reload.windows] == [
        ([0, 1, 2, 3, 4], 22 * 60, 30 * 60),
        ([5, 6], 0, 24 * 60),
    ]
    assert [str(window) for window in reload.windows] == given["windows"]
    assert reload.hooks == Hooks(before_drain=("/usr/local/bin/tell", "$HOME *"), timeout=5.0)
    assert reload.max_parallel == 3
    assert reload.strategy == ContainerRestart(
        image="localhost:5000/team/web_app:v1.2",
        container="web",
        pull_timeout=90.0,
        stop_timeout=0.0,
        rollback=False,
        keep_images=5,
        tag_file=Path("/var/lib/web/tag"),
        min_age=3600.0,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, CommandRestart(("systemctl", "restart", "web"), 120.0)),
        ({"restart_timeout": "5s"}, CommandRestart(("systemctl", "restart", "web"), 5.0)),
    ],
)
def test_a_command_restarts_without_an_image(tmp_path: Path, given: dict[str, Any], expected: CommandRestart) -> None:
    file = {
        "service": {"name": "web", "checks": [HTTP]},
        "reload": {"restart": ["systemctl", "restart", "web"], **given},
    }

    reload = loaded(tmp_path, file).reload

    jsonschema.validate(file, schema(), jsonschema.Draft202012Validator)
    assert reload is not None
    assert reload.strategy == expected


@pytest.mark.parametrize(
    ("text", "days", "begin", "end"),
    [
        ("00:00-24:00", {0, 1, 2, 3, 4, 5, 6}, 0, 1440),
        ("22:30-00:00", {0, 1, 2, 3, 4, 5, 6}, 1350, 1440),
        ("Fri-Mon 01:00-05:00", {4, 5, 6, 0}, 60, 300),
        ("Mon,Wed-Fri,Sun  01:00-05:00", {0, 2, 3, 4, 6}, 60, 300),
        ("MON 23:59-00:01", {0}, 1439, 1441),
    ],
)
def test_windows_are_days_and_minutes(tmp_path: Path, text: str, days: set[int], begin: int, end: int) -> None:
    given = {"image": "web", "container": "web", "windows": [text]}
    file = {"service": {"name": "web", "checks": [HTTP]}, "reload": given}

    reload = loaded(tmp_path, file).reload

    jsonschema.validate(file, schema(), jsonschema.Draft202012Validator)
    assert reload is not None
    assert [(window.days, window.begin, window.end) for window in reload.windows] == [(frozenset(days), begin, end)]


@pytest.mark.parametrize(
    ("asked", "others", "needed"),
    [
        (MinHealthy(value=1), 0, 1),
        (MinHealthy(value=0), 5, 0),
        (MinHealthy(value=50, is_percent=True), 3, 2),
        (MinHealthy(value=50, is_percent=True), 0, 1),
        (MinHealthy(value=100, is_percent=True), 0, 1),
        (MinHealthy(value=1, is_percent=True), 0, 1),
        (MinHealthy(value=0, is_percent=True), 0, 0),
        (MinHealthy(value=0, is_percent=True), 9, 0),
        (MinHealthy(value=100, is_percent=True), 7, 7),
        (MinHealthy(value=7, is_percent=True), 100, 7),
        (MinHealthy(value=1, is_percent=True), 1, 1),
    ],
)
def test_a_share_of_the_others_is_rounded_up(asked: MinHealthy, others: int, needed: int) -> None:
    assert asked.needed(others) == needed


def test_a_part_is_frozen_and_has_its_fields_only() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Drain().max = 1.0  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError, match="no field mix"):
        Drain(mix=1.0)  # type: ignore[call-arg]  # the point of the test
    with pytest.raises(TypeError, match="needs the field name"):
        Service()  # type: ignore[call-arg]  # the point of the test


def test_the_schema_accepts_the_services_of_the_origin() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())

    for file in SERVICES_D.glob("*.json"):
        jsonschema.validate(json.loads(file.read_text()), schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "bad",
    [
        {"service": {"name": "web", "port": 0}},
        {"service": {"name": "web", "cheks": []}},
        {"service": {"name": "web", "checks": [{"ttl": "10"}]}},
        {"service": {"name": "web", "port": None}},
        {"service": {"name": "web"}, "reload": {"image": "web"}},
        {"service": {"name": "web"}, "reload": {"image": "web", "container": "web", "drain": {"max": 30}}},
        {"service": {"name": "web"}, "reload": {"image": "web", "container": "web", "restart": ["true"]}},
        {"service": {"name": "web"}, "reload": {"restart": ["true"], "keep_images": 2}},
        {"service": {"name": "web"}, "reload": {"image": "web", "container": "web", "windows": ["22-06"]}},
    ],
)
def test_the_schema_refuses_what_it_can_detect(bad: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema(), jsonschema.Draft202012Validator)


def test_every_field_of_the_schema_is_described() -> None:
    parts = [schema(), *schema()["$defs"].values()]

    undescribed = [name for part in parts for name, field in part["properties"].items() if "description" not in field]

    assert undescribed == []


def test_the_readme_names_every_key_of_a_reload() -> None:
    text = (SERVICES_D.parent / "README.md").read_text()
    written = set(
        re.findall(r"`([a-z_.]+)`", text[text.index("| key | default | |") : text.index("## On a real host")])
    )
    known = ReloadSection.keys.keys() - {"drain", "ready", "settle"}
    known |= {f"drain.{name}" for name in Drain.keys} | {f"ready.{name}" for name in Ready.keys}
    known |= {f"settle.{name}" for name in Settle.keys}
    known |= Hooks.keys.keys() - {"timeout"} | {"hooks.timeout"}

    assert known - written == set()


@pytest.mark.parametrize("url", ["http://[::1]:8080/hc", "http://[::1]/", "https://me@[::1]:8080/", "http://web:/hc"])
def test_a_url_may_have_an_address_with_or_without_port(tmp_path: Path, url: str) -> None:
    check = {"http": url, "interval": "10s"}
    (tmp_path / "web.json").write_text(json.dumps({"service": {"name": "web", "checks": [check]}}))

    (definition,) = load(tmp_path)

    assert definition.service.checks[0].http == url
