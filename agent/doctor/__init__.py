"""The checks of ``svcagent doctor``: faults on and around one host, each with its remedy. Nothing is changed.

Each subject's module has pure decisions and the functions that observe. `registry` has the table of all checks and runs
them. This module imports none of them, so that ``--help`` is fast.
"""

from agent.doctor.diagnosis import SUBJECTS, UNREACHABLE, Diagnosis, Level

__all__ = ["SUBJECTS", "UNREACHABLE", "Diagnosis", "Level"]
