"""The listener for TLS: accepts connections, and shakes hands with those that say something.

aiohttp and the event loop would tell of a connection only after its handshake, so those who connect and never
shake hands would use descriptors and memory that nobody counts. Here a connection has its place from the
moment on at which it is accepted, and nothing is made for it until its first byte has arrived.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from functools import partial
from typing import Final, cast

from aiohttp import web

from ..aio import Tasks
from ..bounds import TLS_HANDSHAKE_SECONDS
from .app import HttpServer
from .places import Place

# How long the rest of an answer may take that is still being sent when we close.
_CLOSE_SECONDS: Final = 10.0
_BACKLOG: Final = 1024
# Descriptors of those who make room are closed only afterwards, so not too many are accepted at once.
_ACCEPTED_AT_ONCE: Final = 32
_NO_SUCH_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REST_SECONDS: Final = 0.05


class TlsSite(web.BaseSite):
    """A TCP listener with TLS, on every address of its host."""

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str | None,
        port: int,
        *,
        listener: HttpServer,
        ssl_context: ssl.SSLContext,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._host = host
        self._port = port
        self._listener = listener
        self._context = ssl_context

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"https://{self._host or '0.0.0.0'}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await super().start()
        acceptor = _Acceptor(self._listener, self._context, await _bind(self._host, self._port))
        self._server = cast(
            asyncio.AbstractServer, acceptor
        )  # its sockets and ``close`` are all that aiohttp uses


async def _bind(host: str | None, port: int) -> list[socket.socket]:
    """Sockets on the addresses of a host, or on all of this machine's, without families that it lacks.

    Raises:
        OSError: an address is taken, or there is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    with contextlib.ExitStack() as bound:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                # IPv6 alone on a socket of that family, so that both can have the same port.
                listening = socket.create_server(address, family=family, backlog=_BACKLOG)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                missing = error
                continue
            listening.setblocking(False)
            sockets.append(bound.enter_context(listening))
        if not sockets:
            raise missing
        bound.pop_all()
    return sockets


class _Acceptor:
    """Accepts connections until it is closed."""

    def __init__(self, listener: HttpServer, context: ssl.SSLContext, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self._listener = listener
        self._context = context
        self._arriving = Tasks()
        self._loop = asyncio.get_running_loop()
        for listening in sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Accept nobody any more, and end the handshakes that are under way."""
        sockets, self.sockets = self.sockets, []
        for listening in sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._arriving.cancel()

    def _accept(self, listening: socket.socket) -> None:
        """Take in who waits to be accepted."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, address = listening.accept()
            except OSError as error:
                if error.errno in _NONE_LEFT:
                    self._make_room(listening)
                return  # nobody waits, or who did has gone
            self._arrive(client, address)

    def _make_room(self, listening: socket.socket) -> None:
        """There are no descriptors left: somebody makes room, which takes a moment."""
        self._listener.places.make_room()
        # Who waits to be accepted would have this called again at once, and without end.
        self._loop.remove_reader(listening)
        self._loop.call_later(_REST_SECONDS, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _arrive(self, client: socket.socket, address: object) -> None:
        """Give a new connection its place, or end it."""
        place = self._listener.places.take(address)
        if place is None:
            client.close()
            return
        place.end = self._arriving.spawn(self._shake_hands(client, place)).cancel

    async def _shake_hands(self, client: socket.socket, place: Place) -> None:
        """From the first byte of a connection to the end of its handshake; then it is aiohttp's.

        Whoever takes too long, says what is no TLS, or shows a certificate that is no good, is cut off.
        """
        listener = self._listener
        try:
            async with asyncio.timeout(TLS_HANDSHAKE_SECONDS):
                try:
                    client.setblocking(False)
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await _readable(client)
                except BaseException:
                    client.close()
                    raise
                listener.places.begin(place)
                # From here on the event loop closes the socket, whatever happens; it only has to be told.
                place.end = partial(_shut, client)
                await self._loop.connect_accepted_socket(
                    lambda: listener.answer(place),
                    client,
                    ssl=self._context,
                    ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=_CLOSE_SECONDS,
                )
        except (OSError, TimeoutError):
            listener.places.leave(place)
        except asyncio.CancelledError:
            listener.places.leave(place)
            raise


async def _readable(client: socket.socket) -> None:
    """Something has arrived, or the other side has left."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def note() -> None:
        loop.remove_reader(client)
        arrived.set_result(None)

    # Nothing is read: the first byte is for the handshake.
    loop.add_reader(client, note)
    try:
        await arrived
    finally:
        loop.remove_reader(client)


def _shut(client: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side has left, or the event loop has closed it
        client.shutdown(socket.SHUT_RDWR)
