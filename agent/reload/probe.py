"""Checks of an instance that svcagent runs as Consul would run them, and warm-up requests.

The rules are those of Consul's agent (agent/checks/check.go) and of Go's net/http and crypto/tls below it. What
svcagent cannot do like Consul (commands, gRPC, HTTP/2 pings, the agent's own client certificate …) is left to Consul.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from enum import StrEnum
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from socket import gaierror

from agent.clock import Clock, Deadline, SystemClock
from agent.data import dataclass
from agent.definitions import Check
from agent.reload.http_request import MOST_REQUESTS, Request, UnusableUrl, redirected_request, shown
from agent.reload.stream import Stream, connect, start_tls, tls_context
from agent.text import redacted

SHORTEST_PROBE = 0.05
LONGEST_MESSAGE = 300
MOST_OF_A_BODY = 1 << 20
"""How many bytes of a check's answer are read. Consul judges by the status alone, not by the body."""

_CHUNK = 1 << 16
_CONSUL_HEADERS = {"User-Agent": "Consul Health Check", "Accept": "text/plain, text/*, */*"}


class ProbeStatus(StrEnum):
    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def badness(self) -> int:
        """A rank that is greater for a worse status."""
        return list(ProbeStatus).index(self)


@dataclass(frozen=True)
class ProbeResult:
    """A check's status, its reason in a line for people, and in a word or two for programs (``http 503``, ``refused``).

    ``failure`` is empty if the check passes or the cause is unknown. ``local_peer``: the address that a TCP check was
    connected to, if it is one of this host.
    """

    status: ProbeStatus
    message: str
    failure: str = ""
    local_peer: str = ""


class Prober:
    """Runs single checks, each over a new connection.

    ``is_agent_tls_used``: the Consul agent uses its own certificate and authority for checks
    (``enable_agent_tls_for_checks``). ``environ``: the source of SSL_CERT_FILE and SSL_CERT_DIR.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        is_agent_tls_used: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._is_agent_tls_used = is_agent_tls_used
        self._environ = os.environ if environ is None else environ

    def can_probe(self, check: Check) -> bool:
        """True if svcagent can run this check as Consul does."""
        if check.kind == "http":
            is_tls = str(check.http).lower().startswith("https:")
        elif check.kind == "tcp":
            is_tls = check.tcp_use_tls
        else:
            return False
        return not (is_tls and self._is_agent_tls_used)

    def probe(self, check: Check, limit: float) -> ProbeResult:
        """Run a check once, for at most ``limit`` seconds or the check's timeout. Only signals are raised."""
        seconds = max(SHORTEST_PROBE, min(limit, check.timeout_seconds))
        self._load_store(str(check.http or ""), is_tls=check.tcp_use_tls)
        deadline = Deadline.after(self._clock, seconds)
        if check.kind == "tcp":
            return _guarded(lambda: self._tcp(check, deadline), str(check.tcp), seconds)
        return _guarded(lambda: self._http(check, deadline), shown(str(check.http)), seconds)

    def warm_up(self, url: str, limit: float, each_second: Callable[[], None] = lambda: None) -> ProbeResult:
        """Request a URL for its side effect; the whole answer must come within ``limit`` seconds.

        ``each_second`` is called while the answer is awaited; an exception from it ends the request.
        """
        request = Request(url, {"User-Agent": ("svcagent",)})
        self._load_store(url)
        deadline = Deadline.after(self._clock, max(SHORTEST_PROBE, limit))

        def ask() -> ProbeResult:
            with closing(self._follow(request, deadline, _Tls(), each_second=each)) as response:
                while response.read(_CHUNK):
                    pass
            return _result_of(shown(url), response.status)

        def each() -> None:
            try:
                each_second()
            except Exception as error:  # passes `_guarded`, which takes all failures for the service's
                raise _Cancelled(error) from error

        try:
            return _guarded(ask, shown(url), limit)
        except _Cancelled as cancelled:
            raise cancelled.reason from None

    def _tcp(self, check: Check, deadline: Deadline) -> ProbeResult:
        host, _, port = str(check.tcp).rpartition(":")
        host = host.strip("[]")
        connection = connect(host, int(port), deadline)
        if check.tcp_use_tls:
            tls = _Tls(check.tls_server_name or "", is_verified=not check.tls_skip_verify)
            connection = start_tls(connection, self._context(tls), tls.name_for(host), deadline)
        with connection:
            peer = connection.getpeername()[0]
            is_local = ip_address(peer).is_loopback or peer == connection.getsockname()[0]
        return ProbeResult(ProbeStatus.PASSING, f"{check.tcp} accepts connections", local_peer=peer if is_local else "")

    def _http(self, check: Check, deadline: Deadline) -> ProbeResult:
        defaults = {
            name: (value,) for name, value in _CONSUL_HEADERS.items() if not any(check.header.get(name, ())[:1])
        }
        request = Request(
            str(check.http),
            {**check.header, **defaults},
            check.method or "GET",
            (check.body or "").encode(),
            host=next(iter(check.header.get("Host", ())), ""),
        )
        tls = _Tls(check.tls_server_name or "", is_verified=not check.tls_skip_verify)
        most = 1 if check.disable_redirects else MOST_REQUESTS
        with closing(self._follow(request, deadline, tls, most)) as response:
            _read_some(response)
        return _result_of(shown(str(check.http)), response.status)

    def _follow(
        self,
        request: Request,
        deadline: Deadline,
        tls: "_Tls",
        most: int = MOST_REQUESTS,
        each_second: Callable[[], None] = lambda: None,
    ) -> HTTPResponse:
        """Return the first response that is not a redirect, or the first response if ``most`` is 1."""
        first = request
        for _ in range(most):
            response = self._ask(request, deadline, tls, each_second)
            redirected = redirected_request(first, request, response.status, response.headers.get("Location") or "")
            if redirected is None or most == 1:
                return response
            response.close()
            request = redirected
        raise _TooManyRedirects(f"stopped after {MOST_REQUESTS} redirects")

    def _ask(self, request: Request, deadline: Deadline, tls: "_Tls", each_second: Callable[[], None]) -> HTTPResponse:
        target = request.target
        connection = connect(target.host, target.port, deadline)
        if target.is_tls:
            connection = start_tls(connection, self._context(tls), tls.name_for(target.host), deadline)
        stream = Stream(connection, deadline, each_second)
        try:
            stream.send(request.encoded())
            return _response(stream, request.method)
        except BaseException:
            stream.close()
            raise

    def _load_store(self, url: str, *, is_tls: bool = False) -> None:
        """Load the certificates before time is measured: hundreds of files may take longer than a check's timeout."""
        if is_tls or url.lower().startswith("https:"):
            with suppress(Exception):  # raised again and reported where the certificates are used
                self._context(_Tls())

    def _context(self, tls: "_Tls") -> ssl.SSLContext:
        return self._verifying if tls.is_verified else tls_context(self._environ, verified=False)

    @cached_property
    def _verifying(self) -> ssl.SSLContext:
        return tls_context(self._environ, verified=True)


@dataclass(frozen=True)
class _Tls:
    """How a check wants the service's certificate verified."""

    server_name: str = ""
    is_verified: bool = True

    def name_for(self, host: str) -> str:
        """Return the name to request and verify. A zone belongs to this host's interfaces, and is in no certificate."""
        return self.server_name or host.partition("%")[0]


class _TooManyRedirects(Exception):
    """The service redirects without end."""


class _Cancelled(BaseException):
    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def probe_status(check: Check) -> ProbeStatus:
    """Return the status that a check has now.

    A check that only Consul can run counts as passing: it has not run yet, and clients are sent to the service.
    """
    prober = Prober()
    return prober.probe(check, check.timeout_seconds).status if prober.can_probe(check) else ProbeStatus.PASSING


def _response(stream: Stream, method: str) -> HTTPResponse:
    """Read the head of the answer after informational ones (1xx). The stream's deadline limits them."""
    while True:
        response = HTTPResponse(stream, method=method)  # type: ignore[arg-type]  # it calls makefile() and no more
        try:
            response.begin()
        except BaseException:
            # From Python 3.13 on its finalizer reports that the stream below it was closed first.
            response.close()
            raise
        if not 100 <= response.status < 200 or response.status == 101:
            return response
        response.fp = None  # type: ignore[assignment]  # else its finalizer closes the stream


def _read_some(response: HTTPResponse) -> None:
    """Read the body like Consul, which uses the status even if the body is late, broken or cut off."""
    read = 0
    try:
        while read < MOST_OF_A_BODY and (chunk := response.read(_CHUNK)):
            read += len(chunk)
    except (OSError, HTTPException, ValueError):
        return


def _result_of(where: str, code: int) -> ProbeResult:
    if 200 <= code < 300:
        return ProbeResult(ProbeStatus.PASSING, f"{where} answers {code}")
    status = ProbeStatus.WARNING if code == 429 else ProbeStatus.CRITICAL
    return ProbeResult(status, f"{where} answers {code}", f"http {code}")


def _guarded(run: Callable[[], ProbeResult], where: str, seconds: float) -> ProbeResult:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - the service's answer decides what the libraries raise; it did not pass
        message, failure = _describe_error(error, seconds)
        message = redacted(message, LONGEST_MESSAGE)
        return ProbeResult(ProbeStatus.CRITICAL, f"{where}: {message}", failure)


def advice(signature: str) -> str:
    """Return the remedy for the failure with which an instance did not become ready in time."""
    code = signature.rpartition(" http ")[2]
    if code.isdigit() and code not in _LOADING:
        return "Expected status 200-299: correct the service, or the URL of the check"
    return next(
        (remedy for failure, remedy in _ADVICE.items() if f" {signature}".endswith(f" {failure}")), _WAIT_LONGER
    )


_LOADING = frozenset({"429", "503"})
"""The statuses of a service that runs and is not ready yet."""
_WAIT_LONGER = "If it needs longer to load, raise reload.ready.timeout"
_WRONG_ADDRESS = "Correct the address and port that it listens on, or those of the check"
_ADVICE = {
    "refused": _WRONG_ADDRESS,
    "not listening": _WRONG_ADDRESS,
    "name": "Correct the host name in the check",
    "tls": "Correct its certificate, or the fields of the check that are about TLS",
    "not http": "Correct the port of the check, or the service on that port",
    "redirects": "Correct the redirect, or the URL of the check",
}
"""The remedies for failures that do not pass with time."""


def _describe_error(error: Exception, seconds: float) -> tuple[str, str]:
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate verify failed: {error.verify_message}", "tls"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}", "tls"
        case TimeoutError():
            return f"no complete answer within {seconds:g} s", "timeout"
        case ConnectionError():
            return error.strerror or str(error) or type(error).__name__, "refused"
        case gaierror():
            return f"the name cannot be resolved ({error.strerror})", "name"
        case OSError():
            return error.strerror or str(error), f"errno {error.errno}" if error.errno else ""
        case HTTPException():
            return f"not an HTTP response ({type(error).__name__}: {error})", "not http"
        case _TooManyRedirects():
            return str(error), "redirects"
        case UnusableUrl():
            return f"it redirects to an invalid URL: {error}", "redirects"
        case _:
            return f"cannot be judged ({type(error).__name__}: {error})", ""
