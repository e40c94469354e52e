"""The client's side of a legacy exchange: notifications and the server's requests are passed through.

What the client answers comes in another POST and finds its way back through ``delivery``.
"""

from typing import Protocol

import msgspec

from ..protocol import jsonrpc, revisions
from ..protocol.arriving import write_opening
from ..protocol.jsonrpc import Notification, Request
from ..protocol.progress import ProgressRun
from ..sessions.client import ClientSession
from ..upstream.question import refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult
from .delivery import Delivery
from .wishes import hears


class PostChannel(Protocol):
    """The response of the client's POST.

    A protocol, because ``downstream.streams.Responder``, which is one, is of the floor above.
    """

    takes_messages: bool
    """Whether the client is there, and reads messages before the response."""

    async def begin(self) -> None:
        """Begin an event stream, if the client can come back to it."""
        ...

    async def send(self, *messages: bytes) -> bool:
        """Write messages, in one piece; False if the client cannot or will not take them."""
        ...

    async def pass_on(self, opening: bytes, coming: ArrivingResult) -> bool:
        """Write the final response as it comes, behind its ``opening``; False if nothing was read of it."""
        ...


class Relay(msgspec.Struct, eq=False):
    """Implements ``outlet.Outlet``. ``client`` is None for a request without a session."""

    _channel: PostChannel
    _client: ClientSession | None
    _session: UpstreamSession
    _delivery: Delivery

    @property
    def asks(self) -> ClientSession | None:
        """As ``outlet.Outlet.asks``."""
        return self._client if self._channel.takes_messages else None

    async def begin(self) -> None:
        """Begin the POST's stream where the client can come back to it, as it could at the server."""
        await self._channel.begin()

    async def notify(self, *messages: Notification) -> None:
        """Write notifications on the POST's stream, if the client takes streams."""
        texts: list[bytes] = []
        for message in messages:
            # What nearly all of them are, and nobody has anything to change about.
            if isinstance(message, ProgressRun):
                texts += message.texts
            elif message.method == revisions.PROGRESS:
                texts.append(jsonrpc.write_notification(message.method, message.params))
            elif (text := self._rewrite(message)) is not None:
                texts.append(text)
        if texts:
            await self._channel.send(*texts)
        self._delivery.tell_others(self._session, messages, self._client)

    def _rewrite(self, message: Notification) -> bytes | None:
        client = self._client
        if message.method == revisions.LOG_MESSAGE and client and not hears(client, message):
            return None
        return self._delivery.rewrite(client, self._session, message)

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Pass the server's request on the POST's stream, else on the client's GET stream."""
        client = self._client
        if client is None:
            refuse_request(session, request)
            return
        asked = self._delivery.ask(client, session, request)
        if asked is None:
            return
        number, data = asked
        if await self._channel.send(data):
            return
        stream = self._delivery.mailbox(client).standalone
        # A client that reads no stream on this POST may have its GET stream open, and is asked there.
        if stream.followed:
            stream.append(data)
        else:
            self._delivery.withdraw(client, number)

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:
        """Write a large response as it comes."""
        return await self._channel.pass_on(write_opening(identifier), coming)
