"""On an agent that speaks TLS and verifies its clients: what works, and which setting each failure names."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.server import svcagent_argv
from tests.real.access_fixture import Access, Listener, consul_with, forwarding
from tests.real.converge_fixture import Waker
from tests.support.authority import Authority, openssl
from tests.support.svcagent import Svcagent

SERVER_NAME = "server.dc1.consul"


@dataclass(frozen=True)
class Tls:
    """The agent, its authority, another authority, and the settings with which all is well."""

    access: Access
    authority: Authority
    stranger: Authority
    good: dict[str, str]


def _config(certificate: tuple[Path, Path], ca: Path) -> dict[str, object]:
    return {
        # Plain HTTP stays open beside it, for the test's own questions.
        "ports": {"serf_wan": -1, "grpc": -1, "https": 8501},
        "verify_incoming": True,
        "ca_file": str(ca),
        "cert_file": str(certificate[0]),
        "key_file": str(certificate[1]),
    }


def _settings(address: str, ca: Path, own: tuple[Path, Path]) -> dict[str, str]:
    return {
        "CONSUL_HTTP_ADDR": f"https://{address}:8501",
        "CONSUL_CACERT": str(ca),
        "CONSUL_CLIENT_CERT": str(own[0]),
        "CONSUL_CLIENT_KEY": str(own[1]),
    }


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    directory = tmp_path_factory.mktemp("tls")
    authority, stranger = (Authority(directory / name) for name in ("authority", "stranger"))

    def config(address: str, _directory: Path) -> dict[str, object]:
        return _config(authority.issue("agent", f"IP:{address},DNS:{SERVER_NAME}"), authority.certificate)

    with consul_with(config) as access:
        own = authority.issue("svcagent")
        yield Tls(access, authority, stranger, _settings(access.address, authority.certificate, own))


def test_with_the_right_certificates_verbs_work(tls: Tls, svcagent: Svcagent) -> None:
    svcagent.define("web")

    assert svcagent("register", **tls.good).code == 0
    assert svcagent("status", **tls.good).code == 0
    assert svcagent("maint", "enable", "web", "--reason", "x", **tls.good).code == 0
    assert svcagent("maint", "disable", "web", **tls.good).code == 0


def test_one_handshake_serves_all_calls(tls: Tls, svcagent: Svcagent) -> None:
    """What the server sends after it (session tickets) is not taken for the connection's end."""
    svcagent.define(*(f"many-{number}" for number in range(20)))
    with Listener(forwarding((tls.access.address, 8501))) as road:
        settings = {"CONSUL_HTTP_ADDR": f"https://127.0.0.1:{road.port}", "CONSUL_TLS_SERVER_NAME": SERVER_NAME}

        assert svcagent("register", **tls.good | settings).code == 0
        assert road.accepted == 1


def test_the_ssl_variable_asks_for_tls(tls: Tls, svcagent: Svcagent) -> None:
    settings = tls.good | {"CONSUL_HTTP_ADDR": f"{tls.access.address}:8501", "CONSUL_HTTP_SSL": "true"}

    assert svcagent("maint", "status", **settings).code == 0


@pytest.mark.parametrize("is_hashed", [True, False], ids=["hashed", "any names"])
def test_a_directory_of_authorities(tls: Tls, svcagent: Svcagent, tmp_path: Path, *, is_hashed: bool) -> None:
    """Consul's own client loads every file of it; OpenSSL alone would look for hashed names only."""
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    shutil.copy(tls.authority.certificate, authorities / "ours.pem")
    shutil.copy(tls.stranger.certificate, authorities / "another.pem")
    if is_hashed:
        openssl(authorities, "rehash", ".")
    settings = {name: value for name, value in tls.good.items() if name != "CONSUL_CACERT"}

    result = svcagent("maint", "status", **settings, CONSUL_CAPATH=str(authorities))

    assert result.code == 0, result
    (authorities / "ours.pem").unlink()
    for link in authorities.glob("*.0"):
        link.unlink()
    refused = svcagent("maint", "status", **settings, CONSUL_CAPATH=str(authorities))
    assert refused.code == 69
    assert "CONSUL_CAPATH" in refused.err


def test_the_server_name_is_what_the_certificate_must_be_for(tls: Tls, svcagent: Svcagent) -> None:
    assert svcagent("maint", "status", **tls.good, CONSUL_TLS_SERVER_NAME=SERVER_NAME).code == 0

    wrong = svcagent("maint", "status", **tls.good, CONSUL_TLS_SERVER_NAME="server.dc2.consul")

    assert wrong.code == 69
    assert "for another name. Set CONSUL_TLS_SERVER_NAME" in wrong.err


def test_failures_name_the_setting(tls: Tls, svcagent: Svcagent) -> None:
    """Wrong authority, no client certificate, one from another authority, an expired one, and no TLS at all."""
    expired = tls.authority.issue("expired", has_expired=True)
    foreign = tls.stranger.issue("foreign")
    no_client = {name: value for name, value in tls.good.items() if not name.startswith("CONSUL_CLIENT")}
    http_port = f"{tls.access.address}:8500"
    for settings, said in (
        (tls.good | {"CONSUL_CACERT": str(tls.stranger.certificate)}, "CONSUL_CACERT or CONSUL_CAPATH"),
        (no_client, "requires a client certificate, and none is set. Set CONSUL_CLIENT_CERT"),
        (
            tls.good | {"CONSUL_CLIENT_CERT": str(foreign[0]), "CONSUL_CLIENT_KEY": str(foreign[1])},
            "does not accept svcagent's own certificate, or it has expired. Set CONSUL_CLIENT_CERT",
        ),
        (
            tls.good | {"CONSUL_CLIENT_CERT": str(expired[0]), "CONSUL_CLIENT_KEY": str(expired[1])},
            "does not accept svcagent's own certificate, or it has expired. Set CONSUL_CLIENT_CERT",
        ),
        (tls.good | {"CONSUL_HTTP_ADDR": f"https://{http_port}"}, "does not use TLS on this port. Write http://"),
        (tls.good | {"CONSUL_HTTP_ADDR": f"{tls.access.address}:8501"}, "requires TLS. Write https://"),
    ):
        for argv in (["maint", "status"], ["register", "--wait", "0s"]):
            result = svcagent(*argv, **settings)
            assert result.code == 69, (said, result)
            assert said in result.err


def test_files_that_hold_no_certificate_are_bad_settings(tls: Tls, svcagent: Svcagent, tmp_path: Path) -> None:
    """Also a key that does not belong to its certificate; an encrypted one is not asked a password for."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    encrypted = tmp_path / "encrypted.key"
    key = tls.good["CONSUL_CLIENT_KEY"]
    openssl(tmp_path, "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted.name)
    other_key = tls.authority.directory / "agent.key"
    for settings, said in (
        ({"CONSUL_CACERT": str(nonsense)}, f"{nonsense}: cannot be used"),
        ({"CONSUL_CLIENT_CERT": str(nonsense)}, f"{nonsense}: cannot be used"),
        ({"CONSUL_CLIENT_KEY": str(other_key)}, "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"),
        ({"CONSUL_CLIENT_KEY": str(encrypted)}, "without a password"),
    ):
        result = svcagent("maint", "status", **tls.good | settings)
        assert result.code == 78, (said, result)
        assert said in result.err


def test_an_expired_certificate_of_the_agent(tls: Tls, svcagent: Svcagent) -> None:
    """Told apart from one of an unknown authority; not verified, it is taken."""

    def config(address: str, _directory: Path) -> dict[str, object]:
        certificate = tls.authority.issue("old-agent", f"IP:{address}", has_expired=True)
        return _config(certificate, tls.authority.certificate)

    with consul_with(config) as old:
        settings = tls.good | {"CONSUL_HTTP_ADDR": f"https://{old.address}:8501"}
        refused = svcagent("maint", "status", **settings)
        taken = svcagent("maint", "status", **settings, CONSUL_HTTP_SSL_VERIFY="false")

    assert (refused.code, taken.code) == (69, 0)
    assert "the agent's certificate has expired. Install a new certificate" in refused.err


def test_disabled_verification_is_reported_only_in_the_log(tls: Tls, svcagent: Svcagent) -> None:
    """No warning of Python's on the terminal, nor mail from cron every ten minutes."""
    settings = tls.good | {"CONSUL_CACERT": str(tls.stranger.certificate), "CONSUL_HTTP_SSL_VERIFY": "false"}
    environment = svcagent.environment(**settings)

    quiet = subprocess.run(
        [*svcagent_argv(), "maint", "status"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    verbose = svcagent("-v", "maint", "status", **settings)

    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "certificate is not verified" in verbose.err


def test_the_environment_s_proxies_and_authorities_have_no_effect(tls: Tls, svcagent: Svcagent) -> None:
    """They are for the outside world; the agent is on this host."""
    others = {
        "REQUESTS_CA_BUNDLE": str(tls.stranger.certificate),
        "CURL_CA_BUNDLE": str(tls.stranger.certificate),
        "HTTP_PROXY": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:1",
    }
    plain = {"CONSUL_HTTP_ADDR": f"{tls.access.address}:8500"}
    argv = [*svcagent_argv(), "maint", "status"]
    for settings in (tls.good, plain):
        environment = svcagent.environment(**settings, **others)
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("canary", ["web", ""])
def test_a_watch_over_tls_wakes_and_stops(tls: Tls, canary: str) -> None:
    """Its waiting is cut off below TLS; and what TLS itself sends is not taken for the agent's end."""
    with tls.access.connection(**tls.good) as consul:
        consul.register_service({"Name": "web"})
        with Waker(tls.good["CONSUL_HTTP_ADDR"], canary, **tls.good) as waker:
            waker.sleeps(1)
            if canary:
                waker.wakes_after(lambda: consul.deregister_service("web"))
        consul.deregister_service("web")


def test_the_doctor_names_certificates_that_expire_soon(tls: Tls, svcagent: Svcagent) -> None:
    """The authority's, svcagent's own and the agent's: all of two days."""
    result = svcagent("--json", "doctor", "--only", "consul", **tls.good)

    found = [one for one in json.loads(result.out) if one["check"] == "certificates"]
    assert [one["level"] for one in found] == ["warning"] * 3
    assert (result.code, len({one["what"] for one in found})) == (0, 3)
