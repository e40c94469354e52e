"""Tells systemd about the state of the process, if it wants to know (``sd_notify(3)``).

It listens on the datagram socket that ``NOTIFY_SOCKET`` names. Without that variable nothing is told.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Supervisor:
    """The service manager, as ``environment`` describes it. Telling it something never blocks or fails."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of Linux's abstract names.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if path[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.alive_within_seconds = self._read_watchdog(environment)
        """The longest time between two calls of ``alive``, in seconds; None if none are wanted."""

    def ready(self, status: str) -> None:
        """The process serves, after a start or a reload. ``status`` is one line for ``systemctl status``."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The process is about to end."""
        self._tell("STOPPING=1", "STATUS=Finishing the requests in flight")

    def alive(self) -> None:
        """The event loop turns. To be called more often than every ``alive_within_seconds``."""
        if self.alive_within_seconds is not None:
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            # If nobody receives the datagram, nothing else can be done about it.
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def _read_watchdog(self, environment: Mapping[str, str]) -> float | None:
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._socket is None or not is_for_us or not microseconds.isdecimal():
            return None
        return int(microseconds) / 1e6 or None
