"""What our models accept, a real Consul agent accepts: the names of all fields are right, and mean what we think."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.definitions import Check, Service, load
from tests.real.access_fixture import consul_with

COMMON = {"name": "a check", "notes": "for people", "status": "passing", "deregister_critical_service_after": "10m"}
RUN = COMMON | {
    "interval": "1h",
    "timeout": "1.5s",
    "success_before_passing": 1,
    "failures_before_critical": 2,
    "output_max_size": 100,
}
KINDS: dict[str, dict[str, Any]] = {
    "http": RUN
    | {
        "http": "http://127.0.0.1:1/",
        "method": "POST",
        "header": {"X-A": ["1", "2"]},
        "body": "{}",
        "tls_skip_verify": True,
    },
    "tcp": RUN | {"tcp": "127.0.0.1:1"},
    "grpc": RUN | {"grpc": "127.0.0.1:1/my.Service", "grpc_use_tls": True, "tls_skip_verify": True},
    "ttl": COMMON | {"ttl": "1h", "output_max_size": 100},
    "args": RUN | {"args": ["/bin/true", "-v"]},
    "docker": RUN | {"docker_container_id": "web", "shell": "/bin/sh", "args": ["true"]},
    "alias_service": COMMON | {"alias_service": "other"},
}
"""Every field of every kind; but alias_node, which may crash the agent, and tls_server_name, which is newer."""


class Agent:
    def __init__(self, address: str) -> None:
        self._url = f"http://{address}:8500/v1"

    def put(self, path: str, body: dict[str, Any] | None = None) -> None:
        assert self.answer(path, body) == (200, "")

    def answer(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        answer = requests.put(f"{self._url}{path}", json=body, timeout=10)
        return answer.status_code, answer.text

    def get(self, path: str) -> Any:
        return requests.get(f"{self._url}{path}", timeout=10).json()


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """A Consul agent that runs scripts and Docker checks."""
    with consul_with({"enable_script_checks": True}) as access:
        yield Agent(access.address)


def read(directory: Path, service: dict[str, Any]) -> Service:
    (directory / "web.json").write_text(json.dumps({"service": service}))
    (definition,) = load(directory)
    return definition.service


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_with_a_check_of_each_kind_is_registered(agent: Agent, tmp_path: Path, kind: str) -> None:
    service = read(tmp_path, {"name": f"with-{kind.replace('_', '-')}", "checks": [KINDS[kind]]})

    agent.put("/agent/service/register", service.registration())

    (check,) = service.checks
    assert agent.get("/agent/checks")[check.id]["ServiceID"] == service.id
    assert agent.get("/agent/checks")[check.id]["Name"] == "a check"
    assert agent.get("/agent/checks")[check.id]["Notes"] == "for people"


@pytest.mark.parametrize("kind", KINDS)
def test_a_check_of_each_kind_is_registered_again_alone(agent: Agent, tmp_path: Path, kind: str) -> None:
    """As the return from a reload does, with a status that svcagent has seen itself."""
    service = read(tmp_path, {"name": f"again-{kind.replace('_', '-')}", "checks": [KINDS[kind]]})
    agent.put("/agent/service/register", service.registration())
    (check,) = service.checks
    before = agent.get("/agent/checks")[check.id]

    agent.put(f"/agent/check/deregister/{check.id}")
    agent.put("/agent/check/register", {**check.registration(), "ServiceID": service.id, "Status": "passing"})

    after = agent.get("/agent/checks")[check.id]
    described = ("CheckID", "Name", "Notes", "ServiceID", "ServiceName", "Type")
    assert [after[key] for key in described] == [before[key] for key in described]


def test_everything_of_a_service_arrives(agent: Agent, tmp_path: Path) -> None:
    service = read(
        tmp_path,
        {
            "id": "full-1",
            "name": "full",
            "tags": ["production", "urlprefix-/full"],
            "port": 8080,
            "address": "10.0.0.7",
            "meta": {"version": "3"} | {f"k{n}": "x" * 512 for n in range(62)},
            "tagged_addresses": {"wan": {"address": "full.example.com", "port": 80}},
            "weights": {"passing": 5, "warning": 0},
            "enable_tag_override": True,
            "checks": [{"ttl": "1h"}, {"ttl": "1h"}, {"ttl": "1h", "id": "own"}],
        },
    )

    agent.put("/agent/service/register", service.registration())

    there = agent.get("/agent/service/full-1")
    assert there["Tags"] == ["production", "urlprefix-/full"]
    assert (there["Port"], there["Address"], there["EnableTagOverride"]) == (8080, "10.0.0.7", True)
    assert there["Meta"] == service.meta
    assert there["Weights"] == {"Passing": 5, "Warning": 0}
    assert there["TaggedAddresses"]["wan"] == {"Address": "full.example.com", "Port": 80}
    checks = agent.get("/agent/checks").values()
    assert {check["CheckID"] for check in checks if check["ServiceID"] == "full-1"} == {
        "service:full-1:ttl",
        "service:full-1:ttl:2",
        "own",
    }


def test_an_id_is_spelled_differently_in_the_two_calls(agent: Agent) -> None:
    """The reason for two spellings: each call refuses the other's."""
    ttl = {"Name": "x", "TTL": "1h"}

    alone = agent.answer("/agent/check/register", ttl | {"CheckID": "x"})
    nested = agent.answer("/agent/service/register", {"Name": "y", "Checks": [ttl | {"ID": "x"}]})

    assert alone == (400, 'Request decode failed: json: unknown field "CheckID"')
    assert nested == (400, 'Request decode failed: json: unknown field "ID"')


def test_a_computed_name_is_the_one_that_consul_would_give(agent: Agent) -> None:
    agent.put("/agent/service/register", {"Name": "named", "Checks": [{"CheckID": "named", "TTL": "1h"}]})

    (check,) = Service(name="named", checks=(Check(ttl="1h"),)).checks

    assert agent.get("/agent/checks")["named"]["Name"] == check.name
