"""A request that another member has forwarded: what is known of it beside what it says itself.

Everything in here goes on as if its client had come to this process: under the client's address and scheme,
and without what members say to each other.
"""

import asyncio
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from ..cluster.peer_signature import NotBelieved, Signed
from ..errors import PeerNotBelieved

# The fields that are the member's and not the client's; they come first.
_FIELDS: Final = 4


class ForwardedRequest(web.BaseRequest):
    """The request of a client, by way of another member."""

    signed: Signed

    @classmethod
    def restore(
        cls,
        signed: Signed,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
        loop: asyncio.AbstractEventLoop,
        *,
        max_body_bytes: int,
    ) -> "ForwardedRequest":
        """The request as the client has sent it. ``headers`` still has the member's fields; none travels."""
        request = cls(
            message._replace(raw_headers=message.raw_headers[_FIELDS:]),
            payload,
            protocol,
            writer,
            task,
            loop,
            client_max_size=max_body_bytes,
            scheme=signed.client.scheme,
        )
        request._cache["remote"] = signed.client.remote
        request.signed = signed
        return request

    def check_body(self, body: bytes) -> None:
        """Whether this is the body that was signed. Raises PeerNotBelieved."""
        try:
            self.signed.check_body(body)
        except NotBelieved as error:
            raise PeerNotBelieved(error.why) from error
