"""svcagent: a host agent for fleets that run on Consul."""

__version__ = "0.1.0"
