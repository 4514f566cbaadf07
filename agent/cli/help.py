"""The help of svcagent itself, as tables. It does not need click, whose import takes longer than everything else."""

import os
import sys
from collections.abc import Mapping

WIDEST, NARROWEST, USUAL = 100, 50, 80

LONGEST_TERM = 30
"""The longest term with its explanation on the same line, in characters. Longer ones have it on the next line."""

USAGE = "Usage: svcagent [OPTIONS] COMMAND [ARGS]..."

ABOUT = """Host agent for fleets that run on Consul.

Registers this host's services from services.d, reloads their containers without losing a request, and lets operators
take services out and put them back."""

EXAMPLES = """Examples:
  svcagent register --dry-run
  svcagent reload keyword-suggest
  svcagent maint enable keyword-suggest --reason "disk swap" --for 2h"""

OPTIONS = {
    "-V, --version": "Show the version and exit.",
    "--config FILE": "Settings.  [default: /etc/svcagent/svcagent.toml]",
    "--services-dir DIR": "Definitions.  [env: SVCAGENT_SERVICES_DIR; default: /etc/svcagent/services.d]",
    "--state-dir DIR": "What svcagent remembers.  [env: SVCAGENT_STATE_DIR; default: /var/lib/svcagent]",
    "--json": "One JSON document on standard output.",
    "-v, --verbose": "Log what happens on standard error.",
    "--log-format [auto|text|json|journal]": "How to log: key=value, one JSON object a line, or journal fields.  "
    "[env: SVCAGENT_LOG_FORMAT; default: auto, the journal under systemd, else text]",
    "-q, --quiet": "Print errors only.",
    "-h, --help": "Show this message and exit.",
}

VERBS = {
    "validate": "Show every fault of every definition; change nothing.",
    "schema": "Print the JSON Schema of a definition file, for editors.",
    "plan": "Show what register would change, field by field.",
    "register": "Make the local Consul agent hold what services.d says. On boot.",
    "deregister": "Take services that svcagent registered out of the local agent.",
    "reload": "Take the service's newest image, without a lost request.",
    "run": "The daemon: all of this, each in its time.",
    "schedule": "When the daemon will reload what next, or why never.",
    "recover": "Bring to its end what a killed reload left half done.",
    "maint": "Take a service or this host out of service and put it back.",
    "cname": "Keep CNAMEs in your DNS that point at services.",
    "lock": "Look at the lock that lets one host after the other reload a service.",
    "status": "What this host's services are doing.",
    "pause": "Stop a service's reloads on all hosts.",
    "resume": "Let them go on.",
    "quarantine": "Show and clear images that no host takes.",
    "fleet": "What all hosts of a service run, and how they fare.",
    "why": "What stands between this host and the newest image, and who can clear it.",
    "doctor": "Find what keeps this host from good service.",
    "history": "Past reloads, with seconds by step.",
    "notify": "Try the messages that tell people of rollouts.",
}

ENDING = (
    'Shell completion: eval "$(_SVCAGENT_COMPLETE=bash_source svcagent)", or zsh_source, fish_source. '
    "Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 3 a bug, 69 Consul, Docker or DNS unreachable, "
    "75 not now, 78 bad definition or settings, 130/143 interrupted and put back."
)


def help_text(columns: int) -> str:
    import textwrap  # compiles patterns, which only the help needs

    width = max(min(columns, WIDEST) - 2, NARROWEST)
    about = [_filled(paragraph, width) for paragraph in ABOUT.split("\n\n")]
    tables = [f"Options:\n{_table(OPTIONS, width)}", f"Commands:\n{_table(VERBS, width)}"]
    return "\n\n".join([USAGE, *about, textwrap.indent(EXAMPLES, "  "), *tables, _filled(ENDING, width)]) + "\n"


def columns() -> int:
    if given := os.environ.get("COLUMNS", ""):
        return int(given) if given.isdecimal() else USUAL
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or USUAL
    except (OSError, ValueError):  # no terminal, or no file at all
        return USUAL


def _filled(paragraph: str, width: int) -> str:
    import textwrap

    return textwrap.fill(" ".join(paragraph.split()), width, initial_indent="  ", subsequent_indent="  ")


def _table(rows: Mapping[str, str], width: int) -> str:
    import textwrap

    column = 2 + min(max(map(len, rows)), LONGEST_TERM) + 2
    lines = []
    for term, text in rows.items():
        explained = textwrap.fill(text, width, initial_indent=" " * column, subsequent_indent=" " * column)
        lines += (
            [f"  {term}", explained] if len(term) > column - 4 else [f"  {term}".ljust(column) + explained.lstrip()]
        )
    return "\n".join(lines)
