"""The expiry of certificates for Consul: the agent's, svcagent's own, and the CAs'."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from agent.consul.certificates import expiries, expiry
from agent.definitions import ConsulSettings
from agent.doctor.diagnosis import Diagnosis, error, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.errors import SvcagentError
from agent.files import LONGEST_FILE, NotRegularFile, read_regular
from agent.text import counted

SOON = timedelta(days=14)


def judge_expiry(whose: str, end: datetime, now: datetime) -> Diagnosis:
    left, day = end - now, f"{end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta():
        return error(f"{whose} expired on {day}", "replace it; connections to Consul fail")
    if left <= SOON:
        return warning(f"{whose} expires on {day}, in {counted(left.days, 'day')}", "replace it before that day")
    return ok(f"{whose} is valid until {day}")


def examine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Report certificates that have expired or will soon. ``http://`` and Unix sockets use none."""
    settings, now = examined.settings.consul, examined.clock.now()
    if not settings.address.startswith("https://"):
        yield ok("no TLS to the local agent")
        return
    for setting, file in _files(settings):
        try:
            ends = expiries(read_regular(file, LONGEST_FILE).decode("utf-8", "replace"))
        except (OSError, NotRegularFile, ValueError) as found:
            yield unknown(f"{setting} {file} cannot be read: {found}")
            continue
        for end in ends:
            yield judge_expiry(f"the certificate in {setting} {file}", end, now)
    try:
        with examined.consul_survey() as survey:
            shown = survey.certificate()
    except SvcagentError as found:
        yield unknown(f"the agent's certificate cannot be looked at: {found}")
        return
    if shown is not None:
        yield judge_expiry("the Consul agent's certificate", expiry(shown), now)


def _files(settings: ConsulSettings) -> Iterator[tuple[str, Path]]:
    if settings.ca_file is not None:
        yield "ca_file", settings.ca_file
    if settings.ca_path is not None:
        for file in sorted(settings.ca_path.iterdir()):
            if file.is_file():
                yield "ca_path", file
    if settings.client_cert is not None:
        yield "client_cert", settings.client_cert
