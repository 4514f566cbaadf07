"""What the SDK raises, by the type it comes out as."""

import json

import pytest
import requests
import urllib3
from docker.credentials.errors import StoreError
from docker.errors import APIError, DockerException
from docker.errors import NotFound as DockerNotFound

from agent.engine.failures import is_the_images_fault, registry_failure, translated
from agent.errors import (
    Conflict,
    Denied,
    DockerUnreachable,
    Interrupted,
    LockLost,
    NotFound,
    OutcomeUnknown,
    RegistryUnreachable,
    Rejected,
    SvcagentError,
    UnexpectedAnswer,
)


def raised_by(error: Exception, *, is_write: bool) -> SvcagentError:
    with pytest.raises(SvcagentError) as caught, translated("do it", "unix:///d.sock", is_write=is_write):
        raise error
    return caught.value


def answered(status: int, kind: type[APIError] = APIError) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind("failed", response=response, explanation="because of that")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answered(400), Rejected),
        (answered(403), Denied),
        (answered(404, DockerNotFound), NotFound),
        (answered(409), Conflict),
        (answered(500), SvcagentError),
    ],
)
def test_an_answer_is_told_by_its_status_and_keeps_the_engines_words(error: APIError, expected: type) -> None:
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
    ],
)
def test_no_answer_leaves_a_writes_outcome_unknown_unless_it_was_never_sent(
    error: Exception, of_a_read: type, of_a_write: type
) -> None:
    assert type(raised_by(error, is_write=False)) is of_a_read
    assert type(raised_by(error, is_write=True)) is of_a_write


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
        ("toomanyrequests: You have reached your pull rate limit", RegistryUnreachable),
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
    ],
)
def test_a_registrys_message_tells_what_kind_of_failure_it_was(text: str, expected: type) -> None:
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
    assert is_the_images_fault(f"Docker could not start container 0123456789ab: {text}")


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
    ],
)
def test_what_no_image_can_help_does_not_count_against_it(text: str) -> None:
    """A container that cannot start for such a reason is rolled back, and its digest is not quarantined."""
    assert not is_the_images_fault(f"Docker could not start container 0123456789ab: {text}")
