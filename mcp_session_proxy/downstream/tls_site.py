"""The listener for TLS: accepts connections, and shakes hands with those that say something.

aiohttp and the event loop would tell of a connection only after its handshake, so those who connect and never
shake hands would use descriptors and memory that nobody counts. Here a connection has its place from the
moment on at which it is accepted, and nothing is made for it until its first byte has arrived and it is its
network's turn (``handshakes.py``).
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from functools import partial
from typing import Final, cast

from aiohttp import web

from ..aio import Tasks, readable
from ..bounds import HANDSHAKES_PERCENT, LEAST_HANDSHAKES, TLS_HANDSHAKE_SECONDS
from .app import HttpServer
from .handshakes import BEGUN_AT_ONCE, Handshakes
from .places import Place, Places

# How long the rest of an answer may take that is still being sent when we close.
_CLOSE_SECONDS: Final = 10.0
# Descriptors of those who make room are closed only afterwards, so not too many are accepted at once.
_ACCEPTED_AT_ONCE: Final = 32
# Where so many wait for their handshakes and all come from one network, no more are accepted than begin.
_MANY: Final = 16
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REST_SECONDS: Final = 0.05


class TlsSite(web.BaseSite):
    """A socket that listens, with TLS."""

    def __init__(
        self,
        runner: web.BaseRunner,
        listening: socket.socket,
        *,
        listener: HttpServer,
        ssl_context: ssl.SSLContext,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._listening = listening
        self._listener = listener
        self._context = ssl_context

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"https {self._listening.getsockname()}"

    async def start(self) -> None:
        """Accept connections."""
        await super().start()
        self._listening.setblocking(False)
        self._acceptor = _Acceptor(self._listener, self._context, self._listening)
        # Its sockets and ``close`` are all that aiohttp uses.
        self._server = cast(asyncio.AbstractServer, self._acceptor)

    def shut(self) -> None:
        """Accept nobody any more; who has been accepted goes on."""
        self._acceptor.shut()


class _Acceptor:
    """Accepts connections until it is closed."""

    def __init__(self, listener: HttpServer, context: ssl.SSLContext, listening: socket.socket) -> None:
        self.sockets = [listening]
        self._listener = listener
        self._context = context
        self._arriving = Tasks()
        places = listener.places
        self._handshakes = Handshakes(
            max_under_way=lambda: most_under_way(places),
            end=places.dismiss,
        )
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening, self._accept, listening)

    def shut(self) -> None:
        """Accept nobody any more; the handshakes that are under way go on."""
        sockets, self.sockets = self.sockets, []
        for listening in sockets:
            self._loop.remove_reader(listening)
            listening.close()

    def close(self) -> None:
        """Accept nobody any more, and end the handshakes that are under way."""
        self.shut()
        self._arriving.cancel()

    def _accept(self, listening: socket.socket) -> None:
        """Take in who waits to be accepted."""
        at_once = _ACCEPTED_AT_ONCE
        if self._handshakes.waiting >= _MANY and not self._listener.places.from_several_networks:
            # Nobody is found among them who would come first, and whoever is taken in could only be ended.
            at_once = BEGUN_AT_ONCE
        for _ in range(at_once):
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
                    if client.family != socket.AF_UNIX:
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await readable(client)
                    listener.places.begin(place)
                    await self._handshakes.begin(place)
                except BaseException:
                    client.close()
                    raise
                try:
                    # From here on the event loop closes the socket, whatever happens; it only has to be told.
                    place.end = partial(_shut, client)
                    await self._loop.connect_accepted_socket(
                        lambda: listener.answer(place),
                        client,
                        ssl=self._context,
                        ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS,
                        ssl_shutdown_timeout=_CLOSE_SECONDS,
                    )
                finally:
                    self._handshakes.over(place)
        except (OSError, TimeoutError):
            listener.places.leave(place)
        except asyncio.CancelledError:
            listener.places.leave(place)
            raise


def most_under_way(places: Places) -> int:
    """How many handshakes there may be: all connections may be some, where all come from one network."""
    if not places.from_several_networks:
        return places.max_connections
    return max(LEAST_HANDSHAKES, places.max_connections * HANDSHAKES_PERCENT // 100)


def _shut(client: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side has left, or the event loop has closed it
        client.shutdown(socket.SHUT_RDWR)
