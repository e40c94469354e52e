"""Bounds on the connections of the admin listener, so that it cannot take down what it watches.

Its descriptors are the proxy's: a thousand silent connections here would leave none for the clients.
"""

import asyncio
import socket
import ssl
from functools import partial
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from ...bounds import ADMIN_CONNECTIONS, ADMIN_FIRST_REQUEST_SECONDS
from ...downstream.places import Place, Places


class Admission:
    """Lets at most ``max_connections`` in, and each only to make a request within the given time.

    At the limit, one on which nothing is under way makes room, or whoever watches the proxy would be kept out
    by anybody who connects and stays. What comes after the first request is bounded by aiohttp's own time-out
    between requests, too.
    """

    def __init__(
        self,
        *,
        max_connections: int = ADMIN_CONNECTIONS,
        first_request_seconds: float = ADMIN_FIRST_REQUEST_SECONDS,
    ) -> None:
        self._places = Places(max_connections=max_connections, first_request_seconds=first_request_seconds)
        self._taken: dict[web.RequestHandler, Place] = {}

    def watch(self, app: web.Application) -> None:
        """Hear of every request that this application answers."""
        app.middlewares.insert(0, self._hear)

    @web.middleware
    async def _hear(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        place = self._taken.get(request.protocol)
        if place is not None and not place.has_asked:
            self._places.ask(place)
        return await handler(request)

    def admit(self, transport: asyncio.Transport, server: web.Server) -> None:
        """Give a new connection to aiohttp's server, or end it."""
        self._clear()
        place = self._places.take(transport.get_extra_info("peername"))
        if place is None:
            transport.abort()
            return
        protocol = server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        place.end, place.can_go = transport.abort, partial(_is_idle, protocol)
        self._taken[protocol] = place

    def _clear(self) -> None:
        """Nobody tells when a connection is over, so it is looked for; they are few."""
        for protocol, place in list(self._taken.items()):
            if protocol.transport is None:
                del self._taken[protocol]
                self._places.leave(place)


def _is_idle(protocol: web.RequestHandler) -> bool:
    """Whether it is between two requests: aiohttp waits for the next one then."""
    return protocol._waiter is not None and not protocol._waiter.done()


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
