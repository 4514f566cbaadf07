"""Checks by kind (docs/kinds.md) instead of by text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from agent.errors import SvcagentError

E = TypeVar("E", bound=SvcagentError)


@contextmanager
def raises_kind(error: type[E], kind: str) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of this class and this kind."""
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.kind == kind, str(caught.value)
