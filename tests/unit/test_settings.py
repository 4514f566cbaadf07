"""Settings: which source wins, what Consul's variables mean, and what is told of bad ones."""

from pathlib import Path

import pytest

from agent.definitions import Settings
from agent.errors import BadDefinition, Fault


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "svcagent.toml"


def faults(config: Path | None, environ: dict[str, str], **options: str) -> list[Fault]:
    with pytest.raises(BadDefinition) as caught:
        Settings.load(config, environ, **options)
    return list(caught.value.faults)


def test_without_any_source_everything_is_local() -> None:
    settings = Settings.load(None, {})

    assert settings.services_dir == Path("/etc/svcagent/services.d")
    assert settings.state_dir == Path("/var/lib/svcagent")
    assert (settings.consul.address, settings.consul.address_source) == ("http://127.0.0.1:8500", "default")
    assert (settings.docker.host, settings.docker.source) == (None, "default")
    assert settings.consul.verify
    assert settings.drain_dns == ()


def test_options_win_over_the_environment_and_that_over_the_file(toml: Path) -> None:
    toml.write_text(
        'services_dir = "/file/s"\nstate_dir = "/file/t"\n[consul]\naddress = "10.0.0.7:8500"\nverify = false\n'
    )
    environ = {"SVCAGENT_SERVICES_DIR": "/environ/s", "SVCAGENT_STATE_DIR": "/environ/t"}

    settings = Settings.load(toml, environ, services_dir="/option/s", state_dir=None)

    assert settings.services_dir == Path("/option/s")
    assert settings.state_dir == Path("/environ/t")
    assert (settings.consul.address, settings.consul.address_source) == ("http://10.0.0.7:8500", str(toml))
    assert not settings.consul.verify


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("https://consul.example.com:8501", "https://consul.example.com:8501"),
        ("http://127.0.0.1:8500/", "http://127.0.0.1:8500"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("https://[::1]", "https://[::1]:443"),
        ("127.0.0.1", "http://127.0.0.1:80"),
        (":8500", "http://127.0.0.1:8500"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ("0.0.0.0:8500", "http://0.0.0.0:8500"),
    ],
)
def test_an_address_is_what_it_is_to_consuls_own_client(given: str, address: str) -> None:
    settings = Settings.load(None, {"CONSUL_HTTP_ADDR": given})

    assert (settings.consul.address, settings.consul.address_source) == (address, "CONSUL_HTTP_ADDR")


@pytest.mark.parametrize(
    ("address", "ssl", "expected"),
    [
        ("127.0.0.1:8501", "true", "https://127.0.0.1:8501"),
        ("http://127.0.0.1:8501", "1", "https://127.0.0.1:8501"),
        ("consul.example.com", "T", "https://consul.example.com:443"),
        ("unix:///run/consul.sock", "true", "unix:///run/consul.sock"),
        ("https://127.0.0.1:8501", "false", "https://127.0.0.1:8501"),
        ("127.0.0.1:8500", "0", "http://127.0.0.1:8500"),
        ("", "true", "https://127.0.0.1:8500"),
    ],
)
def test_consuls_ssl_variable_asks_for_https(address: str, ssl: str, expected: str) -> None:
    settings = Settings.load(None, {"CONSUL_HTTP_ADDR": address, "CONSUL_HTTP_SSL": ssl})

    assert settings.consul.address == expected


def test_consuls_other_variables(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    settings = Settings.load(
        None,
        {
            "CONSUL_HTTP_TOKEN": "hush-hush",
            "CONSUL_HTTP_TOKEN_FILE": "/run/token",
            "CONSUL_HTTP_SSL_VERIFY": "false",
            "CONSUL_CACERT": str(tmp_path / "ca.pem"),
            "CONSUL_CAPATH": str(tmp_path),
            "CONSUL_CLIENT_CERT": str(tmp_path / "cert.pem"),
            "CONSUL_CLIENT_KEY": str(tmp_path / "key.pem"),
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
            "DOCKER_HOST": "unix:///run/docker.sock",
        },
    )

    assert settings.consul.token is not None
    assert settings.consul.token.reveal() == "hush-hush"
    assert settings.consul.token_file == Path("/run/token")
    assert settings.consul.ca_file == tmp_path / "ca.pem"
    assert settings.consul.ca_path == tmp_path
    assert settings.consul.client_cert == tmp_path / "cert.pem"
    assert settings.consul.client_key == tmp_path / "key.pem"
    assert settings.consul.tls_server_name == "server.dc1.consul"
    assert not settings.consul.verify
    assert (settings.docker.host, settings.docker.source) == ("unix:///run/docker.sock", "DOCKER_HOST")
    assert "hush-hush" not in repr(settings)


def test_an_empty_variable_is_not_set() -> None:
    assert Settings.load(None, {"CONSUL_HTTP_ADDR": "", "DOCKER_HOST": "", "CONSUL_HTTP_SSL": ""}) == Settings()


def test_an_empty_textfile_directory_takes_away_that_of_the_settings_file(toml: Path) -> None:
    """By which the daemon keeps its children from telling what it tells itself."""
    toml.write_text('[metrics]\ntextfile_dir = "/var/lib/node_exporter"\n')

    assert Settings.load(toml, {}).metrics.textfile_dir == Path("/var/lib/node_exporter")
    assert Settings.load(toml, {"SVCAGENT_TEXTFILE_DIR": ""}).metrics.textfile_dir is None


def test_a_token_of_the_environment_wins_over_a_token_file_of_the_settings_file(toml: Path) -> None:
    toml.write_text('[consul]\ntoken_file = "/run/token"\n')

    settings = Settings.load(toml, {"CONSUL_HTTP_TOKEN": "hush-hush"})

    assert settings.consul.token is not None
    assert settings.consul.token_file is None


def test_dns_servers_are_kept_in_order(toml: Path) -> None:
    toml.write_text('drain_dns = ["10.0.0.53:53", "[::1]:8600"]\n')

    settings = Settings.load(toml, {})

    assert settings.drain_dns == ("10.0.0.53:53", "[::1]:8600")


def test_dns_has_a_table_and_variables(toml: Path, tmp_path: Path) -> None:
    """Servers have DNS's own port where none is given; a key of a later source replaces the whole key."""
    key = tmp_path / "svcagent.key"
    key.touch()
    toml.write_text('[dns]\nserver = "10.0.0.53"\nkey_name = "a"\nkey_secret = "hush-hush"\ntimeout = "2s"\n')

    written = Settings.load(toml, {}).dns
    assert (written.server, written.key_secret_source) == ("10.0.0.53:53", str(toml))
    assert (written.provider, written.timeout, written.resolver) == ("rfc2136", 2.0, None)
    assert "hush-hush" not in repr(written)

    environ = {"SVCAGENT_DNS_KEY_FILE": str(key), "SVCAGENT_DNS_RESOLVER": "::1", "SVCAGENT_DNS_TIMEOUT": "500ms"}
    both = Settings.load(toml, environ).dns
    assert (both.key_file, both.key_secret) == (key, None)
    assert (both.resolver, both.timeout) == ("[::1]:53", 0.5)
    assert (both.sign_queries, both.allow_weak_keys) == (False, False)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("0", False)])
def test_the_environment_has_switches_for_dns(toml: Path, value: str, expected: bool) -> None:
    toml.write_text("[dns]\nsign_queries = true\nallow_weak_keys = true\n")

    dns = Settings.load(toml, {"SVCAGENT_DNS_SIGN_QUERIES": value, "SVCAGENT_DNS_ALLOW_WEAK_KEYS": value}).dns

    assert (dns.sign_queries, dns.allow_weak_keys) == (expected, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10.0.0.53", "10.0.0.53:53"),
        ("10.0.0.53:5300", "10.0.0.53:5300"),
        ("ns1.example.com", "ns1.example.com:53"),
        ("ns1.example.com:5300", "ns1.example.com:5300"),
        ("2001:db8::1", "[2001:db8::1]:53"),
        ("[2001:db8::1]:5300", "[2001:db8::1]:5300"),
    ],
)
def test_the_address_of_a_dns_server(given: str, expected: str) -> None:
    assert Settings.load(None, {"SVCAGENT_DNS_SERVER": given}).dns.server == expected


@pytest.mark.parametrize("address", ["ssh://me@10.0.0.7", "ssh://me@10.0.0.7:22", "unix:///run/docker@1.sock"])
def test_an_address_of_docker_may_contain_an_at_sign_where_it_is_no_secret(address: str) -> None:
    assert Settings.load(None, {"DOCKER_HOST": address}).docker.host == address


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CONSUL_HTTP_ADDR", "tcp://127.0.0.1:8500", "not Consul's address"),
        ("CONSUL_HTTP_ADDR", "127.0.0.1:99999", "from 1 to 65535"),
        ("CONSUL_HTTP_ADDR", "::1:8500", "not Consul's address"),
        ("CONSUL_HTTP_ADDR", "http://127.0.0.1:8500/v1", "not Consul's address"),
        ("CONSUL_HTTP_ADDR", "unix://run/consul", "not Consul's address"),
        ("CONSUL_HTTP_ADDR", "300.0.0.1:8500", "neither an IP address nor a host name"),
        ("CONSUL_HTTP_ADDR", "http://me:hush-hush@consul", "contains a user name"),
        ("CONSUL_HTTP_SSL", "yes", "is not a boolean"),
        ("CONSUL_HTTP_SSL_VERIFY", "no", "is not a boolean"),
        ("CONSUL_CACERT", "/nowhere/ca.pem", "does not exist"),
        ("CONSUL_CAPATH", "/nowhere", "does not exist"),
        ("CONSUL_CLIENT_CERT", "/dev/null", "requires client_key"),
        ("CONSUL_CLIENT_KEY", "/dev/null", "requires client_cert"),
        ("CONSUL_TLS_SERVER_NAME", " ", "is empty"),
        ("SVCAGENT_SERVICES_DIR", "a\nb", "is not a path"),
        ("DOCKER_HOST", "docker.example.com", "not a Docker host"),
        ("DOCKER_HOST", "tcp://10.0.0.7:99999", "port from 1 to 65535"),
        ("DOCKER_HOST", "tcp://10.0.0.7:x", "port from 1 to 65535"),
        *(
            ("DOCKER_HOST", f"{scheme}me:hush-hush@10.0.0.7:2376", "contains a user name or password")
            for scheme in ("", "tcp://", "http://", "https://", "ssh://", "x://")
        ),
        ("DOCKER_HOST", "https://hush-hush@10.0.0.7:2376", "contains a user name or password"),
        ("SVCAGENT_DNS_SERVER", "300.0.0.1", "neither an IP address nor a host name"),
        ("SVCAGENT_DNS_SERVER", "10.0.0.53:99999", "port 99999 is out of range"),
        ("SVCAGENT_DNS_KEY_FILE", "/nowhere/svcagent.key", "does not exist"),
        ("SVCAGENT_DNS_KEY_NAME", "svcagent", "requires key_secret"),
        ("SVCAGENT_DNS_KEY_SECRET", "hush-hush", "requires key_name"),
        ("SVCAGENT_DNS_SIGN_QUERIES", "yes", "is not a boolean"),
        ("SVCAGENT_DNS_ALLOW_WEAK_KEYS", "on", "is not a boolean"),
        ("SVCAGENT_DNS_TIMEOUT", "5", "is not a duration"),
        ("SVCAGENT_DNS_TIMEOUT", "0s", "greater than 0"),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, said: str) -> None:
    told = faults(None, {variable: value})

    assert {fault.file for fault in told} == {variable}
    assert any(said in str(fault) for fault in told)
    assert "hush-hush" not in str(told)


@pytest.mark.parametrize(
    ("content", "path", "said"),
    [
        ("services_dir = ", "end of document", "not TOML"),
        ("services_dir = x", "line 1 column 16", "not TOML"),
        ("services_dir = 5", "services_dir", "5 is a number, not a path"),
        ('services_dir = "services.d"', "services_dir", "relative path"),
        ('service_dir = "/x"', "service_dir", '"services_dir"'),
        ('[consul]\naddress_source = "x"', "consul.address_source", "unknown key"),
        ("[consul]\nport = 8500", "consul.port", "unknown key"),
        ('[consul]\nverify = "no"', "consul.verify", "is a string, not a boolean"),
        ("[consul]\ntoken = 1234567", "consul.token", "not a string"),
        ("[dns]\nkey_secret = 1234567", "dns.key_secret", "not a string"),
        ('[dns]\nresolver = "a b"', "dns.resolver", "not host:port"),
        ("consul = 5", "consul", "not an object"),
        ('[docker]\nhost = "x"', "docker.host", "not a Docker host"),
        ('drain_dns = "10.0.0.53:53"', "drain_dns", "not an array"),
        ('drain_dns = ["10.0.0.53"]', "drain_dns[0]", "not host:port"),
        ("state_dir = 2020-01-01", "state_dir", "not a path"),
    ],
)
def test_a_bad_file_is_named_with_the_place(toml: Path, content: str, path: str, said: str) -> None:
    toml.write_text(content)

    (fault,) = faults(toml, {})

    assert (fault.file, fault.path) == (str(toml), path)
    assert said in str(fault)
    assert "1234567" not in str(fault)


def test_a_file_that_was_asked_for_must_be_there(toml: Path) -> None:
    assert [fault.problem for fault in faults(toml, {})] == ["no such file"]


def test_a_file_that_is_not_text(toml: Path) -> None:
    toml.write_bytes(b"\xff")

    assert [fault.problem for fault in faults(toml, {})] == ["not UTF-8"]


def test_a_file_that_is_a_directory(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, {})

    assert "is a directory, not a file" in fault.problem


def test_the_faults_of_all_sources_are_reported_together(toml: Path) -> None:
    toml.write_text('state_dir = "here"\n')

    told = faults(toml, {"CONSUL_HTTP_SSL": "maybe", "DOCKER_HOST": "x"}, services_dir=" ")

    assert {fault.file for fault in told} == {str(toml), "CONSUL_HTTP_SSL", "DOCKER_HOST", "--services-dir"}


def test_an_option_that_is_no_setting_is_a_bug() -> None:
    with pytest.raises(TypeError, match="token"):
        Settings.load(None, {}, token="x")


@pytest.mark.parametrize("value", ["hush\udcff", "hush\0"])
@pytest.mark.parametrize("variable", ["CONSUL_HTTP_TOKEN", "SVCAGENT_DNS_KEY_SECRET"])
def test_a_faulty_secret_is_not_repeated(variable: str, value: str) -> None:
    """A byte that is not UTF-8 becomes half of a surrogate pair in os.environ."""
    with pytest.raises(BadDefinition) as caught:
        Settings.load(None, {variable: value})

    assert caught.value.faults[0].file == variable
    assert "hush" not in str(caught.value)
