"""The MCP endpoint: reads what a client sends, and gives it to the era that it belongs to.

To a legacy client, leaving means nothing (``legacy_endpoint``). To a modern one it means cancelling: its
handler is cancelled with its connection (MCP 2026-07-28, basic/transports/streamable-http, "Cancellation").
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiohttp import web

from ..aio import in_pieces
from ..bounds import SMALL_BYTES
from ..cluster.outcomes import Misdirected
from ..errors import BadRequest, ProxyError
from ..exchange.call import ModernCall
from ..exchange.exchange import Exchange
from ..memory import Memory
from ..protocol import inbound, jsonrpc, large
from ..protocol.jsonrpc import Message, Notification, Rejection, Request
from ..protocol.revisions import Era, ServedEras
from ..upstream.era import EraProbe
from . import eras
from .answers import refuse
from .body import read_body
from .dispatch import Dispatcher
from .head import Head
from .heartbeats import Heartbeats
from .legacy_endpoint import LegacyEndpoint
from .passthrough import NoOtherPaths, Passthrough
from .posts import Posts
from .request import ClientRequest
from .rules import EndpointRules
from .senders import Senders
from .streams import Responder

_ALLOW: Final = {"Allow": "GET, POST"}


class Endpoint:
    """The MCP endpoint. ``handle`` takes each request of its path; ``serve`` one whose head was judged.

    ``rules`` may be replaced at any time.

    ``heartbeats`` watches all answers that are not over, ``posts`` counts them.
    """

    def __init__(
        self,
        *,
        legacy: LegacyEndpoint,
        dispatcher: Dispatcher,
        senders: Senders,
        era: Callable[[], EraProbe],
        passthrough: Callable[[], Passthrough | NoOtherPaths],
        memory: Memory,
        heartbeats: Heartbeats,
        rules: EndpointRules,
    ) -> None:
        self.posts = Posts()
        self.heartbeats = heartbeats
        self._legacy = legacy
        self._dispatcher = dispatcher
        self._senders = senders
        self._era = era
        self._passthrough = passthrough
        self._memory = memory
        self.rules = rules

    @property
    def draining(self) -> bool:
        """Whether a shutdown has begun."""
        return self._dispatcher.draining

    def drain(self) -> None:
        """Refuse what comes from now on; what is under way goes on.

        A member that sends something on need not tell its client so: it waits until this one has gone.
        """
        self._dispatcher.draining = True

    @property
    def streams(self) -> int:
        """How many GET streams of clients are open."""
        return self._legacy.streams

    def exchanges(self) -> list[Exchange | ModernCall]:
        """Everything that is under way upstream for a client that waits."""
        return self._dispatcher.exchanges()

    @property
    def passes_modern(self) -> bool:
        """Whether it is known that modern requests go to the server as they are."""
        return self.rules.eras is not ServedEras.LEGACY and self._era().passes() is True

    def handle(self, http: web.BaseRequest, head: Head) -> Awaitable[web.StreamResponse]:
        """Answer one HTTP request, whose head the front door has let in. Raises as ``serve``."""
        # Most requests have the head of the one before, which was judged by these rules already.
        if head.judged_by is not self._senders.rules:
            self._senders.judge(http, head)
        return self.serve(http, head)

    async def serve(self, http: web.BaseRequest, head: Head, body: bytes | None = None) -> web.StreamResponse:
        """Answer one HTTP request, whose head was judged.

        ``body`` is that of a POST, if it was read already; what it takes of the memory is given back here.

        What follows is for a POST: read it, and find out whose it is. The order matters. A server that
        speaks modern itself gets such a request with its body unread. A body takes part of the memory until
        the answer is written. An error about one that cannot be read has the id that was found in it, as far
        as one can be told. Only then is the era known: the header says it, or the message, and the operator
        may serve one era alone.

        Raises:
            ProxyError: the whole request is refused; nothing of an answer has been written.
            Misdirected: another member has sent it here, and its successor is to answer it.
        """
        if http.method != "POST":
            return await self._handle_other(http, head)
        served = self.rules.eras
        # Before the body is read, so that it is streamed to a server that needs no help.
        bodies = self._memory.bodies
        if body is None:
            if head.names_modern and served is not ServedEras.LEGACY and await self._passes_modern(head):
                return await self._passthrough().handle(http, head.cors, to_endpoint=True)
            body = await read_body(http, self.rules.max_body_bytes, bodies)
        try:
            try:
                messages, batch = await _parse(body, self.rules.max_json_depth)
            except ProxyError as error:
                return refuse(error, _find_id(head, body), head.cors)
            first = messages[0]
            if head.hops and self.draining and not batch and isinstance(first, Request):
                raise Misdirected(None)
            # Only now a refusal has the id of what it refuses, and who sends no MCP makes no handshake.
            if head.judged_by is None:
                refusal = await self._settle(http, head, messages, batch=batch)
                if refusal is not None:
                    return refusal
            meta: Mapping[str, bytes] = {}
            if not batch and isinstance(first, Request):
                meta = jsonrpc.read_meta(first.params)
                era = Era.MODERN if head.names_modern else inbound.era_of(first, None, meta)
                if served is not ServedEras.BOTH:
                    era = eras.judge(era, head, served)
                if era is Era.MODERN:
                    with self.posts:
                        return await self._answer_modern(http, head, first, meta)
            elif head.names_modern or served is ServedEras.MODERN:
                eras.check_version(head, served)
                return self._take_modern(head, messages, batch=batch)
            with self.posts:
                return await self._legacy.post(http, head, messages, meta, batch=batch)
        finally:
            bodies.give_back(len(body))

    async def _settle(
        self, http: web.BaseRequest, head: Head, messages: Sequence[Message | Rejection], *, batch: bool
    ) -> web.StreamResponse | None:
        """Find out who sends this, where the server has to be asked; gives the answer where it cannot be.

        What wants no answer is taken all the same, as somebody's to whom nothing belongs: most clients give
        up over more.
        """
        started = time.perf_counter()
        try:
            await self._senders.settle(http, head)
        except ProxyError as error:
            if any(isinstance(message, Request | Rejection) for message in messages):
                seconds = time.perf_counter() - started
                return await self._refuse(http, head, messages, error, seconds, batch=batch)
        return None

    async def _refuse(
        self,
        http: web.BaseRequest,
        head: Head,
        messages: Sequence[Message | Rejection],
        error: ProxyError,
        seconds: float,
        *,
        batch: bool,
    ) -> web.StreamResponse:
        """Each request of a POST has failed over who sends it: the client is told once, observers of each."""
        responder = Responder(http, head, self.heartbeats, share=self._memory.answers)
        principal, caller = head.sender.principal, head.sender.caller
        answers = []
        try:
            for message in messages:
                if isinstance(message, Request):
                    meta = jsonrpc.read_meta(message.params)
                    era = Era.MODERN if head.names_modern else inbound.era_of(message, None, meta)
                    request = ClientRequest(http, head, message, meta, era, responder, principal, caller)
                    answers.append(self._dispatcher.refuse(request, error, seconds))
            if answers and not batch:
                return await responder.finish(answers[0])
        finally:
            responder.close()
        first = messages[0]
        return refuse(error, first.id if isinstance(first, Request) else jsonrpc.ABSENT, head.cors)

    async def _handle_other(self, http: web.BaseRequest, head: Head) -> web.StreamResponse:
        """Answer a request that is no POST. Raises as ``serve``."""
        is_settled = head.judged_by is not None
        if http.method == "GET":
            if not is_settled:
                await self._senders.settle(http, head)
            if head.hops and self.draining:
                raise Misdirected(None)
            return await self._legacy.get(http, head)
        if http.method == "DELETE":
            if not is_settled:
                # A goodbye is answered even if nobody can say whose it is: nothing is ended by it.
                with contextlib.suppress(ProxyError):
                    await self._senders.settle(http, head)
            return self._legacy.delete(head)
        return web.Response(status=405, headers={**head.cors, **_ALLOW})

    async def _passes_modern(self, head: Head) -> bool:
        """Whether modern requests go to the server as they are; most of them find that known."""
        era, sender = self._era(), head.sender
        known = era.passes()
        return await era.ask(sender.caller.credentials, sender.principal.digest) if known is None else known

    async def _answer_modern(
        self, http: web.BaseRequest, head: Head, message: Request, meta: Mapping[str, bytes]
    ) -> web.StreamResponse:
        """Answer as long as the client waits: one that closes the response cancels its request."""
        responder, sender = Responder(http, head, self.heartbeats, share=self._memory.answers), head.sender
        request = ClientRequest(
            http, head, message, meta, Era.MODERN, responder, sender.principal, sender.caller
        )
        try:
            return await responder.finish(await self._dispatcher.answer(request))
        # A handler that is cancelled writes no end, and nobody else takes the responder off the list.
        except BaseException:
            responder.close()
            raise

    def _take_modern(
        self, head: Head, messages: Sequence[Message | Rejection], *, batch: bool
    ) -> web.StreamResponse:
        """What modern clients do not send: notifications are dropped, the rest is refused."""
        if not batch and isinstance(messages[0], Notification):
            return web.Response(status=202, headers=head.cors)
        error = BadRequest("In this protocol version a POST holds one request or notification.")
        return refuse(error, jsonrpc.ABSENT, head.cors)


def _find_id(head: Head, body: bytes) -> bytes:
    """The id of what cannot be read, as far as one can be told."""
    identifier = jsonrpc.peek_id(body)
    return inbound.no_id(head.version, body) if identifier == jsonrpc.NULL else identifier


async def _parse(body: bytes, max_depth: int) -> tuple[list[Message | Rejection], bool]:
    """The messages of a body. Where that may take long, others have their turn meanwhile."""
    if len(body) <= SMALL_BYTES:
        return jsonrpc.parse_body(body, max_depth=max_depth)
    return jsonrpc.parse_body(await in_pieces(large.examine(body, max_depth=max_depth)), max_depth=None)
