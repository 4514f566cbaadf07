"""Options of the whole test suite."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests import compatibility


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full-matrix``, as ``scripts/test --all`` passes it, and ``--record``."""
    parser.addoption(
        "--full-matrix",
        action="store_true",
        help="run every combination of the fault matrices instead of a sample that covers each step and call once",
    )
    parser.addoption(
        "--record",
        type=Path,
        metavar="FILE",
        help="if all tests pass, write to FILE the versions of the parts that they ran with",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Restore signals to their defaults, and count for ``--record`` in the process that hears of all tests.

    A run that nohup started, or a script in the background, has SIGHUP or SIGINT ignored, and so has every process
    that inherits this. Tests send these signals to themselves and to what they start.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    file = config.getoption("--record")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(file))


class _Recorder:
    """Counts the tests that pass, by file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._passed = Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed[report.nodeid.partition("::")[0]] += 1

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            compatibility.write(compatibility.measured(self._passed), self._file)
