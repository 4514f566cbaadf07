"""The scripts of the checkout."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("option", "code", "said"), [("--hosts=1", 2, "--hosts must be 2 to 9"), ("--help", 0, "--hosts N")]
)
def test_the_demo_reads_its_options_before_its_setup(tmp_path: Path, option: str, code: int, said: str) -> None:
    parts = tmp_path / "parts"

    run = subprocess.run(
        [ROOT / "scripts/demo", option],
        env={**os.environ, "SVCAGENT_PARTS_DIR": str(parts)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == code
    assert said in run.stdout + run.stderr
    assert not parts.exists()
