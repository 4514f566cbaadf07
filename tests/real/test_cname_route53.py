"""What is Route 53's own: its batches, its names and values, its refusals, and what it promises less than RFC 2136.

What all providers keep to is in ``test_cname_contract.py``. Record names as the service writes them (``\\052``) and its
refusal of a DELETE that does not fit are not simulated: the first is a table here, of the second what is sent is seen.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cname.provider import (
    NOTHING,
    PROVIDERS,
    BadSignature,
    ClockSkewed,
    NotAuthoritative,
    NotGranted,
    PublishedRecord,
    Raced,
    RecordPlace,
    UnknownKey,
    ZoneView,
)
from agent.cname.route53 import Route53, quoted, unescaped, unquoted
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Denied, OutcomeUnknown
from tests.lab import route53 as gate
from tests.real.cname_fixture import OTHER_TARGET, TARGET, marked, view
from tests.real.conftest import ConsulHost
from tests.real.route53_fixture import ZONE, Aws, simulator
from tests.support.kinds import raises_kind
from tests.support.svcagent import Svcagent

CHANGE = "before-parameter-build.route-53.ChangeResourceRecordSets"


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with simulator() as running:
        yield running


@pytest.fixture
def place(aws: Aws, number: int) -> RecordPlace:
    """A name of its own for a test."""
    return aws.place(f"www{number}")


def before_changes(provider: Route53, what: Callable[[dict[str, Any]], None]) -> None:
    """Call with every change batch before it is sent."""
    provider.client.meta.events.register(CHANGE, lambda params, **_: what(params["ChangeBatch"]))


def batches_of(provider: Route53) -> list[list[tuple[str, str, str]]]:
    """Action, name and type of every change that is sent from now on, by batch."""
    sent: list[list[tuple[str, str, str]]] = []
    before_changes(
        provider,
        lambda batch: sent.append(
            [
                (one["Action"], one["ResourceRecordSet"]["Name"], one["ResourceRecordSet"]["Type"])
                for one in batch["Changes"]
            ]
        ),
    )
    return sent


def test_record_and_marker_go_in_one_batch(aws: Aws, place: RecordPlace) -> None:
    """And nothing is sent where nothing is to be changed."""
    provider = aws.provider()
    batches = batches_of(provider)
    record, marker = marked()

    provider.write(place, NOTHING, view(record, marker))
    provider.write(place, provider.read(place), view(record, marker))

    assert batches == [[("UPSERT", place.name, "CNAME"), ("UPSERT", place.marker, "TXT")]]


def test_a_write_between_read_and_upsert_is_overwritten(aws: Aws, place: RecordPlace) -> None:
    """The stated weakness; a write before that read is not, as the contract tests show."""
    provider = aws.provider()
    before_changes(provider, lambda _batch: aws.put(place.name, 60, "CNAME", OTHER_TARGET))
    record, marker = marked()

    provider.write(place, NOTHING, view(record, marker))

    assert provider.read(place) == view(record, marker)


def test_a_removal_names_the_values_that_it_takes(aws: Aws, place: RecordPlace) -> None:
    """So that the service refuses it where others stand by then."""
    provider = aws.provider()
    record, marker = marked(ttl=77)
    provider.write(place, NOTHING, view(record, marker))
    sent: list[Any] = []
    before_changes(provider, lambda batch: sent.extend(batch["Changes"]))

    provider.write(place, view(record, marker), NOTHING)

    values = [
        (one["Action"], one["ResourceRecordSet"]["TTL"], one["ResourceRecordSet"]["ResourceRecords"]) for one in sent
    ]
    assert values == [("DELETE", 77, [{"Value": TARGET}]), ("DELETE", 60, [{"Value": quoted(marker)}])]


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (
            {"Type": "A", "AliasTarget": {"HostedZoneId": "Z1", "DNSName": "lb.test.", "EvaluateTargetHealth": False}},
            "A alias lb.test.",
        ),
        (
            {"Type": "CNAME", "TTL": 60, "SetIdentifier": "blue", "Weight": 1, "ResourceRecords": [{"Value": TARGET}]},
            f"CNAME {TARGET} (blue)",
        ),
    ],
)
def test_what_only_route53_has_is_shown_as_is(aws: Aws, place: RecordPlace, more: dict[str, Any], shown: str) -> None:
    """An alias, and one of several records that the service chooses from: neither is a plain CNAME."""
    aws.put_set({"Name": place.name, **more})
    provider = aws.provider()

    seen = provider.read(place)
    with pytest.raises(Raced):
        provider.write(place, NOTHING, view(*marked()))

    assert seen == provider.read(place) == ZoneView(others=(shown,))


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (gate.UNKNOWN, UnknownKey, "set another"),
        (gate.EXPIRED, UnknownKey, "renew it"),
        (gate.WRONG_SECRET, BadSignature, "secret key"),
        (gate.LATE, ClockSkewed, "clock"),
    ],
)
def test_refusals_are_distinguished(aws: Aws, place: RecordPlace, key: str, error: type[Denied], says: str) -> None:
    """Each with what to do about it, and without the secret."""
    with pytest.raises(error, match=says) as raised:
        aws.provider(key).read(place)

    assert "secret" not in str(raised.value).replace("secret key", "")


def test_a_missing_right_is_named_as_the_statement_to_add(aws: Aws, place: RecordPlace) -> None:
    """For the zone that is meant, ready to be put into the policy."""
    with pytest.raises(NotGranted) as raised:
        aws.powerless().preflight(place)

    statement = json.loads(str(raised.value).partition("Add to the IAM policy: ")[2])
    assert statement["Resource"] == f"arn:aws:route53:::hostedzone/{aws.zone_id}"
    assert "route53:ChangeResourceRecordSets" in statement["Action"]


def test_a_lost_reply_is_reported_as_unknown(aws: Aws, place: RecordPlace) -> None:
    """The change was carried out, and whoever reads again knows it."""
    provider = aws.provider(gate.LOSES_REPLIES)
    record, marker = marked()

    with pytest.raises(OutcomeUnknown):
        provider.write(place, NOTHING, view(record, marker))

    assert provider.read(place) == view(record, marker)


@pytest.mark.parametrize(("zones", "says"), [((), "has no hosted zone"), (("a", "b"), "has several hosted zones")])
def test_a_zone_that_is_not_there_once_is_refused(aws: Aws, zones: tuple[str, ...], says: str) -> None:
    """Public and private zones may have one name: nobody can tell which is meant."""
    made = [aws.admin.create_hosted_zone(Name="other.test.", CallerReference=one)["HostedZone"]["Id"] for one in zones]

    with pytest.raises(NotAuthoritative, match=says):
        aws.provider().read(RecordPlace("other.test.", "www.other.test.", "cname-www._svcagent.other.test."))

    for zone in made:
        aws.admin.delete_hosted_zone(Id=zone)


def test_names_around_one_that_is_not_there_are_not_taken_for_it(aws: Aws) -> None:
    """A list starts with the next one in the zone's order."""
    record, marker = marked()
    for name in ("a.list", "c.list", "b.b.list"):
        aws.provider().write(aws.place(name), NOTHING, view(record, marker))

    assert aws.provider().read(aws.place("b.list")) == NOTHING


@pytest.mark.parametrize(
    ("escaped", "name"),
    [("\\052.example.test.", "*.example.test."), ("www.example.test.", "www.example.test."), ("a\\\\b.", "a\\b.")],
)
def test_names_as_the_service_writes_them(escaped: str, name: str) -> None:
    """Route 53 Developer Guide, "DNS domain name format"."""
    assert unescaped(escaped) == name


@pytest.mark.parametrize("text", ["", "plain", 'with "quotes" and \\', "x" * 600, "a" * 254 + '"b'])
def test_a_text_survives_the_services_form(text: str) -> None:
    value = quoted(text)

    assert unquoted(value) == text
    assert all(len(unescaped(one)) <= 255 for one in value.strip('"').split('" "'))


def test_credentials_and_endpoint_are_boto3s_own(aws: Aws, place: RecordPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    provider = PROVIDERS["route53"](DnsSettings())
    record, marker = marked()

    provider.write(place, NOTHING, view(record, marker))

    assert aws.provider().read(place).record == record
    provider.close()


def test_credentials_are_needed(aws: Aws, place: RecordPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in aws.environment().items():
        if "KEY" not in name:
            monkeypatch.setenv(name, value)
    provider = PROVIDERS["route53"](DnsSettings())

    with raises_kind(Denied, "denied"):
        provider.read(place)
    provider.close()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Denied, match="nobody"):
        PROVIDERS["route53"](DnsSettings())


def test_without_the_extra_its_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not use Route 53 does not need boto3."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "agent.cname.route53")

    with pytest.raises(BadDefinition, match=r"pip install 'svcagent\[route53\]'"):
        PROVIDERS["route53"](DnsSettings())


def test_svcagent_keeps_a_record_there(aws: Aws, host: ConsulHost, svcagent: Svcagent) -> None:
    cname = {"name": "*", "zone": ZONE, "tag": "production", "provider": "route53"}
    definition = {"service": {"name": "chocon", "tags": ["production"], "port": 80}, "cname": [cname]}
    (svcagent.services_dir / "chocon.json").write_text(json.dumps(definition))
    settings = aws.environment() | {
        "CONSUL_HTTP_ADDR": host.settings.address,
        # Nobody's: the simulator has no name servers.
        "SVCAGENT_DNS_RESOLVER": f"{host.address}:9",
    }

    def sync(*more: str) -> str:
        done = svcagent("--json", "cname", "sync", "--wait", "0s", *more, **settings)
        assert done.code == 0, done.text
        return str(json.loads(done.out)["records"][0]["outcome"])

    outcomes = [sync("--force"), sync()]
    aws.take(f"*.{ZONE}", "CNAME")
    outcomes.append(sync("--force"))
    removed = svcagent("cname", "remove", f"*.{ZONE}", **settings)

    assert outcomes == ["created", "in place", "repaired"]
    assert removed.code == 0, removed.text
    assert aws.provider().read(aws.place("*")) == NOTHING


def test_a_record_and_a_ttl_are_as_they_were_given(aws: Aws, place: RecordPlace) -> None:
    """A target that somebody wrote without its last dot is the same target."""
    aws.put(place.name, 5, "CNAME", TARGET.rstrip("."))

    assert aws.provider().read(place) == ZoneView(record=PublishedRecord(TARGET, 5))
