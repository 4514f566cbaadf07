"""The fields that svcagent requires in Consul's responses. A response without one of them is rejected as a whole."""

from agent.shapes import Shape

CHECK: Shape = {
    "CheckID": str,
    "Name": str,
    "Status": str,
    "Notes?": str,
    "ServiceID?": str,
    "Output?": str,
    "Type?": str,
}
CHECKS: Shape = [CHECK]

SELF: Shape = {
    "Config": {"NodeName": str, "Datacenter": str, "Version": str},
    "DebugConfig": {
        "DNSDomain": str,
        "DNSAddrs?": [str],
        "AdvertiseAddrLAN?": str,
        "EnableRemoteScriptChecks?": bool,
        "ServerMode?": bool,
        "LeaveOnTerm?": bool,
        "DisableCoordinates?": bool,
    },
    "Member?": {"Addr?": str},
}

SERVICES: Shape = {
    "*": {
        "ID": str,
        "Service": str,
        "Tags?": [str],
        "Port": int,
        "Ports?": [{"Name": str, "Port": int, "Default?": bool}],
        "Address?": str,
        "Meta?": {"*": str},
        "Weights?": {"Passing": int, "Warning": int},
        "TaggedAddresses?": {"*": {"Address": str, "Port?": int}},
        "EnableTagOverride?": bool,
    }
}

INSTANCES: Shape = [
    {
        "Node": {"Node": str, "Address": str},
        "Service": {"ID": str, "Address": str, "Port": int},
        "Checks": CHECKS,
    }
]

PAIRS: Shape = [
    {"Key": str, "Value?": str, "Flags": int, "Session?": str, "ModifyIndex": int, "CreateIndex": int},
]

SESSIONS: Shape = [{"ID": str, "Name?": str, "Node": str}]

TRANSACTION: Shape = {"Errors?": [{"OpIndex": int, "What": str}]}
