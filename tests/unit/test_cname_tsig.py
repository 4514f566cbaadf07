"""Keys of updates: what a BIND key file says, and what is told of those that are of no use."""

import base64
import os
import subprocess
import sys
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
        GENERATED.replace(SECRET, f"{SECRET[:20]} {SECRET[20:30]}\n\t{SECRET[30:]}"),
        f'options {{ allow-query {{ key "svcagent"; }}; }};\nserver ::1 {{ keys {{ "svcagent"; }}; }};\n{GENERATED}',
    ],
)
def test_a_key_file(file: Path, content: str) -> None:
    file.write_text(content)

    key = from_file(file)

    assert (key.name, key.algorithm, len(key.secret), key.source) == ("svcagent", "hmac-sha256", 33, str(file))
    assert SECRET not in repr(key)
    assert repr(key.secret) not in repr(key)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "contains no key"),
        ("zone x { };", "contains no key"),
        (GENERATED + GENERATED, "contains 2 keys"),
        (f'key "a" {{ secret "{SECRET}"; }};', "no algorithm"),
        ('key "a" { algorithm hmac-sha256; };', "no secret"),
        (GENERATED.replace("sha256", "md5"), "hmac-md5 is too weak"),
        (GENERATED.replace("sha256", "sha1"), "hmac-sha1 is too weak"),
        (GENERATED.replace("hmac-sha256", "gss-tsig"), "gss-tsig is not one of hmac-sha256"),
        (GENERATED.replace(SECRET, "/not base64/"), "not base64"),
        (GENERATED.replace(SECRET, ""), "not base64"),
        (GENERATED.replace(SECRET, "äöü"), "not base64"),
        (GENERATED.replace('"svcagent"', f'"{"a" * 64}"'), "name is not a DNS name"),
        (GENERATED.replace('"svcagent"', '"a..b"'), "name is not a DNS name"),
        (GENERATED.replace('"svcagent"', '"a\\x"'), "name is not a DNS name"),
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


@pytest.mark.parametrize(
    ("written", "algorithm"),
    [
        ("hmac-md5", "hmac-md5"),
        ("HMAC-MD5.SIG-ALG.REG.INT.", "hmac-md5"),
        ("hmac-sha1", "hmac-sha1"),
        ("hmac-sha224", "hmac-sha224"),
    ],
)
def test_algorithms_of_old_servers(file: Path, written: str, algorithm: str) -> None:
    """The weak ones on request alone; the refusal names the setting."""
    file.write_text(GENERATED.replace("hmac-sha256", written))
    environ = {"SVCAGENT_DNS_KEY_FILE": str(file)}

    key = find_key(Settings.load(None, {**environ, "SVCAGENT_DNS_ALLOW_WEAK_KEYS": "true"}).dns)
    assert (key.algorithm, key.is_weak) == (algorithm, algorithm != "hmac-sha224")
    if key.is_weak:
        with pytest.raises(BadDefinition, match=r"dns\.allow_weak_keys"):
            find_key(Settings.load(None, environ).dns)


@pytest.mark.parametrize("algorithm", ["hmac-md5", "hmac-sha256"])
def test_an_algorithm_that_this_host_cannot_compute(file: Path, tmp_path: Path, algorithm: str) -> None:
    """As with OpenSSL in FIPS mode, which is asked for here and has nothing that fulfils it.

    Python 3.14 computes it without OpenSSL.
    """
    file.write_text(GENERATED.replace("hmac-sha256", algorithm))
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = init\n[init]\nalg_section = properties\n[properties]\ndefault_properties = fips=yes\n"
    )
    code = (
        "import sys; from pathlib import Path; from agent.cname.tsig import from_file; from agent.errors import *\n"
        "try: from_file(Path(sys.argv[1]), may_be_weak=True)\n"
        "except BadDefinition as error: print(error)\n"
        "else: print('signs')"
    )
    environ = {**os.environ, "OPENSSL_CONF": str(tmp_path / "openssl.cnf")}

    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, env=environ, check=True
    )

    if sys.version_info >= (3, 14):
        assert done.stdout == "signs\n"
    else:
        assert f"cannot sign with {algorithm}" in done.stdout
        assert "FIPS" in done.stdout


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_whether_others_can_read_it(file: Path, mode: int, is_readable: bool) -> None:
    """A group is often what lets svcagent read it."""
    file.write_text(GENERATED)
    file.chmod(mode)

    assert from_file(file).is_readable_by_others == is_readable


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    for file, why in ((tmp_path / "nowhere.key", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadDefinition, match=f"cannot be read: {why}"):
            from_file(file)
    (tmp_path / "binary.key").write_bytes(b"\xff\xfe")
    with pytest.raises(BadDefinition, match="not text"):
        from_file(tmp_path / "binary.key")


def test_a_key_of_the_settings(file: Path) -> None:
    """A file wins over a key written out; without any, the message says how to get one."""
    environ = {"SVCAGENT_DNS_KEY_NAME": "Agent.", "SVCAGENT_DNS_KEY_SECRET": f"{SECRET[:20]} {SECRET[20:]}\n"}
    file.write_text(GENERATED)

    assert find_key(Settings.load(None, environ).dns) == Key(
        "agent", "hmac-sha256", base64.b64decode(SECRET), "SVCAGENT_DNS_KEY_SECRET"
    )
    both = Settings.load(None, environ | {"SVCAGENT_DNS_KEY_FILE": str(file)})
    assert find_key(both.dns).name == "svcagent"
    with pytest.raises(BadDefinition, match="tsig-keygen"):
        find_key(Settings.load(None, {}).dns)
