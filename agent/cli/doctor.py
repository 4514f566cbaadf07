import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agent.cli import context
from agent.cli.cname_context import complete_record
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_problem
from agent.daemon.last_good import usable
from agent.definitions import EXAMPLE_ADDRESS, Definition, Settings, complete
from agent.doctor import SUBJECTS, UNREACHABLE, Diagnosis, Level
from agent.text import clean, counted

if TYPE_CHECKING:  # slow to import
    from agent.doctor.examined import ExaminedHost

LONGEST_LINE = 2000

_COLOURS = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.UNKNOWN: "magenta",
    Level.WARNING: "yellow",
    Level.ERROR: "red",
}


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [
        *context.complete_name(ctx, parameter, incomplete),
        *complete_record(ctx, parameter, incomplete),
    ]


@click.command(
    epilog="\b\nExamples:\n"
    "  svcagent doctor\n"
    "  svcagent doctor --only docker --only consul -v\n"
    "  svcagent doctor --only cname\n"
    "  svcagent --json doctor keyword-suggest"
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete)
@click.option(
    "--only", multiple=True, type=click.Choice(SUBJECTS), help="Check only this subject. May be given several times."
)
@click.option("--strict", is_flag=True, help="Exit 1 also for warnings, and for checks that could not run.")
@output_options
def doctor(names: tuple[str, ...], *, only: tuple[str, ...], strict: bool) -> int:
    """Find problems on this host: Consul, DNS, CNAMEs, clocks, Docker, files, leftovers, upgrades.

    Prints each problem with its remedy; -v also prints passed checks. NAME is a service or a CNAME. Changes nothing.
    Every subject is checked, even if others fail. Exits 1 if there is an error, which makes a service, a reload or a
    command fail. Warnings count only with --strict; notes of what an upgrade will change never do.
    """
    from agent.doctor.registry import examine, is_failure

    found = examine(_examined(context.settings(), frozenset(names)), only)
    if current().as_json:
        show_document([_document(one) for one in found])
    elif current().quiet:
        for one in found:
            if one.level is Level.ERROR:
                show_problem(f"{one.subject}: {_line(one)}; {one.remedy}".rstrip("; "))
    else:
        _show(found)
    return 1 if is_failure(found, strict=strict) else 0


def _examined(settings: Settings, names: frozenset[str]) -> "ExaminedHost":
    from agent.doctor.examined import ExaminedHost

    choice = usable(settings.services_dir, context.host_values(EXAMPLE_ADDRESS))
    for name in names:
        if not choice.faults and not any(_names(one) & {name, complete(name)} for one in choice.definitions):
            raise context.unknown_name(name, choice.definitions, f" in {settings.services_dir}")
    wanted = names | {complete(name) for name in names}
    definitions = tuple(one for one in choice.definitions if not names or _names(one) & wanted)
    return ExaminedHost(settings, definitions, choice.faults, os.environ, context.system_clock(), names)


def _names(definition: Definition) -> set[str]:
    services = {name for one in definition.services for name in (one.id, one.name)}
    return services | {complete(one.name, one.zone) for one in definition.cname}


def _show(found: Sequence[Diagnosis]) -> None:
    shown = [one for one in found if one.level is not Level.OK or current().verbose]
    for subject in SUBJECTS:
        # Several checks may find the same problem: it is printed once.
        alike: dict[str, Diagnosis] = {}
        for one in shown:
            if one.subject == subject and one.what not in UNREACHABLE.values():
                alike.setdefault(_line(one), one)
        if alike:
            show_line(subject)
        for line, one in alike.items():
            show_line(f"  {line}", _COLOURS[one.level])
            if one.remedy:
                show_line(f"      {clean(one.remedy, LONGEST_LINE)}")
    for server, what in UNREACHABLE.items():
        if unchecked := [one for one in shown if one.what == what]:
            names = ", ".join(dict.fromkeys(f"{one.subject} {one.check}" for one in unchecked))
            show_line(f"{what}: {names}", _COLOURS[Level.UNKNOWN])
            if not any(one.subject == server and one.level is Level.ERROR for one in found):
                show_line(f"      {clean(unchecked[0].remedy, LONGEST_LINE)}")
    levels = Counter(one.level for one in found)
    counts = ", ".join(f"{levels[level]} {level}" for level in reversed(Level) if levels[level])
    show_line(f"{counted(len(found), 'result')}: {counts}")


def _line(one: Diagnosis) -> str:
    service = f"{one.service}: " if one.service else ""
    return f"{one.level} {service}{clean(one.what, LONGEST_LINE)}"


def _document(one: Diagnosis) -> dict[str, str]:
    document = {
        "kind": one.kind,
        "subject": one.subject,
        "check": one.check,
        "level": str(one.level),
        "what": one.what,
    }
    return document | {"remedy": one.remedy} | ({"service": one.service} if one.service else {})
