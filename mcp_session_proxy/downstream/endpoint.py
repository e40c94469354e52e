"""POST, GET and DELETE of the MCP endpoint.

A client's request is read and judged, an upstream session is found for it, an exchange carries it
there and back, and the responder writes the answer. Each POST is worked on in a task of its own, so
that a client that leaves does not cancel what it asked for (MCP 2025-11-25, basic/transports:
"Disconnection SHOULD NOT be interpreted as the client cancelling its request").
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDictProxy

from .. import events
from ..errors import (
    BadRequest,
    BodyTooLarge,
    Draining,
    InternalError,
    ProxyError,
    UnknownSession,
    UpstreamRejected,
)
from ..events import Observer
from ..exchange.exchange import Exchange
from ..exchange.fanout import Fanout
from ..exchange.relay import Relay
from ..protocol import inbound, jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Rejection, Request, Response
from ..protocol.revisions import Era
from ..sessions.binding import Binder, Visit
from ..sessions.directory import ClientSession
from ..sessions.identity import Identifier, Principal, read_profile
from ..upstream.transport import Caller
from .headers import forward_request_headers
from .streams import Answer, Heart, Responder, follow, respond_error

_BODY_SECONDS: Final = 60.0
_ALLOW: Final = {"Allow": "GET, POST"}
_EMPTY_RESULT: Final = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """What the operator chose for the endpoint."""

    max_body_bytes: int
    delete_status: int
    heartbeat_seconds: float
    rewrite_challenge: Callable[[str], str]


@dataclass(slots=True)
class Call:
    """Who sent one HTTP request, and on which client session."""

    principal: Principal
    caller: Caller
    headers: CIMultiDictProxy[str]
    session_id: str | None
    client: ClientSession | None = None


class Endpoint:
    """The MCP endpoint. ``handle`` takes each request of its path."""

    def __init__(
        self,
        *,
        binder: Binder,
        fanout: Fanout,
        identifier: Identifier,
        rules: EndpointRules,
        observe: Observer,
    ) -> None:
        self.draining = False
        self.heart = Heart(rules.heartbeat_seconds)
        self.posts: set[asyncio.Task[web.StreamResponse]] = set()
        self.exchanges: dict[Exchange, None] = {}
        self.streams = 0
        self._binder = binder
        self._fanout = fanout
        self._identifier = identifier
        self._rules = rules
        self._observe = observe
        self._calls: dict[tuple[ClientSession, bytes], Exchange] = {}
        self._numbers = itertools.count(1)

    async def handle(self, request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        """Answer one HTTP request; ``headers`` go on every answer (CORS)."""
        try:
            if request.method == "POST":
                return await self._post(request, headers)
            if request.method == "GET":
                return await self._get(request, headers)
            if request.method == "DELETE":
                return self._delete(request, headers)
        except ProxyError as error:
            return refuse(error, jsonrpc.NULL, headers)
        return web.Response(status=405, headers={**headers, **_ALLOW})

    def _call(self, request: web.BaseRequest) -> Call:
        headers = request.headers
        query = request.rel_url.raw_query_string
        return Call(
            principal=self._identifier.principal(headers.items(), query),
            caller=Caller(headers=tuple(forward_request_headers(headers)), query=query),
            headers=headers,
            session_id=headers.get(revisions.SESSION_HEADER) or None,
        )

    # -- POST --------------------------------------------------------------------------------------

    async def _post(self, request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        body = await self._read_body(request)
        try:
            messages, batch = jsonrpc.parse_body(body)
        except ProxyError as error:
            return refuse(error, jsonrpc.peek_id(body), headers)
        call = self._call(request)
        try:
            self._find_client(call, messages)
        except UnknownSession as error:
            return _refuse_unknown(error, messages, headers)
        if not any(isinstance(message, Request | Rejection) for message in messages):
            work = self._take_notifications(call, messages, headers)
            return await asyncio.shield(self._spawn(work))
        mailbox = None if call.client is None else self._fanout.mailbox(call.client)
        responder = Responder(
            request,
            inbound.read_accept(request.headers.getall("Accept", [])),
            batch=batch,
            heart=self.heart,
            headers=headers,
            mailbox=mailbox,
        )
        task = self._spawn(self._answer_all(call, messages, responder))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            responder.client_left()
            raise

    async def _read_body(self, request: web.BaseRequest) -> bytes:
        try:
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(_BODY_SECONDS):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLarge(
                f"The body is over {self._rules.max_body_bytes} bytes, which --max-body-bytes allows."
            ) from error
        except (TimeoutError, web.RequestPayloadError) as error:
            raise BadRequest("The body did not arrive whole.") from error

    def _find_client(self, call: Call, messages: list[Message | Rejection]) -> None:
        """Look up the client session; an ``initialize`` asks for a new one whatever id it carries."""
        first = messages[0]
        starts = isinstance(first, Request) and first.method == revisions.INITIALIZE and len(messages) == 1
        if call.session_id is not None and not starts:
            call.client = self._binder.find(call.principal, call.session_id)

    def _spawn(self, work: Coroutine[Any, Any, web.StreamResponse]) -> asyncio.Task[web.StreamResponse]:
        task = asyncio.get_running_loop().create_task(work)
        self.posts.add(task)
        task.add_done_callback(self.posts.discard)
        return task

    async def _answer_all(
        self, call: Call, messages: list[Message | Rejection], responder: Responder
    ) -> web.StreamResponse:
        if len(messages) == 1:
            await self._answer_one(call, messages[0], responder, in_batch=False)
        else:
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    group.create_task(self._answer_one(call, message, responder, in_batch=True))
        return await responder.finish()

    async def _answer_one(
        self, call: Call, message: Message | Rejection, responder: Responder, *, in_batch: bool
    ) -> None:
        if isinstance(message, Rejection):
            await responder.respond(answer_error(message.error, message.id))
        elif isinstance(message, Request):
            if in_batch and message.method == revisions.INITIALIZE:
                error = BadRequest('"initialize" must not be part of a batch.')
                await responder.respond(answer_error(error, message.id))
            else:
                await self._answer(call, message, responder)
        else:
            await self._take(call, message)

    # -- requests ------------------------------------------------------------------------------------

    async def _answer(self, call: Call, request: Request, responder: Responder) -> None:
        """Answer one request, whatever happens, and tell how it went."""
        started = time.perf_counter()
        report = _Report(request, f"r{next(self._numbers)}", call.principal.tag)
        try:
            answer = await self._dispatch(call, request, responder, report)
        except ProxyError as error:
            report.outcome = error.reason
            self._observe(report.failed(error.reason, error.message))
            answer = self._refusal(error, request.id)
        except Exception as error:
            report.outcome = InternalError.reason
            self._observe(events.Crashed(where="request", error=repr(error), request_id=report.request_id))
            answer = answer_error(InternalError("The proxy failed. Its log has the details."), request.id)
        self._observe(report.finished(time.perf_counter() - started))
        await responder.respond(answer)

    async def _dispatch(
        self, call: Call, request: Request, responder: Responder, report: "_Report"
    ) -> Answer:
        if self.draining:
            raise Draining("The proxy is shutting down.")
        meta = jsonrpc.read_meta(request.params)
        version = call.headers.get(revisions.VERSION_HEADER)
        if request.method == revisions.DISCOVER or inbound.era_of(request, version, meta) is Era.MODERN:
            report.era = Era.MODERN
            named = jsonrpc.read_string(meta.get(revisions.META_VERSION)) or version
            raise inbound.refuse_modern(named)
        affinity = self._identifier.affinity(call.headers, meta)
        if request.method == revisions.INITIALIZE:
            return await self._initialize(call, request, affinity, report)
        if request.method == revisions.PING:
            return Answer(body=_result(request, _EMPTY_RESULT))
        visit = await self._visit(call, affinity, report)
        try:
            return await self._exchange(request, meta, visit, responder, report)
        finally:
            visit.end()

    async def _initialize(
        self, call: Call, request: Request, affinity: str | None, report: "_Report"
    ) -> Answer:
        """Give the client a session id of ours, and the server's own answer to this profile."""
        profile = read_profile(request.params)
        client, visit = await self._binder.initialize(
            call.principal, profile, affinity, call.session_id, call.caller
        )
        report.session = visit.session.tag
        body = _result(request, visit.session.initialize_result)
        visit.end()
        return Answer(body=body, headers={revisions.SESSION_HEADER: client.id})

    async def _visit(self, call: Call, affinity: str | None, report: "_Report") -> Visit:
        if call.client is None:
            self._observe(events.SessionlessRequest(era=report.era))
        if call.client is None or (affinity is not None and affinity != call.client.key.affinity):
            visit = await self._binder.borrow(call.principal, affinity, call.client, call.caller)
        else:
            visit = await self._binder.enter(call.client, call.caller)
        report.session = visit.session.tag
        return visit

    async def _exchange(
        self,
        request: Request,
        meta: Mapping[str, bytes],
        visit: Visit,
        responder: Responder,
        report: "_Report",
    ) -> Answer:
        relay = Relay(responder, visit.client, visit.session, self._fanout)
        exchange = Exchange(request, meta.get("progressToken"), visit, relay, self._observe)
        self.exchanges[exchange] = None
        place = None if visit.client is None else (visit.client, request.id)
        if place is not None:
            self._calls[place] = exchange
        try:
            response = await exchange.run()
        finally:
            report.upstream_seconds = exchange.upstream_seconds
            del self.exchanges[exchange]
            if place is not None and self._calls.get(place) is exchange:
                del self._calls[place]
        if response.error is not None:
            report.outcome = "error"
        return Answer(body=jsonrpc.write_response(request.id, response))

    def _refusal(self, error: ProxyError, identifier: bytes) -> Answer:
        answer = answer_error(error, identifier)
        challenge = answer.headers.get("WWW-Authenticate")
        if challenge is None:
            return answer
        headers = {**answer.headers, "WWW-Authenticate": self._rules.rewrite_challenge(challenge)}
        return replace(answer, headers=headers)

    # -- notifications and responses -----------------------------------------------------------------

    async def _take_notifications(
        self, call: Call, messages: list[Message | Rejection], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """A POST without requests is accepted, always: most clients give up over anything else."""
        for message in messages:
            if isinstance(message, Notification | Response):
                await self._take(call, message)
        return web.Response(status=202, headers=headers)

    async def _take(self, call: Call, message: Message) -> None:
        client = call.client
        if client is None:
            return
        if isinstance(message, Response):
            await self._fanout.answer(client, message)
        elif isinstance(message, Notification):
            if message.method == revisions.CANCELLED:
                wanted = jsonrpc.read_object(message.params).get("requestId", b"")
                if (exchange := self._calls.get((client, wanted))) is not None:
                    await exchange.cancel(message.params)
            elif message.method != revisions.INITIALIZED:
                await self._fanout.forward(client, message)

    # -- GET and DELETE --------------------------------------------------------------------------------

    async def _get(self, request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        """A stream for what the server says of its own accord; the newest GET of a client session wins."""
        call = self._call(request)
        if self.draining:
            raise Draining("The proxy is shutting down.")
        if call.session_id is None:
            # Nothing could ever be delivered, and 405 is the way to say so that every client knows.
            return web.Response(status=405, headers={**headers, "Allow": "POST"})
        try:
            client = self._binder.find(call.principal, call.session_id)
        except UnknownSession:
            return web.Response(status=405, headers={**headers, "Allow": "POST"})
        mailbox = self._fanout.mailbox(client)
        place = mailbox.find(request.headers.get(revisions.LAST_EVENT_ID_HEADER, ""))
        stream, after = place or (mailbox.standalone, mailbox.standalone.taken)
        self._binder.stream_opened(client, call.caller)
        self.streams += 1
        try:
            return await follow(
                request,
                stream,
                after=after,
                heartbeat_seconds=self._rules.heartbeat_seconds,
                headers=headers,
            )
        finally:
            self.streams -= 1
            self._binder.stream_closed(client)

    def _delete(self, request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        """Absorb the goodbye; by default in the specification's own words for "you need not"."""
        call = self._call(request)
        if call.session_id is not None:
            try:
                client = self._binder.find(call.principal, call.session_id)
            except UnknownSession:
                client = None
            if client is not None:
                self._binder.absorb_delete(client)
                self._fanout.end_stream(client)
        status = self._rules.delete_status
        return web.Response(status=status, headers={**headers, **(_ALLOW if status == 405 else {})})


class _Report:
    """What is told about one request when it is over."""

    __slots__ = ("era", "method", "outcome", "principal", "request_id", "session", "upstream_seconds")

    def __init__(self, request: Request, request_id: str, principal: str) -> None:
        self.era = Era.LEGACY
        self.method = revisions.method_label(request.method)
        self.outcome = "ok"
        self.principal = principal
        self.request_id = request_id
        self.session: str | None = None
        self.upstream_seconds: float | None = None

    def failed(self, reason: str, detail: str) -> events.RequestFailed:
        return events.RequestFailed(
            method=self.method,
            reason=reason,
            detail=detail,
            request_id=self.request_id,
            principal=self.principal,
        )

    def finished(self, seconds: float) -> events.RequestFinished:
        return events.RequestFinished(
            era=self.era,
            method=self.method,
            outcome=self.outcome,
            seconds=seconds,
            upstream_seconds=self.upstream_seconds,
            request_id=self.request_id,
            principal=self.principal,
            session=self.session,
        )


def _result(request: Request, result: bytes) -> bytes:
    return jsonrpc.write_response(request.id, Response(request.id, result=result))


def answer_error(error: ProxyError, identifier: bytes) -> Answer:
    """An error as an answer. A refusal of the server's without JSON-RPC keeps its body (OAuth)."""
    if isinstance(error, UpstreamRejected) and error.raw_error is None and error.http_status in (401, 403):
        return Answer(
            body=error.body,
            status=error.http_status,
            headers=error.headers(),
            content_type=error.content_type or "text/plain",
        )
    body = jsonrpc.write_error(identifier, error)
    return Answer(body=body, status=error.http_status, headers=error.headers())


def refuse(error: ProxyError, identifier: bytes, headers: Mapping[str, str]) -> web.Response:
    """An error as a whole response."""
    return respond_error(jsonrpc.write_error(identifier, error), error.http_status, headers, error.headers())


def _refuse_unknown(
    error: UnknownSession, messages: list[Message | Rejection], headers: Mapping[str, str]
) -> web.Response:
    request = next((m for m in messages if isinstance(m, Request)), None)
    if request is None:
        return web.Response(status=202, headers=headers)
    return refuse(error, request.id, headers)
