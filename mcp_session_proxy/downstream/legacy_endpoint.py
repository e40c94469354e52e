"""POST, GET and DELETE of clients that have sessions: batches, notifications, streams, goodbyes.

What their requests mean is in ``legacy``. A client that disconnects cancels nothing (MCP 2025-11-25,
basic/transports: "Disconnection SHOULD NOT be interpreted as the client cancelling its request").
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from ..errors import BadRequest, TooManyExchanges, UnknownSession
from ..exchange.delivery import Delivery
from ..exchange.early import EarlyStreams
from ..memory import Share
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Rejection, Request, Response
from ..protocol.revisions import Era, ServedEras
from ..sessions.binding import Binder
from ..sessions.client import ClientSession
from . import eras
from .answers import answer_error, refuse
from .connection import Connection, on_departure
from .dispatch import Dispatcher
from .following import find_stream, follow
from .head import Head
from .heartbeats import Heartbeats
from .hops import comes_from_proxy
from .in_flight import InFlight, UnderWay
from .legacy import LegacyRequests
from .request import ClientRequest
from .rules import EndpointRules
from .streams import Responder

Incoming = Sequence[Message | Rejection]

_ALLOW: Final = {"Allow": "GET, POST"}


class LegacyEndpoint:
    """The endpoint for legacy clients. ``rules`` may be replaced at any time.

    ``streams`` counts open GET streams. ``answers`` is the memory for large answers on their way.
    """

    def __init__(
        self,
        *,
        requests: LegacyRequests,
        dispatcher: Dispatcher,
        binder: Binder,
        delivery: Delivery,
        early: EarlyStreams,
        in_flight: InFlight,
        heartbeats: Heartbeats,
        answers: Share,
        rules: EndpointRules,
    ) -> None:
        self.streams = 0
        self.rules = rules
        self._requests = requests
        self._dispatcher = dispatcher
        self._binder = binder
        self._delivery = delivery
        self._early = early
        self._in_flight = in_flight
        self._heartbeats = heartbeats
        self._answers = answers

    # -- POST --------------------------------------------------------------------------------------

    async def post(
        self,
        http: web.BaseRequest,
        head: Head,
        messages: Incoming,
        meta: Mapping[str, bytes],
        *,
        batch: bool,
    ) -> web.StreamResponse:
        """Answer a POST to its end. ``meta`` is that of a single request.

        From here on the client's leaving ends nothing: what it asked for is done, and kept for its return if
        it has a session to come back to. Its connection is noted with that session afterwards, because an
        ``initialize`` has one only then; how a connection is closed may say that a client is gone for good.
        """
        first = messages[0]
        is_single = not batch and isinstance(first, Request)
        if not is_single:
            eras.check_version(head, self.rules.eras)  # a single request's is checked under its own id
        client = None
        if head.session_id is not None:
            try:
                client = self._find_client(head, head.session_id, messages)
            except UnknownSession as error:
                return _refuse_unknown(error, messages, head.cors)
        if not (is_single or any(isinstance(message, Request | Rejection) for message in messages)):
            # A cancelled handler would lose the rest of what it has to tell the server.
            on_departure(http, _go_on)
            response = await self._take_notifications(head, client, messages)
        else:
            responder = Responder(
                http,
                head,
                self._heartbeats,
                client,
                self._delivery.mailbox,
                self._answers,
                messages,
            )
            on_departure(http, responder.client_left)
            try:
                if not batch and isinstance(first, Request):
                    request = ClientRequest(
                        http,
                        head,
                        first,
                        meta,
                        Era.LEGACY,
                        responder,
                        head.sender.principal,
                        head.legacy_caller,
                        client,
                    )
                    response = await responder.finish(await self._dispatcher.answer(request))
                    client = request.client
                else:
                    await self._answer_batch(messages, responder)
                    response = await responder.finish()
            except BaseException:
                responder.close()
                raise
        if client is not None:
            self._note_connection(http, client)
        return response

    def _find_client(self, head: Head, session_id: str, messages: Incoming) -> ClientSession | None:
        """The client session that a POST names; None where it needs none.

        An ``initialize`` needs none: it asks for a new client session, whatever id it carries. Under an id
        that is unknown and may be adopted, notifications, responses and pings need none, either. Only another
        request begins a client session there.

        Raises:
            UnknownSession: there is none, and the id is not adopted.
        """
        binder, principal, first = self._binder, head.sender.principal, messages[0]
        # Nearly always the first message decides.
        if isinstance(first, Request) and first.method != revisions.PING:
            if first.method == revisions.INITIALIZE and len(messages) == 1:
                return None
            return binder.find(principal, session_id)
        if not any(isinstance(each, Request) and each.method != revisions.PING for each in messages):
            client = binder.find_known(principal, session_id)
            if client is not None or binder.adoption.adopts(session_id):
                return client
        return binder.find(principal, session_id)

    def _note_connection(self, http: web.BaseRequest, client: ClientSession) -> None:
        """Have the client session told when this connection is closed."""
        connection = http.protocol
        assert isinstance(connection, Connection)
        # A second request shows that this client keeps its connections: closing one may mean something.
        if connection.client is client:
            client.keeps_connections = True
        else:
            for_others = comes_from_proxy(http.headers)
            connection.carry(client, self._binder, for_others=for_others)

    async def _answer_batch(self, messages: Incoming, responder: Responder) -> None:
        """Work on all messages of a batch at once (MCP 2025-03-26, basic, "Batching").

        Requests for which there is no room are refused together: a hundred of them must not cost others what
        a hundred requests cost.
        """
        http, head, client = responder.http, responder.head, responder.client
        responder.is_of_batch = True
        room = self._in_flight.room(head.sender.principal.digest)
        refused: list[ClientRequest] = []

        async def work_on(message: Message | Rejection | ClientRequest) -> None:
            if isinstance(message, ClientRequest):
                await responder.respond(await self._dispatcher.answer(message))
            elif isinstance(message, Rejection):
                await responder.respond(answer_error(message.error, message.id))
            elif not isinstance(message, Request):
                if client is not None:
                    await self._requests.take(client, message, head.legacy_caller)
            else:  # MCP 2025-03-26, basic/lifecycle, "Initialization"
                error = BadRequest('"initialize" must not be part of a batch.')
                await responder.respond(answer_error(error, message.id))

        # A task for each, so that the slowest does not hold up the others. Each is bounded like a request.
        async with asyncio.TaskGroup() as group:
            for message in messages:
                if not isinstance(message, Request) or message.method == revisions.INITIALIZE:
                    group.create_task(work_on(message))
                    continue
                meta = jsonrpc.read_meta(message.params)
                request = ClientRequest(
                    http,
                    head,
                    message,
                    meta,
                    Era.LEGACY,
                    responder,
                    head.sender.principal,
                    head.legacy_caller,
                    client,
                )
                if room > 0:
                    room -= 1
                    group.create_task(work_on(request))
                else:
                    refused.append(request)
            if refused:
                await asyncio.sleep(0)  # the others are under way then, which the error tells
                error = self._in_flight.no_room(head.sender.principal.digest)
                for answer in self._dispatcher.refuse_batch(refused, error):
                    await responder.respond(answer)

    async def _take_notifications(
        self, head: Head, client: ClientSession | None, messages: Incoming
    ) -> web.StreamResponse:
        """A POST without requests is accepted, whatever becomes of it: most clients give up over more.

        When there is no room, notifications are dropped: one may get lost on its way. A response must not,
        because a call of the server waits for it, with all that it holds.
        """
        try:
            with UnderWay(self._in_flight, head.sender.principal.digest):
                await self._take(head, client, messages)
        except TooManyExchanges:
            await self._take(head, client, [one for one in messages if isinstance(one, Response)])
        return web.Response(status=202, headers=head.cors)

    async def _take(self, head: Head, client: ClientSession | None, messages: Incoming) -> None:
        for message in messages:
            if client is not None and isinstance(message, Notification | Response):
                await self._requests.take(client, message, head.legacy_caller)

    # -- GET and DELETE ----------------------------------------------------------------------------

    async def get(self, http: web.BaseRequest, head: Head) -> web.StreamResponse:
        """A stream for what the server says of its own accord; the newest GET of a client session wins.

        Raises:
            Draining: the proxy is shutting down.
            UnsupportedVersion: the version that it names is not served.
            UnknownEvent: its ``Last-Event-ID`` names nothing that could go on.
        """
        self._dispatcher.refuse_while_draining()
        eras.check_version(head, self.rules.eras)
        if head.session_id is None or self.rules.eras is ServedEras.MODERN:
            # Nothing could ever be delivered, and 405 is the way to say so that every client knows.
            return _no_stream(head)
        principal = head.sender.principal
        client = self._binder.find_known(principal, head.session_id)
        if client is None:
            return await self._get_early(http, head, head.session_id)
        # Servers answer 409 while another stream is open. Here the newest has it: a client that opens one
        # again has lost the former, perhaps before we know of it.
        mailbox = self._delivery.mailbox(client)
        await self._delivery.fetch(mailbox, http.headers.get(revisions.LAST_EVENT_ID_HEADER, ""))
        stream, after = find_stream(http, mailbox)
        self._note_connection(http, client)
        self._binder.stream_opened(client, head.sender.caller)
        self.streams += 1
        try:
            return await follow(
                http,
                stream,
                after=after,
                heartbeats=self._heartbeats,
                cors=head.cors,
                cursors=revisions.takes_cursors(head.version, client.record.version),
            )
        finally:
            self.streams -= 1
            self._binder.stream_closed(client)

    async def _get_early(self, http: web.BaseRequest, head: Head, session_id: str) -> web.StreamResponse:
        """A stream under an id that nothing is known of: it waits for its client session to begin."""
        early = None
        if self._binder.adoption.adopts(session_id):
            early = self._early.open(head.sender.principal, session_id, head.sender.caller)
        if early is None:
            return _no_stream(head)
        self.streams += 1
        try:
            stream, after = find_stream(http, early.mailbox)
            return await follow(
                http,
                stream,
                after=after,
                heartbeats=self._heartbeats,
                cors=head.cors,
                cursors=revisions.takes_cursors(head.version, None),
            )
        finally:
            self.streams -= 1
            self._early.close(early)

    def delete(self, head: Head) -> web.Response:
        """Absorb the goodbye; by default with 405, as of a server that does not let clients end sessions
        (MCP 2025-11-25, basic/transports, "Session Management").

        Raises:
            UnsupportedVersion: the version that it names is not served.
        """
        eras.check_version(head, self.rules.eras)
        if head.session_id is not None and self.rules.eras is not ServedEras.MODERN:
            client = self._binder.find_known(head.sender.principal, head.session_id)
            if client is not None:
                self._binder.absorb_delete(client)
                self._delivery.end_stream(client)
        status = self.rules.delete_status
        return web.Response(status=status, headers={**head.cors, **(_ALLOW if status == 405 else {})})


def _no_stream(head: Head) -> web.Response:
    return web.Response(status=405, headers={**head.cors, "Allow": "POST"})


def _go_on() -> None:
    """The client has left, which changes nothing."""


def _refuse_unknown(error: UnknownSession, messages: Incoming, cors: Mapping[str, str]) -> web.Response:
    # What is no request is accepted all the same: most clients give up over anything else.
    first = next((message for message in messages if isinstance(message, Request)), None)
    return web.Response(status=202, headers=cors) if first is None else refuse(error, first.id, cors)
