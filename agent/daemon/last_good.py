"""The definitions that the daemon uses: the newest valid version of every file, kept across restarts.

`choose` decides without I/O. `LastGoodFiles` reads services.d and keeps a copy of each chosen version in the daemon's
own directory, which the daemon's child processes read instead.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.definitions import Definition, ParsedFile, definition_files, find_name_conflicts, parse_file, read
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.files import write_atomically

DIRECTORY = "definitions"
"""Below the state directory: the last valid version of every file."""


@dataclass(frozen=True)
class Choice:
    """The files to use, and the faults of those that are not used as services.d has them."""

    files: tuple[ParsedFile, ...]
    """Sorted by name; all valid, and without clashes."""
    faults: tuple[Fault, ...] = ()
    gone: frozenset[str] | None = None
    """IDs of undefined services that may be deregistered; None: all. Restricted when a faulty file that was never valid
    may define any of the others.
    """

    @property
    def definitions(self) -> tuple[Definition, ...]:
        return tuple(one.definition for one in self.files if one.definition is not None)

    @property
    def service_ids(self) -> frozenset[str]:
        return frozenset(service.id for definition in self.definitions for service in definition.services)

    def may_remove(self, service_id: str) -> bool:
        """True if this service of ours may be deregistered."""
        return service_id not in self.service_ids and (self.gone is None or service_id in self.gone)


def choose(now: Mapping[str, ParsedFile], good: Mapping[str, ParsedFile], gone: frozenset[str] = frozenset()) -> Choice:
    """Choose between the current version of each file and its last valid one, by file name.

    ``gone`` are services that valid files once defined. The cases:

    - valid now: use the current version
    - faulty now, valid before: use the last valid version
    - faulty now, never valid: leave it out; what it may have registered stays
    - two files use one name: the changed file is faulty, not the one that was valid; if both changed, the later by name
    - deleted: gone
    """
    chosen = {name: one for name in now if (one := _best(now[name], good.get(name))) is not None}
    faults = [fault for one in now.values() for fault in one.faults]
    # Each round reverts one file to its last valid version or removes it, so there are at most two rounds per file.
    while found := _first_clash(chosen, good):
        name = Path(found[0].file).name
        faults.extend(fault for fault in found if fault not in faults)
        before = _best(None, good.get(name))
        if before is None or before.content == chosen[name].content:
            del chosen[name]
        else:
            chosen[name] = before
    files = tuple(chosen[name] for name in sorted(chosen))
    left_out = [name for name in now if name not in chosen]
    if not left_out:
        return Choice(files, tuple(sorted(faults)))
    kept = [_ids(now[name]) for name in left_out]
    removable = frozenset[str]()
    if all(kept):  # an unreadable name may be any
        kept += [_ids(good[name]) for name in left_out if name in good]
        removable = gone.union(*map(_ids, good.values())).difference(*map(_ids, files), *kept)
    return Choice(files, tuple(sorted(faults)), removable)


def usable(services_dir: Path, values: Mapping[str, str]) -> Choice:
    """Return the valid files of a directory in their current versions, and the faults of the others."""
    try:
        now = {
            file.name: _read(file, lambda name, content: parse_file(services_dir / name, content, values))
            for file in definition_files(services_dir)
        }
    except BadDefinition as error:
        return Choice((), error.faults, frozenset())
    return choose(now, {})


def _best(now: ParsedFile | None, good: ParsedFile | None) -> ParsedFile | None:
    return next((one for one in (now, good) if one is not None and not one.faults), None)


def _first_clash(chosen: Mapping[str, ParsedFile], good: Mapping[str, ParsedFile]) -> list[Fault]:
    """Return all clashes of the first file with any. Files that were valid before keep their names."""

    def is_changed(name: str) -> bool:
        return name not in good or chosen[name].content != good[name].content

    order = sorted(chosen, key=lambda name: (is_changed(name), name))
    found = list(find_name_conflicts(use for name in order for use in chosen[name].name_uses))
    return [fault for fault in found if fault.file == found[0].file]


def _ids(file: ParsedFile) -> frozenset[str]:
    return frozenset(use.name for use in file.name_uses if use.what == "service ID")


class LastGoodFiles:
    """services.d, and the kept copy of its last valid files.

    :raises BadDefinition: both are the same directory, in which faulty files would be deleted.
    """

    def __init__(self, services_dir: Path, state_dir: Path) -> None:
        if services_dir.resolve() == (state_dir / DIRECTORY).resolve():
            problem = f"is the daemon's own copy of the definitions, in the state directory {state_dir}"
            remedy = "move the definitions to another directory, and set services_dir to it"
            raise BadDefinition([Fault(str(services_dir), "", problem, remedy)])
        self._services_dir = services_dir
        self._kept_dir = state_dir / DIRECTORY
        self._values: Mapping[str, str] = {}
        self._parsed: dict[tuple[str, bytes], ParsedFile] = {}
        self._gone: frozenset[str] = frozenset()

    def choose(
        self, values: Mapping[str, str], unfit: Callable[[Definition], Iterable[Fault]] = lambda _definition: ()
    ) -> Choice:
        """Read services.d, choose, and keep the chosen files. All problems become faults; nothing is raised.

        ``values`` is as in `load`. ``unfit`` returns what else makes a definition unusable on this host.
        """
        known = self._parsed if values == self._values else {}
        self._values, self._parsed = values, {}

        def parsed(name: str, content: bytes) -> ParsedFile:
            # Faults name the path in services.d, wherever the file was read, because it must be fixed there.
            one = known.get((name, content)) or parse_file(self._services_dir / name, content, values)
            self._parsed[name, content] = one
            more = tuple(unfit(one.definition)) if one.definition is not None else ()
            return replace(one, faults=one.faults + more) if more else one

        kept = self._read_kept()
        good = {name: parsed(name, content) for name, content in kept.items()}
        try:
            now = {file.name: _read(file, parsed) for file in definition_files(self._services_dir)}
        except BadDefinition as error:
            return _unchanged(good, error.faults)
        if good and not now:
            return _unchanged(good, (self._is_empty(good),))
        choice = choose(now, good, self._gone)
        self._gone = self._gone.union(*map(_ids, good.values())) - choice.service_ids
        if not now:
            choice = replace(choice, gone=frozenset())
        return replace(choice, faults=choice.faults + self._keep(choice.files, kept))

    def _is_empty(self, good: Mapping[str, ParsedFile]) -> Fault:
        names = ", ".join(sorted(good)[:3]) + (" and more" if len(good) > 3 else "")
        return Fault(
            str(self._services_dir),
            "",
            f"contains no definition any more; the last good ones stay active ({names})",
            "mount the directory again. To deregister all services of this host, run: svcagent register --allow-empty",
        )

    def _read_kept(self) -> dict[str, bytes]:
        kept = {}
        with suppress(BadDefinition):
            for file in definition_files(self._kept_dir):
                with suppress(BadDefinition):
                    kept[file.name] = read(file)
        return kept

    def _keep(self, files: Iterable[ParsedFile], kept: Mapping[str, bytes]) -> tuple[Fault, ...]:
        """Make the copy contain only these files, and write only what differs.

        A command may read the copy meanwhile, and must not see a service as undefined. So a new directory appears
        complete, and a definition that moves to another file is briefly in both, which is refused.
        """
        wanted = {one.file.name: one.content for one in files}
        try:
            is_new = not self._kept_dir.is_dir()
            directory = self._kept_dir.with_suffix(".new") if is_new else self._kept_dir
            directory.mkdir(mode=0o700, exist_ok=True)
            for name, content in wanted.items():
                if is_new or kept.get(name) != content:
                    write_atomically(directory / name, content, 0o600)
            for file in definition_files(directory):
                if file.name not in wanted:
                    file.unlink(missing_ok=True)
            if is_new:
                directory.rename(self._kept_dir)
        except (OSError, SvcagentError) as error:
            problem = f"cannot store the last good definitions: {error}"
            remedy = "let svcagent write the directory; until then reloads use the definitions stored there"
            return (Fault(str(self._kept_dir), "", problem, remedy),)
        return ()


def forget(state_dir: Path) -> None:
    """Remove all kept definitions: an operator confirmed an empty services.d. Raise `SvcagentError` if that fails."""
    try:
        for file in (state_dir / DIRECTORY).glob("*.json"):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise SvcagentError(
            f"cannot remove the daemon's copy of the last definitions from {state_dir / DIRECTORY}: {error.strerror}. "
            "The daemon would register them again. Run this as the daemon's user",
            kind="cannot-write",
        ) from error


def _read(file: Path, parse: Callable[[str, bytes], ParsedFile]) -> ParsedFile:
    try:
        content = read(file)
    except BadDefinition as error:
        return ParsedFile(file, b"", None, error.faults)
    return parse(file.name, content)


def _unchanged(good: Mapping[str, ParsedFile], faults: tuple[Fault, ...]) -> Choice:
    choice = choose(good, good)
    return replace(choice, faults=faults + choice.faults, gone=frozenset())
