"""Parse the expiry dates of certificates. Python's ssl shows them only for certificates that a handshake verified."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def expiry(der: bytes) -> datetime:
    """Return a DER certificate's notAfter date (RFC 5280 4.1). Raise ValueError if it is not a certificate."""
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
    """Return the notAfter date of each certificate in a PEM file. Raise ValueError if one is invalid."""
    return tuple(expiry(ssl.PEM_cert_to_DER_cert(one)) for one in _PEM.findall(pem))


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element in sequence (X.690; DER uses definite lengths)."""
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
    if tag == _UTC_TIME:  # two-digit years: 1950 to 2049
        text = f"{'19' if text >= '5' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
