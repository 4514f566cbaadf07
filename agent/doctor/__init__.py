"""What is wrong on and around one host, each with its remedy: the checks of ``svcagent doctor``. Changes nothing.

One module per subject: pure decisions over what one edge observed, and the functions that observe it. `registry` has
the table of all checks and runs them. This module imports none of them, so that ``--help`` is quick.
"""

from agent.doctor.diagnosis import SUBJECTS, Diagnosis, Level

__all__ = ["SUBJECTS", "Diagnosis", "Level"]
