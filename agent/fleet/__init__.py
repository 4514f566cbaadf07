"""What hosts tell each other through Consul KV, under ``svcagent/<service>/``."""

from agent.fleet.host_state import HostState, write_host_state

__all__ = ["HostState", "write_host_state"]
