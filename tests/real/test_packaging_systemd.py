"""The units that ``packaging/systemd`` ships, as systemd itself reads them; svcagent is where the README puts it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.server import REPOSITORY

UNITS = REPOSITORY / "packaging" / "systemd"
INSTANCE = "keyword-suggest"

# /usr/local/bin of the test's own, seen by nobody else.
VERIFY = """
mount --bind "$1" /usr/local/bin
shift
exec systemd-analyze verify --man=no "$@"
"""


def verify(tmp_path: Path, *units: str, is_installed: bool = True) -> "subprocess.CompletedProcess[str]":
    """systemd's judgement of these units, all shipped ones being there, templates also as an instance."""
    directory, programs = tmp_path / "units", tmp_path / "bin"
    directory.mkdir()
    programs.mkdir()
    for file in UNITS.iterdir():
        shutil.copy(file, directory)
        if "@" in file.name:
            shutil.copy(file, directory / file.name.replace("@", f"@{INSTANCE}"))
    if is_installed:
        program = programs / "svcagent"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    alone = ("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", VERIFY, "verify", str(programs))
    return subprocess.run(
        [*alone, *(str(directory / unit) for unit in units)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("unit", sorted(file.name.replace("@", f"@{INSTANCE}") for file in UNITS.iterdir()))
def test_systemd_has_no_remark(tmp_path: Path, unit: str) -> None:
    done = verify(tmp_path, unit)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_misses_what_is_not_installed(tmp_path: Path) -> None:
    """So that it has been asked something."""
    done = verify(tmp_path, "svcagent.service", is_installed=False)

    assert done.returncode != 0
    assert "svcagent is not executable" in done.stderr


def test_every_timer_starts_a_unit_that_is_shipped() -> None:
    for timer in UNITS.glob("*.timer"):
        assert timer.with_suffix(".service").is_file()
        assert "Unit=" not in timer.read_text()


@pytest.mark.parametrize("unit", ["svcagent.service", "svcagent-register.service"])
def test_on_boot_consul_and_docker_come_first(unit: str) -> None:
    text = (UNITS / unit).read_text()

    for line in ("Wants", "After"):
        assert f"\n{line}=network-online.target consul.service docker.service\n" in text
    assert "\nWantedBy=multi-user.target\n" in text
