"""The MCP endpoint of a member: serves what is its own, and sends the rest to whose it is.

Whose a request is, its head says: nothing of a body is read before that. On the way of a request that is
served here this is a look into a dictionary and a comparison.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from ..cluster.card import Card
from ..cluster.routing import Routing
from ..errors import ProxyError
from ..memory import Share
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Request
from .answers import refuse
from .body import read_body
from .endpoint import Endpoint
from .head import Head, Sender
from .senders import Senders

# Sends a request with its body to a member, over so many hops in all. Raises PeerFailure.
Forward = Callable[[web.BaseRequest, Head, bytes, Card, int], Awaitable[web.StreamResponse]]


class RoutedEndpoint:
    """The endpoint as it is reached by clients and by other members. ``bodies`` is the memory for bodies."""

    def __init__(
        self,
        endpoint: Endpoint,
        senders: Senders,
        routing: Routing,
        forward: Forward,
        *,
        bodies: Share,
    ) -> None:
        self.endpoint = endpoint
        self.routing = routing
        self.forward = forward
        self.bodies = bodies
        self._senders = senders
        self._held = routing.shards.held
        self._membership = routing.shards.membership
        self.following: set[asyncio.Task[object]] = set()  # who passes on streams of what may come

    async def handle(self, http: web.BaseRequest, head: Head) -> web.StreamResponse:
        """Answer one HTTP request, whose head the front door, or another member, has let in.

        Raises:
            ProxyError: the whole request is refused; nothing of an answer has been written.
            Misdirected: another member has sent it here, and it belongs elsewhere.
        """
        if head.judged_by is not self._senders.rules:
            self._senders.judge(http, head)
        # A server that speaks modern itself keeps nothing of which it would matter who sends it.
        if head.names_modern and self.endpoint.passes_modern:
            return await self.endpoint.serve(http, head)
        shard = shard_of(head.sender)
        held = self._held.get(shard)
        membership = self._membership
        if held is None or membership.now() >= membership.sure_until or http.method == "GET":
            return await self._find(http, head, shard)
        held.uses += 1
        try:
            return await self.endpoint.serve(http, head)
        finally:
            held.uses -= 1

    async def _find(self, http: web.BaseRequest, head: Head, shard: str) -> web.StreamResponse:
        request = RoutedRequest(self, http, head)
        try:
            return await self.routing.answer(shard, request)
        except ProxyError as error:
            if request.body is None:
                raise
            return refuse(error, jsonrpc.peek_id(request.body), head.cors)
        finally:
            request.end()

    def end_streams(self) -> None:
        """End the streams that are passed on from other members: their clients come back for more."""
        for task in self.following:
            task.cancel()


class RoutedRequest:
    """One request on its way (``cluster.routing.Routable``).

    Its body is read when it has to be sent elsewhere.
    """

    def __init__(self, routed: RoutedEndpoint, http: web.BaseRequest, head: Head) -> None:
        self.hops = head.hops
        self.is_stream = http.method == "GET"
        self.deadline = asyncio.get_running_loop().time() + routed.routing.shards.rules.patience_seconds
        self.body: bytes | None = None
        self._owed_bytes = 0
        self._follower: asyncio.Task[object] | None = None
        self._routed = routed
        self._http = http
        self._head = head

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing, however often it is sent.

        What wants no answer counts, too: a notification or an answer that comes twice is passed over, and one
        that is lost may hold up a call.
        """
        if self.body is None or self._http.method != "POST":
            return True
        try:
            messages, _ = jsonrpc.parse_body(self.body, max_depth=self._routed.endpoint.rules.max_json_depth)
        except ProxyError:
            return True  # nobody does anything for it
        return all(
            not isinstance(message, Request) or message.method in revisions.READ_METHODS
            for message in messages
        )

    async def serve(self) -> web.StreamResponse:
        """See ``Routable``."""
        # Whoever answers gives back what the body takes.
        self._owed_bytes = 0
        return await self._routed.endpoint.serve(self._http, self._head, self.body)

    async def send(self, card: Card, hops: int) -> web.StreamResponse:
        """See ``Routable``."""
        routed, http, head = self._routed, self._http, self._head
        if http.method != "POST":
            if self.is_stream:
                self._follow()
            return await routed.forward(http, head, b"", card, hops)
        if self.body is None:
            self.body = await read_body(http, routed.endpoint.rules.max_body_bytes, routed.bodies)
            self._owed_bytes = len(self.body)
        if http.headers.get(revisions.METHOD_HEADER) == revisions.LISTEN:
            self._follow()
            return await routed.forward(http, head, self.body, card, hops)
        with routed.endpoint.posts:
            return await routed.forward(http, head, self.body, card, hops)

    def _follow(self) -> None:
        """It passes on a stream of what may come, which nobody waits for at the end."""
        self.is_stream = True
        self._follower = asyncio.current_task()
        assert self._follower is not None
        self._routed.following.add(self._follower)

    def end(self) -> None:
        """It is over. Its task is that of the connection, which goes on."""
        if self._follower is not None:
            self._routed.following.discard(self._follower)
        self._routed.bodies.give_back(self._owed_bytes)


def shard_of(sender: Sender) -> str:
    """Where everything of a sender is: by its principal, or by whom its token claims to speak for.

    Who a token counts as may take asking the server, and changes when it is accepted; what it claims does
    not.
    """
    claim = sender.claim
    return sender.principal.digest if claim is None else claim.digest
