"""What the SDK raises, by the type it comes out as."""

import json
from http.client import BadStatusLine

import pytest
import requests
import urllib3
from docker.credentials.errors import StoreError
from docker.errors import DockerException

from agent.engine.failures import NoAnswer, RefusedAnswer, is_caused_by_image, registry_failure, retry_after, translated
from agent.errors import (
    Conflict,
    Denied,
    DockerUnreachable,
    Interrupted,
    LockLost,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RegistryUnreachable,
    Rejected,
    SvcagentError,
    UnexpectedAnswer,
)
from agent.shapes import WrongShape


def raised_by(error: Exception, *, is_write: bool) -> SvcagentError:
    with pytest.raises(SvcagentError) as caught, translated("do it", "unix:///d.sock", is_write=is_write):
        raise error
    return caught.value


def answered(
    status: int, *, by_engine: bool = True, method: str = "GET", path: str = "", retry_after: str = ""
) -> RefusedAnswer:
    headers = ({"Api-Version": "1.41"} if by_engine else {}) | ({"Retry-After": retry_after} if retry_after else {})
    return RefusedAnswer(status, "because of that", headers, method, f"/v1.41/{path}")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answered(400), Rejected),
        (answered(403), Denied),
        (answered(404), NotFound),
        (answered(409), Conflict),
        (answered(500), SvcagentError),
    ],
)
def test_an_error_answer_is_typed_by_status_and_keeps_the_message(error: RefusedAnswer, expected: type) -> None:
    translation = raised_by(error, is_write=True)

    assert type(translation) is expected
    assert "because of that" in str(translation)


@pytest.mark.parametrize(
    ("error", "of_a_read", "of_a_write"),
    [
        (requests.ConnectionError(FileNotFoundError(2, "No such file")), DockerUnreachable, OutcomeUnknown),
        (caused(requests.ConnectionError(), FileNotFoundError()), DockerUnreachable, DockerUnreachable),
        (caused(requests.ConnectionError(), ConnectionRefusedError()), DockerUnreachable, DockerUnreachable),
        (caused(requests.ConnectionError(), PermissionError()), DockerUnreachable, DockerUnreachable),
        (requests.ConnectTimeout(), DockerUnreachable, DockerUnreachable),
        (requests.ReadTimeout(), DockerUnreachable, OutcomeUnknown),
        (caused(requests.ConnectionError(), ConnectionResetError()), DockerUnreachable, OutcomeUnknown),
        (urllib3.exceptions.ProtocolError("Connection broken"), DockerUnreachable, OutcomeUnknown),
        (caused(DockerException("version"), requests.ReadTimeout()), DockerUnreachable, OutcomeUnknown),
        (DockerException("Invalid bind address protocol"), DockerUnreachable, DockerUnreachable),
        (caused(NoAnswer(""), FileNotFoundError()), DockerUnreachable, DockerUnreachable),
        (caused(NoAnswer("", timed_out=True), TimeoutError()), DockerUnreachable, OutcomeUnknown),
    ],
)
def test_an_unanswered_write_is_unknown_unless_never_sent(error: Exception, of_a_read: type, of_a_write: type) -> None:
    assert type(raised_by(error, is_write=False)) is of_a_read
    assert type(raised_by(error, is_write=True)) is of_a_write


@pytest.mark.parametrize(
    ("status", "method", "path", "of_a_read", "of_a_write", "advice"),
    [
        (403, "GET", "distribution/app/json", Denied, Denied, "allow DISTRIBUTION there"),
        (404, "GET", "containers/app/json", Denied, Denied, "allow CONTAINERS there"),
        (405, "POST", "images/create?fromImage=app", Denied, Denied, "allow IMAGES and POST there"),
        (503, "GET", "containers/app/json", DockerUnreachable, OutcomeUnknown, "a proxy in front of it"),
    ],
)
def test_what_something_in_front_of_the_engine_refused_is_never_taken_for_the_engines_answer(
    status: int, method: str, path: str, of_a_read: type, of_a_write: type, advice: str
) -> None:
    """A container that a proxy hides is not absent."""
    error = answered(status, by_engine=False, method=method, path=path)

    read, written = raised_by(error, is_write=False), raised_by(error, is_write=True)

    assert (type(read), type(written)) == (of_a_read, of_a_write)
    assert advice in str(read)


@pytest.mark.parametrize(
    ("text", "header", "expected"),
    [
        ("toomanyrequests: rate exceeded", "", None),
        ("toomanyrequests: rate exceeded", "30", 30.0),
        ("toomanyrequests: retry-after: 1.5s, allowed: 44000/minute", "", 1.5),
        ("toomanyrequests: retry-after: 226.861µs, allowed: 44000/minute", "", pytest.approx(226.861e-6)),
        ("toomanyrequests: Retry-After: 1m30s", "", 90.0),
        ("too many requests, retry after 12", "", 12.0),
        ("toomanyrequests: retry-after: 99999h", "", 86400.0),
        ("toomanyrequests", "Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_when_to_ask_a_registry_again_is_read_from_its_answer(text: str, header: str, expected: float | None) -> None:
    assert retry_after(text, answered(429, retry_after=header)) == expected


def test_the_remedy_for_a_refused_socket_names_group_docker() -> None:
    message = str(raised_by(caused(requests.ConnectionError(), PermissionError()), is_write=False))

    assert "group docker" in message
    assert "unix:///d.sock" in message


FOREIGN = (
    RuntimeError("x"),
    OSError(5, "x"),
    ValueError("x"),
    KeyError("State"),
    IndexError("x"),
    TypeError("x"),
    AttributeError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    RecursionError("x"),
    MemoryError("x"),
    json.JSONDecodeError("x", "<html>", 0),
    StoreError("docker-credential-x not installed"),
)


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_any_other_exception_of_the_sdk_becomes_a_typed_one_and_stays_its_cause(error: Exception) -> None:
    read, written = raised_by(error, is_write=False), raised_by(error, is_write=True)
    assert (type(read), type(written)) == (UnexpectedAnswer, OutcomeUnknown)
    assert read.__cause__ is written.__cause__ is error


@pytest.mark.parametrize("error", [NotFound("x"), LockLost("x"), Interrupted(15), KeyboardInterrupt()])
def test_typed_errors_and_signals_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated("do it", "unix:///d.sock"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused', RegistryUnreachable),
        ("dial tcp: lookup registry.example.com on 192.0.2.1:53: no such host", RegistryUnreachable),
        ("net/http: request canceled while waiting for connection (Client.Timeout exceeded)", RegistryUnreachable),
        ("x509: certificate signed by unknown authority", RegistryUnreachable),
        ("toomanyrequests: You have reached your pull rate limit", RateLimited),
        ("received unexpected HTTP status: 429 Too Many Requests", RateLimited),
        ('error parsing HTTP 429 response body: unexpected end of JSON input: ""', RateLimited),
        ('error parsing HTTP 403 response body: unexpected end of JSON input: ""', Denied),
        ('error parsing HTTP 404 response body: invalid character: "404 page not found"', NotFound),
        (
            "unexpected status from GET request to https://registry/v2/app/manifests/1: 429 Too Many Requests\n"
            "toomanyrequests: increase the limits by authenticating and upgrading",
            RateLimited,
        ),
        # Of the containerd image store, from here on.
        ('failed to resolve reference "r:5000/app:1": r:5000/app:1: not found', NotFound),
        (
            "failed to copy: httpReadSeeker: failed open: content at http://r/v2/app/blobs/x not found: not found",
            NotFound,
        ),
        ("unexpected status from GET request to http://r:5000/v2/app/manifests/1: 403 Forbidden", Denied),
        ("unexpected status from HEAD request to http://r:5000/v2/app/manifests/1: 401 Unauthorized", Denied),
        ("unexpected status from HEAD request to http://r:5000/v2/: 500 Internal Server Error", RegistryUnreachable),
        (
            "pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
            Denied,
        ),
        ('failed to do request: Head "http://r:5000/v2/app/manifests/1": EOF', RegistryUnreachable),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryUnreachable),
        ("unexpected EOF", RegistryUnreachable),
        ("error pulling sha256:4013403fe, 403401 bytes", RegistryUnreachable),
        ("unauthorized: authentication required", Denied),
        ('Head "http://127.0.0.1:5000/v2/app/manifests/latest": no basic auth credentials', Denied),
        ("pull access denied for app, repository does not exist or may require 'docker login'", Denied),
        ("error parsing HTTP 403 response body: unexpected status code 403 Forbidden", Denied),
        ("manifest unknown: manifest unknown", NotFound),
        ("name unknown: repository name not known to registry", NotFound),
        ("failed to register layer: Error processing tar file: no space left on device", SvcagentError),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", SvcagentError),
        ("write /var/lib/docker/tmp/GetImageBlob1: input/output error", SvcagentError),
        ("open /var/lib/docker/tmp/GetImageBlob1: permission denied", SvcagentError),
        ("mkdir /var/lib/docker/overlay2/1: permission denied", SvcagentError),
        ("write tcp 192.0.2.1:50000->192.0.2.2:443: connection reset by peer", RegistryUnreachable),
        (
            'failed to prepare extraction snapshot "extract-5924-bX1Y sha256:aa": parent snapshot sha256:bb does not '
            "exist: not found",
            SvcagentError,
        ),
        (
            "failed to extract layer sha256:aa: mount callback failed on /var/lib/containerd/tmpmounts/mount1: "
            "failed to unlinkat: permission denied",
            SvcagentError,
        ),
        ("apply layer error for app: permission denied", SvcagentError),
        ("failed to unpack image on snapshotter overlayfs: unexpected media type: not found", SvcagentError),
        ("content digest sha256:0123: not found", SvcagentError),
    ],
)
def test_a_registrys_message_gives_the_kind_of_failure(text: str, expected: type) -> None:
    assert registry_failure(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        'exec: "/bin/app": stat /bin/app: no such file or directory: unknown',
        'exec: "serve": executable file not found in $PATH: unknown',
        'exec: "/etc/app": permission denied: unknown',
        "exec /bin/app: exec format error",
        "exec /bin/app: no such file or directory",
        "crun: executable file `serve` not found in $PATH: No such file or directory: OCI runtime attempted to invoke",
        "unable to find user app: no matching entries in passwd file",
        "unable to find group app: no matching entries in group file",
        'chdir to cwd ("/srv") set in config.json failed: permission denied: unknown',
        "mkdir /srv: not a directory: unknown",
        "not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)?",
    ],
)
def test_what_the_image_has_or_lacks_counts_against_it(text: str) -> None:
    assert is_caused_by_image(f"Docker could not start container 0123456789ab: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "driver failed programming external connectivity: Bind for 0.0.0.0:80 failed: port is already allocated",
        "mkdir /var/lib/docker/x: no space left on device",
        "network 9f1c not found",
        "No such container: 9f1c",
        'error gathering device information while adding custom device "/dev/x": no such file or directory',
        'could not select device driver "nvidia" with capabilities: [[gpu]]',
        'invalid mount config for type "bind": bind source path does not exist: /srv/data',
        "error while mounting volume '/data': failed to mount local volume: no such file or directory",
        'Conflict. The container name "/app" is already in use by container "9f1c"',
        "Unknown runtime specified kata",
        "cgroup-parent for systemd cgroup should be a valid slice named as xxx.slice",
        "failed to initialize logging driver: dial tcp 192.0.2.1:12201: connect: connection refused",
        "cannot join network of a non running container: 9f1c",
        "Address already in use",
        "failed to create shim task: OCI runtime create failed: apply apparmor profile: no such file or directory",
        "could not find an available, non-overlapping IPv4 address pool",
        # Programs that the Engine runs, and a directory that it makes on the host.
        "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/x/log.json: no such file or "
        'directory): exec: "runc": executable file not found in $PATH: unknown',
        "failed to start shim: start failed: : fork/exec /usr/bin/containerd-shim-runc-v2: no such file or directory",
        'Error starting userland proxy: exec: "docker-proxy": executable file not found in $PATH',
        "error while creating mount source path '/srv/a/b': mkdir /srv/a: not a directory",
    ],
)
def test_what_no_image_can_help_does_not_count_against_it(text: str) -> None:
    """A container that cannot start for such a reason is rolled back, and its digest is not quarantined."""
    assert not is_caused_by_image(f"Docker could not start container 0123456789ab: {text}")


HOSTILE = f"\x1b[31m password=hush {'x' * 60_000}"


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", BadStatusLine(HOSTILE))),
        NoAnswer(HOSTILE),
        DockerException(HOSTILE),
        ValueError(HOSTILE),
        WrongShape(HOSTILE),
        RefusedAnswer(500, HOSTILE, {"Api-Version": "1.41"}, "GET", "/"),
        RefusedAnswer(500, HOSTILE, {}, "GET", "/"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_write", [True, False])
def test_foreign_text_in_a_message_is_bounded_and_clean(error: Exception, *, is_write: bool) -> None:
    message = str(raised_by(error, is_write=is_write))

    assert len(message) < 1500
    assert "\x1b" not in message
    assert "hush" not in message
