"""Which Consul agents know a field of a check."""

import json
from pathlib import Path

import pytest

from agent.consul import AgentSelf
from agent.definitions import load
from agent.registration import unmet_requirements

DEFINITION = """{"service": {"name": "web", "checks": [
  {"tcp": "127.0.0.1:1", "tcp_use_tls": true, "tls_server_name": "web", "interval": "10s"}]}}"""


@pytest.mark.parametrize(
    ("version", "first"),
    [
        ("1.14.9", "1.14.10"),
        ("1.14.10", None),
        ("1.15.5", "1.15.6"),
        ("1.15.6", None),
        ("1.16.1", "1.16.2"),
        ("1.16.2", None),
        ("1.17.0", None),
    ],
)
def test_a_field_may_have_come_with_several_patch_releases(tmp_path: Path, version: str, first: str | None) -> None:
    (tmp_path / "web.json").write_text(DEFINITION)
    agent = AgentSelf(node="one", datacenter="dc1", domain="consul", dns=None, version=version)

    faults = unmet_requirements(load(tmp_path), agent)

    assert [fault.path for fault in faults] == ([] if first is None else ["service.checks[0].tcp_use_tls"])
    assert all(str(first) in fault.remedy for fault in faults)


@pytest.mark.parametrize(
    ("version", "is_known"), [("1.8.7", False), ("1.21.5", False), ("1.22.0", True), ("2.0.4", True)]
)
def test_several_ports_need_a_recent_agent(tmp_path: Path, version: str, is_known: bool) -> None:
    ports = [{"name": "http", "port": 80, "default": True}, {"name": "admin", "port": 81}]
    (tmp_path / "web.json").write_text(json.dumps({"service": {"name": "web", "ports": ports}}))
    agent = AgentSelf(node="one", datacenter="dc1", domain="consul", dns=None, version=version)

    faults = unmet_requirements(load(tmp_path), agent)

    assert [(fault.path, "1.22" in fault.remedy) for fault in faults] == ([] if is_known else [("service.ports", True)])
