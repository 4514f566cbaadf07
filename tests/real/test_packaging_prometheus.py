"""Alerts, dashboard and metrics as Prometheus's own checker sees them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.metrics.exposition import Metrics, text_of
from agent.metrics.host_series import MaintenanceSample
from agent.reload.host_lock import HostReload
from tests.lab.server import PATH
from tests.unit.test_metrics import ended
from tests.unit.test_packaging import DASHBOARD, RULES, STORIES

VARIABLES = {"$__rate_interval": "5m", "$instance": "host1", "$service": "web"}


NOON = "2026-05-01T12:00:00+00:00"


def promtool(*arguments: str, text: str = "") -> str:
    """What it says; it has to find nothing wrong."""
    program = shutil.which("promtool", path=PATH)
    assert program, "no promtool: run scripts/setup"
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_alerts_are_rules() -> None:
    assert f"{RULES.read_text().count('- alert: ')} rules found" in promtool("check", "rules", str(RULES))


def test_the_alerts_fire_when_they_should() -> None:
    """And at no other time; the stories are in the file beside them."""
    assert "SUCCESS" in promtool("test", "rules", str(STORIES))


@pytest.mark.parametrize("alert", ["SvcagentDown", "SvcagentRolloutStuck", "SvcagentMaintenanceOld"])
def test_a_story_without_its_alert_fails(tmp_path: Path, alert: str) -> None:
    """So that the checker has been asked something."""
    blocks = re.split(r"(?= {6}- alert: )", RULES.read_text())
    (tmp_path / RULES.name).write_text("".join(one for one in blocks if f"- alert: {alert}\n" not in one))
    shutil.copy(STORIES, tmp_path)

    with pytest.raises(AssertionError, match=alert):
        promtool("test", "rules", str(tmp_path / STORIES.name))


def test_the_dashboard_asks_in_promql(tmp_path: Path) -> None:
    """Every query, with its variables filled in, is an expression."""
    queries = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        queries = [query.replace(variable, value) for query in queries]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML

    assert f"{len(queries)} rules found" in promtool("check", "rules", str(file))


def test_the_metrics_are_named_as_prometheus_wants_them() -> None:
    metrics = Metrics(SystemClock())
    metrics.converged(["web"], {"a.json": 1}, [MaintenanceSample("web", "alice", 1.0)])
    metrics.cnames({"records": [{"record": '*.a"b\\.', "outcome": "in place", "is_done": False}]})
    metrics.reload_ended(ended("reloaded", steps=[{"step": "acquire", "seconds": 1.0}]))
    metrics.reloads_run([("web", HostReload(1, NOON, "acquire", NOON, place=1))])

    assert promtool("check", "metrics", text=text_of(metrics.collect()).decode()) == ""
