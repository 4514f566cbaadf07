"""The shell script that svcagent replaces, run on all hosts of a lab at the same moment, for comparison.

Every sleep is the original's, and so is every fault. Two things are not: the service's name in ``consul maint``, which
was an abbreviation, and the restart, which makes the container anew: ``docker restart`` would keep the old image.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import image
from tests.lab.lab import LOCK, Lab

SCRIPT = """\
#!/bin/sh
result=$(docker pull "$IMAGE:$LATEST_TAG")
mkdir -p "$CDIR/tag"
echo "$LATEST_TAG" > "$CDIR/tag/latest"
case $result in
*"Downloaded newer image"*) ;;
*) exit 0 ;;
esac
consul maint -enable -service={name} -reason=reload
sleep 2
docker stop {name} && docker rm {name}
docker run --detach --name {name} --network host --restart unless-stopped \\
  --env ADDR="$ADDR" --env PORT={port} --env LOAD_SECONDS="$LOAD_SECONDS" "$IMAGE:$LATEST_TAG"
sleep 5
consul maint -disable -service={name}
"""


@dataclass(frozen=True)
class OriginRun:
    """How it went on one host: seconds from the common start to its end, and what it printed."""

    host: str
    exit_code: int
    seconds: float
    output: str


def run_origin(
    lab: Lab, *, load_seconds: float = 0.5, seconds: float = 300, tick: Callable[[], None] = lambda: None
) -> tuple[OriginRun, ...]:
    """Run the cron job's command on every host at once and wait for all, ``seconds`` at most.

    ``tick`` is called while it waits, about twenty times a second: a live view draws itself there.
    """
    script = lab.directory / "check_and_reload"
    script.write_text(SCRIPT.format(name=image.NAME, port=image.PORT))
    script.chmod(0o755)
    begin = time.monotonic()
    running: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    for host in lab.hosts:
        output = host.directory / "origin.log"
        environment = {
            "IMAGE": lab.repository,
            "LATEST_TAG": "latest",
            "CDIR": str(host.directory / "origin"),
            "ADDR": host.address,
            "LOAD_SECONDS": f"{load_seconds:g}",
        }
        with output.open("w") as log:
            argv = ("consul", "lock", "-verbose", LOCK, str(script))
            process = lab.command(host, *argv, env=environment, stdout=log, stderr=subprocess.STDOUT)
        running[host.name] = process, output
    ended: dict[str, float] = {}
    while len(ended) < len(running):
        for name, (process, _) in running.items():
            if name not in ended and process.poll() is not None:
                ended[name] = time.monotonic() - begin
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"after {seconds:g} s only {sorted(ended)} of {sorted(running)} have ended")
        tick()
        time.sleep(0.05)
    return tuple(
        OriginRun(name, process.returncode, ended[name], output.read_text())
        for name, (process, output) in running.items()
    )
