"""The service that a lab's hosts run: a busybox web server in an image made from nothing, in any number of versions."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker

from tests.lab.ground import LabError
from tests.lab.parts import BUSYBOX

NAME = "keyword-suggest"
PORT = 8080

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY run /run.sh
COPY www /www
ENTRYPOINT ["/bin/busybox", "sh", "/run.sh"]
"""

# A first process ignores every signal that it does not trap; a trap is heard only while `wait` waits.
RUN = """\
trap 'exit 0' TERM INT
echo "keyword-suggest {version}: loading the index"
{fault}
/bin/busybox sleep "$LOAD_SECONDS" & wait $!
echo "keyword-suggest {version}: listening on $ADDR:$PORT"
{serve}
"""
SERVE = """/bin/busybox httpd -f -p "$ADDR:$PORT" -h /www & wait $!"""
EXITS_AT_FIRST_REQUEST = """\
/bin/busybox httpd -f -vv -p "$ADDR:$PORT" -h /www 2>&1 | while read line; do
  case $line in *url:/) kill $$;; esac
done & wait $!"""
"""It serves ``/hc`` and all else, and ends when ``/`` is asked for, as clients do."""
EXITS_SOON = """\
/bin/busybox httpd -f -p "$ADDR:$PORT" -h /www &
/bin/busybox sleep 2 & wait $!
echo "keyword-suggest {version}: out of memory" >&2; exit 1"""
STOPS_SLOWLY = """\
trap '/bin/busybox sleep 3; exit 0' TERM
/bin/busybox httpd -f -p "$ADDR:$PORT" -h /www & wait $!"""
"""It goes on serving for 3 s after it was asked to stop."""
DEPENDENT_CHECK = """\
#!/bin/busybox sh
if /bin/busybox nc -w 1 "$ADDR" 5432 </dev/null >/dev/null 2>&1; then echo "Status: 200 OK"
else echo "the database is away" >/proc/1/fd/1; echo "Status: 503 Service Unavailable"; fi
echo; echo done
"""
"""It passes while something listens on port 5432 of the host."""
PASSING_CHECK = """\
#!/bin/busybox sh
echo "Status: 200 OK"; echo; echo fine
"""
REDIRECTED_CHECK = """\
#!/bin/busybox sh
echo "Status: 302 Found"; echo "Location: http://[10.0.0.1]:8080/"; echo
"""
"""It redirects to an address that is none."""
FAULT = """echo "keyword-suggest {version}: error: the index is damaged" >&2; exit 1"""


def build(
    api: docker.APIClient, reference: str, version: str, *, broken: bool, healthy: bool, serve: str, check: str
) -> None:
    """Build one version on an engine; the same version again comes from its cache, so it keeps its digest.

    ``serve``: the shell command that serves. ``check``: the script behind ``/cgi-bin/hc``; empty for no such page.
    """
    fault = FAULT.format(version=version) if broken else ""
    files = {
        "Dockerfile": DOCKERFILE.encode(),
        "busybox": BUSYBOX.read_bytes(),
        "run": RUN.format(version=version, fault=fault, serve=serve.replace("{version}", version)).encode(),
        "www/index.html": f"{NAME} {version}\n".encode(),
        "www/version": f"{version}\n".encode(),
    }
    if healthy:
        files["www/hc"] = b"ok\n"
    if check:
        files["www/cgi-bin/hc"] = check.encode()
    make(api, reference, files)


def make(api: docker.APIClient, reference: str, files: dict[str, bytes]) -> None:
    """Build an image from its files by name, ``Dockerfile`` among them."""
    _drained(api.build(fileobj=_tar(files), custom_context=True, tag=reference, rm=True, decode=True))


def push(api: docker.APIClient, reference: str) -> str:
    """Push a built image; the digest that the registry knows it by."""
    _drained(api.push(reference, stream=True, decode=True, auth_config={}))
    # The containerd image store does not say in the stream which digest it pushed.
    return str(api.inspect_distribution(reference)["Descriptor"]["digest"])  # type: ignore[no-untyped-call]


def pull(api: docker.APIClient, reference: str) -> None:
    """Pull an image; its first and its last failure both raise."""
    _drained(api.pull(reference, stream=True, decode=True, auth_config={}))


def run(api: docker.APIClient, reference: str, address: str, load_seconds: float, **options: Any) -> str:
    """Create and start the service's container under host networking; its id. ``options``: of create_host_config."""
    options = {"restart_policy": {"Name": "unless-stopped"}} | options
    container = api.create_container(
        reference,
        name=NAME,
        environment={"ADDR": address, "PORT": str(PORT), "LOAD_SECONDS": f"{load_seconds:g}"},
        host_config=api.create_host_config(network_mode="host", **options),
    )
    api.start(container)
    return str(container["Id"])


def _drained(events: Iterable[Any]) -> list[dict[str, Any]]:
    """Every event of a stream, which says in its last one, and with status 200, that it failed."""
    drained = list(events)
    for event in drained:
        if "error" in event:
            raise LabError(f"the engine says: {event['error']}")
    return drained


def _tar(files: dict[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if Path(name).name == "busybox" or "cgi-bin" in name else 0o644
            tar.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    return packed
