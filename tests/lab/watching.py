"""`watch` run beside a lab, in a client's place: started, waited for, stopped, and its answers as plain data."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.ground import wait_until
from tests.lab.lab import Lab
from tests.lab.names import Names
from tests.lab.server import REPOSITORY, spawn

CONSUL, CLIENTS = "consul", "clients"


@dataclass(frozen=True)
class Answer:
    """Addresses that somebody was told. Times are seconds on one clock."""

    who: str
    asked: float
    answered: float
    addresses: tuple[str, ...]


class Watch:
    """Answers of `CONSUL` and to `CLIENTS`, from the beginning."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def answers(self, who: str) -> list[Answer]:
        whole = self._file.read_text().rpartition("\n")[0]
        lines = (json.loads(line) for line in whole.splitlines())
        return [Answer(**line | {"addresses": tuple(line["addresses"])}) for line in lines if line["who"] == who]

    def wait_for(self, addresses: set[str], seconds: float = 20) -> None:
        """Until the latest answer of both names exactly these."""

        def is_so() -> bool:
            latest = [self.answers(who)[-1:] for who in (CONSUL, CLIENTS)]
            return all(found and set(found[0].addresses) == addresses for found in latest)

        wait_until(is_so, seconds, f"Consul DNS and clients name exactly {sorted(addresses)}")

    def wait_asked_after(self, moment: float, seconds: float = 20) -> None:
        """Until a client has its answer to a question from after this moment."""
        wait_until(lambda: self.answers(CLIENTS)[-1].asked > moment, seconds, "clients go on asking")

    def gone(self, who: str, address: str) -> float:
        """When the answer came that was the first one without this address."""
        answers = self.answers(who)
        last = max(number for number, answer in enumerate(answers) if address in answer.addresses)
        return answers[last + 1].answered


@contextmanager
def watching(lab: Lab, names: Names, target: str, name: str) -> Iterator[Watch]:
    """Ask the first host's Consul agent for ``target`` and, as a client, for ``name``, inside the block."""
    file = lab.directory / "watch.jsonl"
    server = "{}:{}".format(*lab.hosts[0].dns)
    argv = names.as_client(sys.executable, "-m", "tests.lab.watch", server, target, name)
    # A pipe that nobody reads for a while would hold it up.
    with file.open("w") as output:
        process = spawn(argv, lab.environment(), stdin=subprocess.PIPE, stdout=output, cwd=REPOSITORY)
    assert process.stdin is not None
    try:
        yield Watch(file)
        process.stdin.close()
        process.wait(10)
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
