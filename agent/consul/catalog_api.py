"""The catalog and its health view, as clients see them, read from the leader."""

from agent.consul import answers
from agent.consul.agent_api import AgentApi
from agent.consul.base import checked, index_of, is_filtered, parsed, read_params
from agent.consul.model import CheckState, Instance
from agent.http import HttpAnswer


class CatalogApi(AgentApi):
    _may_read_nodes = False

    def instances(self, service: str, index: int | None = None, wait: float = 0.0) -> tuple[int, tuple[Instance, ...]]:
        """Return all instances of a service, read from the leader.

        :raises Denied: the token does not show all instances, or there are none and it could not see one on this host.
        """

        def parse(answer: HttpAnswer) -> tuple[bool, int, tuple[Instance, ...]]:
            found = tuple(map(Instance.parse, checked(answer, answers.INSTANCES)))
            return not is_filtered(answer), index_of(answer), found

        path = f"/v1/health/service/{service}"
        is_whole, new, found = self._transport.get(parse, path, read_params(index, wait))
        if not found:
            self._assert_may_read_nodes()
        if not is_whole:
            # If some instances are shown, the token lacks node:read for the others, not service:read.
            raise self._transport.failures.lacking("GET", "/v1/health/node/" if found else path)
        return new, found

    def _assert_may_read_nodes(self) -> None:
        """Raise Denied without ``node:read``: health responses are then empty. A visible own node has checks."""
        if not self._may_read_nodes:
            path = f"/v1/health/node/{self._transport.failures.node or self.agent_self().node}"
            if not self._transport.get(parsed(list, answers.CHECKS), path, read_params()):
                raise self._transport.failures.lacking("GET", path)
            self._may_read_nodes = True

    def node_checks(self, node: str, index: int | None = None, wait: float = 0.0) -> tuple[int, dict[str, CheckState]]:
        """Return all checks of a host and its services by id, read from the leader; empty without ``node:read``."""

        def parse(answer: HttpAnswer) -> tuple[int, dict[str, CheckState]]:
            found = map(CheckState.parse, checked(answer, answers.CHECKS))
            return index_of(answer), {check.id: check for check in found}

        return self._transport.get(parse, f"/v1/health/node/{node}", read_params(index, wait))

    def is_node_known(self, node: str) -> bool:
        """True if the agent's own datacenter has a node of this name."""
        return self._whole(parsed(bool, object), f"/v1/catalog/node/{node}")
