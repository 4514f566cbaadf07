import json
import sys
from dataclasses import asdict

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_problem
from agent.definitions.sources import DEFAULT_FILE
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.notify import endpoints
from agent.notify.endpoints import DeliveryOutcome, Message

TEST_SECONDS = 30.0
DELIVERY_SECONDS = 60.0


@click.group(epilog="\b\nExamples:\n  svcagent notify test\n  svcagent --json notify test")
def notify() -> None:
    """Manage rollout notifications: see [notify] in the settings file.

    reload sends a notification when a rollout has started, finished, been rolled back and quarantined, or is stuck.
    cname sync sends one for a conflict in DNS. Each is sent once for the whole fleet.
    """


@notify.command(epilog="\b\nExamples:\n  svcagent notify test\n  svcagent --json notify test")
@output_options
def test() -> int:
    """Send a test message to each URL of [notify], and print the results.

    Shows only scheme and host of an endpoint. Exits 1 if an endpoint did not accept the message; exits 78 without
    sending anything if no URL is set or Apprise does not support one.
    """
    settings = context.settings()
    if not settings.notify.urls:
        remedy = 'add notification URLs, as the documentation of Apprise shows: urls = ["mailto://user:password@example.com"]'
        raise BadDefinition([_fault("notify.urls", "missing", remedy)])
    found = endpoints.endpoints(settings.notify.urls)
    unknown = [one.position for one in found if one.plugin is None]
    if unknown:
        remedy = "correct it by the documentation of Apprise, or install the library that its kind requires"
        raise BadDefinition([_fault(f"notify.urls[{one}]", endpoints.UNKNOWN_URL, remedy) for one in unknown])
    message = Message("svcagent: this is a test", "svcagent will send notifications of rollouts here.", "info")
    return _show(endpoints.send(found, [message], context.system_clock(), TEST_SECONDS))


@notify.command(hidden=True)
def deliver() -> None:
    """Send the messages on standard input, and print the results as JSON. For svcagent's own use."""
    settings = context.settings()
    messages = [Message(**one) for one in json.load(sys.stdin)]
    found = endpoints.endpoints(settings.notify.urls)
    outcomes = endpoints.send(found, messages, context.system_clock(), DELIVERY_SECONDS)
    show_document([asdict(one) for one in outcomes])


def _fault(path: str, problem: str, remedy: str) -> Fault:
    return Fault(current().config or str(DEFAULT_FILE), path, problem, remedy)


def _show(outcomes: tuple[DeliveryOutcome, ...]) -> int:
    if current().as_json:
        show_document([{**asdict(one), "is_taken": not one.problem} for one in outcomes])
    for one in outcomes:
        where = f"notify.urls[{one.position}] {one.name}"
        if one.problem:
            show_problem(f"{where}: {one.problem}")
        else:
            show_line(f"{where}: sent", "green")
    return SvcagentError.exit_code if any(one.problem for one in outcomes) else 0
