"""Translates what the Engine, the SDK and the registry raise into the types of `agent.errors`. No other module does.

Failures are distinguished by type and HTTP status, except those of a *registry*: see `registry_failure`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message

from agent.errors import (
    Conflict,
    Denied,
    DockerUnreachable,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RegistryUnreachable,
    Rejected,
    SvcagentError,
    UnexpectedAnswer,
)
from agent.shapes import WrongShape
from agent.text import redacted

_BY_STATUS: dict[int, type[SvcagentError]] = {400: Rejected, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict}

# Failures of the host are looked for first, because registries refuse in the same words. The second line is from
# containerd's store; the last one is how Go reports a failed file operation.
_LOCAL = (
    r"no space left on device|failed to register layer|read-only file system|disk quota exceeded|"
    r"failed to (?:extract layer|prepare extraction snapshot|unpack image)|apply layer error|"
    r"parent snapshot .* does not exist|content digest .*: not found|"
    r"\b(?:open|write|mkdir) /\S+: "
)
# What runc and crun report if the image lacks a program, a user or a directory that the container needs. What the new
# image has at the path of a mount can also make impossible a mount that was possible in the old one.
_OF_THE_IMAGE = (
    r'exec: ?".*": (stat|executable file not found|permission denied|is a directory|no such file|cannot run)|'
    r"executable file [`'\"].*not found in \$path|exec format error|"
    r"exec .*: (no such file or directory|permission denied)|"
    r"open executable: |unable to find (user|group) |no matching entries in (passwd|group) file|"
    r"chdir to cwd|cannot chdir|mkdir .* not a directory|cannot mkdir: .* is not a directory|"
    r"are you trying to mount a directory onto a file"
)
# The Engine reports programs that it runs itself, and directories that it makes, in the same words.
_OF_THE_ENGINE = (
    "unable to retrieve oci runtime error|failed to start shim|starting userland proxy|creating mount source path"
)
_STATUS = r"(?:http|status(?: code)?:?)"
_LIMITED = rf"toomanyrequests|\btoo many requests|{_STATUS} 429\b"
_DENIED = (
    r"unauthorized|denied|no basic auth credentials|authentication required|authorization failed|"
    rf"{_STATUS} 40[13]\b|\b403 forbidden"
)
# These three hold the registry's error codes (OCI distribution spec, "Error Codes") as the Engine writes them, and the
# Engine's own words. The last one is from containerd's store, for a reference or a part of an image.
_MISSING = rf"manifest unknown|name unknown|repository name not known|{_STATUS} 404\b|: not found\b"

_RETRY_AFTER = r"retry[- ]after:?\s*((?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h)?)+)"
_DURATION = r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|μs|ms|s|m|h)?"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_WAIT = 86_400.0


class RefusedAnswer(Exception):
    """An answer with a status from 400 on, to a request of the SDK or of `queries`."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | Message, method: str, target: str) -> None:
        super().__init__(status)
        self.status = status
        self._text = text
        self.headers = headers
        self.method = method
        self.target = target

    @property
    def message(self) -> str:
        """The message, safe to show."""
        return redacted(self._text)

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class NoAnswer(Exception):
    """A request of `queries` without an answer; see its cause. ``timed_out``: it was sent."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


def message_of(body: str) -> str:
    """Return the message of a refusal: Docker's own, or the whole text of another program."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return body.strip()


@contextmanager
def translated(doing: str, address: str, *, is_write: bool = False) -> Iterator[None]:
    """Raise failures of the block as `agent.errors`. ``doing`` completes "Docker … could not <doing>".

    A write whose answer never came raises `OutcomeUnknown`.
    """
    try:
        yield
    except SvcagentError:
        raise
    except RefusedAnswer as error:
        raise _refused(error, doing, address, is_write) from error
    # An answer or a file of an unexpected shape makes the SDK raise anything: KeyError, ValueError, …
    except Exception as error:
        if is_of_transport(error):
            raise _unanswered(error, doing, address, is_write) from error
        raise _unexpected(error, doing, address, is_write) from error


# The SDK's types are imported only after a failure, because that takes long and most runs need none of them.


def is_of_transport(error: BaseException) -> bool:
    """True if no answer came, or the SDK itself failed."""
    import requests
    import urllib3
    from docker.errors import DockerException

    return isinstance(error, NoAnswer | DockerException | requests.RequestException | urllib3.exceptions.HTTPError)


def timed_out(error: BaseException) -> bool:
    """True if the Engine accepted a request and did not answer in time."""
    import requests
    import urllib3

    if isinstance(error, NoAnswer):
        return error.timed_out
    return isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError)  # the latter in mid-stream


def is_of_sdk(error: BaseException) -> bool:
    """True if the SDK or its credential helper raised it, for another reason than an answer or the lack of one."""
    from docker.credentials.errors import StoreError
    from docker.errors import DockerException

    return isinstance(error, DockerException | StoreError)


def _unexpected(error: Exception, doing: str, address: str, is_write: bool) -> SvcagentError:
    text = redacted(str(error) if isinstance(error, WrongShape) else f"{type(error).__name__}: {error}")
    if is_write:
        return OutcomeUnknown(
            f"Docker at {address} sent an invalid answer when asked to {doing} ({text}); the change may have "
            "taken effect"
        )
    return UnexpectedAnswer(
        f"Docker at {address} sent an invalid answer when asked to {doing}: {text}. Check DOCKER_HOST: "
        "another program may listen there"
    )


def _refused(error: RefusedAnswer, doing: str, address: str, is_write: bool) -> SvcagentError:
    if not is_of_engine(error):
        return _refused_by_proxy(error, doing, address, is_write)
    return _BY_STATUS.get(error.status, SvcagentError)(f"Docker could not {doing}: {error.message}")


def _unanswered(error: Exception, doing: str, address: str, is_write: bool) -> SvcagentError:
    causes = list(_causes(error))
    if not any(isinstance(cause, OSError) or (is_of_transport(cause) and not is_of_sdk(cause)) for cause in causes):
        return DockerUnreachable(f"Docker at {address} could not {doing}: {redacted(str(error))}. Check DOCKER_HOST")
    if any(isinstance(cause, PermissionError) for cause in causes):
        return DockerUnreachable(
            f"no permission to use Docker at {address}. Run svcagent as root, or as a member of the group docker"
        )
    if is_write and not _was_never_sent(causes):
        return OutcomeUnknown(
            f"Docker at {address} did not answer when asked to {doing}; the change may have taken effect"
        )
    if any(map(timed_out, causes)):
        return DockerUnreachable(f"Docker at {address} did not answer in time when asked to {doing}")
    reason = next((cause for cause in reversed(causes) if isinstance(cause, OSError)), error)
    text = redacted(getattr(reason, "strerror", None) or str(reason))
    return DockerUnreachable(
        f"cannot reach Docker at {address}: {text}. Check that the Docker daemon runs, and check DOCKER_HOST"
    )


def is_of_engine(error: RefusedAnswer) -> bool:
    """True if the Engine itself answered: it sends its version in every routed answer; proxies and plugins do not."""
    return "Api-Version" in error.headers


def _refused_by_proxy(error: RefusedAnswer, doing: str, address: str, is_write: bool) -> SvcagentError:
    words = re.sub("<[^>]*>", " ", error.message).split()  # the text of an HTML page
    text = f"HTTP status {error.status} ({' '.join(words)[:200]})"
    if error.status >= 500:
        if is_write:
            return OutcomeUnknown(
                f"Docker at {address} was asked to {doing}, and a proxy in front of it answered {text}; "
                "the change may have taken effect"
            )
        return DockerUnreachable(
            f"cannot reach Docker at {address} to {doing}: a proxy in front of it answered {text}. Check that the "
            "Docker Engine behind it runs"
        )
    section = re.sub(r"^/v[0-9.]+", "", error.target).strip("/").partition("/")[0].partition("?")[0].upper()
    method = "" if error.method in ("GET", "HEAD") else f" and {error.method}"
    return Denied(
        f"Docker at {address} does not let svcagent {doing}: {text}. This answer is not "
        f"Docker Engine's own. If it is from a socket proxy, allow {section}{method} there. If this is not "
        "Docker Engine, it does not support what svcagent needs",
        kind="docker-request-refused",
    )


def is_caused_by_image(text: str) -> bool:
    """True if a container did not start because of what the image has or lacks: a program, a user, a directory.

    Anything else counts against the host, its network or the container's settings, with more causes than a list can
    name: a full disk, a port in use, a missing device, a runtime.
    """
    lowered = text.lower()
    return re.search(_OF_THE_ENGINE, lowered) is None and re.search(_OF_THE_IMAGE, lowered) is not None


def registry_failure(text: str) -> type[SvcagentError]:
    """Return the error type for a registry's message.

    Only the text distinguishes them: the Engine answers 500 for a refused password, an unknown host and a closed port
    alike, and a failure during a pull is a line of text in a stream that began with 200.
    """
    lowered = text.lower()
    if re.search(_LOCAL, lowered):
        return SvcagentError
    if re.search(_LIMITED, lowered):
        return RateLimited
    if re.search(_MISSING, lowered):
        return NotFound
    if re.search(_DENIED, lowered):
        return Denied
    return RegistryUnreachable


def retry_after(text: str, error: RefusedAnswer | None) -> float | None:
    """Return the seconds until a rate-limited request may be repeated, from header or message; None if unknown."""
    header = error.headers.get("Retry-After", "") if error is not None else ""
    found = re.search(_RETRY_AFTER, text.lower())
    written = header if header.isdecimal() else found[1] if found else ""
    parts = re.findall(_DURATION, written)
    return min(sum(float(number) * _UNITS[unit] for number, unit in parts), _LONGEST_WAIT) if parts else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _was_never_sent(causes: list[BaseException]) -> bool:
    if any(isinstance(cause, FileNotFoundError | ConnectionRefusedError | PermissionError) for cause in causes):
        return True
    import requests
    import urllib3

    unconnected = (
        requests.ConnectTimeout,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
    )
    return any(isinstance(cause, unconnected) for cause in causes)
