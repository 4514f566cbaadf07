"""Metrics that verbs write for node_exporter if ``[metrics] textfile_dir`` is set. A failure to write fails no verb."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.cli import context
from agent.cli.output import show_warning
from agent.consul import Consul
from agent.definitions import Definition, Settings
from agent.errors import BadDefinition, ConsulUnreachable, Fault, Interrupted, SvcagentError
from agent.registration import ConsentNeeded

if TYPE_CHECKING:  # slow to import
    from agent.metrics.textfile import Textfiles
    from agent.reload.record import ReloadResult


@contextlib.contextmanager
def reload_recorded(chosen: Settings, service: str) -> "Iterator[list[ReloadResult]]":
    """At the end of the block, write the results that were added to the list, or the error that ended the block."""
    results: list[ReloadResult] = []
    ended: list[Mapping[str, Any]] = []
    try:
        yield results
    except (SvcagentError, Interrupted) as error:
        ended.append({"service": service, "exit_code": error.exit_code})
        raise
    finally:
        ended[:0] = map(dataclasses.asdict, results)
        if ended:
            _write(chosen, lambda files: files.reloads_ended(ended))


def record_reloads(chosen: Settings, results: "Sequence[ReloadResult]") -> None:
    if results:
        _write(chosen, lambda files: files.reloads_ended(map(dataclasses.asdict, results)))


@contextlib.contextmanager
def registration_failures_recorded(chosen: Settings) -> Iterator[None]:
    """Write what prevents the registration: faults of files, missing consent, an agent that does not answer."""
    try:
        yield
    except BadDefinition as error:
        faults = Counter(fault.file for fault in error.faults)
        _write(chosen, lambda files: files.update_host(lambda host: host.faulty(faults)))
        raise
    except ConsentNeeded:
        _write(chosen, lambda files: files.update_host(lambda host: host.consent(is_needed=True)))
        raise
    except ConsulUnreachable:
        _write(chosen, lambda files: files.update_host(lambda host: host.consul(is_up=False)))
        raise


def record_registration(
    chosen: Settings, consul: Consul, definitions: Iterable[Definition], refused: int, faults: Iterable[Fault]
) -> None:
    """Write that services.d is registered, without ``refused`` services of others and the files with ``faults``."""

    def write(files: "Textfiles") -> None:
        from agent.metrics.host_series import held_maintenance

        held = held_maintenance(consul.services().values(), consul.checks())
        services = [one.service.name for one in definitions if one.reload is not None]
        files.converged(services, Counter(fault.file for fault in faults), held, refused)

    _write(chosen, write)


def record_cnames(document: Mapping[str, Any], *, is_all: bool) -> None:
    _write(context.settings(), lambda files: files.cnames(document, is_all=is_all))


def _write(chosen: Settings, write: "Callable[[Textfiles], None]") -> None:
    directory = chosen.metrics.textfile_dir
    if directory is None:
        return
    from agent.metrics.textfile import Textfiles  # slow to import, and useless where it is not set

    try:
        write(Textfiles(directory, context.system_clock(), show_warning, context.state_directory(chosen)))
    except SvcagentError as error:
        show_warning(f"the metrics of this command are not written: {error}")
