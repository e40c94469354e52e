"""The client's side of an exchange, as the exchange knows it."""

from typing import Final, Protocol

from ..protocol.jsonrpc import Notification, Request
from ..upstream.question import refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult


class Outlet(Protocol):
    """The client's side of an exchange: it hears what the server says before its final response.

    There is one for clients of each era (``relay``, ``call``), and ``NO_OUTLET`` for requests of the proxy's
    own, which have no client.
    """

    @property
    def asks(self) -> object:
        """The client session that can be asked now on the stream of its request; None if there is none."""
        ...

    async def begin(self) -> None:
        """Hear that the server has named a place from which its answer can be resumed, and nothing else yet.

        If the answer to the client can be resumed as well, it begins now: the client may be cut off at any
        moment, and can then come back for the rest.
        """
        ...

    async def notify(self, *messages: Notification) -> None:
        """Take the notifications that came together; a progress token in one is the client's own."""
        ...

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Take a request of the server's, and see to it that the server gets an answer."""
        ...

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:
        """Take a large response, under the client's own id, as it comes; False if nothing was taken of it.

        Raises as ``ArrivingResult.read``: the client has a part of it then, and can be given no other.
        """
        ...


class _NoOutlet:
    """Nobody listens. Implements ``Outlet``."""

    asks = None

    async def begin(self) -> None:
        """Nobody to be cut off."""

    async def notify(self, *messages: Notification) -> None:
        """Nobody to tell."""

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Nobody to ask."""
        refuse_request(session, request)

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """Nobody to take it."""
        return False


NO_OUTLET: Final[Outlet] = _NoOutlet()
