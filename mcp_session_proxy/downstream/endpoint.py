"""POST, GET and DELETE of the MCP endpoint.

A client's request is read and given to the endpoint of its era, which answers it; here the answer is
written and reported. A legacy client that leaves does not cancel what it asked for (MCP 2025-11-25,
basic/transports: "Disconnection SHOULD NOT be interpreted as the client cancelling its request"). To a
modern client, leaving means cancelling.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import msgspec
from aiohttp import web

from .. import events
from ..errors import (
    BadRequest,
    Draining,
    InternalError,
    ProxyError,
    TooManyExchanges,
    UnknownEvent,
    UnknownSession,
    UpstreamRejected,
)
from ..events import Observer
from ..exchange.call import ModernCall
from ..exchange.early import EarlyStreams
from ..exchange.exchange import Exchange
from ..exchange.fanout import Fanout
from ..exchange.mailbox import Mailbox, Stream
from ..memory import Memory
from ..protocol import inbound, jsonrpc, revisions
from ..protocol.headers import (
    forward_request_headers,
    is_forwarded,
    names_of_this_hop,
    own_repetitions,
    writable,
)
from ..protocol.inbound import HeartbeatFormat
from ..protocol.jsonrpc import Message, Notification, Rejection, Request, Response
from ..protocol.revisions import Era, ServedEras
from ..sessions.binding import Binder
from ..sessions.client import ClientSession
from ..sessions.credentials import sounds_like_identity
from ..sessions.identity import Identifier
from ..tracing import CONTEXT_KEYS, Tracer
from ..upstream.era import EraProbe
from ..upstream.transport import Caller
from . import eras
from .body import read_body
from .connection import Connection, on_departure
from .head import Head
from .hops import Network, comes_from_proxy, restate_way
from .in_flight import InFlight
from .legacy import LegacyEndpoint
from .modern import ModernEndpoint, in_modern_words
from .passthrough import Passthrough
from .posts import Posts
from .report import Report, begin_trace, client_trace_id
from .request import Call, Sender
from .streams import Answer, Heart, Responder, follow, respond_error

_CACHED_NAMES: Final = 2048  # names are the caller's choice, so the cache has a bound
_MAX_HEADERS_TOLD: Final = 20
_MAX_NAME_CHARS: Final = 100
_ALLOW: Final = {"Allow": "GET, POST"}
_ADVICE: Final = (
    "A caller without credentials came over a listener beyond loopback. All such callers share sessions and "
    "their state. If they are not one party, use --anonymous isolate, or --credential-header for what tells "
    "them apart."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """What the operator chose for the endpoint."""

    max_body_bytes: int
    max_json_depth: int
    delete_status: int
    heartbeat_seconds: float
    heartbeat_format: HeartbeatFormat
    json_patience_seconds: float
    rewrite_challenge: Callable[[str], str]
    trusted_proxies: Sequence[Network] = ()
    eras: ServedEras = ServedEras.BOTH
    warn_of_anonymous: bool = False  # strangers can reach us, and would share sessions


class Endpoint:
    """The MCP endpoint. ``handle`` takes each request of its path. ``rules`` may be replaced at any time."""

    def __init__(
        self,
        *,
        legacy: LegacyEndpoint,
        modern: ModernEndpoint,
        era: Callable[[], EraProbe],
        passthrough: Callable[[], Passthrough],
        binder: Binder,
        fanout: Fanout,
        early: EarlyStreams,
        identifier: Identifier,
        memory: Memory,
        in_flight: InFlight,
        rules: EndpointRules,
        observe: Observer,
        tracer: Tracer | None = None,
    ) -> None:
        self.draining = False
        self.heart = Heart(
            rules.heartbeat_seconds,
            json_patience_seconds=rules.json_patience_seconds,
            heartbeat_format=rules.heartbeat_format,
        )
        self.posts = Posts()
        self.streams = 0
        self._legacy = legacy
        self._modern = modern
        self._era = era
        self._passthrough = passthrough
        self._binder = binder
        self._fanout = fanout
        self._early = early
        self._identifier = identifier
        self._memory = memory
        self._in_flight = in_flight
        self._is_accepted = binder.pool.books.has_open
        self.rules = rules
        self._observe = observe
        self._tracer = tracer
        self._tells = lru_cache(maxsize=_CACHED_NAMES)(self._tells_of_sender)
        self._numbers = itertools.count(1)
        self._warn_of_anonymous = rules.warn_of_anonymous
        self._told_of_headers = 0

    def exchanges(self) -> list[Exchange | ModernCall]:
        """Everything that is under way upstream for a client that waits."""
        return [*self._legacy.exchanges, *self._modern.calls]

    async def handle(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        """Answer one HTTP request, whose head the front door has let in."""
        method = request.method
        try:
            if method == "POST":
                return await self._post(request, head)
            if method == "GET":
                return await self._get(request, head)
            if method == "DELETE":
                return self._delete(request, head)
        except ProxyError as error:
            return refuse(error, no_id(request), head.cors)
        return web.Response(status=405, headers={**head.cors, **_ALLOW})

    def _call(self, request: web.BaseRequest, head: Head) -> Call:
        if head.judged_by is not self.rules:
            self._judge(request, head)
        sender = head.sender
        return Call(
            sender.principal,
            sender.caller,
            sender.connection,
            request.headers,
            head.session_id,
            head.version,
            head.version_served,
        )

    def _judge(self, request: web.BaseRequest, head: Head) -> None:
        """What a head says to this endpoint."""
        headers, rules = request.headers, self.rules
        sender = head.sender = self._sender(request)
        session_id = headers.get(revisions.SESSION_HEADER)
        head.session_id = writable(session_id) if session_id else None
        head.version = headers.get(revisions.VERSION_HEADER)
        head.names_modern = inbound.is_modern_version(head.version)
        head.version_served = eras.are_served(headers.getall(revisions.VERSION_HEADER, ()), rules.eras)
        head.accepts = inbound.read_accept(headers.getall("Accept", ()))
        own = own_repetitions(headers, request.raw_headers)
        head.legacy_caller = sender.caller.with_more(own) if own else sender.caller
        head.judged_by = rules

    def _tells_of_sender(self, name: str) -> bool:
        """Whether a header of this name says who is calling, or is one that the server gets to see."""
        if self._tracer is not None and name.lower() in CONTEXT_KEYS:
            return False  # each request has a trace context of its own upstream
        if self._identifier.is_credential(name):
            return True
        if sounds_like_identity(name) and self._told_of_headers < _MAX_HEADERS_TOLD:
            # The names are cached, so each is told of once as long as callers do not invent thousands.
            self._told_of_headers += 1
            self._observe(events.UncountedIdentity(header=name[:_MAX_NAME_CHARS]))
        return is_forwarded(name)

    def _sender(self, request: web.BaseRequest) -> Sender:
        tells = self._tells
        headers = [pair for pair in request.headers.items() if tells(pair[0])]
        query = request.rel_url.raw_query_string
        connection = request.protocol
        assert isinstance(connection, Connection)
        known, rules = connection.sender, self.rules
        if known is not None and known.headers == headers and known.query == query and known.rules is rules:
            return known
        if any(map(self._identifier.is_credential, names_of_this_hop(headers))):
            # Left out as RFC 9110 asks, it would have told the caller apart here and not at the server.
            raise BadRequest('"Connection" must not name a header that says who is calling.')
        principal = self._identifier.principal(headers, query)
        if principal.anonymous and self._warn_of_anonymous:
            self._warn_of_anonymous = False
            self._observe(events.AnonymousCaller(advice=_ADVICE))
        caller = self._caller(request, headers, query)
        connection.sender = sender = Sender(headers, query, rules, principal, caller, connection.number)
        return sender

    def _caller(self, request: web.BaseRequest, headers: list[tuple[str, str]], query: str) -> Caller:
        """What of these headers travels upstream: with this request, and with what the proxy sends itself."""
        forwarded = tuple(
            restate_way(
                forward_request_headers(headers),
                peer=request.remote,
                scheme=request.scheme,
                trusted=self.rules.trusted_proxies,
            )
        )
        credentials = tuple(pair for pair in forwarded if self._identifier.is_credential(pair[0]))
        if credentials == forwarded:
            return Caller(headers=forwarded, query=query)
        return Caller(headers=forwarded, query=query, reduced=Caller(headers=credentials, query=query))

    # -- POST --------------------------------------------------------------------------------------

    async def _post(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        call = self._call(request, head)
        serves_modern = self.rules.eras is not ServedEras.LEGACY
        if head.names_modern and serves_modern and await self._passes_modern(call):
            return await self._passthrough().handle(request, head.cors, to_endpoint=True)
        body = await read_body(request, self.rules.max_body_bytes, self._memory.bodies)
        try:
            return await self._answer_body(request, head, call, body.data)
        finally:
            body.close()

    async def _answer_body(
        self, request: web.BaseRequest, head: Head, call: Call, body: bytes
    ) -> web.StreamResponse:
        served, names_modern = self.rules.eras, head.names_modern
        try:
            messages, batch = jsonrpc.parse_body(body, max_depth=self.rules.max_json_depth)
        except ProxyError as error:
            identifier = jsonrpc.peek_id(body)
            if identifier == jsonrpc.NULL:
                identifier = inbound.no_id(call.version, body)
            return refuse(error, identifier, head.cors)
        first = messages[0]
        if not batch and isinstance(first, Request):
            meta = jsonrpc.read_meta(first.params)
            era = Era.MODERN if names_modern else inbound.era_of(first, None, meta)
            if served is not ServedEras.BOTH:
                era = eras.judge(era, call, served)
            if era is Era.MODERN:
                return await self._post_modern(request, head, call, first, meta)
        elif names_modern or served is ServedEras.MODERN:
            eras.check_version(call, served)
            return self._take_modern(messages, head.cors, batch=batch)
        else:
            meta = {}
        return await self._post_legacy(request, head, call, messages, meta, batch=batch)

    async def _passes_modern(self, call: Call) -> bool:
        """Whether modern requests go to the server as they are; most of them find that known."""
        era = self._era()
        known = era.passes()
        if known is None:
            return await era.ask(call.caller.credentials, call.principal.digest)
        return known

    async def _post_legacy(
        self,
        request: web.BaseRequest,
        head: Head,
        call: Call,
        messages: list[Message | Rejection],
        meta: Mapping[str, bytes],
        *,
        batch: bool,
    ) -> web.StreamResponse:
        """Answer to the end: a client that disconnects cancels nothing.

        ``meta`` is that of a single request.
        """
        call.caller = head.legacy_caller
        first = messages[0]
        if batch or not isinstance(first, Request):
            eras.check_version(call, self.rules.eras)  # a single request's is checked under its own id
        try:
            self._find_client(call, messages)
        except UnknownSession as error:
            return _refuse_unknown(error, messages, head.cors)
        with self.posts:
            if not (isinstance(first, Request) or any(isinstance(m, Request | Rejection) for m in messages)):
                on_departure(request, _never_mind)
                response = await self._take_notifications(call, messages, head.cors)
            else:
                responder = self._responder(request, head, call, batch=batch)
                on_departure(request, responder.client_left)
                if not batch and isinstance(first, Request):
                    response = await self._answer_single(call, first, meta, Era.LEGACY, responder)
                else:
                    response = await self._answer_batch(call, messages, responder)
        if call.client is not None:
            self._note_connection(request, call.client)
        return response

    def _note_connection(self, request: web.BaseRequest, client: ClientSession) -> None:
        """Have the client session told when this connection is closed."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        if connection.client is client:
            client.keeps_connections = True
        else:
            for_others = comes_from_proxy(request.headers)
            connection.carry(client, self._binder.connection_closed, for_others=for_others)

    async def _post_modern(
        self,
        request: web.BaseRequest,
        head: Head,
        call: Call,
        message: Request,
        meta: Mapping[str, bytes],
    ) -> web.StreamResponse:
        """Answer as long as the client waits: one that closes the response cancels its request."""
        with self.posts:
            responder = self._responder(request, head, call, batch=False)
            return await self._answer_single(call, message, meta, Era.MODERN, responder)

    def _take_modern(
        self, messages: list[Message | Rejection], headers: Mapping[str, str], *, batch: bool
    ) -> web.StreamResponse:
        """What modern clients do not send: notifications are dropped, the rest is refused."""
        if not batch and isinstance(messages[0], Notification):
            return web.Response(status=202, headers=headers)
        error = BadRequest("In this protocol version a POST holds one request or notification.")
        return refuse(error, jsonrpc.ABSENT, headers)

    def _responder(self, request: web.BaseRequest, head: Head, call: Call, *, batch: bool) -> Responder:
        client = call.client
        return Responder(
            request,
            head.accepts,
            batch=batch,
            heart=self.heart,
            headers=head.cors,
            mailbox=None if client is None else partial(self._fanout.mailbox, client),
            reads_streams=client is not None and client.had_stream,
            cursors=None if client is None else partial(_takes_cursors, call, client),
            answers=self._memory.answers,
        )

    def _find_client(self, call: Call, messages: list[Message | Rejection]) -> None:
        """Look up the client session; an ``initialize`` asks for a new one whatever id it carries."""
        if call.session_id is None:
            return
        first = messages[0]
        if not (isinstance(first, Request) and first.method != revisions.PING):
            call.client = self._binder.find_known(call.principal, call.session_id)
            idle = not any(isinstance(m, Request) and m.method != revisions.PING for m in messages)
            if call.client is not None or (idle and self._binder.adopts(call.session_id)):
                return  # what comes to nothing under an unknown id makes no client session
        elif first.method == revisions.INITIALIZE and len(messages) == 1:
            return
        call.client = self._binder.find(call.principal, call.session_id)

    async def _answer_batch(
        self, call: Call, messages: list[Message | Rejection], responder: Responder
    ) -> web.StreamResponse:
        """Work on all messages of a batch at once (MCP 2025-03-26, basic, "Batching")."""
        try:
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    group.create_task(self._answer_entry(call, message, responder))
            return await responder.finish()
        finally:
            responder.close()

    async def _answer_entry(self, call: Call, message: Message | Rejection, responder: Responder) -> None:
        if isinstance(message, Rejection):
            await responder.respond(answer_error(message.error, message.id))
        elif not isinstance(message, Request):
            await self._legacy.take(call, message)
        elif message.method == revisions.INITIALIZE:
            error = BadRequest('"initialize" must not be part of a batch.')
            await responder.respond(answer_error(error, message.id))
        else:
            meta = jsonrpc.read_meta(message.params)
            await self._answer(call, message, meta, Era.LEGACY, responder)

    async def _answer_single(
        self, call: Call, request: Request, meta: Mapping[str, bytes], era: Era, responder: Responder
    ) -> web.StreamResponse:
        try:
            await self._answer(call, request, meta, era, responder)
            return await responder.finish()
        finally:
            responder.close()

    # -- requests ------------------------------------------------------------------------------------

    async def _answer(
        self, call: Call, request: Request, meta: Mapping[str, bytes], era: Era, responder: Responder
    ) -> None:
        """Answer one request, whatever happens, and tell how it went."""
        started = time.perf_counter()
        report = Report(request, era, f"r{next(self._numbers)}", call.principal.tag)
        if self._tracer is not None:
            report.trace = begin_trace(self._tracer, call, request, meta, report)
        try:
            answer = await self._dispatch(call, request, meta, responder, report)
            if answer.failed:
                report.outcome = "error"
        except ProxyError as error:
            self._observe(report.failed(error, client_trace_id(call, meta)))
            if report.era is Era.MODERN:
                error = in_modern_words(error, request)
            answer = self._refusal(error, request.id)
        except Exception as error:
            report.outcome, report.fault = InternalError.reason, InternalError.culprit
            self._observe(
                events.Crashed(
                    where="request",
                    error=repr(error),
                    request_id=report.request_id,
                    trace_id=client_trace_id(call, meta) if report.trace is None else report.trace.id,
                )
            )
            answer = answer_error(InternalError("The proxy failed. Its log has the details."), request.id)
        except asyncio.CancelledError:
            if report.trace is not None:
                report.trace.finished("cancelled", b"")
            raise
        self._observe(report.finished(time.perf_counter() - started))
        if report.trace is not None:
            report.trace.finished(report.outcome, answer.body)
        await responder.respond(answer)

    async def _dispatch(
        self,
        call: Call,
        request: Request,
        meta: Mapping[str, bytes],
        responder: Responder,
        report: Report,
    ) -> Answer:
        if self.draining:
            raise Draining("The proxy is shutting down.")
        if request.method == revisions.LISTEN:  # no call, and bounded for itself
            return await self._answer_in_era(call, request, meta, responder, report)
        principal = call.principal.digest
        accepted = self._is_accepted(principal)
        self._in_flight.enter(principal, accepted=accepted)
        try:
            return await self._answer_in_era(call, request, meta, responder, report)
        finally:
            self._in_flight.leave(principal, accepted=accepted)

    async def _answer_in_era(
        self,
        call: Call,
        request: Request,
        meta: Mapping[str, bytes],
        responder: Responder,
        report: Report,
    ) -> Answer:
        if report.era is Era.MODERN:
            served = self.rules.eras
            if served is not ServedEras.BOTH:
                eras.check(request, call, served)
            modern = inbound.read_modern(
                request, meta, partial(call.headers.getall, default=()), served.versions
            )
            affinity = self._identifier.affinity(call.headers, meta)
            report.sessionless = True
            return await self._modern.answer(call, modern, affinity, responder, report)
        if not call.version_served:
            eras.check_version(call, self.rules.eras)
        affinity = self._identifier.affinity(call.headers, meta)
        return await self._legacy.answer(call, request, meta, affinity, responder, report)

    def _refusal(self, error: ProxyError, identifier: bytes) -> Answer:
        answer = answer_error(error, identifier)
        challenge = answer.headers.get("WWW-Authenticate")
        if challenge is None:
            return answer
        headers = {**answer.headers, "WWW-Authenticate": self.rules.rewrite_challenge(challenge)}
        return msgspec.structs.replace(answer, headers=headers)

    # -- notifications and responses -----------------------------------------------------------------

    async def _take_notifications(
        self, call: Call, messages: list[Message | Rejection], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """A POST without requests is accepted, whatever becomes of it: most clients give up over more."""
        principal = call.principal.digest
        accepted = self._is_accepted(principal)
        try:
            self._in_flight.enter(principal, accepted=accepted)
        except TooManyExchanges:
            # A notification may get lost on its way. A response must not: a call of the server waits for it.
            for message in messages:
                if isinstance(message, Response):
                    await self._legacy.take(call, message)
            return web.Response(status=202, headers=headers)
        try:
            for message in messages:
                if isinstance(message, Notification | Response):
                    await self._legacy.take(call, message)
        finally:
            self._in_flight.leave(principal, accepted=accepted)
        return web.Response(status=202, headers=headers)

    # -- GET and DELETE --------------------------------------------------------------------------------

    async def _get(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        """A stream for what the server says of its own accord; the newest GET of a client session wins."""
        call, headers = self._call(request, head), head.cors
        if self.draining:
            raise Draining("The proxy is shutting down.")
        eras.check_version(call, self.rules.eras)
        if call.session_id is None or self.rules.eras is ServedEras.MODERN:
            # Nothing could ever be delivered, and 405 is the way to say so that every client knows.
            return web.Response(status=405, headers={**headers, "Allow": "POST"})
        client = self._binder.find_known(call.principal, call.session_id)
        if client is None:
            return await self._get_early(request, headers, call, call.session_id)
        stream, after = _find_stream(request, self._fanout.mailbox(client))
        self._note_connection(request, client)
        self._binder.stream_opened(client, call.caller)
        self.streams += 1
        try:
            return await follow(
                request,
                stream,
                after=after,
                heart=self.heart,
                headers=headers,
                cursors=revisions.takes_cursors(call.version, client.record.version),
            )
        finally:
            self.streams -= 1
            self._binder.stream_closed(client)

    async def _get_early(
        self, request: web.BaseRequest, headers: Mapping[str, str], call: Call, session_id: str
    ) -> web.StreamResponse:
        """A stream under an id that nothing is known of: it waits for its client session to begin."""
        early = None
        if self._binder.adopts(session_id):
            early = self._early.open(call.principal, session_id, call.caller)
        if early is None:
            return web.Response(status=405, headers={**headers, "Allow": "POST"})
        self.streams += 1
        try:
            stream, after = _find_stream(request, early.mailbox)
            return await follow(
                request,
                stream,
                after=after,
                heart=self.heart,
                headers=headers,
                cursors=revisions.takes_cursors(call.version, None),
            )
        finally:
            self.streams -= 1
            self._early.close(early)

    def _delete(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        """Absorb the goodbye; by default in the specification's own words for "you need not"."""
        call, headers = self._call(request, head), head.cors
        eras.check_version(call, self.rules.eras)
        if call.session_id is not None and self.rules.eras is not ServedEras.MODERN:
            client = self._binder.find_known(call.principal, call.session_id)
            if client is not None:
                self._binder.absorb_delete(client)
                self._fanout.end_stream(client)
        status = self.rules.delete_status
        return web.Response(status=status, headers={**headers, **(_ALLOW if status == 405 else {})})


def _find_stream(request: web.BaseRequest, mailbox: Mailbox) -> tuple[Stream, int]:
    """The stream that a GET asks for, and the number of the event that it goes on after.

    Raises:
        UnknownEvent: any other stream would take what is meant for somebody else's.
    """
    place = mailbox.find(request.headers.get(revisions.LAST_EVENT_ID_HEADER, ""))
    if place is None:
        raise UnknownEvent("This event id names no stream that could go on. Open one without it.")
    return place


def answer_error(error: ProxyError, identifier: bytes) -> Answer:
    """An error as an answer. A refusal of the server's without JSON-RPC keeps its body (OAuth)."""
    body = jsonrpc.write_error(identifier, error)
    headers = {name: writable(value) for name, value in error.headers().items()}
    if isinstance(error, UpstreamRejected) and error.raw_error is None and error.http_status in (401, 403):
        return Answer(
            body=body,
            plain=error.body,
            status=error.http_status,
            headers=headers,
            content_type=writable(error.content_type or "text/plain"),
        )
    return Answer(body=body, status=error.http_status, headers=headers)


def no_id(request: web.BaseRequest) -> bytes:
    """What stands for the id in an answer to a request whose body was not read."""
    return inbound.no_id(request.headers.get(revisions.VERSION_HEADER))


def refuse(error: ProxyError, identifier: bytes, headers: Mapping[str, str]) -> web.Response:
    """An error as a whole response."""
    return respond_error(jsonrpc.write_error(identifier, error), error.http_status, headers, error.headers())


def _takes_cursors(call: Call, client: ClientSession) -> bool:
    """Whether the client can read events without data; asked for streams only, which few answers become."""
    return revisions.takes_cursors(call.version, client.record.version)


def _never_mind() -> None:
    """The client has left, and it does not matter."""


def _refuse_unknown(
    error: UnknownSession, messages: list[Message | Rejection], headers: Mapping[str, str]
) -> web.Response:
    request = next((m for m in messages if isinstance(m, Request)), None)
    if request is None:
        return web.Response(status=202, headers=headers)
    return refuse(error, request.id, headers)
