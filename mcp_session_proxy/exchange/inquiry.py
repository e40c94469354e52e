"""Requests of the proxy's own, sent with the same care as a client's."""

from ..errors import ProxyError
from ..events import Observer
from ..protocol.jsonrpc import Request, Response
from ..sessions.binding import Visit
from .exchange import Exchange
from .outlet import NO_OUTLET

_OWN_ID = b"0"  # never sent: every exchange gets an id that is unique upstream


async def inquire(visit: Visit, method: str, params: bytes | None, observe: Observer) -> Response | None:
    """The server's response to a request of ours; None when there is none."""
    exchange = Exchange(Request(_OWN_ID, method, params), None, visit, NO_OUTLET, observe)
    exchange.caller = visit.caller.credentials  # the rest belongs to the client's own request
    try:
        return await exchange.run()
    except ProxyError:
        return None
