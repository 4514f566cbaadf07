"""What every unit test leaves behind it: the process as it was."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from agent import logs

# A busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A verb that a test runs sets up the logs of the whole process; the next test starts without that."""
    yield
    logs.set_up(logs.Format.TEXT, is_verbose=False)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may list, unlike pytest's own."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
