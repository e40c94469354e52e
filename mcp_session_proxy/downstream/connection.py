"""aiohttp's end of one client's connection, and what happens to a request when its client leaves.

Usually the handler is cancelled. A legacy POST says otherwise (``on_departure``): what its client asked
for goes on without it. How a connection is closed may also say that its client has left for good.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from ..sessions.directory import ClientSession
from .request import Sender

_NO_HTTP = "This is not a valid HTTP request.\n"


class OnClose(Protocol):
    """Whoever wants to know that a connection is closed."""

    def __call__(self, client: ClientSession, *, by_client: bool) -> None:
        """A connection that carried this client session is closed.

        ``by_client``: it was the client that closed it, between two requests.
        """
        ...


class Connection(web.RequestHandler):
    """One connection.

    ``departure`` is called when it is lost while a request is being answered; ``sender`` is who sent the
    request before; ``client`` the client session that it has carried.
    """

    __slots__ = ("_ended_by_client", "_on_close", "_shared", "client", "departure", "sender")

    departure: Callable[[], object] | None
    sender: Sender | None
    client: ClientSession | None
    _on_close: "OnClose | None"

    def begin(self, task: "asyncio.Task[None]") -> None:
        """A request begins; ``task`` is what works on it."""
        self.departure = task.cancel

    def carry(self, client: ClientSession, on_close: "OnClose", *, for_others: bool) -> None:
        """This connection has carried a client session, which is told when it is closed.

        One that carries several, or is a front proxy's (``for_others``), says nothing of any client when it
        is closed, so it counts as open for ever.
        """
        if self.transport is None:
            return  # lost already
        client.connections += 1
        if for_others or self.client is not None:
            self._shared = True
        self.client, self._on_close = client, on_close

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.departure = self.sender = self.client = self._on_close = None
        self._shared = self._ended_by_client = False
        super().connection_made(transport)

    def eof_received(self) -> None:
        """The client will send no more: it closes the connection. (When we do, this is not called.)"""
        self._ended_by_client = True
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has left, or was cut off."""
        by_client = (self._ended_by_client or exc is not None) and self._current_request is None
        super().connection_lost(exc)
        departure, self.departure = self.departure, None
        if departure is not None:
            departure()
        if self._on_close is not None and self.client is not None and not self._shared:
            self._on_close(self.client, by_client=by_client)
        self.client = self._on_close = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP; aiohttp's text would quote it, and a credential may be in it."""
        return super().handle_error(request, status, exc, None if message is None else _NO_HTTP)


def on_departure(request: web.BaseRequest, tell: Callable[[], object]) -> None:
    """Call ``tell``, instead of cancelling the handler, if this request's client leaves before its answer."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    if connection.transport is None:
        tell()  # it has left already
    else:
        connection.departure = tell
