"""Docker: the Engine, what a socket proxy refuses, containers that cannot be recreated, credentials, registries."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from agent.doctor.diagnosis import Diagnosis, error, note, ok, unknown, warning
from agent.doctor.examined import ExaminedHost, ReloadedContainer
from agent.engine.client import Engine
from agent.engine.reference import parse
from agent.engine.stopped import find_stopped
from agent.engine.survey import EngineFacts, RefusedSection
from agent.errors import Conflict, NotFound, SvcagentError
from agent.files import NotRegularFile, read_regular
from agent.shapes import WrongShape, require

HELPER = "docker-credential-"
_CREDENTIALS = {"credsStore?": str, "credHelpers?": {"*": str}}


def examine_engine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    try:
        with examined.engine_survey() as engine:
            found = engine.facts()
    except SvcagentError as failure:
        yield error(str(failure), "correct this first: no container can be reloaded until then")
        return
    yield judge_engine(found)


def judge_engine(found: EngineFacts) -> Diagnosis:
    if found.is_rootless:
        return note(
            f"Engine {found.version} is rootless: connections to published ports come from its own proxy",
            'if a drain cuts off clients, set "drain": {"connections": false, "min": …} in the definition',
        )
    store = "containerd's" if found.has_containerd_store else "the classic"
    return ok(f"Engine {found.version}, API {found.least_api} to {found.api}, {store} image store")


def judge_sections(refused: Collection[RefusedSection]) -> Iterator[Diagnosis]:
    by_section: dict[str, list[str]] = {}
    for one in refused:
        by_section.setdefault(one.section, []).append(one.purpose)
    for section, purposes in by_section.items():
        yield error(
            f"the Docker socket refuses {section}, which svcagent requires to {', '.join(purposes)}",
            f"allow {section} in the socket proxy, or set DOCKER_HOST to the Engine's own socket",
        )
    if not refused:
        yield ok("the Docker socket allows all required sections of the API")


def examine_sections(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        yield from judge_sections(engine.refused_sections())


def examine_containers(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine() as engine:
        for one in examined.containers:
            yield _container(engine, one)


def _container(engine: Engine, one: ReloadedContainer) -> Diagnosis:
    name, service_id = one.strategy.container, one.service.id
    try:
        engine.check_recreatable(name)
        stopped = find_stopped(name, engine.find(name))
    except (Conflict, NotFound) as found:
        return error(str(found), "correct that: every reload is refused until then", service_id)
    except SvcagentError as found:
        return unknown(f"container {name} not checked: {found}", service=service_id)
    if stopped is not None:
        return warning(stopped.what, stopped.remedy, service_id)
    return ok(f"container {name} can be recreated", service_id)


def judge_credentials(
    config: Mapping[str, Any], registries: Collection[str], file: str, has_program: Callable[[str], bool]
) -> Iterator[Diagnosis]:
    """Judge the credential helpers that Docker's configuration names for these registries."""
    helpers = config.get("credHelpers") or {}
    used = {helpers.get(registry) or config.get("credsStore") or "" for registry in registries} - {""}
    for helper in sorted(used):
        if not has_program(f"{HELPER}{helper}"):
            remedy = f"install {HELPER}{helper} in svcagent's PATH, or remove the helper from {file}"
            yield error(f"{file} names the credential helper {helper}, but {HELPER}{helper} is not installed", remedy)
    if not used:
        yield ok(f"{file} names no credential helper for the registries in use")


def examine_credentials(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        file = engine.credentials_file
    try:
        config = json.loads(read_regular(file))
        require(config, _CREDENTIALS)
    except FileNotFoundError:
        yield ok(f"no credentials for registries: {file} does not exist")
        return
    except PermissionError as found:
        yield unknown(f"{file} cannot be read: {found.strerror}", "run as the user that svcagent runs as")
        return
    except (OSError, NotRegularFile, WrongShape, ValueError, RecursionError) as found:
        yield error(
            f"{file} is ignored: {found}", "correct it: svcagent queries registries without credentials until then"
        )
        return
    registries = {parse(one.strategy.image).registry for one in examined.containers}
    path = examined.environ.get("PATH")
    yield from judge_credentials(
        config, registries, str(file), lambda program: shutil.which(program, path=path) is not None
    )


def examine_registries(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Request the digest of every image, as the first step of a reload does."""
    with examined.engine() as engine:
        for one in examined.containers:
            try:
                digest = engine.registry_digest(one.strategy.image)
            except SvcagentError as found:
                remedy = f"correct that: no reload takes a newer {one.strategy.image} until then"
                yield error(str(found), remedy, one.service.id)
            else:
                yield ok(f"{one.strategy.image} is {digest}", one.service.id)
