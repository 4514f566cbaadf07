"""What svcagent was tested with: a record per platform, written by a test run, and the page made from all records.

``python -m tests.compatibility`` writes ``docs/compatibility.md``; a unit test checks that it matches the records.
"""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.lab.server import PATH, REPOSITORY

RECORDS = REPOSITORY / "docs" / "compatibility"
PAGE = REPOSITORY / "docs" / "compatibility.md"
RECORDED_ANSWERS = REPOSITORY / "tests" / "recorded"

Part: TypeAlias = Literal["debian", "python", "consul", "engine", "store", "bind"]
State: TypeAlias = Literal["tested here", "recorded", "unknown"]

TITLES: Mapping[Part, str] = {
    "debian": "Debian",
    "python": "Python",
    "consul": "Consul",
    "engine": "Docker Engine",
    "store": "image store",
    "bind": "BIND",
}
RELEASES: Mapping[Part, Sequence[str]] = {
    "debian": ("12", "13", "sid"),
    "python": ("3.11", "3.12", "3.13", "3.14"),
    "consul": (*(f"1.{minor}" for minor in range(8, 23)), "2.0"),
    "engine": ("20.10", "23.0", "24.0", "25.0", "26.1", "27.5", "28.5", "29"),
    "store": ("classic", "containerd"),
    "bind": ("9.18", "9.20"),
}
"""The release series that fleets run, oldest first."""
SUITES = ("unit", "real", "fleet")

INTRODUCTION = """\
# Compatibility

<!-- Made by scripts/compatibility from docs/compatibility/*.json and tests/recorded/. Change those, not this page. -->

*tested here*: the project's tests pass with this release. *recorded*: no package of this release was at hand; tests run
against answers recorded from it. *unknown*: neither. That does not mean that it fails.

## Combinations that were tested

Each row is one run of the tests on one machine, with exactly these versions. "-" marks a part that the run did not use.
`scripts/test-platforms --record` writes the rows again.
"""

PODMAN = """\

## Podman

Podman 4.3's Docker-compatible socket (`podman system service`) does not work with svcagent. It lacks two requests:
`GET /distribution/NAME/json`, which answers what the registry has without pulling it, and `POST /containers/ID/update`,
which keeps Docker from starting the old container during a reload.
"""


@dataclass(frozen=True)
class Record:
    """One successful run. Versions are those of the packages; empty for a part that no test of the run used.

    ``store`` is the Engine's image store: ``classic`` or ``containerd``. ``passed``: the number of tests by suite.
    """

    debian: str
    python: str
    consul: str
    engine: str
    store: str
    bind: str
    passed: Mapping[str, int]

    def version(self, part: Part) -> str:
        return str(getattr(self, part))


def measured(modules: Mapping[str, int]) -> Record:
    """Return the record of a run on this machine. ``modules``: the number of tests that passed, by file."""
    servers = [module for module in modules if not module.startswith("tests/unit/")]
    has_engine = any(module.startswith(("tests/fleet/", "tests/real/test_engine_")) for module in servers)
    is_containerd = os.environ.get("SVCAGENT_TEST_STORE") == "containerd"
    return Record(
        debian=_debian(),
        python=platform.python_version(),
        consul=_version_of("consul", "version") if servers else "",
        engine=_version_of("dockerd", "--version") if has_engine else "",
        store=("containerd" if is_containerd else "classic") if has_engine else "",
        bind=_version_of("named", "-v") if any("cname" in module for module in servers) else "",
        passed={suite: _total(modules, f"tests/{suite}/") for suite in SUITES if _total(modules, f"tests/{suite}/")},
    )


def write(record: Record, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(record), indent=2) + "\n")


def read(directory: Path = RECORDS) -> tuple[Record, ...]:
    """Return all records, by the names of their files."""
    return tuple(Record(**json.loads(file.read_text())) for file in sorted(directory.glob("*.json")))


def recorded(directory: Path = RECORDED_ANSWERS) -> tuple[str, ...]:
    """Return the Consul releases of which there are recorded answers."""
    return tuple(file.stem.removeprefix("consul-") for file in directory.glob("consul-*.json"))


def page(records: Collection[Record], recorded_consul: Collection[str]) -> str:
    header = [*TITLES.values(), "tests passed"]
    rows = [[record.version(part) or "-" for part in TITLES] + [_passed(record)] for record in records]
    lines = [INTRODUCTION, *_table(header, rows)]
    for part, title in TITLES.items():
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        tested = {record.version(part) for record in records} - {""}
        known = recorded_consul if part == "consul" else ()
        lines += _table(["release", "state"], [[f"{one}", state(one, tested, known)] for one in RELEASES[part]])
    return "\n".join(lines) + "\n" + PODMAN


def state(series: str, tested: Collection[str], recorded_releases: Collection[str]) -> State:
    """Return what is known of a release series; a version belongs to the series that it begins with."""
    if any(_is_of(series, version) for version in tested):
        return "tested here"
    return "recorded" if any(_is_of(series, version) for version in recorded_releases) else "unknown"


def _is_of(series: str, version: str) -> bool:
    return version == series or version.startswith(f"{series}.")


def _total(modules: Mapping[str, int], prefix: str) -> int:
    return sum(count for module, count in modules.items() if module.startswith(prefix))


def _passed(record: Record) -> str:
    return ", ".join(f"{suite} {count}" for suite, count in record.passed.items())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _debian() -> str:
    release = platform.freedesktop_os_release()
    # Debian's unstable release has no number.
    return release.get("VERSION_ID", "sid")


def _version_of(program: str, argument: str) -> str:
    """The first number with dots in what the program prints, as ``26.1.5`` of ``Docker version 26.1.5+dfsg1, …``."""
    found = shutil.which(program, path=PATH) or program
    printed = subprocess.run([found, argument], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\d+(\.\d+)+", printed)
    assert number, f"{program} {argument} prints no version: {printed}"
    return number[0]


if __name__ == "__main__":
    PAGE.write_text(page(read(), recorded()))
