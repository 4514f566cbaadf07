"""A simulator of Amazon Route 53: moto, behind a gate that has the faults which moto has not.

    python -m tests.lab.route53 127.0.0.2 5080

What happens to a request depends on the access key that signed it: see `FAULTS`. With any other key all is permitted;
signatures are not checked.
"""

import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response
from werkzeug.serving import run_simple

WITHOUT_RIGHT_TO_WRITE = "READSONLY"
UNKNOWN = "UNKNOWN"
WRONG_SECRET = "WRONGSECRET"
EXPIRED = "EXPIRED"
LATE = "LATE"
LOSES_REPLIES = "LOSESREPLIES"

FAULTS: dict[str, tuple[int, str]] = {
    WITHOUT_RIGHT_TO_WRITE: (403, "AccessDenied"),
    UNKNOWN: (403, "InvalidClientTokenId"),
    WRONG_SECRET: (403, "SignatureDoesNotMatch"),
    EXPIRED: (403, "ExpiredToken"),
    LATE: (400, "RequestExpired"),
}
"""The answer that a key gets: to writes in the first case, to everything in the others. `LOSES_REPLIES` has its writes
carried out and gets no answer to them."""

ERROR = """<?xml version="1.0"?>
<ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/">
  <Error><Type>Sender</Type><Code>{code}</Code><Message>said by the gate</Message></Error>
  <RequestId>0</RequestId>
</ErrorResponse>
"""

Start = Callable[..., Any]


class Gate:
    def __init__(self, behind: Callable[[dict[str, Any], Start], Iterable[bytes]]) -> None:
        self._behind = behind

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        request = Request(environ)
        key = request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        is_write = request.method == "POST"
        if key in FAULTS and (is_write or key != WITHOUT_RIGHT_TO_WRITE):
            status, code = FAULTS[key]
            return Response(ERROR.format(code=code), status, content_type="text/xml")(environ, start)
        answer = self._behind(environ, start)
        if key == LOSES_REPLIES and is_write:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer


def main(host: str, port: str) -> None:
    run_simple(host, int(port), Gate(DomainDispatcherApplication(create_backend_app)), threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
