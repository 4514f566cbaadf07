"""``svcagent reload`` on all hosts of a lab at the same moment, followed while it runs and measured when it is over."""

import base64
import json
import subprocess
import threading
from dataclasses import dataclass, field
from typing import IO, Any

from tests.lab.ground import LabError
from tests.lab.lab import Lab


@dataclass
class HostReport:
    """One host's reload. ``share``: seconds that it had the fleet's lock, from its predecessor's release to its own."""

    name: str
    exit_code: int
    steps: dict[str, float]
    share: float
    inevitable: float
    error: str | None
    result: dict[str, Any] = field(default_factory=dict)


class Rollout:
    """Starts at once; each host's step is known from the log lines that its svcagent writes with ``-v``."""

    def __init__(self, lab: Lab, name: str, *arguments: str) -> None:
        self._states = {host.name: "starting" for host in lab.hosts}
        self.processes = {
            host.name: lab.svcagent(host, "--json", "-v", "reload", name, *arguments) for host in lab.hosts
        }
        self._output: dict[str, str] = {}
        self.errors: dict[str, list[str]] = {host: [] for host in self.processes}
        self._threads = [
            threading.Thread(target=target, args=(host, stream))
            for host, process in self.processes.items()
            for target, stream in ((self._read_log, process.stderr), (self._read_result, process.stdout))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        return all(process.poll() is not None for process in self.processes.values())

    def states(self) -> dict[str, str]:
        """The step that each host is at."""
        return dict(self._states)

    def wait(self, seconds: float = 120) -> None:
        for host, process in self.processes.items():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise LabError(f"{host} is still at {self._states[host]} after {seconds:g} s") from error
        for thread in self._threads:
            thread.join()

    def results(self) -> dict[str, dict[str, Any]]:
        """The document that each host's svcagent printed."""
        self.wait()
        try:
            return {host: json.loads(text) for host, text in self._output.items()}
        except ValueError as error:
            raise LabError(f"not a result: {self._output}, {self.errors}") from error

    def reports(self, load_seconds: float) -> list[HostReport]:
        """What each host did, in order of hosts. ``load_seconds``: what the service itself needs to load."""
        results = self.results()
        releases = sorted(r["released_at"] for r in results.values() if r.get("released_at"))
        reports = []
        for host, result in results.items():
            engine = result.get("engine", {})
            share = 0.0
            if result.get("released_at") and result.get("locked_at"):
                before = [moment for moment in releases if moment < result["released_at"]]
                # The first of them had nobody to wait for: its share begins when it takes the lock.
                share = result["released_at"] - (before[-1] if before else result["locked_at"])
            inevitable = sum(engine.get(part, 0.0) for part in ("stop", "create", "start")) + load_seconds
            steps: dict[str, float] = {}
            for step in result.get("steps", ()):
                steps[step["step"]] = steps.get(step["step"], 0.0) + step["seconds"]
            steps |= {f"  of restart: {part}": engine[part] for part in ("create", "stop", "start") if part in engine}
            reports.append(
                HostReport(
                    host,
                    self.processes[host].returncode,
                    steps,
                    round(share, 4),
                    round(inevitable, 4),
                    result.get("error"),
                    result,
                )
            )
        return reports

    def _read_log(self, host: str, stream: IO[str]) -> None:
        for line in stream:
            fields = dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
            if "step" in line and "phase" in fields:
                step = line.split("step=", 1)[1].split(" phase=", 1)[0].strip('"')
                self._states[host] = step if fields["phase"] != "failed" else f"{step}: failed"
            else:
                self.errors[host].append(line)
        self._states[host] = "done"

    def _read_result(self, host: str, stream: IO[str]) -> None:
        self._output[host] = stream.read()


def holder_of(lab: Lab, prefix: str) -> str | None:
    """The node that holds ``<prefix>/.lock``, svcagent's or ``consul lock``'s; None if nobody does."""
    try:
        pair = lab.consul().get(f"/v1/kv/{prefix}/.lock")[0]
        if not pair.get("Session"):
            return None
        if pair["Value"]:
            return str(json.loads(base64.b64decode(pair["Value"]))["node"])
        info = lab.consul().get(f"/v1/session/info/{pair['Session']}")
    except LabError:
        return None  # no such key: 404
    return str(info[0]["Node"]) if info else None
