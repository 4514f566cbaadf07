"""What ``packaging/`` ships, as far as it can be judged without a server: its commands, crontab, metrics, dashboard."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim

from agent.cli import VERBS
from agent.clock import SystemClock
from agent.metrics.exposition import Metrics, text_of
from agent.metrics.host_series import MaintenanceSample
from agent.reload.host_lock import HostReload
from tests.commands import lines_in, named_in, usage_fault
from tests.unit.test_metrics import ended

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"
DASHBOARD = PACKAGING / "grafana" / "svcagent.json"
RULES = PACKAGING / "prometheus" / "svcagent.rules.yml"
STORIES = PACKAGING / "prometheus" / "svcagent_test.yml"
UNITS = PACKAGING / "systemd"
CRONTAB = PACKAGING / "cron.d" / "svcagent"
README = REPOSITORY / "README.md"

GRID_COLUMNS = 24


NOON = "2026-05-01T12:00:00+00:00"


def exported() -> dict[str, str]:
    """The type of every metric of svcagent's own, by name."""
    metrics = Metrics(SystemClock())
    metrics.converged(["web"], {"a.json": 1}, [MaintenanceSample("web", "alice", 1.0)])
    metrics.cnames({"records": [{"record": "a.", "outcome": "in place", "is_done": False}]})
    metrics.reload_ended(ended("reloaded", steps=[{"step": "acquire", "seconds": 1.0}]))
    metrics.reloads_run([("web", HostReload(1, NOON, "acquire", NOON, place=1))])
    text = text_of(metrics.collect()).decode()
    return dict(re.findall(r"^# TYPE (svcagent_\w+) (\w+)$", text, re.MULTILINE))


def named(text: str) -> set[str]:
    return set(re.findall(r"\bsvcagent_(?!test\b)[a-z_]+", text))


def series_names() -> set[str]:
    names = set()
    for name, kind in exported().items():
        names |= {f"{name}{part}" for part in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return names


@pytest.mark.parametrize("file", [RULES, STORIES, DASHBOARD], ids=lambda file: file.name)
def test_queries_name_metrics_that_there_are(file: Path) -> None:
    """A misspelt one would be an alert that never fires, a panel that stays empty."""
    assert named(file.read_text()) - series_names() == set()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = named(DASHBOARD.read_text())

    assert {name for name in exported() if not any(one.startswith(name) for one in shown)} == set()


def test_the_readme_lists_every_metric() -> None:
    rows = re.findall(
        r"^\| `(svcagent_\w+)(?:\{[\w,]+\})?` \| (counter|gauge|histogram) \|", README.read_text(), re.MULTILINE
    )

    assert dict(rows) == exported()


def test_every_alert_has_a_story_in_which_it_fires_and_a_moment_in_which_it_does_not() -> None:
    """The stories themselves are played by promtool."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    stories = STORIES.read_text().split("  - name: ")

    assert len(alerts) == len(set(alerts)) > 0
    for alert in alerts:
        told = [story for story in stories if f'alertname="{alert}"' in story or f"alertname: {alert}" in story]
        assert told, alert
        assert all("exp_samples: []" in story or "exp_alerts: []" in story for story in told)


def test_every_alert_says_how_bad_it_is_and_what_to_run_next() -> None:
    """A command of svcagent, or systemd's where that is what failed."""
    for alert in RULES.read_text().split("- alert: ")[1:]:
        assert re.search(r"severity: (critical|warning)\n", alert), alert
        assert "summary: " in alert
        assert named_in(alert.partition("description: ")[2]), alert


def started_by(unit: Path) -> list[str]:
    """The commands of a unit, without ``svcagent`` itself."""
    return re.findall(r"^Exec\w+=svcagent (.*)$", unit.read_text(), re.MULTILINE)


def test_the_readme_says_where_each_file_goes() -> None:
    """Every shipped file is named, or is one of a kind that is; and every unit that is to be enabled is shipped."""
    text = README.read_text()
    shipped = [file.relative_to(REPOSITORY) for file in PACKAGING.rglob("*") if file.is_file() and file != STORIES]
    ways = re.findall(r"packaging/[\w./*-]*[\w*]", text)
    enabled = [word for line in re.findall(r"systemctl enable --now (.*)", text) for word in line.split("#")[0].split()]

    assert [file for file in shipped if not any(file.match(way) or way in map(str, file.parents) for way in ways)] == []
    for unit in enabled:
        name = re.sub(r"@[^.]+", "@", unit)
        assert (UNITS / (name if "." in name else f"{name}.service")).is_file()


def crontab_lines() -> Iterator[str]:
    for line in CRONTAB.read_text().splitlines():
        if line and not line.startswith("#") and not re.match(r"[A-Z]+=", line):
            yield line


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(named_in(RULES.read_text()), id="rules"),
        pytest.param(named_in(DASHBOARD.read_text()), id="dashboard"),
        pytest.param([line.partition("svcagent ")[2] for line in crontab_lines()], id="crontab"),
        pytest.param([one for unit in UNITS.glob("svcagent-*.service") for one in started_by(unit)], id="units"),
        pytest.param(
            started_by(UNITS / "svcagent.service"),
            id="daemon",
            marks=pytest.mark.skipif("run" not in VERBS, reason="the daemon's verb is not there yet"),
        ),
        pytest.param(lines_in(README.read_text()), id="readme"),
    ],
)
def test_the_commands_that_are_named_are_svcagents(commands: list[str]) -> None:
    """Verbs, options and arguments: what is shipped does not lag behind the command line."""
    assert commands
    assert [fault for command in commands if (fault := usage_fault(command))] == []


def test_cron_understands_its_file() -> None:
    """Five fields or @reboot, a user, a command without a %, which would end it; the last line ends; a plain name."""
    lines = list(crontab_lines())

    assert len(lines) == 5
    for line in lines:
        fields = line.split(None, 2) if line.startswith("@") else line.split(None, 6)
        when, user, command = " ".join(fields[:-2]), fields[-2], fields[-1]
        assert when == "@reboot" or next(CronSim(when, datetime(2026, 5, 1, tzinfo=UTC)))
        assert user == "root"
        assert command.startswith("svcagent ")
        assert "%" not in command
    assert CRONTAB.read_text().endswith("\n")
    assert re.fullmatch(r"[\w-]+", CRONTAB.name)


def test_cron_finds_svcagent_and_mails_its_errors() -> None:
    """In /usr/local/bin, where the README puts it, or in /usr/bin; cron's own PATH has not the first."""
    settings = dict(re.findall(r"^([A-Z]+)=(.*)$", CRONTAB.read_text(), re.MULTILINE))

    assert {"/usr/local/bin", "/usr/bin"} <= set(settings["PATH"].split(":"))
    assert settings["MAILTO"] == "root"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def test_the_dashboard_asks_what_its_variables_say() -> None:
    """Every panel asks the chosen Prometheus, for the chosen hosts; no variable is used that is not there."""
    board = dashboard()
    variables = {one["name"] for one in board["templating"]["list"]}

    assert (board["uid"], board["title"]) == ("svcagent", "svcagent")
    for panel in board["panels"]:
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$\{?([a-z]\w*)", DASHBOARD.read_text()))
    assert used == variables


def test_the_panels_do_not_overlap() -> None:
    """On Grafana's grid, none over another, each with an id of its own."""
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for one in panels
        for x in range(one["gridPos"]["x"], one["gridPos"]["x"] + one["gridPos"]["w"])
        for y in range(one["gridPos"]["y"], one["gridPos"]["y"] + one["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _y in cells) < GRID_COLUMNS
    assert len({one["id"] for one in panels}) == len(panels)
