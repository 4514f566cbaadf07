"""The part of Consul's API that svcagent uses, with svcagent's own types."""

from agent.consul.catalog_api import CatalogApi
from agent.consul.kv_api import KvApi


class Consul(CatalogApi, KvApi):
    """One connection to the local agent. It must not be used by two threads at a time; see `another`."""

    def another(self) -> "Consul":
        other = Consul(self._settings)
        other._transport.failures.node = self._transport.failures.node
        return other
