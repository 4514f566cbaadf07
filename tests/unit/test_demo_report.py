"""What the demo calls a rollout without loss: its exit code depends on it."""

import pytest

from tests.lab.report import Report
from tests.lab.traffic import Summary


@pytest.mark.parametrize(
    ("failures", "exit_codes", "after", "is_lossless"),
    [
        (0, [0, 0], {"host1": "2", "host2": "2"}, True),
        (1, [0, 0], {"host1": "2", "host2": "2"}, False),
        (0, [0, 75], {"host1": "2", "host2": "2"}, False),
        (0, [0, 0], {"host1": "2", "host2": "1"}, False),
        (0, [0, 0], {"host1": "1", "host2": "1"}, False),
        (0, [0, 0], {"host1": "2", "host2": None}, False),
    ],
)
def test_without_loss(failures: int, exit_codes: list[int], after: dict[str, str | None], is_lossless: bool) -> None:
    """Every request answered, every svcagent content, every host on the new version."""
    load = Summary(1.0, 100, failures, {}, {}, 100.0, ())

    assert Report("svcagent", "1", after, 1.0, load, exit_codes).is_lossless is is_lossless
