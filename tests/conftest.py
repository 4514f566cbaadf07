"""Options of the whole test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full-matrix``, as ``scripts/test --all`` passes it."""
    parser.addoption(
        "--full-matrix",
        action="store_true",
        help="run every combination of the fault matrices instead of a sample that covers each step and call once",
    )
