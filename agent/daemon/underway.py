"""Which reloads were under way, on disk: a daemon that is started anew takes them up again.

What such a reload left half done is in its journal and is put right by it; this only says that it was wanted.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from agent.files import NotAFile, read_regular, write_atomically
from agent.logs import WARNING, log

FILE = "under-way.json"
VERSION = 1


class UnderWay:
    """``<state directory>/under-way.json``: the ids of services."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE
        self._ids = self._read()

    @property
    def ids(self) -> frozenset[str]:
        """Those that have begun and have not ended, of a daemon that died too."""
        return frozenset(self._ids)

    def begin(self, service_id: str) -> None:
        """It has something to do.

        :raises SvcagentError: it could not be written down.
        """
        if service_id not in self._ids:
            self._write({*self._ids, service_id})

    def end(self, service_id: str) -> None:
        """It has come to an end of its own.

        :raises SvcagentError: it could not be written down.
        """
        if service_id in self._ids:
            self._write(self._ids - {service_id})

    def _write(self, ids: Iterable[str]) -> None:
        self._ids = set(ids)
        write_atomically(self._file, json.dumps({"v": VERSION, "services": sorted(self._ids)}), mode=0o600)

    def _read(self) -> set[str]:
        """What a daemon before this one left; what cannot be read is as if nothing had been left."""
        try:
            tree = json.loads(read_regular(self._file))
            if isinstance(tree, dict) and tree.get("v") == VERSION:
                return {str(one) for one in tree["services"]}
        except FileNotFoundError:
            return set()
        except (OSError, NotAFile, ValueError, LookupError, TypeError, RecursionError) as error:
            log(f"{self._file} cannot be used, so no reload is taken up again by itself: {error}", level=WARNING)
        return set()
