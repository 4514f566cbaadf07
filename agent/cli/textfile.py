"""Metrics that verbs write for node_exporter if ``[metrics] textfile_dir`` is set. A failure to write fails no verb."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.cli import wiring
from agent.cli.output import show_warning
from agent.consul import Consul
from agent.definitions import Definition, Settings
from agent.errors import BadDefinition, ConsulUnreachable, Fault, Interrupted, SvcagentError
from agent.registration import ConsentNeeded

if TYPE_CHECKING:  # slow to import
    from agent.daemon.textfile import Textfiles
    from agent.reload import Result


@contextlib.contextmanager
def reload_told(chosen: Settings, service: str, *, is_off: bool) -> "Iterator[list[Result]]":
    """At the end of the block, write the results that were added to the list, or the error that ended the block.

    ``is_off`` disables that.
    """
    results: list[Result] = []
    ended: list[Mapping[str, Any]] = []
    try:
        yield results
    except (SvcagentError, Interrupted) as error:
        ended.append({"service": service, "exit_code": error.exit_code})
        raise
    finally:
        ended[:0] = map(dataclasses.asdict, results)
        if ended and not is_off:
            _tell(chosen, lambda files: files.reloads_ended(ended))


def reloads_ended(chosen: Settings, results: "Sequence[Result]") -> None:
    if results:
        _tell(chosen, lambda files: files.reloads_ended(map(dataclasses.asdict, results)))


@contextlib.contextmanager
def registration_told(chosen: Settings) -> Iterator[None]:
    """Write what prevents the registration: faults of files, missing consent, an agent that does not answer."""
    try:
        yield
    except BadDefinition as error:
        faults = Counter(fault.file for fault in error.faults)
        _tell(chosen, lambda files: files.faulty(faults))
        raise
    except ConsentNeeded:
        _tell(chosen, lambda files: files.consent(is_needed=True))
        raise
    except ConsulUnreachable:
        _tell(chosen, lambda files: files.consul(is_up=False))
        raise


def registered(
    chosen: Settings, consul: Consul, definitions: Iterable[Definition], refused: int, faults: Iterable[Fault]
) -> None:
    """Write that services.d is registered, without ``refused`` services of others and the files with ``faults``."""

    def tell(files: "Textfiles") -> None:
        from agent.daemon.metrics import held_by

        held = held_by(consul.services().values(), consul.checks())
        services = [one.service.name for one in definitions if one.reload is not None]
        files.converged(services, Counter(fault.file for fault in faults), held, refused)

    _tell(chosen, tell)


def cnames_synced(document: Mapping[str, Any], *, is_all: bool) -> None:
    _tell(wiring.settings(), lambda files: files.cnames(document, is_all=is_all))


def _tell(chosen: Settings, tell: "Callable[[Textfiles], None]") -> None:
    directory = chosen.metrics.textfile_dir
    if directory is None:
        return
    from agent.daemon.textfile import Textfiles  # slow to import, and useless where it is not set

    try:
        tell(Textfiles(directory, wiring.system_clock(), show_warning, wiring.state_directory(chosen)))
    except SvcagentError as error:
        show_warning(f"node_exporter is not told of this: {error}")
