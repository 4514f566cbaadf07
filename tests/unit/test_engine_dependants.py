"""Which containers would be cut off if another one were replaced."""

from typing import Any

import pytest

from agent.engine.startable import dependants, namespace_owners

ID = "0123456789ab" + "0" * 52
WEB = {"Id": ID, "Name": "/web", "HostConfig": {"NetworkMode": "default"}}


def other(status: str = "running", **host: Any) -> dict[str, Any]:
    return {
        "Id": "b" * 64,
        "Name": "/side",
        "State": {"Running": status == "running", "Status": status},
        "HostConfig": {"NetworkMode": "default", **host},
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"NetworkMode": f"container:{ID}"}, ("side uses its network",)),
        ({"PidMode": f"container:{ID}"}, ("side uses its PID namespace",)),
        ({"IpcMode": "container:web"}, ("side uses its IPC namespace",)),
        ({"PidMode": f"container:{ID[:12]}"}, ("side uses its PID namespace",)),
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


@pytest.mark.parametrize(
    ("status", "policy", "is_named"),
    [
        ("exited", "no", False),
        ("exited", "", False),
        ("exited", "unless-stopped", True),
        ("exited", "on-failure", True),
        ("created", "no", True),
        ("dead", "no", True),
    ],
)
def test_one_that_has_ended_for_good_needs_nothing_any_more(status: str, policy: str, is_named: bool) -> None:
    """Others that do not run are called so, with the command that removes them."""
    side = other(status, PidMode="container:web", RestartPolicy={"Name": policy})

    stopped = "side uses its PID namespace (stopped; if it is not needed, docker rm side)"
    assert dependants(WEB, [side]) == ((stopped,) if is_named else ())


def test_the_containers_whose_namespaces_it_needs() -> None:
    mine = other(PidMode="container:db", IpcMode="shareable")

    assert namespace_owners(mine) == {"db": "PID namespace"}
