"""Keys of updates: what a BIND key file says, and what is told of those that are of no use."""

import base64
from pathlib import Path

import pytest

from agent.cname.tsig import Key, find_key, from_file
from agent.definitions import Settings
from agent.errors import BadDefinition

SECRET = base64.b64encode(b"\xff\xff\xff" * 11).decode()
"""Full of slashes, which begin a comment elsewhere."""
GENERATED = f'key "svcagent" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "svcagent.key"
    found.touch(mode=0o600)
    return found


@pytest.mark.parametrize(
    "content",
    [
        GENERATED,
        f"key svcagent. {{ algorithm HMAC-SHA256; secret {SECRET.replace('/', 'A')}; }};",
        f'# made by hand\n// yes\n/* key "other" {{ }}; */\nkey "SVCAGENT" {{ secret "{SECRET}"; # here\n'
        'algorithm "hmac-sha256"; };',
    ],
)
def test_a_key_file(file: Path, content: str) -> None:
    """As tsig-keygen prints it, and as people write it."""
    file.write_text(content)

    key = from_file(file)

    assert (key.name, key.algorithm, len(key.secret), key.source) == ("svcagent", "hmac-sha256", 33, str(file))
    assert SECRET not in repr(key)
    assert repr(key.secret) not in repr(key)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no key"),
        ("zone x { };", "holds no key"),
        (GENERATED + GENERATED, "holds 2 keys"),
        (f'key "a" {{ secret "{SECRET}"; }};', "no algorithm"),
        ('key "a" { algorithm hmac-sha256; };', "no secret"),
        (GENERATED.replace("sha256", "md5"), "hmac-md5 is not one of hmac-sha256"),
        (GENERATED.replace("sha256", "sha1"), "hmac-sha1 is not one of"),
        (GENERATED.replace(SECRET, "/not base64/"), "no secret"),
        (GENERATED.replace(SECRET, "abc"), "not base64"),
        (GENERATED.replace(SECRET, "===="), "not base64"),
    ],
)
def test_a_key_file_of_no_use(file: Path, content: str, said: str) -> None:
    """Which file, what is wrong, how to make a good one; never a secret."""
    file.write_text(content)

    with pytest.raises(BadDefinition) as caught:
        from_file(file)

    (fault,) = caught.value.faults
    assert fault.file == str(file)
    assert said in fault.problem
    assert "tsig-keygen" in fault.remedy
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_whether_others_can_read_it(file: Path, mode: int, is_readable: bool) -> None:
    """A group is often what lets svcagent read it."""
    file.write_text(GENERATED)
    file.chmod(mode)

    assert from_file(file).is_readable_by_others == is_readable


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    """It says why."""
    for file, why in ((tmp_path / "nowhere.key", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadDefinition, match=f"cannot be read: {why}"):
            from_file(file)
    (tmp_path / "binary.key").write_bytes(b"\xff\xfe")
    with pytest.raises(BadDefinition, match="not text"):
        from_file(tmp_path / "binary.key")


def test_a_key_of_the_settings(file: Path) -> None:
    """A file wins over a key written out; without any, the message says how to get one."""
    environ = {"SVCAGENT_DNS_KEY_NAME": "Agent.", "SVCAGENT_DNS_KEY_SECRET": SECRET}
    file.write_text(GENERATED)

    assert find_key(Settings.load(None, environ).dns) == Key(
        "agent", "hmac-sha256", base64.b64decode(SECRET), "SVCAGENT_DNS_KEY_SECRET"
    )
    both = Settings.load(None, environ | {"SVCAGENT_DNS_KEY_FILE": str(file)})
    assert find_key(both.dns).name == "svcagent"
    with pytest.raises(BadDefinition, match="tsig-keygen"):
        find_key(Settings.load(None, {}).dns)
