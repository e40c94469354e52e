"""Requests of the proxy's own, sent with the same care as a client's."""

from typing import Final

from ..errors import ProxyError
from ..events import Observer
from ..protocol.jsonrpc import Request, Response
from ..sessions.binding import Visit
from .exchange import Exchange
from .outlet import NO_OUTLET, Outlet

OWN_ID: Final = b"0"  # never sent: every exchange gets an id that is unique upstream


class OwnExchange(Exchange):
    """A request of ours that a server answers at once. ``caller`` is set by whoever sends it."""

    def __init__(
        self, method: str, params: bytes | None, visit: Visit, outlet: Outlet, observe: Observer
    ) -> None:
        super().__init__(Request(OWN_ID, method, params), None, visit, outlet, observe)

    def _left(self) -> None:
        """Say nothing: it would stop no work, and may cross the answer. Servers with the Python SDK (1.30)
        end the whole session over a cancellation that comes while they answer.
        """


async def inquire(visit: Visit, method: str, params: bytes | None, observe: Observer) -> Response | None:
    """The server's response to a request of ours; None when there is none."""
    exchange = OwnExchange(method, params, visit, NO_OUTLET, observe)
    exchange.caller = visit.caller.credentials  # the rest belongs to the client's own request
    try:
        return await exchange.run()
    except ProxyError:
        return None
