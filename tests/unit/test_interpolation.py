"""What differs from host to host, put into files."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.definitions import load, reference_values, schema
from agent.definitions.interpolate import interpolate
from agent.errors import BadDefinition

VALUES = {"HOSTNAME": "web1", "ADDRESS": "10.0.0.7", "env:RACK": "r7", "env:EMPTY": "", "env:EVERY": "10s"}


def loaded(directory: Path, service: dict[str, Any]) -> Any:
    (directory / "web.json").write_text(json.dumps({"service": {"name": "web", **service}}))
    return load(directory, VALUES)[0]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${HOSTNAME}", "web1"),
        ("a-${env:RACK}-${ADDRESS}-z", "a-r7-10.0.0.7-z"),
        ("[${env:EMPTY}]", "[]"),
        ("$${HOSTNAME}", "${HOSTNAME}"),
        ("$$${HOSTNAME}", "$${HOSTNAME}"),
        ("$HOME $ $$", "$HOME $ $$"),
    ],
)
def test_references_are_replaced_and_all_else_stays(tmp_path: Path, written: str, read: str) -> None:
    assert loaded(tmp_path, {"meta": {"v": written}}).service.meta == {"v": read}


def test_the_names_that_a_file_uses_are_known(tmp_path: Path) -> None:
    definition = loaded(tmp_path, {"address": "${ADDRESS}", "tags": ["${env:RACK}", "$${HOSTNAME}"]})

    assert definition.names_used == {"ADDRESS", "env:RACK"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${env:NOPE}", "svcagent's environment"),
        ("${HOST}", '"${HOST}" is an unknown variable; write ${HOSTNAME}, ${ADDRESS} or ${env:NAME}'),
        ("${env:}", '"${env:}" is an unknown variable'),
        ("${}", '"${}" is an unknown variable'),
        ("x ${HOSTNAME", '"${HOSTNAME" is not closed; close it with }'),
    ],
)
def test_a_reference_without_a_value_is_one_fault(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(BadDefinition) as caught:
        loaded(tmp_path, {"checks": [{"http": "http://127.0.0.1/", "interval": written}]})

    (fault,) = caught.value.faults
    assert (fault.file, fault.path) == (str(tmp_path / "web.json"), "service.checks[0].interval")
    assert said in f"{fault.problem}; {fault.remedy}"


def test_the_value_of_a_reference_is_validated(tmp_path: Path) -> None:
    check = {"http": "http://127.0.0.1/", "interval": "${env:EVERY}"}
    assert loaded(tmp_path, {"checks": [check]}).service.checks[0].interval == "10s"

    with pytest.raises(BadDefinition) as caught:
        loaded(tmp_path, {"checks": [check | {"interval": "${env:RACK}"}]})
    assert [fault.path for fault in caught.value.faults] == ["service.checks[0].interval"]


def test_the_schema_accepts_references() -> None:
    check = {"http": "http://${ADDRESS}/", "interval": "${env:EVERY}"}

    jsonschema.validate({"service": {"name": "web", "checks": [check]}}, schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "variable", ["CONSUL_HTTP_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "API_KEY", "DATABASE_URL", "UNSET_TOKEN"]
)
def test_a_variable_that_contains_a_credential_is_refused(variable: str) -> None:
    """By its name, or by its value; the value is in no message."""
    environ = dict.fromkeys(["CONSUL_HTTP_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "API_KEY"], "hush")
    values = reference_values(environ | {"DATABASE_URL": "postgres://me:hush@db/"}, "host1")

    _tree, found, used = interpolate({"a": f"x${{env:{variable}}}"}, values)

    assert [finding.path for finding in found] == ["a"]
    assert "credential" in found[0].problem
    assert "hush" not in str(found)
    assert not used
