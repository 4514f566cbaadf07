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
put services into maintenance."""

EXAMPLES = """Examples:
  svcagent register --dry-run
  svcagent reload keyword-suggest
  svcagent maint enable keyword-suggest --reason "disk swap" --for 2h"""

OPTIONS = {
    "-V, --version": "Show the version and exit.",
    "--config FILE": "Settings file.  [default: /etc/svcagent/svcagent.toml]",
    "--services-dir DIR": "Directory of service definitions.  "
    "[env: SVCAGENT_SERVICES_DIR; default: /etc/svcagent/services.d]",
    "--state-dir DIR": "Directory of state files.  [env: SVCAGENT_STATE_DIR; default: /var/lib/svcagent]",
    "--json": "One JSON document on standard output.",
    "-v, --verbose": "Log what happens on standard error.",
    "--log-format [auto|text|json|journal]": "How to log: key=value, one JSON object a line, or journal fields.  "
    "[env: SVCAGENT_LOG_FORMAT; default: auto, the journal under systemd, else text]",
    "-q, --quiet": "Print errors only.",
    "-h, --help": "Show this message and exit.",
}

VERBS = {
    "validate": "Check all definition files; change nothing.",
    "schema": "Print the JSON Schema of a definition file, for editors.",
    "plan": "Show what register would change, field by field.",
    "register": "Register the services of services.d in the local Consul agent.",
    "deregister": "Deregister services that svcagent registered.",
    "reload": "Restart a service with its newest image, without a lost request.",
    "run": "Run the daemon: registration, reloads, CNAMEs, maintenance expiry.",
    "schedule": "Show the next reloads of the daemon, or why there are none.",
    "recover": "Finish or roll back a reload that crashed on this host.",
    "maint": "Enable, disable and show maintenance of a service or this host.",
    "cname": "Keep CNAMEs in internal DNS that point to services.",
    "lock": "Show the lock that lets hosts reload one after the other.",
    "status": "Show this host's services and the daemon.",
    "pause": "Pause a service's reloads on all hosts.",
    "resume": "Resume paused reloads.",
    "quarantine": "Show and clear quarantined images.",
    "fleet": "Show a service on all hosts: versions, states, rollout.",
    "why": "Show what blocks the newest image on this host, and who can clear it.",
    "doctor": "Diagnose this host: Consul, Docker, DNS, files.",
    "history": "Show past reloads, with seconds by step.",
    "notify": "Test the notifications of rollouts.",
}

ENDING = (
    'Shell completion: eval "$(_SVCAGENT_COMPLETE=bash_source svcagent)", or zsh_source, fish_source. '
    "Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 3 a bug, 69 Consul, Docker, registry or DNS unreachable, "
    "75 refused for now, 78 bad definition or settings, 130/143 interrupted and undone."
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
