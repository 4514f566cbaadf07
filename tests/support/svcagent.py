"""svcagent on one host of a test: its directories, its settings and its verbs."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agent.cli import main
from tests.lab.host import environment_in
from tests.lab.server import spawn, svcagent_argv


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def document(self) -> Any:
        """The document that ``--json`` printed."""
        return json.loads(self.out)

    @property
    def kind(self) -> str:
        """The kind of the error that ended a verb with ``--json`` (docs/kinds.md)."""
        return str(self.document["kind"])


class Svcagent:
    """The svcagent of one host. ``settings``: its environment, beside its directories."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.services_dir, self.state_dir = home / "services.d", home / "state"
        self.services_dir.mkdir(exist_ok=True)
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        self.settings = settings

    def write(self, name: str, content: Any) -> Path:
        """Write a file of services.d atomically, as a daemon may read it: bytes, text or a document."""
        file = self.services_dir / f"{name}.json"
        new = self.services_dir / f".{name}.new"
        new.write_bytes(content if isinstance(content, bytes) else _text(content).encode())
        return new.replace(file)

    def define(self, *names: str, **more: Any) -> None:
        """Define services of these names, each with a check that never runs out."""
        for index, name in enumerate(names):
            check = {"ttl": "1h", "status": "passing"}
            self.write(name, {"service": {"name": name, "port": 8000 + index, "checks": [check], **more}})

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of svcagent as a process."""
        directories = {"SVCAGENT_SERVICES_DIR": str(self.services_dir), "SVCAGENT_STATE_DIR": str(self.state_dir)}
        return environment_in(self.home, self.home) | directories | self.settings | settings

    def __call__(self, *argv: str, **settings: str) -> Result:
        """Run a verb in this process: the command's own code, without the time of its imports."""
        with (
            patch.dict(os.environ, self.environment(**settings)),
            patch.object(sys, "argv", ["svcagent", *argv]),
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            try:
                main()
            except SystemExit as ended:
                return Result(int(ended.code or 0), out.getvalue(), err.getvalue())

    def run(self, *argv: str, code: int = 0, **settings: str) -> Result:
        """Run a verb that must end with this exit code."""
        result = self(*argv, **settings)
        assert result.code == code, result
        return result

    def start(self, *argv: str, env: dict[str, str] | None = None, **popen: Any) -> "subprocess.Popen[str]":
        """Start a verb as a process; its output goes into pipes, unless ``popen`` says otherwise."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return spawn([*svcagent_argv(), *argv], self.environment(**env or {}), text=True, **pipes | popen)

    def process(self, *argv: str, **settings: str) -> Result:
        """Run a verb as a process to its end."""
        process = self.start(*argv, env=settings)
        out, err = process.communicate(timeout=90)
        assert "Traceback" not in err, err
        return Result(process.returncode, out, err)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)
