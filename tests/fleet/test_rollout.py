"""The promise: a rollout under load, and not one request lost."""

import pytest

from tests.fleet.conftest import NAME, start
from tests.lab.lab import Lab
from tests.lab.rollout import Rollout
from tests.lab.traffic import Load


@pytest.mark.parametrize(("hosts", "load_seconds"), [(2, 3.0), (3, 0.2)])
def test_a_rollout_started_on_all_hosts_concurrently_loses_no_request(hosts: int, load_seconds: float) -> None:
    """Started at the same moment everywhere: every request answered, every host on the new version, nothing left."""
    with Lab(hosts) as lab:
        fleet = start(lab, load_seconds)
        with Load(lab) as load:
            load.wait_for(requests=300)
            version = fleet.push_next()

            rollout = Rollout(lab, NAME)
            rollout.wait(120)
            load.wait_for(requests=300)
            summary = load.stop()

        assert summary.failed == ()
        assert summary.failures == 0
        assert summary.requests > 1000
        assert set(lab.versions().values()) == {version}
        assert {process.returncode for process in rollout.processes.values()} == {0}, rollout.results()
        assert fleet.leftovers() == []
        assert len(lab.consul().passing()) == hosts
        for result in rollout.results().values():
            assert result["outcome"] == "reloaded"
