"""What legacy requests mean: sessions that we mint, messages passed through with other ids.

MCP 2024-11-05 to 2025-11-25. Clients keep their session, lose it, never had one or share one they
brought; each request ends up on the upstream session that is right for it.
"""

from collections.abc import Awaitable

from ..errors import UpstreamRejected
from ..events import Observer
from ..exchange import task_progress
from ..exchange.as_task import FollowingExchange
from ..exchange.catalog import Catalog, KeptList, Owner
from ..exchange.delivery import Delivery
from ..exchange.exchange import Exchange
from ..exchange.introduction import introduce
from ..exchange.relay import Relay
from ..exchange.tasks import Handles
from ..exchange.wishes import Wishes
from ..protocol import jsonrpc, lifting, revisions, tasks
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..sessions.attaching import usable_lease
from ..sessions.binding import Binder, Visit
from ..sessions.client import ClientSession
from ..sessions.identity import Roots, SessionKey
from ..sessions.profiles import Profiles
from ..upstream.journal import JOURNALLED
from ..upstream.transport import Caller
from .answers import Answer
from .ping import Pings
from .request import ClientRequest

_EMPTY_RESULT = b"{}"


class LegacyRequests:
    """Answers legacy requests, and takes notifications and responses of client sessions."""

    def __init__(
        self,
        *,
        binder: Binder,
        profiles: Profiles,
        catalog: Catalog,
        delivery: Delivery,
        wishes: Wishes,
        tasks: Handles,
        pings: Pings,
        observe: Observer,
    ) -> None:
        self._profiles = profiles
        self._pings = pings
        self._binder = binder
        self._catalog = catalog
        self._delivery = delivery
        self._wishes = wishes
        self._tasks = tasks
        self._observe = observe
        self._cancellable: dict[tuple[ClientSession, bytes], Exchange] = {}  # by the client's own id

    async def answer(self, request: ClientRequest) -> Answer:
        """The answer to one request.

        Raises:
            ProxyError: there is none.
        """
        message, client = request.message, request.client
        if message.method == revisions.INITIALIZE:
            request.responder.hold()  # the session id is in a header
            return await self._initialize(request)
        # A kept list is good for a request that wants nothing but the list: ``_meta`` may ask for progress.
        wants_list = message.method in revisions.LISTS and not request.meta
        if wants_list and (kept := self._find_list(request)) is not None:
            request.sessionless = client is None
            return Answer(body=_result(message, kept.result))
        if message.method == revisions.PING:
            return await self._answer_ping(request)
        with await self._visit(request) as visit:
            request.visits(visit)
            if client is not None and client.profile.roots is Roots.CHANGING:
                # The server may still be in the folders of the client that had this session before.
                await introduce(visit.session, client, request.caller)
            # As it is before the server is asked: a list that changes while it is on its way is not kept.
            asked = self._catalog.ask(message.method, visit.session) if wants_list else None
            if client is not None and message.method in JOURNALLED:
                response, refusal = await self._ask_for_wishes(request, visit)
            else:
                response, refusal = await self._exchange(request, message, visit)
            if client is not None and response.error is not None:
                # The end of an elicitation is told later, and only to the client that was asked for it.
                for params in lifting.required_urls(response):
                    self._delivery.note_elicitation(client, params)
            if message.method == revisions.TOOLS_LIST and response.result is not None:
                response = Response(response.id, result=await self._catalog.ease_tools(response.result))
            if asked is not None and response.result is not None:
                owner: Owner = self._sessionless_key(request) if client is None else visit.session
                self._catalog.keep(owner, message.params, response.result, asked, request.caller)
        body, failed = jsonrpc.write_response(message.id, response), response.error is not None
        if refusal is None:
            return Answer(body=body, failed=failed)
        return Answer(body=body, status=refusal.upstream_status, headers=refusal.headers(), failed=failed)

    def _find_list(self, request: ClientRequest) -> KeptList | None:
        """The list that this request asks for, if it is kept and certainly right.

        That of a client session is the list of the upstream session that it holds. Who holds none comes to
        one by a visit, and so does who has yet to be introduced: a list may be about its client's roots.
        """
        message, client = request.message, request.client
        owner: Owner
        if client is None:
            owner = self._sessionless_key(request)
        else:
            lease = usable_lease(client)
            if lease is None or _is_elsewhere(client, request.affinity):
                return None
            owner = session = lease.slot.session
            if client.profile.roots is Roots.CHANGING and session.record.roots.respondent != client:
                return None
        kept = self._catalog.find(owner, message.method, message.params, request.caller)
        if kept is not None and client is not None:
            client.record.requests += 1
        return kept

    def _sessionless_key(self, request: ClientRequest) -> SessionKey:
        return self._binder.sessionless_key(request.principal, request.affinity)

    async def _answer_ping(self, request: ClientRequest) -> Answer:
        """Say that all is well, where that is known; find out by a handshake where it is not."""
        self._pings.check_up()
        if not self._pings.is_accepted(request):
            with await self._visit(request) as visit:
                request.visits(visit)  # the session stands, so the server has accepted this caller
            self._pings.note_accepted(request.principal)
        return Answer(body=_result(request.message, _EMPTY_RESULT))

    async def _initialize(self, request: ClientRequest) -> Answer:
        """Give the client a session id of ours, and the server's own answer to this profile."""
        profile = self._profiles.of_initialize(request.message.params)
        request.trace.waits()
        session_id, principal = request.head.session_id, request.principal
        known = None if session_id is None else self._binder.find_known(principal, session_id)
        if known is not None:
            known.begin_anew()  # before it may be asked something new
        client, visit = await self._binder.initialize(
            principal, profile, request.affinity, session_id, request.caller
        )
        with visit:
            request.visits(visit)
            request.client = client
            result = visit.session.incarnation.initialize_result
            client.record.version = jsonrpc.read_string(jsonrpc.read_object(result).get("protocolVersion"))
            body = _result(request.message, result)
        if request.http.transport is None and client is not known and not client.record.adopted:
            # It has left, and nobody will ever learn the id: what it would hold is for somebody else.
            self._binder.forget(client, "unheard")
        return Answer(body=body, headers={revisions.SESSION_HEADER: client.id})

    def _visit(self, request: ClientRequest) -> Awaitable[Visit]:
        """A visit to the session that is right for it: its client session's, its conversation's, or any that
        its caller has and nobody is attached to.
        """
        client, affinity = request.client, request.affinity
        request.sessionless = client is None
        request.trace.waits()
        if client is None or _is_elsewhere(client, affinity):
            return self._binder.borrow(request.principal, affinity, client, request.caller)
        return self._binder.enter(client, request.caller)

    async def _ask_for_wishes(
        self, request: ClientRequest, visit: Visit
    ) -> tuple[Response, UpstreamRejected | None]:
        """What the client wants to be told of, together with what others want on the same session."""
        refusals: list[UpstreamRejected | None] = []

        async def send(asked: Request) -> Response:
            response, refusal = await self._exchange(request, asked, visit)
            refusals.append(refusal)
            return response

        assert visit.client is not None
        response = await self._wishes.ask(visit.client, visit.session, request.message, send)
        return response, refusals[0] if refusals else None

    async def _exchange(
        self, request: ClientRequest, message: Request, visit: Visit
    ) -> tuple[Response, UpstreamRejected | None]:
        """The server's response to a message, which need not be the client's own, and the refusal that it
        came with, if the server gave it as one.
        """
        session, client = visit.session, visit.client
        relay = Relay(request.responder, client, session, self._delivery)
        token = jsonrpc.read_progress_token(request.meta) if request.meta else None
        place = None if client is None else (client, message.id)
        exchange = Exchange(message, token, visit, relay, self._observe)
        while True:
            request.exchange = exchange
            if place is not None:
                self._cancellable[place] = exchange
            try:
                response = await exchange.run(request.trace)
            finally:
                request.upstream_seconds = exchange.upstream_seconds
                request.exchange = None
                # Two requests with one id may be in flight; the newer has the place, and keeps it.
                if place is not None and self._cancellable.get(place) is exchange:
                    del self._cancellable[place]
            result = response.result
            # A result that is long, or lacks the word, does not refuse the call for want of a task. Nearly
            # all are such, and none of them is read.
            if result is not None and (len(result) > tasks.REFUSAL_BYTES or tasks.AUGMENT not in result):
                break
            if isinstance(exchange, FollowingExchange) or not await self._wants_task(
                message, response, visit
            ):
                break
            exchange = self._follow(message, token, visit, relay)  # and once more, as a task
        if token is not None and client is not None:
            task_progress.follow(session, exchange.upstream_id, token, client, response, self._delivery)
        if session.incarnation.calls.tokens and message.method.startswith("tasks/"):
            task_progress.note_response(session, message, response)
        return response, exchange.refusal

    def _follow(self, message: Request, token: bytes | None, visit: Visit, relay: Relay) -> FollowingExchange:
        """The same call once more, as a task, for a client that knows nothing of that."""
        return FollowingExchange(
            message,
            token,
            visit,
            relay,
            self._observe,
            ttl_seconds=self._tasks.rules.ttl_seconds,
            followed=self._tasks.followed,
        )

    async def _wants_task(self, message: Request, response: Response, visit: Visit) -> bool:
        """Whether the server has refused a call because its tool only runs as a task.

        Then nothing was executed, so it may be called again.
        """
        facts = visit.session.incarnation.facts
        if (
            message.method != revisions.TOOLS_CALL
            or not tasks.may_want_task(response)
            or tasks.asks_for_task(message.params)
            or not tasks.runs_tasks(facts.capabilities)
        ):
            return False
        if response.error is not None and tasks.wants_task(response.error):
            return True
        marks = self._catalog.known_marks(visit.key) or await self._catalog.marks(visit.key, visit)
        tool = marks.get(jsonrpc.read_string(jsonrpc.read_object(message.params).get("name")) or "")
        return tool is not None and tool.needs_task

    async def take(self, client: ClientSession, message: Message, caller: Caller) -> None:
        """Take a notification or a response of a client session; what concerns nobody is dropped."""
        if isinstance(message, Response):
            await self._delivery.answer(client, message, caller)
        elif isinstance(message, Notification):
            if message.method == revisions.CANCELLED:
                wanted = jsonrpc.read_object(message.params).get("requestId", b"")
                if (exchange := self._cancellable.get((client, wanted))) is not None:
                    await exchange.cancel(message.params, caller)
            # That one is the end of a handshake, and those with the server are ours.
            elif message.method != revisions.INITIALIZED:
                await self._delivery.forward(client, message, caller)


def _is_elsewhere(client: ClientSession, affinity: str | None) -> bool:
    """Whether a request that belongs to this conversation is of another one than its client session."""
    return affinity is not None and affinity != client.key.affinity


def _result(message: Request, result: bytes) -> bytes:
    return jsonrpc.write_response(message.id, Response(message.id, result=result))
