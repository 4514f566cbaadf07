"""Until when certificates are valid. Pure: Python's ssl shows this only of certificates that a handshake verified."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def expiry(der: bytes) -> datetime:
    """Return the end of a certificate's validity (RFC 5280 4.1: tbsCertificate, validity, notAfter).

    :raises ValueError: it is no certificate.
    """
    try:
        (_tag, certificate), *_rest = _elements(der)
        (_tag, to_be_signed), *_rest = _elements(certificate)
        fields = list(_elements(to_be_signed))
        # version (if any), serialNumber, signature, issuer, validity
        validity = fields[4 if fields[0][0] == _VERSION else 3][1]
        _not_before, (tag, end) = _elements(validity)
        return _time(tag, end.decode("ascii"))
    except (IndexError, ValueError) as error:
        raise ValueError("not a certificate") from error


def expiries(pem: str) -> tuple[datetime, ...]:
    """Return the end of the validity of every certificate of a PEM file.

    :raises ValueError: one of them is no certificate.
    """
    return tuple(expiry(ssl.PEM_cert_to_DER_cert(one)) for one in _PEM.findall(pem))


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element in a row (X.690: definite lengths, as DER has them)."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[at : at + count], "big")
            at += count
        if at + length > len(der):
            raise ValueError("cut off")
        yield tag, der[at : at + length]
        at += length


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = f"{'19' if text >= '5' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
