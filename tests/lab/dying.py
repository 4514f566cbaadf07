"""svcagent, killed by itself at an exact place: ``python -m tests.lab.dying N ARGUMENT…``.

SIGKILL comes right after the N-th change of its journal is on disk, the journal's removal counting as one. A test
cannot send it from outside without missing the moment; the process it ends is the real one.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent.cli import main
from agent.reload.journal import Journal


def arm(number: int) -> None:
    """Kill this process after so many changes of any journal."""
    left = number

    def deadly(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: Any) -> None:
            nonlocal left
            change(*arguments)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return changed

    Journal.write = deadly(Journal.write)  # type: ignore[method-assign]  # the fault is made here
    Journal.remove = deadly(Journal.remove)  # type: ignore[method-assign]  # the same


if __name__ == "__main__":
    arm(int(sys.argv.pop(1)))
    main()
