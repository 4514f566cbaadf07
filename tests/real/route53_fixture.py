"""A simulated Route 53 with one hosted zone, in a process of its own, and an administrator who changes the zone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import requests
from botocore.config import Config

from agent.cname.marker import place
from agent.cname.provider import RecordPlace
from agent.cname.route53 import RecordSet, Route53, unescaped
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.lab.route53 import WITHOUT_RIGHT_TO_WRITE
from tests.lab.server import REPOSITORY, Server

ZONE = "example.test."
PORT = 5080
NOBODYS_PORT = 5081


@dataclass(frozen=True)
class Aws:
    """The simulator; keys are those of `tests.lab.route53`."""

    endpoint: str
    nobody: str
    admin: Any
    zone_id: str
    compares: bool = False
    _opened: list[Any] = field(default_factory=list)

    def environment(self, key: str = "SVCAGENT") -> dict[str, str]:
        """What leads boto3 here, and nowhere else."""
        return {
            "AWS_ENDPOINT_URL_ROUTE_53": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def provider(self, key: str = "SVCAGENT", endpoint: str = "") -> Route53:
        """A provider that asks once; closed with the simulator."""
        client = _client(endpoint or self.endpoint, key)
        self._opened.append(client)
        return Route53(client)

    def powerless(self) -> Route53:
        return self.provider(WITHOUT_RIGHT_TO_WRITE)

    def unreachable(self) -> Route53:
        return self.provider(endpoint=self.nobody)

    def place(self, name: str) -> RecordPlace:
        return place(ZONE, f"{name}.{ZONE}")

    def put(self, name: str, ttl: int, kind: str, *values: str) -> None:
        """The administrator replaces all records of one type."""
        # The service folds names by itself, the simulator does not.
        self.put_set(
            {"Name": name.lower(), "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": one} for one in values]}
        )

    def put_set(self, one: RecordSet) -> None:
        self._change("UPSERT", one)

    def take(self, name: str, kind: str) -> None:
        """The administrator takes all records of one type away."""
        for one in self.version():
            if (unescaped(one["Name"]), one["Type"]) == (name, kind):
                self._change("DELETE", one)

    def version(self) -> list[RecordSet]:
        pages = self.admin.get_paginator("list_resource_record_sets").paginate(HostedZoneId=self.zone_id)
        return [one for page in pages for one in page["ResourceRecordSets"]]

    def close(self) -> None:
        for client in (self.admin, *self._opened):
            client.close()

    def _change(self, action: str, one: RecordSet) -> None:
        changes = {"Changes": [{"Action": action, "ResourceRecordSet": one}]}
        self.admin.change_resource_record_sets(HostedZoneId=self.zone_id, ChangeBatch=changes)


@contextmanager
def simulator() -> Iterator[Aws]:
    """A running simulator with one hosted zone."""
    with claimed() as ground:
        address = ground.address(1)
        endpoint = f"http://{address}:{PORT}"
        server = Server(
            "route 53",
            [sys.executable, "-m", "tests.lab.route53", address, str(PORT)],
            ground.directory / "route53.log",
            environment_in(ground.directory, ground.directory) | {"PYTHONPATH": str(REPOSITORY)},
            lambda: _is_answering(endpoint),
        )
        with server.running():
            admin = _client(endpoint, "ADMIN")
            zone = admin.create_hosted_zone(Name=ZONE, CallerReference="tests")["HostedZone"]
            aws = Aws(endpoint, f"http://{address}:{NOBODYS_PORT}", admin, zone["Id"].rpartition("/")[2])
            try:
                yield aws
            finally:
                aws.close()


def _client(endpoint: str, key: str) -> Any:
    session = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key="secret", region_name="us-east-1")
    once = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 1})
    return session.client("route53", endpoint_url=endpoint, config=once)


def _is_answering(endpoint: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{endpoint}/moto-api/", timeout=2).ok
    except requests.RequestException:
        return False
