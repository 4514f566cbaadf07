"""The table of DNS providers, by the name in definitions and settings. `provider` has their protocol."""

from collections.abc import Callable, Mapping

from agent.clock import Clock
from agent.cname.provider import Provider
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Fault


def _rfc2136(settings: DnsSettings, clock: Clock) -> Provider:
    from agent.cname.rfc2136 import Rfc2136

    return Rfc2136.from_settings(settings, clock)


def _route53(settings: DnsSettings, clock: Clock) -> Provider:
    try:
        from agent.cname.route53 import Route53
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        remedy = "install it where svcagent is: pip install 'svcagent[route53]'; or choose another provider"
        fault = Fault("settings", "dns.provider", f"route53 needs {error.name}, which is not installed", remedy)
        raise BadDefinition([fault]) from error

    return Route53.from_settings(settings, clock)


PROVIDERS: Mapping[str, Callable[[DnsSettings, Clock], Provider]] = {
    "rfc2136": _rfc2136,
    "route53": _route53,
}
"""Each row imports its provider when it is opened."""
