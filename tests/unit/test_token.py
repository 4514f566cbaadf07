"""Where the ACL token comes from."""

from pathlib import Path

import pytest

from agent.consul.token import Token
from agent.definitions import Settings
from agent.errors import Denied
from tests.support.kinds import raises_kind


def _token(file: Path, **environ: str) -> Token:
    return Token(Settings.load(None, {"CONSUL_HTTP_TOKEN_FILE": str(file), **environ}).consul)


def test_a_file_that_is_not_empty_wins(tmp_path: Path) -> None:
    """As in Consul's own tools."""
    file = tmp_path / "token"
    file.write_text("\n")
    token = _token(file, CONSUL_HTTP_TOKEN="given")
    assert (token.value(), token.source) == ("given", "CONSUL_HTTP_TOKEN")

    file.write_text(" in-file\n")

    assert (token.value(), token.source) == ("in-file", f"{file} (from CONSUL_HTTP_TOKEN_FILE)")


def test_a_file_that_is_empty_or_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    token = _token(file)
    assert token.value() == "first"

    file.write_text("")
    assert token.value() == "first"
    file.unlink()
    assert token.value() == "first"
    file.write_text("second")
    assert token.value() == "second"


def test_a_file_that_was_never_there_is_an_error(tmp_path: Path) -> None:
    with raises_kind(Denied, "token-unusable"):
        _token(tmp_path / "token").value()


def test_only_a_different_token_is_a_change(tmp_path: Path) -> None:
    """A 403 is not answered by asking again with the same one."""
    file = tmp_path / "token"
    file.write_text("first")
    token = _token(file)
    token.value()

    assert not token.has_changed()
    file.write_text("other")
    assert token.has_changed()
    assert not token.has_changed()


@pytest.mark.parametrize("text", ["two words", "two\nlines", "dots…"])
def test_what_cannot_be_a_token_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)

    with raises_kind(Denied, "token-unusable") as caught:
        _token(file).value()
    assert text not in str(caught.value)
