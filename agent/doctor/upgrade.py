"""What an upgrade of the Docker Engine or of Consul will change on this host."""

import re
from collections.abc import Collection, Iterator

from agent.doctor.diagnosis import Diagnosis, error, note, ok, warning
from agent.doctor.examined import ExaminedHost
from agent.engine.model import Inspect
from agent.engine.survey import EngineFacts
from agent.errors import ConsulUnreachable, SvcagentError

LINKS_OFF, LINKS_GONE = 29, 30
"""The major Engine versions that disable the environment variables of ``--link`` by default, and remove them."""

STORE_CHANGED = 29
"""The first Engine whose fresh installations use containerd's image store."""

LAST_API = (1, 51)
"""The newest API that svcagent supports."""

PORTABLE_KEY = re.compile(r"[A-Za-z0-9,_./\-?&=]+")
"""Consul 1.21.5 refuses other keys, for reads too."""


def judge_container(name: str, service_id: str, found: Inspect, major: int) -> Iterator[Diagnosis]:
    """Judge what a later Engine does to one container. ``major`` is the current Engine's version."""
    if found["HostConfig"].get("Links"):
        judge = note if major < LINKS_OFF else warning
        remedy = "use a user-defined network, where containers find each other by name"
        yield judge(
            f"container {name} uses --link: Engine {LINKS_OFF} disables its environment variables by default, Engine "
            f"{LINKS_GONE} removes them",
            remedy,
            service_id,
        )
    if found["Config"].get("MacAddress"):
        remedy = "recreate it with the address on its network: --network name=NETWORK,mac-address=ADDRESS"
        yield note(
            f"container {name} has a container-wide MAC address, which API 1.52 (Engine 29) drops",
            remedy,
            service_id,
        )


def examine_containers(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        major = _major(engine.facts())
        for one in examined.containers:
            found = engine.container(one.strategy.container)
            if found is not None:
                yield from judge_container(one.strategy.container, one.service.id, found, major)
    yield ok("all containers were checked")


def judge_upgrade(found: EngineFacts) -> Iterator[Diagnosis]:
    if not found.has_containerd_store:
        yield note(
            f"Engine {found.version} uses the classic image store; a fresh installation of Engine {STORE_CHANGED} or "
            "later uses containerd's, which starts without images",
            "upgrade in place to keep the store; after a fresh installation, start each container once by hand",
        )
    if _api(found.least_api) > LAST_API:
        yield error(
            f"Engine {found.version} supports API {found.least_api} or later, svcagent at most "
            f"{'.'.join(map(str, LAST_API))}",
            "upgrade svcagent, or set min-api-version in the Engine's daemon.json",
        )
    else:
        yield ok(f"svcagent supports an API version of Engine {found.version}")


def examine_engine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        yield from judge_upgrade(engine.facts())


def judge_keys(service_id: str, keys: Collection[str]) -> Iterator[Diagnosis]:
    """Judge keys of Consul KV by the rule of Consul 1.21.5."""
    unportable = sorted(key for key in keys if not PORTABLE_KEY.fullmatch(key))
    if unportable:
        yield note(
            f"keys with characters that Consul 1.21.5 refuses: {len(unportable)}, for example {unportable[0]!a}",
            "svcagent replaces keys of older releases when it writes them; name a lock with letters, digits, dashes, "
            "underscores, dots and slashes only",
            service_id,
        )


def examine_keys(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul() as consul:
        for service, reload in examined.reloads:
            lock = reload.lock_prefix(service.name)
            try:
                keys = consul.kv_keys(f"svcagent/{service.name.lower()}/")
            except ConsulUnreachable:
                raise
            except SvcagentError:  # a missing right
                keys = ()
            yield from judge_keys(service.id, {*keys, f"{lock}/.lock"})
    yield ok("all keys were checked")


def _major(found: EngineFacts) -> int:
    match = re.match(r"\d+", found.version)
    return int(match[0]) if match else 0


def _api(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
