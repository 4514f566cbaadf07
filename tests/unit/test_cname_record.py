"""The records that definitions ask for."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cname import PublishedRecord, WantedRecord, located, wanted_records
from agent.definitions import load
from agent.errors import BadDefinition

ORIGIN = Path(__file__).parents[2] / "services.d"


def wanted(
    tmp_path: Path, *cnames: dict[str, Any], name: str = "chocon", **files: dict[str, Any]
) -> tuple[WantedRecord, ...]:
    """What one definition with these CNAMEs asks for, and what ``files`` ask for besides."""
    content = {"service": {"name": name}, "cname": list(cnames)}
    for file, written in {"chocon": content, **files}.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(written))
    return wanted_records(load(tmp_path), "dc1", "consul", "rfc2136")


def faults(tmp_path: Path, *cnames: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(BadDefinition) as caught:
        wanted(tmp_path, *cnames, **more)
    return [f"{fault.path}: {fault.problem}" for fault in caught.value.faults]


def test_the_origins_record() -> None:
    (record,) = wanted_records(load(ORIGIN), "dc1", "consul", "rfc2136")

    assert record.name == "*.ccnproxy-https."
    assert record.record.target == "production.chocon.service.dc1.consul."
    assert record.owner == "chocon/production/dc1"
    assert (record.zone, record.provider, record.gen) == ("", "rfc2136", 0)


@pytest.mark.parametrize(
    ("cname", "name", "target", "owner"),
    [
        ({"name": "www.example.org."}, "www.example.org.", "chocon.service.dc1.consul.", "chocon/-/dc1"),
        ({"name": "WWW", "zone": "Example.ORG"}, "www.example.org.", "chocon.service.dc1.consul.", "chocon/-/dc1"),
        ({"name": "*", "zone": "example.org."}, "*.example.org.", "chocon.service.dc1.consul.", "chocon/-/dc1"),
        ({"name": "a.b", "zone": "c."}, "a.b.c.", "chocon.service.dc1.consul.", "chocon/-/dc1"),
        ({"name": "w.", "tag": "Blue"}, "w.", "blue.chocon.service.dc1.consul.", "chocon/blue/dc1"),
        ({"name": "w.", "tag": "blue", "target": "lb.example.net"}, "w.", "lb.example.net.", "chocon/blue/dc1"),
    ],
)
def test_names_targets_and_owners(tmp_path: Path, cname: dict[str, Any], name: str, target: str, owner: str) -> None:
    """Complete, in lower case; the owner is the service, whatever its target."""
    (record,) = wanted(tmp_path, cname)

    assert (record.name, record.record.target, record.owner) == (name, target, owner)


def test_all_that_a_definition_may_say(tmp_path: Path) -> None:
    (record,) = wanted(tmp_path, {"name": "w.z.", "zone": "z.", "ttl": 5, "gen": 3, "provider": "rfc2136"})

    assert (record.record.ttl, record.gen, record.zone) == (5, 3, "z.")
    assert (record.file.name, record.path) == ("chocon.json", "cname[0]")
    assert record.is_in_consul
    assert not wanted(tmp_path, {"name": "w.z.", "target": "lb.example.net."})[0].is_in_consul


def test_one_record_twice_with_one_content_is_one(tmp_path: Path) -> None:
    cname = {"name": "www.example.org."}
    other = {"service": {"name": "chocon", "id": "chocon2"}, "cname": [cname]}

    assert len(wanted(tmp_path, cname, other=other)) == 1


@pytest.mark.parametrize("other", [{"ttl": 5}, {"gen": 1}, {"tag": "blue"}, {"target": "x.example."}, {"zone": "org."}])
def test_one_record_twice_with_other_content_is_a_fault(tmp_path: Path, other: dict[str, Any]) -> None:
    name = {"name": "www.example.org."}

    (fault,) = faults(tmp_path, name, {**name, **other})

    assert fault.startswith("cname[1].name: www.example.org. is also published by")


def test_a_provider_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(BadDefinition, match="rfc2136") as caught:
        wanted(tmp_path, {"name": "w.", "provider": "bind9"})

    assert "cname[0].provider" in str(caught.value)


@pytest.mark.parametrize(
    ("cname", "path", "said"),
    [
        ({"name": "www"}, "cname[0].name", "is unknown"),
        ({"name": "*"}, "cname[0].name", "is unknown"),
        ({"name": "example.org.", "zone": "example.org"}, "cname[0].name", "apex of its zone"),
        ({"name": "www.example.org.", "zone": "example.net."}, "cname[0].name", "not in the zone"),
        ({"name": "badexample.org.", "zone": "example.org."}, "cname[0].name", "not in the zone"),
        ({"name": "a.*.example.org."}, "cname[0].name", "not a DNS name"),
        ({"name": "a*.example.org."}, "cname[0].name", "not a DNS name"),
        ({"name": "*.*.example.org."}, "cname[0].name", "not a DNS name"),
        ({"name": "_wildcard.example.org."}, "cname[0].name", "reserved for svcagent"),
        ({"name": "cname-www._svcagent.example.org."}, "cname[0].name", "reserved for svcagent"),
        ({"name": f"{'a' * 58}.example.org."}, "cname[0].name", "is too long"),
        ({"name": "a." * 115}, "cname[0].name", "is too long"),
        ({"name": "w.z.", "target": "w.z."}, "cname[0].target", "points at itself"),
        ({"name": "*.z.", "target": "A.b.z"}, "cname[0].target", "points at itself"),
        ({"name": "w.z.", "tag": "a.b"}, "cname[0].tag", "cannot be looked up"),
        ({"name": "w.z.", "tag": ["a", "b"]}, "cname[0].tag", "is an array"),
        ({"name": "w.z.", "gen": -1}, "cname[0].gen", "out of range"),
    ],
)
def test_faults_that_the_file_shows(tmp_path: Path, cname: dict[str, Any], path: str, said: str) -> None:
    (fault,) = faults(tmp_path, cname)

    assert fault.startswith(f"{path}: ")
    assert said in fault


@pytest.mark.parametrize("name", ["chocon.v2", "chocon v2", "-chocon"])
def test_a_service_that_consul_dns_has_no_name_for(tmp_path: Path, name: str) -> None:
    (fault,) = faults(tmp_path, {"name": "w.z."}, name=name)

    assert fault.startswith("service.name: ")
    assert "cannot be looked up" in fault


def test_zones_are_asked_for_where_none_is_named(tmp_path: Path) -> None:
    records = wanted(tmp_path, {"name": "a.z.", "zone": "z."}, {"name": "b.y."})
    asked = []

    def find(name: str) -> str:
        asked.append(name)
        return "y."

    assert [one.zone for one in located(records, find)] == ["z.", "y."]
    assert asked == ["b.y."]
    with pytest.raises(BadDefinition, match="apex of its zone"):
        located(records, lambda name: name)
    with pytest.raises(BadDefinition, match="not in the zone"):
        located(records, lambda _name: "elsewhere.")


def test_a_wanted_record_knows_its_place_and_its_marker(tmp_path: Path) -> None:
    (record,) = wanted(tmp_path, {"name": "*", "zone": "z.", "tag": "blue", "gen": 2})

    assert record.place.marker == "cname-_wildcard._svcagent.z."
    assert record.record == PublishedRecord("blue.chocon.service.dc1.consul.", 60)
    assert record.marker == (
        "heritage=svcagent v=1 owner=chocon/blue/dc1 gen=2 ttl=60 target=blue.chocon.service.dc1.consul."
    )
