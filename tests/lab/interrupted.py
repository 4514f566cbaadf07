"""A reload that was cut short, as its lock file shows it: a daemon that starts recovers it and runs it again."""

import json
from pathlib import Path

from agent.reload.journal import state_file

NO_PROCESS = 4_194_305
"""Above the highest process ID of Linux."""


def leave_unfinished_reload(state_dir: Path, service_id: str) -> Path:
    """Write the lock file of a reload that was killed in its drain."""
    file = state_file(state_dir, service_id, ".lock")
    began = "2026-01-01T00:00:00+00:00"
    file.write_text(json.dumps({"pid": NO_PROCESS, "began": began, "step": "drain", "since": began}) + "\n")
    file.chmod(0o600)
    return file
