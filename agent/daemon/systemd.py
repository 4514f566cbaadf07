"""What systemd is told of the daemon: ready, alive, what it is doing, stopping (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000


class Systemd:
    """The service manager, if there is one; without it nothing is told to nobody. Call `status` all the time.

    ``watchdog_seconds``: how often it wants to hear that the daemon lives; None if it does not. Half of what systemd
    waits for, as sd_watchdog_enabled(3) advises.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte of an abstract socket's name.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._untold: dict[str, str] = {}
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / MICROSECONDS / 2 if microseconds.isdigit() and is_meant else None

    def ready(self) -> None:
        """The first convergence is over, or a re-reading."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """SIGHUP came."""
        self._tell("RELOADING=1")

    def stopping(self) -> None:
        """The daemon puts back what its reloads took out, and ends."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """The watchdog's question, answered."""
        self._tell("WATCHDOG=1")

    def status(self, line: str) -> None:
        """What ``systemctl status`` shows; told when it has changed."""
        line = " ".join(line.split())
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")
        elif self._untold:
            self._tell_all()

    def _tell(self, assignment: str) -> None:
        if self._address:
            self._untold[assignment.partition("=")[0]] = assignment
            self._tell_all()

    def _tell_all(self) -> None:
        """Also what a service manager that was busy did not take; one that is gone is told as soon as it is back."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            for name in list(self._untold):
                channel.sendto(self._untold[name].encode(), self._address)
                del self._untold[name]
