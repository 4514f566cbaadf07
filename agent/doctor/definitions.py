"""Definitions: their faults, and required features that the local agent lacks."""

from collections.abc import Collection, Iterator

from agent.doctor.diagnosis import Diagnosis, error, ok
from agent.doctor.examined import ExaminedHost
from agent.errors import Fault
from agent.registration import unmet_requirements
from agent.text import counted


def judge_faults(faults: Collection[Fault], without: str) -> Iterator[Diagnosis]:
    """Judge faults of definitions. ``without`` is the message if there are none."""
    for fault in faults:
        where = f"{fault.file}: {fault.path}" if fault.path else fault.file
        yield error(f"{where}: {fault.problem}", fault.remedy)
    if not faults:
        yield ok(without)


def find_faults(examined: ExaminedHost) -> Iterator[Diagnosis]:
    return judge_faults(examined.faults, f"{counted(len(examined.definitions), 'definition')} without faults")


def find_unmet(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul() as consul:
        faults = unmet_requirements(examined.definitions, consul.agent_self())
    yield from judge_faults(faults, "the local agent knows all that they ask for")
