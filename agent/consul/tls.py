"""TLS to the Consul agent: the context from the settings, and explanations of failed handshakes."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.definitions import ConsulSettings
from agent.errors import BadDefinition, Fault

CA_HINT = (
    "Check CONSUL_CACERT or CONSUL_CAPATH: one of them must contain the certificate of the authority that signed it"
)
NAME_HINT = "Set CONSUL_TLS_SERVER_NAME to a name that the certificate is for (often server.<datacenter>.<domain>)"
OWN_HINT = "Set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to a certificate from the agent's own authority"

# OpenSSL's X509_V_ERR_* (x509_vfy.h).
_VERIFY = {
    9: ("the agent's certificate is not valid yet", "Check this host's clock"),
    10: ("the agent's certificate has expired", "Install a new certificate for the agent, or check this host's clock"),
    18: ("the agent's certificate is self-signed", CA_HINT),
    19: ("the agent's certificate is from an untrusted authority", CA_HINT),
    20: ("the agent's certificate is from an untrusted authority", CA_HINT),
    21: ("the agent's certificate is from an untrusted authority", CA_HINT),
    62: ("the agent's certificate is for another name", NAME_HINT),
    64: ("the agent's certificate is for another address", NAME_HINT),
}

# OpenSSL's names of the alerts by which a server refuses a client's certificate or the lack of one. TLS 1.3 has an
# alert for the latter; older versions report a bad certificate.
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_ALERT_ACCESS_DENIED",
}

_AUTHORITIES = "CONSUL_CACERT or CONSUL_CAPATH must contain certificates"

_PLAIN = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}


def make_context(settings: ConsulSettings) -> ssl.SSLContext:
    """Return the context for the settings, with all files loaded. Without a configured CA, trust the system's.

    :raises BadDefinition: a file does not contain what its setting requires.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file:
        with _usable(settings.ca_file, _AUTHORITIES):
            context.load_verify_locations(cafile=settings.ca_file)
    elif settings.ca_path:
        _load_directory(context, settings.ca_path)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.client_cert:
        with _usable(
            settings.client_cert, "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY must contain a certificate and its key"
        ):
            # Without a password, OpenSSL would prompt for an encrypted key's.
            key = settings.client_key or settings.client_cert
            context.load_cert_chain(settings.client_cert, key, password=lambda: b"")
    return context


def explain_handshake(error: ssl.SSLError, *, has_own: bool) -> tuple[str, str]:
    """Return the problem and the remedy. ``has_own`` is True if a client certificate is configured."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, (f"the agent's certificate: {error.verify_message}", CA_HINT))
    reason = error.reason or ""
    if reason in _ALERTS and has_own:
        return "the agent does not accept svcagent's own certificate, or it has expired", OWN_HINT
    if reason in _ALERTS:
        return "the agent requires a client certificate, and none is set", OWN_HINT
    if reason in _PLAIN:
        return (
            "the agent does not use TLS on this port",
            "Write http:// in CONSUL_HTTP_ADDR and unset CONSUL_HTTP_SSL, or set its HTTPS port",
        )
    remedy = "Check CONSUL_HTTP_ADDR, CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_TLS_SERVER_NAME"
    return reason.lower().replace("_", " ") or str(error), remedy


def _load_directory(context: ssl.SSLContext, directory: Path) -> None:
    """Load every file, as Consul's own client does. OpenSSL reads files with hashed names only."""
    with _usable(directory, "CONSUL_CAPATH must contain certificates"):
        files = sorted(path for path in directory.iterdir() if path.is_file())
    if not files:
        raise BadDefinition(
            [
                Fault(
                    str(directory),
                    "",
                    "the directory is empty",
                    "put CA certificates into it, or correct CONSUL_CAPATH",
                )
            ]
        )
    for file in files:
        with _usable(file, _AUTHORITIES):
            context.load_verify_locations(cafile=file)


@contextmanager
def _usable(file: Path, remedy: str) -> Iterator[None]:
    """Raise `BadDefinition` if the block fails to read the file or directory."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or "unreadable").lower().replace("_", " ")
        else:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        remedy += " in PEM form, the key without a password, readable by svcagent"
        raise BadDefinition([Fault(str(file), "", f"cannot be used ({reason})", remedy)]) from error
