"""Logs: one line per event, as key=value, JSON or native journal fields. No printing for people: that is the verbs'."""

import logging

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR

_logger = logging.getLogger("svcagent")


def log(text: str, *, level: int = INFO, **fields: object) -> None:
    """One event: what happened, for a person, and its fields (``service``, ``reload``, ``step``, …) for machines."""
    _logger.log(level, text, extra={"fields": fields})
