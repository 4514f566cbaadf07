"""The endpoints of ``[notify] urls``, through Apprise. Only processes that send import it: Apprise is slow to import.

An endpoint's URL is a secret. This module shows only its scheme and host, and passes on no text of Apprise, of its
libraries or of their exceptions, because those may contain the URL. From what Apprise logs it takes an HTTP status or
a known reason.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent import logs
from agent.clock import Clock, Deadline
from agent.data import dataclass
from agent.definitions import Secret
from agent.errors import SvcagentError

if TYPE_CHECKING:  # slow to import, and an extra
    from apprise import NotifyBase

MISSING = (
    "Apprise, which sends notifications, is not installed. To install it with svcagent: pip install 'svcagent[notify]'"
)

UNKNOWN_URL = "Apprise does not support this URL"

_STATUS = re.compile(r"error=([1-5]\d\d)\b")
_REASONS = {
    "connection refused": "connection refused",
    "timed out": "the connection timed out",
    "failed to resolve": "host name not found",
    "name or service not known": "host name not found",
    "temporary failure in name resolution": "host name not found",
    "certificate_verify_failed": "TLS certificate not trusted",
    "no route to host": "no route to host",
    "network is unreachable": "network unreachable",
    "authentication": "authentication failed",
}
"""What the text of an exception contains, in lower case, and what is shown for it."""


@dataclass(frozen=True)
class Message:
    """A message. ``tone`` is one of Apprise's notification types: info, success, warning, failure."""

    title: str
    body: str
    tone: str


@dataclass(frozen=True)
class Endpoint:
    """One URL: its ``position`` in the setting (from 0), the part of it that may be shown, and its plugin, if any."""

    position: int
    name: str
    plugin: "NotifyBase | None"


@dataclass(frozen=True)
class DeliveryOutcome:
    """The result of sending all messages to one endpoint. ``problem`` is empty if it accepted them."""

    position: int
    name: str
    problem: str = ""


class _ReasonHandler(logging.Handler):
    """Keeps why a delivery failed, from what its plugin logs."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = ""
        with contextlib.suppress(TypeError, ValueError):  # a plugin's malformed line must not fail the delivery
            text = record.getMessage()
        if found := _STATUS.search(text):
            self.reason = f"HTTP status {found[1]}"
        elif text.startswith("Socket Exception:"):
            self.reason = next((shown for part, shown in _REASONS.items() if part in text.lower()), self.reason)


def endpoints(urls: Sequence[Secret]) -> tuple[Endpoint, ...]:
    """Return all endpoints, also those that Apprise has no plugin for.

    :raises SvcagentError: Apprise is not installed.
    """
    logs.mute_libraries()
    try:
        from apprise import Apprise, AppriseAsset
    except ModuleNotFoundError as error:
        if error.name != "apprise":
            raise
        raise SvcagentError(MISSING, kind="apprise-missing") from error

    asset = AppriseAsset(app_id="svcagent", app_desc="svcagent", app_url="")
    made = []
    for position, secret in enumerate(urls):
        url = secret.reveal()
        plugin = Apprise.instantiate(url, asset=asset)
        made.append(Endpoint(position, _public_part(url, plugin), plugin))
    return tuple(made)


def send(
    found: Sequence[Endpoint], messages: Sequence[Message], clock: Clock, seconds: float
) -> tuple[DeliveryOutcome, ...]:
    """Send to all endpoints concurrently; each gets the messages in order. Abandon one that hangs after ``seconds``."""
    problems: dict[int, str] = {}
    threads = {
        one.position: threading.Thread(target=_send_one, args=(one, messages, problems), daemon=True) for one in found
    }
    for thread in threads.values():
        thread.start()
    limit = Deadline.after(clock, seconds)
    for thread in threads.values():
        thread.join(limit.remaining)
    late = f"no answer within {seconds:.0f} s"
    return tuple(DeliveryOutcome(one.position, one.name, problems.get(one.position, late)) for one in found)


def _send_one(endpoint: Endpoint, messages: Sequence[Message], problems: dict[int, str]) -> None:
    if endpoint.plugin is None:
        problems[endpoint.position] = UNKNOWN_URL
        return
    handler = _ReasonHandler()
    endpoint.plugin.logger = logging.Logger("endpoint", logging.DEBUG)  # noqa: LOG001 - no other handler may receive it
    endpoint.plugin.logger.addHandler(handler)
    try:
        failed = [one for one in messages if not _notify(endpoint.plugin, one)]
    except Exception as error:  # noqa: BLE001 - a plugin may raise any type; its text may contain the URL
        problems[endpoint.position] = f"Apprise failed with {type(error).__name__}"
        return

    reason = handler.reason or "unreachable, refused or too slow"
    problems[endpoint.position] = f"not delivered: {reason}" if failed else ""


def _notify(plugin: "NotifyBase", message: Message) -> bool:
    from apprise import Apprise, NotifyFormat, NotifyType

    single = Apprise()
    single.add(plugin)
    tone: Any = getattr(NotifyType, message.tone.upper())  # a string up to 1.9.3, an enumeration since
    return bool(single.notify(message.body, message.title, notify_type=tone, body_format=NotifyFormat.TEXT))


def _public_part(url: str, plugin: "NotifyBase | None") -> str:
    """Return scheme and host. Hide the host unless all forms of the plugin have one there, not a token or a topic.

    Return nothing for a URL that Apprise does not know, because any part of it may be secret.
    """
    if plugin is None:
        return ""
    scheme = url.partition("://")[0].lower()
    authorities: list[str] = [form.partition("://")[2].rpartition("@")[2] for form in map(str, plugin.templates or ())]
    is_host = bool(authorities) and all(one.startswith("{host}") for one in authorities)
    return f"{scheme}://{plugin.host}" if is_host else f"{scheme}://…"
