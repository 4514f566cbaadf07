"""The DNS provider for Amazon Route 53, through boto3 (the extra ``route53``).

boto3 finds credentials and endpoint by its own rules (``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL_ROUTE_53``, …). A change batch is applied completely or not at all, so record and marker are always
consistent. Three guarantees are weaker than with RFC 2136:

- An UPSERT has no prerequisites. The records are read again right before it; a change between that read and the UPSERT
  is overwritten. The next sync detects it, and the higher generation wins. (A batch that DELETEs the old values and
  CREATEs the new ones would make the service compare. The tests' simulator does not do that as the service does, and
  untested behaviour is not promised.) A removal does name the values that it removes.
- Record and marker take two queries, which are not answered at one moment. So the record is read before and after its
  marker; only a change that is reverted in between goes unnoticed.
- Writes and reads use the service's own data. Its name servers follow within about a minute.

The service allows 5 requests a second per account. A record takes 3 requests to read and 7 more to write; boto3 waits
and retries when throttled.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Any, TypeAlias

import boto3
import botocore.exceptions as boto
from botocore.config import Config

from agent.cname.provider import (
    LONGEST_STRING,
    MARKER_TTL,
    NO_SUCH_TARGET,
    READS,
    BadSignature,
    ClockSkewed,
    DnsServerFailed,
    NotAuthoritative,
    NotGranted,
    PublishedRecord,
    Raced,
    RecordPlace,
    UnknownKey,
    ZoneView,
    differs,
    read_back,
)
from agent.data import dataclass
from agent.definitions import DnsSettings
from agent.errors import Denied, DnsUnreachable, OutcomeUnknown, SvcagentError

ATTEMPTS = 3
"""boto3's attempts per request. Every request here may be sent twice."""

REGION = "us-east-1"
"""The region if none is configured. The service is global and uses this one in signatures."""

PAGE = 10
"""Record sets per response. Those of other names follow the requested ones."""

SERVERS_FAULT = 500
"""From this HTTP status on, the outcome of a request is unknown."""

RecordSet: TypeAlias = dict[str, Any]
"""In the service's format: Name, Type, TTL, ResourceRecords, or AliasTarget, SetIdentifier, …"""

_ESCAPED = re.compile(r"\\([0-7]{3}|.)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')

# By error code (Route 53 API Reference, "Common Errors" and those of ChangeResourceRecordSets).
_CONTENT = frozenset({"InvalidChangeBatch", "InvalidInput"})
_RIGHTS = frozenset({"AccessDenied", "AccessDeniedException"})
_ERRORS: dict[str, tuple[type[SvcagentError], str]] = {
    "SignatureDoesNotMatch": (BadSignature, "the secret key does not belong to the access key; set both again"),
    "IncompleteSignature": (BadSignature, "the access key or its secret is damaged; set both again"),
    "InvalidClientTokenId": (UnknownKey, "there is no such access key; set another"),
    "UnrecognizedClientException": (UnknownKey, "there is no such access key; set another"),
    "ExpiredToken": (UnknownKey, "the session has expired; renew it"),
    "ExpiredTokenException": (UnknownKey, "the session has expired; renew it"),
    "RequestExpired": (ClockSkewed, "this host's clock is wrong; check that NTP runs"),
    "NoSuchHostedZone": (NotAuthoritative, "the hosted zone does not exist; correct the zone in the definition"),
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.ProfileNotFound,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.InvalidRegionError,
)
LOOKING_FOR_ZONES = '{"Effect": "Allow", "Action": "route53:ListHostedZonesByName", "Resource": "*"}'
"""The IAM policy statement for finding a zone by its name."""

_NO_ANSWER = (boto.ConnectionError, boto.HTTPClientError)


@dataclass
class Route53:
    """The hosted zones that boto3's credentials give access to."""

    client: Any
    warnings: tuple[str, ...] = field(default=(), init=False)
    _zone_ids: dict[str, str] = field(default_factory=dict, init=False)

    @classmethod
    def from_settings(cls, settings: DnsSettings) -> "Route53":
        """Raise `Denied` if boto3's own configuration is invalid."""
        config = Config(
            connect_timeout=settings.timeout,
            read_timeout=settings.timeout,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        with _translated("a query", is_write=False):
            session = boto3.session.Session()
            return cls(session.client("route53", region_name=session.region_name or REGION, config=config))

    def close(self) -> None:
        self.client.close()

    def read(self, place: RecordPlace) -> ZoneView:
        """Return the records, provided that they did not change during the read."""
        with _translated(f"read {place.name}", is_write=False):
            return _seen(*self._stored(place))

    def write(self, place: RecordPlace, seen: ZoneView, wanted: ZoneView) -> None:
        """Send one batch immediately after another read: two UPSERTs, or DELETEs with every value that they remove."""
        if seen == wanted:
            return
        changes = [("DELETE", one) for one in self._stored_as(place, seen)]
        if wanted.record is not None:
            changes = [
                ("UPSERT", _record_set(place.name, "CNAME", wanted.record.ttl, wanted.record.target)),
                ("UPSERT", _record_set(place.marker, "TXT", MARKER_TTL, quoted(wanted.markers[0]))),
            ]
        self._change(place, changes)
        if (found := read_back(self, place)) != wanted:
            raise differs(place, found)

    def preflight(self, place: RecordPlace) -> None:
        """Delete records that do not exist: the service checks rights before content.

        A policy with ``ChangeResourceRecordSetsActions``, which permits some actions, can still refuse the UPSERT.
        """
        nothing = [
            ("DELETE", _record_set(place.name, "CNAME", 0, NO_SUCH_TARGET)),
            ("DELETE", _record_set(place.marker, "TXT", 0, quoted("svcagent preflight"))),
        ]
        with suppress(Raced):
            self._change(place, nothing, is_write=False)

    def _stored(self, place: RecordPlace) -> tuple[list[RecordSet], list[RecordSet]]:
        for _ in range(READS):
            records, markers = self._at(place, place.name), self._at(place, place.marker, "TXT")
            if self._at(place, place.name) == records:
                return records, markers
        raise Raced(f"{place.name} changed {READS} times while it was read; try again")

    def _stored_as(self, place: RecordPlace, seen: ZoneView) -> list[RecordSet]:
        """Return the record sets. Raise `Raced` if they are no longer as seen."""
        records, markers = self._stored(place)
        if _seen(records, markers) != seen:
            raise Raced(f"another program changed {place.name} at the same moment")
        return records + markers

    def _at(self, place: RecordPlace, name: str, kind: str | None = None) -> list[RecordSet]:
        found = []
        zone_id = self._zone_id(place.zone)
        with _translated(f"read {place.name}", is_write=False, line=_permission(zone_id)):
            pages = self.client.get_paginator("list_resource_record_sets").paginate(
                HostedZoneId=zone_id, StartRecordName=name, PaginationConfig={"PageSize": PAGE}
            )
            for one in (one for page in pages for one in page["ResourceRecordSets"]):
                # The first is the requested one, or the next in order.
                if unescaped(one["Name"]).lower() != name:
                    break
                if kind in (None, one["Type"]):
                    found.append(one)
        return found

    def _zone_id(self, zone: str) -> str:
        if zone not in self._zone_ids:
            with _translated(f"find the zone {zone}", is_write=False, line=LOOKING_FOR_ZONES):
                answer = self.client.list_hosted_zones_by_name(DNSName=zone, MaxItems="2")
                found = [one for one in answer["HostedZones"] if unescaped(one["Name"]).lower() == zone]
            if len(found) != 1:
                problem = "several hosted zones" if found else "no hosted zone"
                remedy = "correct the zone in the definition, or use credentials of the account that has one"
                raise NotAuthoritative(f"Route 53 has {problem} {zone}; {remedy}")
            self._zone_ids[zone] = found[0]["Id"].rpartition("/")[2]
        return self._zone_ids[zone]

    def _change(self, place: RecordPlace, changes: Sequence[tuple[str, RecordSet]], *, is_write: bool = True) -> None:
        zone_id = self._zone_id(place.zone)
        batch = {
            "Comment": "svcagent",
            "Changes": [{"Action": action, "ResourceRecordSet": one} for action, one in changes],
        }
        with _translated(f"change {place.name}", is_write=is_write, line=_permission(zone_id)):
            try:
                self.client.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=batch)
            except boto.ClientError as error:
                if _code(error) not in _CONTENT:
                    raise
                # The batch was valid a moment ago.
                raise Raced(f"Route 53 cannot change {place.name} as it is now: {error}") from error


def unescaped(name: str) -> str:
    """Decode a name: the service writes ``\\052`` for ``*``."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)) if len(found[1]) == 3 else found[1], name)


def quoted(text: str) -> str:
    """Return the ASCII value of a TXT record set with this text."""
    strings = [text[start : start + LONGEST_STRING] for start in range(0, len(text), LONGEST_STRING)]
    return " ".join('"{}"'.format(re.sub(r'(["\\])', r"\\\1", one)) for one in strings)


def unquoted(value: str) -> str:
    """Return the text in a TXT record set's value, with its strings joined."""
    return "".join(unescaped(one) for one in _STRING.findall(value))


def _seen(records: Sequence[RecordSet], markers: Sequence[RecordSet]) -> ZoneView:
    plain = [one for one in records if _is_plain_cname(one)]
    return ZoneView(
        record=PublishedRecord(_target(plain[0]), plain[0]["TTL"]) if plain else None,
        others=tuple(sorted(value for one in records if one not in plain for value in _shown(one))),
        markers=tuple(sorted(unquoted(value["Value"]) for one in markers for value in one["ResourceRecords"])),
    )


def _is_plain_cname(one: RecordSet) -> bool:
    """True unless it is an alias or one of several that the service chooses from."""
    return one["Type"] == "CNAME" and "SetIdentifier" not in one and len(one.get("ResourceRecords", ())) == 1


def _target(one: RecordSet) -> str:
    return f"{unescaped(one['ResourceRecords'][0]['Value']).rstrip('.').lower()}."


def _shown(one: RecordSet) -> list[str]:
    """Return records other than plain CNAMEs in zone file format."""
    values = [value["Value"] for value in one.get("ResourceRecords", ())]
    alias = [f"alias {one['AliasTarget']['DNSName']}"] if "AliasTarget" in one else []
    chosen = f" ({one['SetIdentifier']})" if "SetIdentifier" in one else ""
    return [f"{one['Type']} {value}{chosen}" for value in values + alias]


def _record_set(name: str, kind: str, ttl: int, value: str) -> RecordSet:
    return {"Name": name, "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": value}]}


def _permission(zone_id: str) -> str:
    return (
        '{"Effect": "Allow", "Action": ["route53:ListResourceRecordSets", "route53:ChangeResourceRecordSets"], '
        f'"Resource": "arn:aws:route53:::hostedzone/{zone_id}"}}'
    )


def _code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(request: str, *, is_write: bool, line: str = "") -> Iterator[None]:
    """Convert boto3's errors to svcagent's. ``line`` is the IAM statement that grants the right."""
    try:
        yield
    except SvcagentError:
        raise
    except _NO_CREDENTIALS as error:
        remedy = "set AWS_PROFILE or another source of credentials for boto3, or give this host a role"
        raise Denied(f"boto3 has no credentials for Route 53: {error}; {remedy}") from error
    except _NO_ANSWER as error:
        if is_write:
            raise OutcomeUnknown(f"unknown whether Route 53 applied it: {request}: {error}") from error
        raise DnsUnreachable(f"Route 53 does not answer: {error}") from error
    except boto.ClientError as error:
        raise _refused(error, request, is_write=is_write, line=line) from error
    # boto3 raises many types, depending on settings and response: BotoCoreError, KeyError, ValueError, …
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if is_write:
            raise OutcomeUnknown(f"unknown whether Route 53 applied it: {request}: {text}") from error
        raise DnsServerFailed(f"Route 53 failed: {request}: {text}") from error


def _refused(error: boto.ClientError, request: str, *, is_write: bool, line: str) -> SvcagentError:
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _RIGHTS:
        return NotGranted(f"Route 53 does not permit: {request}. Add to the IAM policy: {line}")
    if code in _ERRORS:
        kind, remedy = _ERRORS[code]
        return kind(f"Route 53 refused: {request} ({code}): {remedy}")
    if is_write and status >= SERVERS_FAULT:
        return OutcomeUnknown(f"unknown whether Route 53 applied it: {request}: {error}")
    return DnsServerFailed(f"Route 53 failed: {request}: {error}")
