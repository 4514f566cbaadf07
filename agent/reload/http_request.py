"""HTTP requests as Go's client writes them, and its redirects. Pure.

Every HTTP check of Consul follows Go's rules (net/http: client.go, request.go).
"""

import string
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from agent.data import dataclass

MOST_REQUESTS = 10
"""Go's client fails at the tenth redirect."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEPING_METHOD = frozenset({307, 308})

# The client writes these itself and ignores the caller's; names are compared exactly, as in Go.
_WRITTEN_BY_CLIENT = frozenset({"Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer"})
# Not sent to a domain other than the first.
_SENSITIVE = frozenset({"authorization", "www-authenticate", "cookie", "cookie2"})
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})
_PORTS = {"http": 80, "https": 443}


class UnusableUrl(ValueError):
    """The URL does not name a web server."""


@dataclass(frozen=True)
class HttpTarget:
    is_tls: bool
    host: str
    port: int


@dataclass(frozen=True)
class Request:
    """One request. ``host`` replaces the Host header of the URL."""

    url: str
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    method: str = "GET"
    body: bytes = b""
    host: str = ""

    @property
    def target(self) -> HttpTarget:
        """The server to connect to. Raises `UnusableUrl`."""
        parts = _split(self.url)
        return HttpTarget(
            parts.scheme == "https", _ascii(unquote(str(parts.hostname))), parts.port or _PORTS[parts.scheme]
        )

    def encoded(self) -> bytes:
        head = "\r\n".join(self._head(_split(self.url)))
        return f"{head}\r\n\r\n".encode() + self.body

    def _head(self, parts: SplitResult) -> Iterator[str]:
        path = quote(parts.path or "/", safe=string.punctuation)
        query = f"?{quote(parts.query, safe=string.punctuation)}" if parts.query else ""
        yield f"{self.method} {path}{query} HTTP/1.1"
        yield f"Host: {self.host or _host_header(parts)}"
        yield f"User-Agent: {next(iter(self.headers.get('User-Agent', ())), '')}"
        if self.body or self.method in _WITH_LENGTH:
            yield f"Content-Length: {len(self.body)}"
        for name, values in self.headers.items():
            if name not in _WRITTEN_BY_CLIENT:
                yield from (f"{name}: {value}" for value in values)
        if parts.username is not None and "Authorization" not in self.headers:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            yield f"Authorization: Basic {b64encode(pair.encode()).decode()}"
        if self.method != "HEAD" and not {"Accept-Encoding", "Range"} & self.headers.keys():
            yield "Accept-Encoding: gzip"
        yield "Connection: close"


def redirected_request(first: Request, last: Request, status: int, location: str) -> Request | None:
    """Return the request that a redirect of ``last`` asks for; None if it is no redirect. Raise `UnusableUrl`."""
    if status not in REDIRECTS or not location:
        return None
    try:
        url = urljoin(last.url, location)
    except ValueError as error:
        raise UnusableUrl(f"{location}: {error}") from None
    before, after = _split(last.url), _split(url)
    headers = dict(first.headers)
    if not _is_within(str(after.hostname), str(_split(first.url).hostname)):
        headers = {name: values for name, values in headers.items() if name.lower() not in _SENSITIVE}
    if not (before.scheme == "https" and after.scheme == "http"):
        headers.setdefault("Referer", (before._replace(netloc=before.netloc.rpartition("@")[2]).geturl(),))
    request = replace(last, url=url, headers=headers, host="" if ":" in location.partition("/")[0] else first.host)
    if status in KEEPING_METHOD:
        return request
    return replace(request, body=b"", method=last.method if last.method in ("GET", "HEAD") else "GET")


def shown(url: str) -> str:
    """Return the URL without possible secrets: user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    query = "…" if parts.query else ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def _split(url: str) -> SplitResult:
    """Split a URL and check it: `urlsplit` alone drops line breaks and tabs."""
    try:
        parts = urlsplit(url)
        is_usable = url.isprintable() and parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError as error:
        raise UnusableUrl(f"{url}: {error}") from None
    if not is_usable:
        raise UnusableUrl(f"{url} is not an http or https URL")
    return parts


def _host_header(parts: SplitResult) -> str:
    """Return host and port, without user, empty port and IPv6 zone."""
    host = str(parts.hostname).partition("%")[0]
    name = f"[{host}]" if ":" in host else _ascii(host)
    return name if parts.port is None else f"{name}:{parts.port}"


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def _is_within(host: str, domain: str) -> bool:
    return host == domain or (host.endswith(f".{domain}") and ":" not in domain)
