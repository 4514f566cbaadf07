"""Whatever others write into Consul, no verb passes it to a terminal, to a pipe or to the log unescaped."""

import base64
import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from tests.lab.server import spawn, svcagent_argv
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31mb\u202egpj\u200b\x08\x7f\rover\u2028[bold]c[/bold]\ue000"
"""Escape sequences of both kinds, bidirectional and invisible characters, a carriage return, rich's markup."""

ESCAPED = "b\\u202egpj\\u200b"
SHOWING = ("maint", "lock")
"""Verbs that are known to repeat what was written."""

NAME = "foreign"
CONSUL_LOCK_FLAGS = 0x2DDCCBC058A50C18
NOW = datetime.now(UTC).isoformat(timespec="seconds")
DIGEST = f"sha256:{'1' * 64}"
OWN_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
VERBS = (
    ["maint", "status"],
    ["fleet", NAME],
    ["history", NAME],
    ["quarantine", "list", NAME],
    ["lock", "status", NAME],
    ["status"],
    ["status", NAME],
    ["why", NAME],
    ["plan"],
    ["schedule"],
    ["pause", NAME, "--reason", "mine"],
    ["quarantine", "clear", NAME, DIGEST],
    ["resume", NAME],
)


def documents(service: str) -> dict[str, dict[str, object]]:
    """Everything that hosts share about a service, as somebody wrote it who may write to Consul KV."""
    base = {"v": 1, "since": NOW, "node": EVIL}
    order = "20260101T000000.000000Z-x"
    return {
        f"svcagent/{service}/rollout": {**base, "image": EVIL, "digest": EVIL},
        f"svcagent/{service}/pause": {**base, "by": EVIL, "host": EVIL, "why": EVIL},
        f"svcagent/{service}/quarantine/{DIGEST}": {**base, "why": EVIL, "image": EVIL, "log": f"{EVIL}\n{EVIL}"},
        f"svcagent/{service}/hosts/elsewhere/{service}": {
            **base,
            "digest": EVIL,
            "state": "failed",
            "error": EVIL,
            "step": EVIL,
        },
        f"svcagent/{service}/history/elsewhere/{order}": {
            "v": 1,
            "id": "x",
            "node": EVIL,
            "began": NOW,
            "outcome": EVIL,
            "image": EVIL,
            "before": EVIL,
            "after": EVIL,
            "error": EVIL,
            "steps": [[EVIL, 1.0]],
        },
    }


@pytest.fixture
def environment(host: ConsulHost, svcagent: Svcagent) -> Iterator[dict[str, str]]:
    """Of svcagent on a host where everything that others can write is evil."""
    definition = {
        "service": {"name": NAME, "port": 1, "checks": [{"id": "own", "tcp": f"{host.address}:1", "interval": "1h"}]},
        "reload": {"image": "127.0.0.1:1/foreign:latest", "container": "foreign", "lock": "foreign-lock"},
    }
    (svcagent.services_dir / "foreign.json").write_text(json.dumps(definition))
    environ = svcagent.environment(CONSUL_HTTP_ADDR=f"{host.address}:8500", SUDO_USER="alice")
    subprocess.run([*svcagent_argv(), "register"], env=environ, check=True, capture_output=True, timeout=60)
    host.ask.put(f"/v1/agent/service/maintenance/{NAME}?enable=true&reason=" + quote(EVIL))
    check = {"ID": "evil", "Name": EVIL, "ServiceID": NAME, "TTL": "1h", "Status": "critical", "Notes": EVIL}
    host.ask.put("/v1/agent/check/register", check)
    host.ask.put("/v1/agent/check/update/evil", {"Status": "critical", "Output": EVIL})
    body = {"Node": EVIL, "Address": "127.0.0.9", "Service": {"Service": NAME, "Port": 1, "Tags": [EVIL]}}
    host.ask.put("/v1/catalog/register", body)
    for key, document in documents(NAME).items():
        operation = {"Verb": "set", "Key": key, "Value": base64.b64encode(json.dumps(document).encode()).decode()}
        host.ask.put("/v1/txn", [{"KV": operation}])
    session = host.ask.put("/v1/session/create", {"Name": EVIL, "TTL": "600s", "LockDelay": "0s"})["ID"]
    holder = {"v": 1, "node": EVIL, "command": EVIL, "step": EVIL, "digest": EVIL, "since": NOW}
    locked = {"Verb": "lock", "Key": "foreign-lock/.lock", "Session": session, "Flags": CONSUL_LOCK_FLAGS}
    host.ask.put("/v1/txn", [{"KV": locked | {"Value": base64.b64encode(json.dumps(holder).encode()).decode()}}])
    yield environ
    host.ask.put(f"/v1/session/destroy/{session}")
    host.ask.delete("/v1/kv/foreign-lock/?recurse=true")
    host.ask.deregister_service(NAME)


def assert_harmless(said: str, argv: list[str]) -> None:
    """Only printable characters, and the white space and colours that svcagent adds itself."""
    found = {ascii(sign) for sign in OWN_COLOUR.sub("", said) if not sign.isprintable() and sign not in "\n\t"}
    assert not found, (argv, found, said)
    assert "owned" not in said, argv


def test_no_verb_passes_it_on(environment: dict[str, str]) -> None:
    for argv in VERBS:
        for options in ([], ["--log-format", "json", "-v"]):
            result = subprocess.run(
                [*svcagent_argv(), *options, *argv], env=environment, capture_output=True, timeout=60, check=False
            )
            said = (result.stdout + result.stderr).decode()
            assert result.returncode != 3, said
            assert_harmless(said, argv)
            assert options or argv[0] not in SHOWING or ESCAPED in said, (argv, said)


def test_no_verb_passes_it_on_to_a_terminal(environment: dict[str, str]) -> None:
    """Tables are drawn there, and svcagent's own colours are seen."""
    for argv in VERBS[:7]:
        outer, inner = pty.openpty()
        process = spawn(
            [*svcagent_argv(), *argv], environment | {"TERM": "xterm", "COLUMNS": "400"}, stdout=inner, stderr=inner
        )
        os.close(inner)
        seen = bytearray()

        def read(outer: int = outer, seen: bytearray = seen) -> None:
            try:
                while chunk := os.read(outer, 65536):
                    seen.extend(chunk)
            except OSError:  # the other end was closed
                return

        reader = threading.Thread(target=read)
        reader.start()
        process.wait(60)
        reader.join(60)
        os.close(outer)
        assert_harmless(seen.decode().replace("\r\n", "\n"), argv)
