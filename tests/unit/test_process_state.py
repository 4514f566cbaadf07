"""Constructors leave the process as it was: loggers, handlers, warning filters, signal handlers, environment."""

import locale
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping

import pytest

from agent import logs
from agent.clock import SystemClock
from agent.consul import Consul
from agent.daemon.scheduler import Scheduler
from agent.definitions import ConsulSettings
from agent.engine.client import Engine


def _state() -> Mapping[str, object]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "levels": {one.name: (one.level, one.propagate, one.disabled) for one in loggers if one.level},
        "handlers": {one.name: [(handler, list(handler.filters)) for handler in one.handlers] for one in loggers[:1]},
        "disabled": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(one) for one in sorted(signal.valid_signals())],
        "environment": dict(os.environ),
        "timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "locale": locale.setlocale(locale.LC_ALL),
        "hooks": (sys.excepthook, sys.unraisablehook),
        "umask": umask,
    }


def _mute_and_set_up_again() -> None:
    logs.mute_libraries()
    logs.set_up(logs.Format.TEXT, is_verbose=False)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Scheduler(SystemClock(), lambda _job: None),
        lambda: Engine(None, {}, SystemClock()).close(),
        lambda: Consul(ConsulSettings(address="http://127.0.0.1:8500", address_source="a test")).close(),
        _mute_and_set_up_again,
    ],
    ids=["Scheduler", "Engine", "Consul", "mute_libraries"],
)
def test_building_it_changes_no_state_of_the_process(build: Callable[[], object]) -> None:
    before = _state()
    build()
    assert _state() == before
