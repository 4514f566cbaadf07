"""Notifications to systemd: ready, alive, status, stopping (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000


class Systemd:
    """The service manager. Without one, all methods do nothing. Call `status` regularly.

    ``watchdog_seconds`` is how often to call `alive`: half of the watchdog's timeout, as sd_watchdog_enabled(3)
    advises; None without a watchdog.
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
        """Report the end of the first convergence, or of a re-reading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that SIGHUP was received."""
        self._send("RELOADING=1")

    def stopping(self) -> None:
        """Report that the daemon restores the services of its reloads, and ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """Set the line in ``systemctl status``; sent when it changes."""
        line = " ".join(line.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")
        elif self._untold:
            self._tell_all()

    def _send(self, assignment: str) -> None:
        if self._address:
            self._untold[assignment.partition("=")[0]] = assignment
            self._tell_all()

    def _tell_all(self) -> None:
        """Send all pending notifications, including those that a busy or restarting service manager did not take."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            for name in list(self._untold):
                channel.sendto(self._untold[name].encode(), self._address)
                del self._untold[name]
