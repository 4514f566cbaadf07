"""The outcomes of reloads and recoveries, and what follows from each."""

from enum import StrEnum

from agent.errors import Interrupted, SvcagentError, TemporaryRefusal


class Outcome(StrEnum):
    """How a reload or a recovery ended. The values are in files, in Consul KV and in the labels of metrics."""

    UP_TO_DATE = "up to date"
    RELOADED = "reloaded"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"
    INTERRUPTED = "interrupted"
    ENVIRONMENT = "environment"
    """Rolled back, and the old version failed in the same way."""
    FAILED = "failed"
    STRANDED = "stranded"
    """The instance could not be restored."""
    RECOVERED = "recovered"
    """A crashed reload was finished or rolled back."""

    @classmethod
    def of_error(cls, error: SvcagentError | Interrupted) -> "Outcome":
        """Return the outcome of a reload that an error ended before it changed anything."""
        if isinstance(error, Interrupted):
            return cls.INTERRUPTED
        return cls.REFUSED if isinstance(error, TemporaryRefusal) else cls.FAILED


NEWEST_RUNS = frozenset({Outcome.UP_TO_DATE, Outcome.RELOADED})
"""After these, the newest permitted image runs."""
WANTED_RAN = frozenset({Outcome.RELOADED, Outcome.RECOVERED})
"""After these, the wanted version of the reload is known to have run."""
UNCHANGED = frozenset({Outcome.UP_TO_DATE, Outcome.REFUSED})
"""Nothing was changed. Cron repeats these, so they are neither published nor added to the history."""
RETRIED = frozenset({Outcome.STRANDED, Outcome.ENVIRONMENT})
"""The daemon repeats these before the next schedule."""
