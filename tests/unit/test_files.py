"""A file is used only if nobody but root and the running user can write it, or replace it."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent.definitions import Settings, load, load_valid
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.files import FileLock, Untrusted, check_directory, make_private_directory, read_trusted_path
from agent.metrics.textfile import Textfiles
from agent.registration.driver import Registration
from agent.registration.planner import Planner, RegistrationOptions
from agent.reload.stream import tls_context
from tests.support.clock import FakeClock
from tests.support.kinds import raises_kind
from tests.support.nobody import as_nobody

NOBODY = 65534
DEFINITION = '{"service": {"name": "web"}}'


@pytest.fixture
def services(tmp_path: Path) -> Path:
    directory = tmp_path / "etc" / "services.d"
    directory.mkdir(parents=True, mode=0o755)
    (directory / "web.json").write_text(DEFINITION)
    (directory / "web.json").chmod(0o644)
    return directory


def faults(directory: Path) -> tuple[Fault, ...]:
    try:
        load(directory)
    except BadDefinition as error:
        return error.faults
    return ()


def test_what_only_the_owner_writes_is_used(services: Path) -> None:
    assert faults(services) == ()


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o666, "every user"), (0o646, "every user")])
def test_a_file_that_others_write_is_a_fault_of_that_file(services: Path, mode: int, who: str) -> None:
    (services / "db.json").write_text('{"service": {"name": "db"}}')
    file = services / "web.json"
    file.chmod(mode)

    (fault,) = faults(services)

    assert fault.file == str(file)
    assert fault.problem == f"writable by {who} (owned by root, mode 0{mode:o})"
    assert fault.remedy.endswith(f"run: chmod go-w {file}")


def test_a_file_of_another_user_names_the_repair(services: Path) -> None:
    file = services / "web.json"
    os.chown(file, NOBODY, NOBODY)
    file.chmod(0o664)

    (fault,) = faults(services)

    assert "owned by nobody, mode 0664" in fault.problem
    assert fault.remedy.endswith(f"run: chown root {file} && chmod go-w {file}")


def break_directory(services: Path) -> Path:
    services.chmod(0o775)
    return services


def break_sticky(services: Path) -> Path:
    services.chmod(0o1777)
    return services


def break_parent(services: Path) -> Path:
    services.parent.chmod(0o777)
    return services.parent


def give_away(services: Path) -> Path:
    os.chown(services, NOBODY, 0)
    return services


def give_parent_away(services: Path) -> Path:
    os.chown(services.parent, NOBODY, 0)
    return services.parent


@pytest.mark.parametrize("break_it", [break_directory, break_sticky, break_parent, give_away, give_parent_away])
def test_a_faulty_directory_is_a_fault_of_everything(services: Path, break_it: Callable[[Path], Path]) -> None:
    broken = break_it(services)

    (fault,) = faults(services)

    assert fault.file == str(services)
    assert fault.remedy.endswith(str(broken))


def test_a_sticky_directory_on_the_way_is_trusted(services: Path) -> None:
    """As /tmp is: there nobody can replace what others own."""
    services.parent.chmod(0o1777)

    assert faults(services) == ()


def test_links_are_followed_with_every_directory_on_the_way(services: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "db.json").write_text('{"service": {"name": "db"}}')
    link = services / "db.json"
    link.symlink_to("../../elsewhere/db.json")
    assert faults(services) == ()

    elsewhere.chmod(0o777)
    (fault,) = faults(services)
    assert (fault.file, f"{elsewhere} is writable by every user" in fault.problem) == (str(link), True)

    elsewhere.chmod(0o755)
    os.chown(elsewhere / "db.json", NOBODY, 0)
    (fault,) = faults(services)
    assert fault.file == str(link)

    os.chown(elsewhere / "db.json", 0, 0)
    os.chown(link, NOBODY, 0, follow_symlinks=False)
    (fault,) = faults(services)
    assert f"chown -h root {link}" in fault.remedy


def test_a_link_to_the_directory_is_followed(services: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(services)
    assert [one.service.name for one in load(tmp_path / "link")] == ["web"]

    services.chmod(0o777)
    assert len(faults(tmp_path / "link")) == 1


def fifo(file: Path) -> None:
    os.mkfifo(file)


def unix_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(file.parent)
        server.bind(file.name)
        os.chdir(before)


def device(file: Path) -> None:
    os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def loop(file: Path) -> None:
    file.symlink_to(file.name)


def dangling(file: Path) -> None:
    file.symlink_to("/nowhere")


def link_to_fifo(file: Path) -> None:
    os.mkfifo(file.parent / "pipe")
    file.symlink_to("pipe")


ODD = [fifo, unix_socket, device, loop, dangling, link_to_fifo, Path.mkdir]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_file_is_a_fault_and_never_waited_for(services: Path, make: Callable[[Path], None]) -> None:
    make(services / "odd.json")

    (fault,) = faults(services)

    assert fault.file == str(services / "odd.json")
    assert fault.problem


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"service": ' + b'{"a":' * 100_000,
        b'{"service": {"name": "odd", "port": ' + b"1" * 5000 + b"}}",
        b'{"service": {"name": "odd", "port": 1e400}}',
        b'{"service": {"name": "odd", "port": ' + b"9" * 400 + b"}}",
        b'{"service": {"name": "w\\u0000eb"}}',
        b'{"service": {"name": "odd", "tagged_addresses": {"\\ud800": {"address": "a"}}}}',
        b'{"service": {"name": "odd", "meta": {"a": "\\u0000"}}}',
        b'{"service": {"name": "odd", "name": "db"}}',
        b'{"service": {"name": "' + b"k" * 900_000 + b'"}}',
        b'{"service": {"name": "odd", "' + b"k" * 900_000 + b'": 1}}',
        b'{"service": {"name": "odd", "checks": [{"tcp": "127.0.0.1:1", "interval": "' + b"1" * 4301 + b's"}]}}',
        b'{"service": {"name": "odd", "checks": [{"tcp": "127.0.0.1:1", "interval": "0.' + b"1" * 4301 + b's"}]}}',
    ],
)
def test_any_content_is_a_short_fault_of_that_file(services: Path, content: bytes) -> None:
    (services / "odd.json").write_bytes(content)

    found = faults(services)

    assert {fault.file for fault in found} == {str(services / "odd.json")}
    assert all(len(str(fault)) < 1000 for fault in found)


@pytest.mark.parametrize("count", [10_000])
def test_large_files_take_linear_time(services: Path, count: int) -> None:
    """Each key twice, under a limit of the test itself: it took 23 s of quadratic search for 10,000."""
    pairs = ",".join(f'"k{number}":1,"k{number}":2' for number in range(count))
    (services / "odd.json").write_text(f'{{"service": {{"name": "odd", "meta": {{{pairs}}}}}}}')

    assert len(faults(services)) >= count


def test_settings_that_others_write_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "svcagent.toml"
    file.write_text("")
    Settings.load(file, {})

    file.chmod(0o620)
    with pytest.raises(BadDefinition, match="chmod go-w"):
        Settings.load(file, {})


@pytest.mark.parametrize("content", ["x = " + "[" * 100_000, "x = " + "1" * 5000, "x = 1e400", 'x = "\\ud800"', "\0"])
def test_any_wrong_setting_is_a_fault(tmp_path: Path, content: str) -> None:
    (tmp_path / "svcagent.toml").write_text(content)

    with pytest.raises(BadDefinition):
        Settings.load(tmp_path / "svcagent.toml", {})


def test_a_missing_state_directory_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "state")
    make_private_directory(tmp_path / "state")

    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    with pytest.raises(FileNotFoundError):
        make_private_directory(tmp_path / "nowhere" / "state")


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_state_directory_that_others_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)

    with pytest.raises(Untrusted, match="chmod go-w"):
        make_private_directory(tmp_path / "state")


def test_one_that_others_read_is_accepted(tmp_path: Path) -> None:
    """Every file in it is 0600; systemd makes state directories 0755 by default."""
    (tmp_path / "state").mkdir(mode=0o755)

    make_private_directory(tmp_path / "state")


def test_a_lock_file_can_be_opened_by_its_owner_alone(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        assert stat.S_IMODE(os.fstat(lock.descriptor).st_mode) == 0o600


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)

    assert len(read_trusted_path(tmp_path / "file", 100)[0]) == 100
    assert len(read_trusted_path(tmp_path / "file", 10_000)[0]) == 5000
    assert read_trusted_path(Path("/proc/self/status"), 100)[0].startswith(b"Name:")
    assert check_directory(tmp_path) == tmp_path


@pytest.fixture
def hidden(open_directory: Path) -> Path:
    """A directory whose content a user without rights may not look at."""
    (open_directory / "hidden").mkdir(mode=0o700)
    return open_directory / "hidden"


@pytest.mark.parametrize("variable", ["CONSUL_CACERT", "CONSUL_CAPATH"])
def test_a_certificate_that_may_not_be_looked_at_is_a_fault_of_its_setting(hidden: Path, variable: str) -> None:
    with as_nobody(), pytest.raises(BadDefinition) as caught:
        Settings.load(None, {variable: str(hidden / "ca.pem")})

    assert [fault.file for fault in caught.value.faults] == [variable]


def test_a_lock_that_may_not_be_looked_at_cannot_be_written(hidden: Path) -> None:
    with as_nobody(), raises_kind(SvcagentError, "cannot-write"), FileLock(hidden / "lock"):
        pass


def test_a_directory_of_metrics_that_may_not_be_looked_at_cannot_be_written(hidden: Path) -> None:
    files = Textfiles(hidden / "metrics", FakeClock(), print)

    with as_nobody(), raises_kind(SvcagentError, "cannot-write"):
        files.cnames({}, is_all=True)


def test_a_certificate_store_that_may_not_be_looked_at_is_skipped(hidden: Path) -> None:
    """As Go does."""
    store = {"SSL_CERT_FILE": str(hidden / "ca.pem"), "SSL_CERT_DIR": str(hidden)}

    with as_nobody():
        assert not tls_context(store, verified=True).get_ca_certs()


@pytest.mark.parametrize(("name", "faults"), [("hidden/services.d", 1), ("services.d", 0)])
def test_only_a_directory_that_is_known_to_be_missing_counts_as_an_empty_one(
    open_directory: Path, hidden: Path, name: str, faults: int
) -> None:
    directory = open_directory / name
    planner = Planner(
        directory,
        cast("Registration", None),
        RegistrationOptions(frozenset(), 0.0, is_empty_allowed=True),
        cast("Any", None),
        lambda _address: load_valid(directory),
        cast("Any", None),
    )

    with as_nobody():
        planner.read()

    assert hidden.is_dir()
    assert len(planner.faults) == faults
