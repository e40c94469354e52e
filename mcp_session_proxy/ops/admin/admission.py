"""Bounds on the connections of the admin listener, so that it cannot take down what it watches.

Its descriptors are the proxy's: a thousand silent connections here would leave none for the clients. So are
its memory and its event loop: pages that nobody reads are kept until they are sent, and take time to write.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from ...bounds import (
    ADMIN_CONNECTIONS,
    ADMIN_FIRST_REQUEST_SECONDS,
    ADMIN_UNREAD_BYTES,
    UNREAD_SECONDS,
)
from ...downstream.app import set_timeouts
from ...downstream.places import Place, Places

# Of the time that a client may read nothing.
_LOOKS: Final = 12
# What an orchestrator asks for costs nothing, and must not wait behind what others ask for.
_AT_ONCE: Final = frozenset({"/healthz", "/readyz"})
# No page takes so long, but for one whose request has a body that is slow to come.
_LONGEST_REST_SECONDS: Final = 0.2


class AdminConnection(web.RequestHandler):
    """One connection. ``lost`` is called when it is over, with all that was still to be sent."""

    __slots__ = ("_seen", "_since", "lost", "waits_for_turn", "wire")

    lost: Callable[[], object]
    waits_for_turn: bool  # of a page that is asked for here
    wire: asyncio.Transport  # aiohttp forgets it when it closes, which may take as long as the client likes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        # uvloop's transports are not derived from asyncio's.
        self.wire = cast(asyncio.Transport, transport)
        self._seen, self._since = 0, 0.0
        self.waits_for_turn = False
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.lost()

    @property
    def unread_bytes(self) -> int:
        """What was written, and is kept because its client has not taken it."""
        return self.wire.get_write_buffer_size()

    @property
    def can_go(self) -> bool:
        """Whether little is lost with it: no page is being made, or it waits for its client alone."""
        if self.waits_for_turn:
            return True
        request = self._current_request
        if request is not None and not request.content.is_eof():
            return True  # to say the rest
        return self.unread_bytes > 0 or not (self._request_in_progress or self._messages)

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Whether its client has taken nothing for so long, as far as looks every now and then can tell."""
        unread = self.unread_bytes
        if unread == 0 or unread != self._seen:
            self._seen, self._since = unread, now
        return unread > 0 and self._since <= now - seconds


class Admission:
    """Lets at most ``max_connections`` in, and each only to make a request within the given time.

    At the limit, one on which nothing is under way makes room, or which waits for its client or its turn, or
    whoever watches the proxy would be kept out by anybody who connects and stays. What comes after the first
    request is bounded by aiohttp's own time-out between requests, too. Who takes nothing of an answer for
    ``unread_seconds`` is cut off, and so is whoever has taken least if all together have not taken
    ``unread_bytes``. Pages are made one after the other, and as long as one has taken, none is made: the
    other half of the time is the clients', whoever asks for what here.
    """

    def __init__(
        self,
        *,
        max_connections: int = ADMIN_CONNECTIONS,
        first_request_seconds: float = ADMIN_FIRST_REQUEST_SECONDS,
        unread_bytes: int = ADMIN_UNREAD_BYTES,
        unread_seconds: float = UNREAD_SECONDS,
    ) -> None:
        self._places = Places(max_connections=max_connections, first_request_seconds=first_request_seconds)
        self._unread_bytes = unread_bytes
        self._unread_seconds = unread_seconds
        self._taken: dict[AdminConnection, Place] = {}
        self._turn = asyncio.Lock()
        self._rest_until = 0.0
        self._look: asyncio.TimerHandle | None = None

    def watch(self, app: web.Application) -> None:
        """Hear of every request that this application answers."""
        app.middlewares.insert(0, self._hear)

    @web.middleware
    async def _hear(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, AdminConnection)
        place = self._taken.get(connection)
        if place is not None and not place.has_asked:
            self._places.ask(place)
        if request.path in _AT_ONCE:
            return await handler(request)
        now = asyncio.get_running_loop().time
        connection.waits_for_turn = True
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rest_until - now()))
        connection.waits_for_turn = False
        if connection.transport is None:
            return web.Response()  # it made room meanwhile: nobody reads this
        # From here on to its end, most often without a pause.
        self._bound_unread()
        begun = now()
        try:
            return await handler(request)
        finally:
            self._rest_until = now() + min(now() - begun, _LONGEST_REST_SECONDS)

    def admit(self, transport: asyncio.Transport, server: web.Server) -> None:
        """Give a new connection to aiohttp's server, or end it."""
        place = self._places.take(transport.get_extra_info("peername"))
        if place is None:
            transport.abort()
            return
        set_timeouts(transport)
        connection = AdminConnection(server, loop=server._loop, **server._kwargs)
        place.end = transport.abort
        place.can_go = lambda: connection.can_go
        connection.lost = lambda: self._leave(connection)
        self._taken[connection] = place
        if self._look is None:
            self._look_later()
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def _leave(self, connection: AdminConnection) -> None:
        self._places.leave(self._taken.pop(connection))
        # Its requests lead back to it.
        del connection.lost

    def _bound_unread(self) -> None:
        """End those whose clients have taken least, as long as all together have not taken too much."""
        unread = {connection: connection.unread_bytes for connection in self._taken}
        total = sum(unread.values())
        for connection in sorted(unread, key=unread.__getitem__, reverse=True):
            if total <= self._unread_bytes:
                break
            total -= unread[connection]
            self._taken[connection].end()

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(self._unread_seconds / _LOOKS, self._look_around)

    def _look_around(self) -> None:
        """End those whose clients read nothing."""
        self._look = None
        now = asyncio.get_running_loop().time()
        for connection, place in self._taken.items():
            if connection.is_stuck(now, self._unread_seconds):
                place.end()
        if self._taken:
            self._look_later()


class AdmittingSite(web.BaseSite):
    """A socket that listens, whose connections pass an ``Admission`` first."""

    def __init__(
        self,
        runner: web.BaseRunner,
        listening: socket.socket,
        *,
        admission: Admission,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._listening = listening
        self._admission = admission

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"http {self._listening.getsockname()}"

    async def start(self) -> None:
        """Accept connections."""
        await super().start()
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Newcomer(self._admission, server), sock=self._listening, ssl=self._ssl_context
        )


class _Newcomer(asyncio.Protocol):
    """A connection that was just made."""

    def __init__(self, admission: Admission, server: web.Server) -> None:
        self._admission = admission
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # uvloop's transports are not derived from asyncio's.
        self._admission.admit(cast(asyncio.Transport, transport), self._server)
