"""Which containers would be cut off if another one were replaced."""

from typing import Any

import pytest

from agent.engine.dependants import dependants, namespace_lenders

ID = "0123456789ab" + "0" * 52
WEB = {"Id": ID, "Name": "/web", "HostConfig": {"NetworkMode": "default"}}


def other(**host: Any) -> dict[str, Any]:
    return {"Id": "b" * 64, "Name": "/side", "HostConfig": {"NetworkMode": "default", **host}}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"NetworkMode": f"container:{ID}"}, ("side lives in its network",)),
        ({"PidMode": f"container:{ID}"}, ("side lives in its PID namespace",)),
        ({"IpcMode": "container:web"}, ("side lives in its IPC namespace",)),
        ({"PidMode": f"container:{ID[:12]}"}, ("side lives in its PID namespace",)),
        ({"Links": ["/web:/side/web"]}, ("side is linked to it (--link)",)),
        # A link on a network of its own is a name, which the new container gets.
        ({"NetworkMode": "front", "Links": ["web:web"]}, ()),
        ({"PidMode": "container:web2", "IpcMode": "host", "Links": ["/web2:/side/web"]}, ()),
        # The volumes stay the same ones.
        ({"VolumesFrom": ["web"]}, ()),
    ],
)
def test_what_needs_the_container_itself_is_named(host: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert dependants(WEB, [other(**host), WEB]) == expected


def test_the_containers_whose_namespaces_it_needs() -> None:
    """That of the network is refused altogether."""
    mine = other(PidMode="container:db", IpcMode="shareable")

    assert namespace_lenders(mine) == {"db": "PID namespace"}
