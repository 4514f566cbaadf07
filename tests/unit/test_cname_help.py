"""``svcagent cname`` before it asks anybody anything."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from agent.cli.cname import cname


@pytest.mark.parametrize("verb", ["", *cname.commands])
def test_every_help_has_examples(verb: str) -> None:
    result = CliRunner().invoke(cname, [*verb.split(), "--help"])

    assert result.exit_code == 0
    assert f"  svcagent cname {verb}".rstrip() in result.output.partition("Examples:")[2]


def test_dnspython_is_not_imported_before_dns_is_asked() -> None:
    """It takes as long as all else."""
    code = "import sys; import agent.cli.cname; print('dns' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
