"""The MCP endpoint for legacy clients: sessions that we mint, requests passed through with other ids.

MCP 2024-11-05 to 2025-11-25. Clients keep their session, lose it, never had one or share one they
brought; each request ends up on the upstream session that is right for it.
"""

from collections.abc import Mapping

from ..errors import UpstreamRejected
from ..events import Observer
from ..exchange import tasks
from ..exchange.catalog import LISTS, Catalog
from ..exchange.exchange import Exchange
from ..exchange.fanout import Fanout
from ..exchange.introduction import introduce
from ..exchange.relay import Relay
from ..exchange.wishes import Wishes
from ..protocol import jsonrpc, lifting, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..sessions.binding import Binder, Visit
from ..sessions.client import ClientSession
from ..sessions.identity import Roots
from ..sessions.profiles import Profiles
from ..upstream.journal import JOURNALLED
from .ping import Pings
from .report import Report
from .request import Call
from .streams import Answer, Responder

_EMPTY_RESULT = b"{}"


class LegacyEndpoint:
    """Answers legacy requests, and takes legacy notifications and responses."""

    def __init__(
        self,
        *,
        binder: Binder,
        profiles: Profiles,
        catalog: Catalog,
        fanout: Fanout,
        wishes: Wishes,
        pings: Pings,
        observe: Observer,
    ) -> None:
        self.exchanges: dict[Exchange, None] = {}
        self._profiles = profiles
        self._pings = pings
        self._binder = binder
        self._catalog = catalog
        self._fanout = fanout
        self._wishes = wishes
        self._observe = observe
        self._calls: dict[tuple[ClientSession, bytes], Exchange] = {}

    async def answer(
        self,
        call: Call,
        request: Request,
        meta: Mapping[str, bytes],
        affinity: str | None,
        responder: Responder,
        report: Report,
    ) -> Answer:
        """The answer to one request.

        Raises:
            ProxyError: there is none.
        """
        if request.method == revisions.INITIALIZE:
            responder.hold()  # the session id is in a header
            return await self._initialize(call, request, affinity, report)
        key = None
        if call.client is None and request.method in LISTS and not meta:
            key = self._binder.sessionless_key(call.principal, affinity)
            if (kept := self._catalog.find(key, request.method, request.params)) is not None:
                report.sessionless = True
                return Answer(body=_result(request, kept.result))
        if request.method == revisions.PING:
            return await self._answer_ping(call, request, affinity, report)
        generation = self._catalog.generation
        with await self._visit(call, affinity, report) as visit:
            client = visit.client
            if client is not None and client.profile.roots is Roots.CHANGING:
                await introduce(visit.session, client, call.caller)
            if client is not None and request.method in JOURNALLED:
                response, refusal = await self._ask_for_wishes(request, meta, visit, responder, report)
            else:
                response, refusal = await self._exchange(request, meta, visit, responder, report)
            if client is not None and response.error is not None:
                for params in lifting.required_urls(response):
                    self._fanout.note_elicitation(client, params)
            if key is not None and response.result is not None:
                self._catalog.keep(
                    key, request.method, request.params, response.result, visit.session, generation
                )
        body, failed = jsonrpc.write_response(request.id, response), response.error is not None
        if refusal is None:
            return Answer(body=body, failed=failed)
        return Answer(body=body, status=refusal.upstream_status, headers=refusal.headers(), failed=failed)

    async def _answer_ping(
        self, call: Call, request: Request, affinity: str | None, report: Report
    ) -> Answer:
        """Say that all is well, where that is known; find out by a handshake where it is not."""
        self._pings.check_up()
        if not self._pings.is_accepted(call):
            with await self._visit(call, affinity, report):
                pass  # the session stands, so the server has accepted this caller
            self._pings.note_accepted(call)
        return Answer(body=_result(request, _EMPTY_RESULT))

    async def _initialize(self, call: Call, request: Request, affinity: str | None, report: Report) -> Answer:
        """Give the client a session id of ours, and the server's own answer to this profile."""
        profile = self._profiles.of_initialize(request.params)
        if report.trace is not None:
            report.trace.waits()
        known = None if call.session_id is None else self._binder.find_known(call.principal, call.session_id)
        if known is not None:
            self._fanout.begin_anew(known)  # before it may be asked something new
        client, visit = await self._binder.initialize(
            call.principal, profile, affinity, call.session_id, call.caller
        )
        with visit:
            report.visits(visit)
            call.client = client
            result = visit.session.initialize_result
            client.record.version = jsonrpc.read_string(jsonrpc.read_object(result).get("protocolVersion"))
            body = _result(request, result)
        return Answer(body=body, headers={revisions.SESSION_HEADER: client.id})

    async def _visit(self, call: Call, affinity: str | None, report: Report) -> Visit:
        report.sessionless = call.client is None
        if report.trace is not None:
            report.trace.waits()
        if call.client is None or (affinity is not None and affinity != call.client.key.affinity):
            visit = await self._binder.borrow(call.principal, affinity, call.client, call.caller)
        else:
            visit = await self._binder.enter(call.client, call.caller)
        report.visits(visit)
        return visit

    async def _ask_for_wishes(
        self,
        request: Request,
        meta: Mapping[str, bytes],
        visit: Visit,
        responder: Responder,
        report: Report,
    ) -> tuple[Response, UpstreamRejected | None]:
        """What the client wants to be told of, together with what others want on the same session."""
        refusals: list[UpstreamRejected | None] = []

        async def send(asked: Request) -> Response:
            response, refusal = await self._exchange(asked, meta, visit, responder, report)
            refusals.append(refusal)
            return response

        assert visit.client is not None
        response = await self._wishes.ask(visit.client, visit.session, request, send)
        return response, refusals[0] if refusals else None

    async def _exchange(
        self,
        request: Request,
        meta: Mapping[str, bytes],
        visit: Visit,
        responder: Responder,
        report: Report,
    ) -> tuple[Response, UpstreamRejected | None]:
        """The server's response, and the refusal that it came with, if the server gave it as one."""
        relay = Relay(responder, visit.client, visit.session, self._fanout)
        token = jsonrpc.read_progress_token(meta) if meta else None
        exchange = Exchange(request, token, visit, relay, self._observe)
        self.exchanges[exchange] = None
        place = None if visit.client is None else (visit.client, request.id)
        if place is not None:
            self._calls[place] = exchange
        try:
            work = exchange.run() if report.trace is None else exchange.trace(report.trace)
            response = await work
            if token is not None and visit.client is not None:
                number = exchange.upstream_id
                tasks.follow(visit.session, number, token, visit.client, response, self._fanout)
            if visit.session.tokens and request.method.startswith("tasks/"):
                tasks.note_response(visit.session, request, response)
            return response, exchange.refusal
        finally:
            report.upstream_seconds = exchange.upstream_seconds
            del self.exchanges[exchange]
            if place is not None and self._calls.get(place) is exchange:
                del self._calls[place]

    async def take(self, call: Call, message: Message) -> None:
        """Take a notification or a response; what concerns nobody is dropped."""
        client = call.client
        if client is None:
            return
        if isinstance(message, Response):
            await self._fanout.answer(client, message, call.caller)
        elif isinstance(message, Notification):
            if message.method == revisions.CANCELLED:
                wanted = jsonrpc.read_object(message.params).get("requestId", b"")
                if (exchange := self._calls.get((client, wanted))) is not None:
                    await exchange.cancel(message.params, call.caller)
            elif message.method != revisions.INITIALIZED:
                await self._fanout.forward(client, message, call.caller)


def _result(request: Request, result: bytes) -> bytes:
    return jsonrpc.write_response(request.id, Response(request.id, result=result))
