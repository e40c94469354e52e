"""aiohttp's end of one client's connection, and what happens to a request when its client leaves.

Usually the handler is cancelled. A legacy POST says otherwise (``on_departure``): what its client asked
for goes on without it.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from .request import Sender

_NO_HTTP = "This is not a valid HTTP request.\n"


class Connection(web.RequestHandler):
    """One connection.

    ``departure`` is called when it is lost while a request is being answered; ``sender`` is who sent the
    request before.
    """

    __slots__ = ("departure", "sender")

    departure: Callable[[], object] | None
    sender: Sender | None

    def begin(self, task: "asyncio.Task[None]") -> None:
        """A request begins; ``task`` is what works on it."""
        self.departure = task.cancel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.departure = self.sender = None
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has left, or was cut off."""
        super().connection_lost(exc)
        departure, self.departure = self.departure, None
        if departure is not None:
            departure()

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
