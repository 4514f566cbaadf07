"""Text that others wrote is shown as one bounded, printable line, and without credentials."""

import time

import pytest

from agent.text import (
    clean,
    clean_lines,
    counted,
    has_credentials,
    is_secret_name,
    printable,
    quoted_command,
    redacted,
    shown_command,
    without_credentials,
)

EVIL = {
    "colour": ("a\x1b[31mred\x1b[0m b", "ared b"),
    "clear screen": ("\x1b[2J\x1b[Hb", "b"),
    "title": ("\x1b]0;owned\x07b", "b"),
    "title, ended by ST": ("\x1b]2;owned\x1b\\b", "b"),
    "link": ("\x1b]8;;http://evil/\x1b\\text\x1b]8;;\x1b\\", "text"),
    "clipboard": ("\x1b]52;c;ZXZpbA==\x07b", "b"),
    "device control": ("\x1bP$qm\x1b\\b", "b"),
    "C1 sequence": ("\x9b31mb", "b"),
    "C1 string": ("\x9d0;owned\x9cb", "b"),
    "reset": ("\x1bcb", "b"),
    "character set": ("\x1b(0b", "b"),
    "sequence without an end": ("\x1b]0;owned", "0;owned"),
    "sequence inside a sequence": ("\x1b\x1b[31m[31mb", "b"),
    "backspaces": ("password\x08\x08b", "password\\x08\\x08b"),
    "carriage return": ("failed\rpassed", "failed passed"),
    "line break": ("a\nsvcagent: all is well", "a svcagent: all is well"),
    "vertical tab and form feed": ("a\x0b\x0cb", "a b"),
    "Unicode line breaks": ("a\u2028b\u2029c\x85d", "a b c d"),
    "NUL, BEL, DEL": ("a\0\x07\x7fb", "a\\x00\\x07\\x7fb"),
    "bidirectional override": ("a\u202egpj.exe", "a\\u202egpj.exe"),
    "bidirectional isolate": ("a\u2066b\u2069", "a\\u2066b\\u2069"),
    "zero width": ("a\u200bb\u200dc\ufeffd", "a\\u200bb\\u200dc\\ufeffd"),
    "soft hyphen": ("a\u00adb", "a\\xadb"),
    "tag characters": ("a\U000e0041b", "a\\U000e0041b"),
    "variation selectors": ("a\ufe0fb\U000e0100", "ab"),
    "fillers": ("a\u3164\u115f\u2800b", "ab"),
    "surrogates": ("a\ud800b\udcff", "a\\ud800b\\udcff"),
    "private use": ("a\ue000b", "a\\ue000b"),
    "not assigned": ("a\U000e1000b", "a\\U000e1000b"),
    "stacked marks": ("a" + "\u0335" * 50 + "b", "a" + "\u0335" * 3 + "b"),
    "spaces": ("  a \u00a0\u3000 b\t", "a b"),
}


@pytest.mark.parametrize("name", EVIL)
def test_clean_makes_one_printable_line(name: str) -> None:
    text, expected = EVIL[name]

    assert clean(text) == expected
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)
    assert printable(text, keep="").isprintable()


def test_what_people_write_stays_as_it_is() -> None:
    for text in (
        "disk swap, back at 12:00",
        "Größe ↑ 3 µs",
        "日本語",
        "e\u0301 и\u0306",
        "🚒",
        "C:\\temp [bold] %s {x}",
    ):
        assert clean(text) == text


def test_the_length_is_bounded() -> None:
    assert clean("x" * 1001) == "x" * 999 + "…"
    assert clean("x" * 1000) == "x" * 1000
    assert clean("\x1b[31m" * 10**6 + "x", 10) == "…"
    assert len(clean("\u202e" * 10**6)) == 1000


def test_whole_messages_keep_their_lines() -> None:
    assert printable("a\n\tb\x1b[2J\r") == "a\n\tb\\x0d"


def test_the_last_lines_are_cleaned_each() -> None:
    text = "first\n\n\x1b[2Jsecond\rthird\r\n  \n" + "x" * 300 + "\n"

    assert clean_lines(text, 3) == "second\nthird\n" + "x" * 199 + "…"
    assert clean_lines(text, 1, 10) == "x" * 9 + "…"
    assert clean_lines("", 3) == clean_lines("\n\n", 3) == clean_lines(text, 0) == ""


CREDENTIALS = {
    "http://user:hush@host/hc": "http://…@host/hc",
    "https://hush@host/": "https://…@host/",
    "http://u:hu@hush@host:80/?a=b": "http://…@host:80/?a=b",
    "postgres://u:hush@db/x and redis://:hush@r/": "postgres://…@db/x and redis://…@r/",
    "/hc?token=hush&verbose=1": "/hc?token=…&verbose=1",
    "/hc?a=1&api_key=hush#top": "/hc?a=1&api_key=…",
    "http://h/?X-Amz-Signature=hush&x=1": "http://h/?X-Amz-Signature=…&x=1",
    "db --password=hush -v": "db --password=… -v",
    "db --password hush -v": "db --password … -v",
    "db --token 'hush'": "db --token '…'",
    "curl -u me:hush http://h/": "curl -u me:… http://h/",
    "curl -H 'Authorization: Bearer hush.hush'": "curl -H 'Authorization: Bearer …'",
    "Authorization: Basic aHVzaA==": "Authorization: Basic …",
    "X-Consul-Token: hush": "X-Consul-Token: …",
    "AWS_SECRET_ACCESS_KEY=hush run": "AWS_SECRET_ACCESS_KEY=… run",
    '{"password": "hush", "user": "me"}': '{"password": "…", "user": "me"}',
}


@pytest.mark.parametrize("text", CREDENTIALS)
def test_credentials_are_hidden(text: str) -> None:
    assert without_credentials(text) == CREDENTIALS[text]
    assert has_credentials(text)
    assert without_credentials(CREDENTIALS[text]) == CREDENTIALS[text]


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/hc?verbose=1",
        "ssh://deploy@host",
        "mail to me@example.com",
        "--key-file /etc/svcagent/key",
        "CONSUL_HTTP_TOKEN_FILE=/etc/svcagent/token",
        "monkey=1, keyboard=us",
        "the token: none is set",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert not has_credentials(text)


def test_a_command_is_shown_without_its_credentials() -> None:
    assert shown_command(["db", "--password", "hu sh", "--all", "a b"]) == "db --password … --all 'a b'"
    assert shown_command(["curl", "http://me:hush@h/"]) == "curl 'http://…@h/'"
    assert shown_command(["echo", "a\n\x1b[2Jb"]) == "echo 'a b'"


def test_advice_quotes_its_arguments() -> None:
    assert quoted_command(["svcagent", "why", "$(id)"]) == "svcagent why '$(id)'"


@pytest.mark.parametrize(
    "name",
    [
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_TOKEN_FILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_CLIENT_SECRET",
        "STRIPE_API_KEY",
        "PGPASSWORD",
        "DB_PASS",
        "MYSQL_PWD",
        "DOCKER_AUTH_CONFIG",
        "SSH_AUTH_SOCK",
        "SENTRY_DSN",
        "SLACK_WEBHOOK_URL",
        "GITHUB_PAT",
        "SSHPASS",
        "KUBECONFIG",
        "CREDENTIALS_DIRECTORY",
        "accessToken",
        "db.password",
        "AZURE_STORAGE_CONNECTION_STRING",
        "FLASK_SECRETKEY",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "PWD",
        "OLDPWD",
        "LANG",
        "TERM",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "XDG_SESSION_ID",
        "CONSUL_HTTP_ADDR",
        "DOCKER_HOST",
        "DOCKER_CERT_PATH",
        "KEYBOARD_LAYOUT",
        "AUTHOR",
        "COMPASS",
        "SSH_PUBLIC_KEY",
        "JOURNAL_STREAM",
        "SVCAGENT_SERVICE",
    ],
)
def test_names_of_others(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text", ["a", "_", "://", "--a ", "x-", "a-", "\x1b]", "\x9d", "\x1b[", "\u0300", "bearer ", 'a="', " ", "\n", "@"]
)
def test_no_text_takes_long(text: str) -> None:
    """Processor time of this process, with room: a quadratic search would take hours."""
    long = text * (20_000 // len(text))
    began = time.process_time()

    for one in (long, f"{long}="):
        without_credentials(one)
        clean(one)
        clean_lines(one, 20)
        printable(one)

    assert time.process_time() - began < 2


def test_a_number_has_its_noun() -> None:
    assert [counted(number, "host") for number in (0, 1, 2)] == ["0 hosts", "1 host", "2 hosts"]


@pytest.mark.parametrize("text", ["\x1b[31mpassword=hush", "\x9b1mhttp://me:hush@host", "\x1b]0;title\x07token=hush x"])
def test_an_escape_sequence_does_not_protect_a_credential(text: str) -> None:
    assert "hush" not in redacted(text)


def test_a_credential_is_not_cut_before_it_is_hidden() -> None:
    assert "hush" not in redacted(f"http://me:hush{'x' * 100}@host", 20)
