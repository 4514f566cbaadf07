"""The options of ``scripts/demo``, which runs this file first: it needs Python alone, before anything is installed."""

import argparse

DESCRIPTION = "Rolls a service from one image to the next on several hosts, under load, and counts every request."


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=DESCRIPTION)
    parser.add_argument("--hosts", type=int, default=2, metavar="N", help="hosts of the fleet, 2 to 9 (default 2)")
    parser.add_argument(
        "--load-seconds", type=float, default=3.0, metavar="S", help="how long a container loads its index (default 3)"
    )
    parser.add_argument("--rate", type=float, default=400.0, metavar="R", help="requests per second (default 400)")
    parser.add_argument("--compare", action="store_true", help="first the shell script that svcagent replaces")
    parser.add_argument("--chocon", action="store_true", help="proxies that clients reach through a CNAME, instead")
    parser.add_argument(
        "--no-settle",
        action="store_true",
        help="set settle.canary and settle.each to 0s; without it, the defaults hold",
    )
    parser.add_argument("--json", action="store_true", help="the measurements as one JSON document, without the view")
    options = parser.parse_args()
    if not 2 <= options.hosts <= 9:
        parser.error("--hosts must be 2 to 9: with fewer nobody is left to answer, with more the machine is the limit")
    if not 0 <= options.load_seconds <= 60:
        parser.error("--load-seconds must be 0 to 60")
    if options.compare and options.chocon:
        parser.error("--compare is about keyword-suggest: leave out --chocon, or run the two after each other")
    return options


if __name__ == "__main__":
    parsed()
