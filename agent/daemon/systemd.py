"""Notifications to systemd: ready, alive, status, stopping (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000


class Systemd:
    """The service manager. Without one, all methods do nothing. Call `status` regularly.

    ``watchdog_seconds`` is how often to send ``WATCHDOG=1``: half of the watchdog's timeout, as sd_watchdog_enabled(3)
    advises; None without a watchdog.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An @ means the zero byte of an abstract socket's name.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._pending: dict[str, str] = {}
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / MICROSECONDS / 2 if microseconds.isdigit() and is_meant else None

    def status(self, line: str) -> None:
        """Set the line in ``systemctl status``; sent when it changes."""
        line = " ".join(line.split())
        if line != self._status:
            self._status = line
            self.notify(f"STATUS={line}")
        elif self._pending:
            self._send_pending()

    def notify(self, assignment: str) -> None:
        """Send a state of sd_notify(3), such as ``READY=1``."""
        if self._address:
            self._pending[assignment.partition("=")[0]] = assignment
            self._send_pending()

    def _send_pending(self) -> None:
        """Also send what a busy or restarting service manager did not take."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            for name in list(self._pending):
                channel.sendto(self._pending[name].encode(), self._address)
                del self._pending[name]
