"""Connections to one server: its name looked up, its addresses tried, TLS where its URL wants that; and to
whoever listens on a unix socket.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from ...aio import unix_name
from ...protocol.hosts import is_ip_address

_P = TypeVar("_P", bound=asyncio.Protocol)
# So many who connect at once cost one look-up, and a server that moves is found again soon.
_KNOWN_SECONDS: Final = 10.0
_NEXT_ADDRESS_SECONDS: Final = 0.25  # RFC 8305, section 5


class Silence(NamedTuple):
    """When a connection has ended though nobody says so, as far as the system lets that be chosen.

    A stream may be silent for as long as it likes. Whether there is still somebody at its other end, the
    systems ask each other: after ``asked_after_seconds``, then every ``again_seconds``, and after ``times``
    in vain it has ended. Where ``confirmed_seconds`` are given, it also has if what was sent was not
    confirmed within that.
    """

    asked_after_seconds: int
    again_seconds: int
    times: int
    confirmed_seconds: float | None = None

    def apply(self, sock: socket.socket) -> None:
        """Have the system see to it for this connection."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wanted = {
            "TCP_KEEPIDLE": self.asked_after_seconds,
            "TCP_KEEPINTVL": self.again_seconds,
            "TCP_KEEPCNT": self.times,
        }
        if self.confirmed_seconds is not None:
            wanted["TCP_USER_TIMEOUT"] = round(self.confirmed_seconds * 1000)
        for name, value in wanted.items():
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


OF_SERVERS: Final = Silence(60, 15, 4)


class Dialer:
    """Connects to the server of one URL. Without ``tls``, https is spoken as the system trusts it."""

    def __init__(self, url: URL, tls: ssl.SSLContext | None = None, *, silence: Silence = OF_SERVERS) -> None:
        self._silence = silence
        self._host = url.raw_host or ""
        self._port = url.port or 0
        self._tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            self._tls = _usual_context() if tls is None else tls
        self._known: deque[AddrInfoType] = deque()
        self._known_until = 0.0
        self._look_up: asyncio.Task[None] | None = None

    async def dial(self, make: Callable[[], _P]) -> _P:
        """A connection, spoken by what ``make`` gives.

        Raises:
            ssl.SSLError: there is one, but no TLS on it.
            OSError: there is none.
            ValueError: there is no such name.
        """
        loop = asyncio.get_running_loop()
        left = await self._addresses()
        while True:
            sock = await aiohappyeyeballs.start_connection(
                left, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, loop=loop
            )
            self._silence.apply(sock)
            try:
                # Certificates name hosts without the dot that ends a full name.
                name = None if self._tls is None else self._host.rstrip(".")
                _, made = await loop.create_connection(make, sock=sock, ssl=self._tls, server_hostname=name)
            except OSError:
                # An address that takes connections and speaks no TLS on them must not hide the others.
                aiohappyeyeballs.pop_addr_infos_interleave(left, 1)
                if not left:
                    raise
            else:
                return made

    async def _addresses(self) -> list[AddrInfoType]:
        if is_ip_address(self._host):
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (self._host, self._port))]
        if asyncio.get_running_loop().time() >= self._known_until:
            if self._look_up is None:
                self._look_up = asyncio.create_task(self._find_addresses())
                self._look_up.add_done_callback(self._looked_up)
            # Whoever gives up does not take the answer from the others.
            await asyncio.shield(self._look_up)
        found = list(self._known)
        self._known.rotate(-1)  # several addresses share what is sent to their name
        return found

    async def _find_addresses(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        self._known = deque(found)
        self._known_until = loop.time() + _KNOWN_SECONDS

    def _looked_up(self, look_up: asyncio.Task[None]) -> None:
        self._look_up = None
        if not look_up.cancelled():
            look_up.exception()  # whoever waits for it hears of it; if nobody does any more, no matter


class UnixDialer:
    """Connects to whoever listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def dial(self, make: Callable[[], _P]) -> _P:
        """A connection, spoken by what ``make`` gives. Raises OSError: there is none."""
        with unix_name(self._path) as name:
            _, made = await asyncio.get_running_loop().create_unix_connection(make, name)
        return made


def _usual_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
