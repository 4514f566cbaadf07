"""What the SDK, requests and the registry raise, turned into the types of `agent.errors`. The one place that does.

Failures are told apart by type and by HTTP status. The exception is what a *registry* said: see `registry_failure`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3
from docker.errors import APIError, DockerException

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
from agent.text import clean, without_credentials

_BY_STATUS: dict[int, type[SvcagentError]] = {400: Rejected, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict}

# What goes wrong on the host is looked for first: its words are also those of a registry's refusals. The second line is
# containerd's store; of a file, the program's own words.
_LOCAL = re.compile(
    r"no space left on device|failed to register layer|read-only file system|disk quota exceeded|"
    r"failed to (?:extract layer|prepare extraction snapshot|unpack image)|apply layer error|"
    r"parent snapshot .* does not exist|content digest .*: not found|"
    r"\b(?:open|write|mkdir) /\S+: "
)
# The registry's own error codes (OCI distribution spec, "Error Codes") as the Engine writes them, and its own words.
# What runc and crun say of a program, a user or a directory that the image does not have as the container needs it. A
# mount that was possible in the old image is refused by what the new one has under its path.
_OF_THE_IMAGE = re.compile(
    r'exec: ?".*": (stat|executable file not found|permission denied|is a directory|no such file|cannot run)|'
    r"executable file [`'\"].*not found in \$path|exec format error|"
    r"exec .*: (no such file or directory|permission denied)|"
    r"open executable: |unable to find (user|group) |no matching entries in (passwd|group) file|"
    r"chdir to cwd|cannot chdir|mkdir .* not a directory|cannot mkdir: .* is not a directory|"
    r"are you trying to mount a directory onto a file"
)
# Programs that the Engine itself runs, and directories that it makes, are told of in the same words.
_OF_THE_ENGINE = re.compile(
    "unable to retrieve oci runtime error|failed to start shim|starting userland proxy|creating mount source path"
)
_STATUS = r"(?:http|status(?: code)?:?)"
_LIMITED = re.compile(rf"toomanyrequests|\btoo many requests|{_STATUS} 429\b")
_DENIED = re.compile(
    r"unauthorized|denied|no basic auth credentials|authentication required|authorization failed|"
    rf"{_STATUS} 40[13]\b|\b403 forbidden"
)
# The last one is the containerd store's, for a reference as for a part of an image.
_MISSING = re.compile(rf"manifest unknown|name unknown|repository name not known|{_STATUS} 404\b|: not found\b")

_RETRY_AFTER = re.compile(r"retry[- ]after:?\s*((?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h)?)+)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|μs|ms|s|m|h)?")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_WAIT = 86_400.0


@contextmanager
def translated(doing: str, address: str, *, is_write: bool = False) -> Iterator[None]:
    """Raise what goes wrong inside as one of `agent.errors`.

    ``doing`` completes "Docker … could not <doing>". Of a write whose answer never came, `OutcomeUnknown` is raised.
    """
    try:
        yield
    except SvcagentError:
        raise
    except (APIError, DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _translate(error, doing, address, is_write) from error
    # The SDK lets through whatever an answer or a file of an unexpected shape makes it raise: KeyError, ValueError, …
    except Exception as error:
        raise _unexpected(error, doing, address, is_write) from error


def _unexpected(error: Exception, doing: str, address: str, is_write: bool) -> SvcagentError:
    said = str(error) if isinstance(error, WrongShape) else f"{type(error).__name__}: {error}"
    if is_write:
        return OutcomeUnknown(
            f"Docker at {address} was asked to {doing}, and its answer cannot be used ({said}); it may or may not have "
            "done so"
        )
    return UnexpectedAnswer(
        f"Docker at {address} was asked to {doing}, and its answer cannot be used: {said}. Does another program answer "
        "there? DOCKER_HOST sets the address"
    )


def _translate(error: Exception, doing: str, address: str, is_write: bool) -> SvcagentError:
    if isinstance(error, APIError) and error.status_code is not None:
        if not is_of_engine(error.response):
            return _of_something_in_front(error, doing, address, is_write)
        kind = _BY_STATUS.get(error.status_code, SvcagentError)
        return kind(f"Docker could not {doing}: {explanation(error)}")
    causes = list(_causes(error))
    if not any(isinstance(cause, (OSError, urllib3.exceptions.HTTPError)) for cause in causes):
        return DockerUnreachable(
            f"Docker at {address} could not {doing}: {clean(without_credentials(str(error)))}; "
            "DOCKER_HOST sets the address"
        )
    if any(isinstance(cause, PermissionError) for cause in causes):
        return DockerUnreachable(
            f"may not use Docker at {address}: permission denied; run as root, or as a member of group docker"
        )
    if is_write and not _was_never_sent(causes):
        return OutcomeUnknown(
            f"Docker at {address} was asked to {doing} and did not answer; it may or may not have done so"
        )
    if any(isinstance(cause, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)) for cause in causes):
        return DockerUnreachable(f"Docker at {address} did not answer in time when asked to {doing}")
    reason = next((cause for cause in reversed(causes) if isinstance(cause, OSError)), error)
    text = getattr(reason, "strerror", None) or str(reason)
    return DockerUnreachable(
        f"cannot reach Docker at {address}: {text}; is it running there? DOCKER_HOST sets the address"
    )


def is_of_engine(answer: requests.Response | None) -> bool:
    """True if the Engine itself gave the answer; false for a proxy in front of it, and for an authorization plugin.

    The Engine names its version in every answer to a request that it routes.
    """
    return answer is not None and "Api-Version" in answer.headers


def _of_something_in_front(error: APIError, doing: str, address: str, is_write: bool) -> SvcagentError:
    words = re.sub("<[^>]*>", " ", explanation(error)).split()  # of an HTML page, the text
    said = f"HTTP status {error.status_code} ({' '.join(words)[:200]})"
    if error.is_server_error():
        if is_write:
            return OutcomeUnknown(
                f"Docker at {address} was asked to {doing}, and a proxy in front of it answered {said}; "
                "it may or may not have done so"
            )
        return DockerUnreachable(
            f"cannot reach Docker at {address} to {doing}: a proxy in front of it answered {said}; is the Engine "
            "running behind it?"
        )
    request = error.response.request  # type: ignore[union-attr]  # only an answer has a status
    section = re.sub(r"^/v[0-9.]+", "", request.path_url or "").strip("/").partition("/")[0].partition("?")[0].upper()
    method = "" if request.method in ("GET", "HEAD") else f" and {request.method}"
    return Denied(
        f"Docker at {address} does not let svcagent {doing}: {said}. Docker Engine itself answers otherwise, so this "
        f"comes from something in front of it, such as a socket proxy: allow {section}{method} there. If it is not "
        "Docker Engine, it lacks what svcagent needs"
    )


def is_the_images_fault(text: str) -> bool:
    """True if a container could not be started because of what the image has or lacks: a program, a user, a directory.

    All else counts against the host, its network or the container's settings, of which there are more causes than a
    list can name: a full disk, a port that is taken, a missing device, a runtime.
    """
    lowered = text.lower()
    return _OF_THE_ENGINE.search(lowered) is None and _OF_THE_IMAGE.search(lowered) is not None


def registry_failure(text: str) -> type[SvcagentError]:
    """What kind of failure a registry's message tells of.

    By its text, because nothing else tells: the Engine answers 500 for a refused password, an unknown host and a
    closed port alike, and a failure in mid-pull comes as a line of text inside a stream that began with 200.
    """
    lowered = text.lower()
    if _LOCAL.search(lowered):
        return SvcagentError
    if _LIMITED.search(lowered):
        return RateLimited
    if _MISSING.search(lowered):
        return NotFound
    if _DENIED.search(lowered):
        return Denied
    return RegistryUnreachable


def retry_after(text: str, error: APIError | None) -> float | None:
    """The seconds until a registry that was asked too often wants to be asked again; None where nothing says it.

    From the header of the Engine's answer, else from the registry's own words, which several registries put it into.
    """
    header = error.response.headers.get("Retry-After", "") if error is not None and error.response is not None else ""
    found = _RETRY_AFTER.search(text.lower())
    written = header if header.isdecimal() else found[1] if found else ""
    parts = _DURATION.findall(written)
    return min(sum(float(number) * _UNITS[unit] for number, unit in parts), _LONGEST_WAIT) if parts else None


def explanation(error: APIError) -> str:
    """The Engine's own words, which repeat what a registry answered."""
    return clean(without_credentials(str(error.explanation or error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised from, outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _was_never_sent(causes: list[BaseException]) -> bool:
    refused = (FileNotFoundError, ConnectionRefusedError, PermissionError)
    unconnected = (
        requests.ConnectTimeout,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
    )
    return any(isinstance(cause, (*refused, *unconnected)) for cause in causes)
