"""Requests of the proxy's own, sent with the same care as a client's."""

from ..errors import ProxyError
from ..events import Observer
from ..protocol.jsonrpc import Notification, Request, Response
from ..sessions.binding import Visit
from ..upstream.session import UpstreamSession
from .exchange import Exchange
from .question import refuse_request

_OWN_ID = b"0"  # never sent: every exchange gets an id that is unique upstream


class _Silence:
    """Nobody listens. Implements ``exchange.Outlet``."""

    async def notify(self, message: Notification) -> None:
        """Nobody to tell."""

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Nobody to ask."""
        refuse_request(session, request)


async def inquire(visit: Visit, method: str, params: bytes | None, observe: Observer) -> Response | None:
    """The server's response to a request of ours; None when there is none."""
    exchange = Exchange(Request(_OWN_ID, method, params), None, visit, _Silence(), observe)
    try:
        return await exchange.run()
    except ProxyError:
        return None
