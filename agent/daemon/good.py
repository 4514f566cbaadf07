"""The definitions that the daemon goes by: of every file its last good version, kept on disk.

One bad file stops nothing but itself: the version before it stays in force, also for a daemon that is started while
the file is bad, and the others go on. Which files those are is decided by `choose`, which is pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.definitions import Definition, Judgement, judge, read
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.files import write_atomically
from agent.logs import WARNING, log

DIRECTORY = "definitions"
"""In the state directory: what children are given as their ``services.d``."""

Contents = Mapping[str, bytes]
"""Files by name."""


@dataclass(frozen=True)
class Choice:
    """The files to go by, what is wrong with the others, and whether each of those has a good version."""

    files: Contents
    faults: tuple[Fault, ...] = ()
    is_complete: bool = True


def choose(now: Contents, good: Contents, find_faults: Callable[[Contents], Sequence[tuple[str, Fault]]]) -> Choice:
    """Each file as it is now, or else its last good version, or else not at all.

    ``find_faults``: of files, in an order in which the later one is at fault when two claim the same name. So those
    that have not changed come first: a new file does not take what another one has.
    """
    chosen = dict(now)
    faults: list[Fault] = []
    is_complete = True
    while True:
        same = {name: content for name, content in chosen.items() if good.get(name) == content}
        found = find_faults({**dict(sorted(same.items())), **dict(sorted(chosen.items() - same.items()))})
        if not found:
            return Choice(dict(sorted(chosen.items())), tuple(faults), is_complete)
        for name in {name for name, _fault in found}:
            if name in good and chosen[name] != good[name]:
                chosen[name] = good[name]
            else:
                del chosen[name]
                is_complete = False
        # What a file is blamed for in a later round comes of what was put in the place of another.
        faults += [fault for name, fault in found]


class GoodFiles:
    """``<state directory>/definitions``, and services.d, which it follows."""

    def __init__(self, services_dir: Path, state_dir: Path) -> None:
        self._services_dir = services_dir
        self.directory = state_dir / DIRECTORY
        self._good: dict[str, bytes] | None = None
        self._seen: tuple[dict[str, bytes], Mapping[str, str]] | None = None
        self._choice = Choice({})
        self._definitions: tuple[Definition, ...] = ()

    def follow(self, values: Mapping[str, str]) -> tuple[tuple[Definition, ...], tuple[Fault, ...], bool]:
        """The definitions to go by now, all faults of services.d, and whether every file has a version in force.

        Where one has none, nobody knows which services are its, so that none may be taken for removed. ``values``: as
        for `load`. The copy on disk is brought up to date.

        :raises SvcagentError: the copy cannot be written or read.
        """
        if self._good is None:
            self._good = self._read_copy()
        try:
            contents, unreadable = read(self._services_dir)
        except BadDefinition as error:
            return self._by_the_good_ones(error.faults, values)
        now = {file.name: content for file, content in contents.items()}
        kept = {Path(fault.file).name for fault in unreadable} & self._good.keys()
        if not now and not unreadable and self._good:
            problem = "holds no definition any more, so nothing is taken out"
            remedy = "if that is meant, run: svcagent register --allow-empty, and start the daemon anew"
            return self._by_the_good_ones([Fault(str(self._services_dir), "", problem, remedy)], values)
        now |= {name: self._good[name] for name in kept}
        if self._seen != (now, values):
            self._choose(now, values)
            self._seen = (now, dict(values))
        is_complete = self._choice.is_complete and len(kept) == len(unreadable)
        return self._definitions, (*unreadable, *self._choice.faults), is_complete

    def _by_the_good_ones(
        self, faults: Sequence[Fault], values: Mapping[str, str]
    ) -> tuple[tuple[Definition, ...], tuple[Fault, ...], bool]:
        """The directory as a whole cannot be used: all stays as it is."""
        self._seen = None
        self._choose(self._good or {}, values)
        return self._definitions, tuple(faults), False

    def _choose(self, now: Contents, values: Mapping[str, str]) -> None:
        good = self._good or {}
        choice = choose(now, good, lambda files: self._faults(files, values))
        self._choice, self._definitions = choice, self._judged(choice.files, values).definitions
        for name, content in choice.files.items():
            if good.get(name) != content:
                write_atomically(self.directory / name, content.decode(), mode=0o600)
        for name in good.keys() - choice.files.keys():
            if name not in now:
                (self.directory / name).unlink(missing_ok=True)
        self._good = {**{name: good[name] for name in good.keys() & now.keys()}, **choice.files}

    def _judged(self, files: Contents, values: Mapping[str, str]) -> Judgement:
        return judge({self._services_dir / name: content for name, content in files.items()}, values)

    def _faults(self, files: Contents, values: Mapping[str, str]) -> list[tuple[str, Fault]]:
        return [(Path(fault.file).name, fault) for fault in self._judged(files, values).faults]

    def _read_copy(self) -> dict[str, bytes]:
        """What a daemon before this one went by."""
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            contents, unreadable = read(self.directory)
        except OSError as error:
            raise SvcagentError(
                f"cannot make {self.directory}: {error.strerror}. Run as the owner of the state directory"
            ) from error
        for fault in unreadable:
            log(f"a last good version cannot be used: {fault}", level=WARNING)
        return {file.name: content for file, content in contents.items()}
