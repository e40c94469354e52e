"""What modern requests mean: the 2026-07-28 revision, served by a legacy server.

Each request is checked, lowered, run on a session that its caller's other requests share, and lifted.
Its handler is cancelled when the client closes the response, which is this revision's way to cancel
(basic/transports/streamable-http, "Cancellation").
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
from multidict import MultiMapping

from ..backoff import Backoff
from ..errors import (
    BadRequest,
    HandshakeRefused,
    MissingCapability,
    ProxyError,
    StateRefused,
    UpstreamRejected,
)
from ..events import Observer
from ..exchange.as_task import CreatingExchange, FollowingExchange
from ..exchange.attribution import Attribution
from ..exchange.call import Created, ModernCall, Outcome
from ..exchange.catalog import Catalog
from ..exchange.exchange import Exchange
from ..exchange.handles import Handle
from ..exchange.inquiry import inquire
from ..exchange.legacy_handle import LegacyHandle
from ..exchange.listening import Listener, Listening
from ..exchange.parking import Parking
from ..exchange.tasks import Handles
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, lifting, lowering, mirroring, revisions, tasks
from ..protocol.inbound import ModernRequest, no_such_method
from ..protocol.jsonrpc import Request, Response
from ..protocol.lifting import CacheHint, ServerFacts
from ..protocol.subscriptions import Filter, read_filter
from ..protocol.tasks import Support
from ..protocol.tool_lists import Marks, ToolMarks
from ..sessions.binding import Binder, Visit
from ..sessions.identity import Principal, Profile, Roots, SessionKey
from ..sessions.profiles import Profiles
from .answers import Answer
from .connection import Connection, begin_following
from .hops import comes_from_proxy
from .request import ClientRequest
from .task_requests import TaskRequests, read_answers

_RETRIES: Final = Backoff(0.5, 30.0)
_NO_HINT: Final = CacheHint()
_WITHOUT_A_CALL: Final = revisions.TASK_METHODS | {revisions.LISTEN}


class ModernRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator lets clients keep, per method, and the versions that they are told of."""

    ttl_milliseconds: Mapping[str, int] = msgspec.field(default_factory=dict)
    scope: str = "private"
    versions: Sequence[str] = ()

    def hint(self, method: str) -> CacheHint | None:
        """The hint for a method's results; None where there is none."""
        if method not in revisions.CACHEABLE_METHODS:
            return None
        return CacheHint(self.ttl_milliseconds.get(method, 0), self.scope)


class ModernRequests:
    """Answers modern requests. ``rules`` may be replaced at any time."""

    def __init__(
        self,
        *,
        binder: Binder,
        profiles: Profiles,
        attribution: Attribution,
        catalog: Catalog,
        listening: Listening,
        parking: Parking,
        tasks: Handles,
        rules: ModernRules,
        observe: Observer,
        questions: Share = UNBOUNDED,
    ) -> None:
        self.rules = rules
        self._binder = binder
        self._attribution = attribution
        self._catalog = catalog
        self._listening = listening
        self._parking = parking
        self._tasks = tasks
        self._about_tasks = TaskRequests(tasks)
        self._observe = observe
        self._profiles = profiles
        self._room_for_questions = questions

    async def answer(self, request: ClientRequest, modern: ModernRequest) -> Answer:
        """The answer to one request that has passed the front-door checks; ``modern`` is what it says.

        Raises:
            ProxyError: there is none.
        """
        request.sessionless = True
        profile = self._profiles.of_modern(modern.raw_capabilities, modern.client_info)
        key = SessionKey(request.principal.digest, request.affinity, profile.digest)
        method = request.message.method
        if method in _WITHOUT_A_CALL:
            if method == revisions.LISTEN:
                return await self._listen(request, modern, profile)
            return await self._about_tasks.answer(request, modern)
        # What an extension's methods mean by the same names is the server's to know.
        is_known = method in revisions.MODERN_METHODS
        answers = read_answers(modern) if is_known else {}
        if is_known and "requestState" in modern.params:
            return await self._resume(request, modern, answers)
        lowered = lowering.lower_params(modern)
        kept = None
        if method in revisions.LISTS:
            kept = self._catalog.find(key, method, lowered, request.caller)
        if kept is not None:
            response = await self._lift_list(method, Response(request.message.id, result=kept.result))
            return self._complete(modern, kept.incarnation.facts, response)
        return await self._call(request, modern, profile, key, lowered, answers)

    async def _call(
        self,
        request: ClientRequest,
        modern: ModernRequest,
        profile: Profile,
        key: SessionKey,
        lowered: bytes | None,
        answers: Mapping[str, bytes],
    ) -> Answer:
        """The answer to a request that takes a session: it becomes a call there, but for ``server/discover``.

        ``lowered`` are its parameters for the server, and ``answers`` those to questions that it expects.

        Raises:
            ProxyError: there is none.
        """
        method = request.message.method
        request.trace.waits()
        visit = await self._binder.borrow(request.principal, request.affinity, None, request.caller, profile)
        request.visits(visit)
        facts = visit.session.incarnation.facts
        if method == revisions.DISCOVER:
            visit.end()
            return self._discover(modern, facts)
        # A call ends its visit by itself. Until there is one, it is ended here.
        try:
            if not (method in revisions.MODERN_METHODS or facts.has_extensions):
                raise no_such_method(method)
            tool = await self._prepare(request, modern, key, visit)
            make_exchange = Exchange if tool is None else self._way_of(request, modern, tool, visit)
        except BaseException:
            visit.end()
            raise
        # As it is before the server is asked: a list that changes while it is on its way is not kept.
        asked = self._catalog.ask(method, visit.session) if method in revisions.LISTS else None
        call = ModernCall(
            modern,
            lowered,
            answers,
            visit,
            self._attribution,
            self._observe,
            self._room_for_questions,
            make_exchange,
        )
        call.trace = request.trace
        if profile.roots is Roots.CHANGING:
            # A call whose client has no roots holds nobody up, and waits for nobody.
            call.respondent = _respondent(request, modern)
        outcome = await self._run(request, call, {})
        if method in revisions.LISTS and isinstance(outcome, Response) and outcome.result is not None:
            if asked is not None:
                self._catalog.keep(key, lowered, outcome.result, asked, request.caller)
            outcome = await self._lift_list(method, outcome)
        return self._present(call, outcome, request.principal)

    # -- before the call -------------------------------------------------------------------------

    async def _prepare(
        self, request: ClientRequest, modern: ModernRequest, key: SessionKey, visit: Visit
    ) -> ToolMarks | None:
        """Check what only the list of tools tells (``Mcp-Param-*``), and raise the log level if need be.

        Gives what there is to know of the tool that is called, if it is anything.
        """
        tool = None
        if modern.request.method == revisions.TOOLS_CALL:
            marks = self._catalog.known_marks(key)
            if marks is None:
                marks = await self._catalog.marks(key, visit)
            if marks:
                tool = _check_tool(request.http.headers, modern, marks)
        if modern.log_level is not None and "logging" in visit.session.incarnation.facts.capabilities:
            await self._raise_log_level(visit, modern.log_level)
        return tool

    def _way_of(
        self, request: ClientRequest, modern: ModernRequest, tool: ToolMarks, visit: Visit
    ) -> Callable[..., Exchange]:
        """How a call of this tool is carried out: as a task of the server's, where that is wanted.

        A client that knows the extension gets a handle; for any other the task is a call like others.

        Raises:
            TooManyTasks: the client would get one, and there are as many as there may be.
        """
        facts = visit.session.incarnation.facts
        if tool.support is Support.FORBIDDEN or not tasks.runs_tasks(facts.capabilities):
            return Exchange
        ttl_seconds = self._tasks.rules.ttl_seconds
        if self._tasks.are_offered(facts) and tasks.declares(modern.capabilities):
            self._tasks.check_room(request.principal.digest)
            return partial(CreatingExchange, ttl_seconds=ttl_seconds, followed=self._tasks.followed)
        if tool.support is Support.OPTIONAL:
            return Exchange
        return partial(FollowingExchange, ttl_seconds=ttl_seconds, followed=self._tasks.followed)

    async def _raise_log_level(self, visit: Visit, wanted: str) -> None:
        """Make the session at least as talkative as this request wants it; what is too much is dropped."""
        levels = revisions.LOG_LEVELS
        journal = visit.session.record.journal
        current = jsonrpc.read_string(jsonrpc.read_object(journal.log_level).get("level"))
        if current in levels and levels.index(current) <= levels.index(wanted):
            return
        params = jsonrpc.write_object({"level": jsonrpc.quote(wanted)})
        await inquire(visit, revisions.SET_LEVEL, params, self._observe)

    # -- rounds ----------------------------------------------------------------------------------

    async def _run(
        self, request: ClientRequest, call: ModernCall, answers: Mapping[str, bytes]
    ) -> Outcome | Handle:
        request.exchange = call
        try:
            seconds = self._tasks.rules.after_seconds
            if seconds is None or not self._may_take_long(call):
                outcome = await call.next(request.responder, answers)
                if isinstance(outcome, Created):
                    capabilities = call.modern.capabilities
                    return await self._tasks.keep(outcome, request.principal.digest, capabilities)
                return outcome
            # Its client need not wait for longer.
            round_ = asyncio.create_task(call.next(request.responder, answers))
            return await self._tasks.take_after(seconds, call, round_, request.principal.digest)
        finally:
            request.upstream_seconds = call.upstream_seconds
            request.exchange = None

    @staticmethod
    def _may_take_long(call: ModernCall) -> bool:
        """Whether a call may go on as a task of ours: it is none of the server's, and its client knows what
        that is.
        """
        modern = call.modern
        return (
            modern.request.method == revisions.TOOLS_CALL
            and not call.exchange.may_become_task
            and tasks.declares(modern.capabilities)
        )

    async def _resume(
        self, request: ClientRequest, modern: ModernRequest, answers: Mapping[str, bytes]
    ) -> Answer:
        """Go on with a parked call, with the client's answers."""
        state = jsonrpc.read_string(modern.params.get("requestState"))
        if modern.request.method not in revisions.PARKABLE_METHODS or state is None:
            raise StateRefused("A retry needs the requestState that it was given, as a string.")
        identifier, parked = self._parking.find(state, request.principal.digest, modern)
        # Before it is taken, because a state is good once: an answer that does not fit can be given again.
        parked.check_answers(answers)
        self._parking.take(identifier)
        parked.go_on_for(modern, request.caller, request.trace)
        request.session = parked.session.tag
        outcome = await self._run(request, parked, answers)
        return self._present(parked, outcome, request.principal)

    def _present(self, call: ModernCall, outcome: Outcome | Handle, principal: Principal) -> Answer:
        if isinstance(outcome, Response):
            return self._complete(call.modern, call.facts, outcome)
        assert not isinstance(outcome, Created), "it has a handle by now"
        if isinstance(outcome, Handle):
            said = outcome.said if isinstance(outcome, LegacyHandle) else None
            result = tasks.write_handle(outcome.state, call.facts.info, said)
            identifier = call.modern.request.id
            return Answer(body=jsonrpc.write_response(identifier, Response(identifier, result=result)))
        state = self._parking.park(call, principal.digest)
        result = lifting.lift_input_required(outcome.questions, state, call.facts)
        identifier = call.modern.request.id
        return Answer(body=jsonrpc.write_response(identifier, Response(identifier, result=result)))

    async def _lift_list(self, method: str, response: Response) -> Response:
        """A list that may hold tools which modern clients cannot call, without those."""
        if method != revisions.TOOLS_LIST or response.result is None:
            return response
        return Response(response.id, result=await self._catalog.lift_tools(response.result))

    def _complete(self, modern: ModernRequest, facts: ServerFacts, response: Response) -> Answer:
        """A server's response, lifted."""
        identifier, method = modern.request.id, modern.request.method
        if response.error is not None:
            error = lifting.lift_error(response.error, modern.params)
            body = jsonrpc.write_response(identifier, Response(identifier, error=error.raw))
            return Answer(body=body, status=error.status, failed=True)
        result = response.result or b"{}"
        hint = self.rules.hint(method)
        if hint is None:
            lifted = lifting.lift_result(result, facts, None)
        else:
            heeded = lifting.heeded_hints(modern.params)
            lifted = lifting.lift_result(result, facts, hint if heeded else _NO_HINT, heeded)
        return Answer(body=jsonrpc.write_response(identifier, Response(identifier, result=lifted)))

    def _discover(self, modern: ModernRequest, facts: ServerFacts) -> Answer:
        hint = self.rules.hint(revisions.DISCOVER) or _NO_HINT
        identifier = modern.request.id
        result = lifting.lift_discovery(
            facts, hint, self.rules.versions, offers_tasks=self._tasks.are_offered(facts)
        )
        return Answer(body=jsonrpc.write_response(identifier, Response(identifier, result=result)))

    # -- subscriptions/listen ----------------------------------------------------------------------

    async def _listen(self, request: ClientRequest, modern: ModernRequest, profile: Profile) -> Answer:
        """Write change notifications until the client leaves or we end; the answer is the graceful end."""
        responder, principal = request.responder, request.principal.digest
        if not request.head.accepts.stream:
            raise BadRequest(f"{revisions.LISTEN} is answered with a stream: accept {revisions.SSE}.")
        identifier = modern.request.id
        wanted = read_filter(modern.params.get("notifications"))
        if wanted.tasks and not tasks.declares(modern.capabilities):
            raise MissingCapability(tasks.REQUIRED)
        begin_following(request.http)
        listener = Listener(identifier, wanted, self._listening.share)
        # Before a session is borrowed, which a caller with too many listeners does not get.
        self._listening.add(principal, listener)
        try:
            own = self._tasks.listen(listener, wanted.tasks, principal)
            listener.promised = Filter(tasks=own)
            if wanted.lists or wanted.uris or not wanted.tasks:  # tasks have sessions of their own
                await self._settle(request, profile, listener)
            # Nothing goes before this (MCP 2026-07-28, basic/patterns/subscriptions): what has come waits.
            acknowledged = jsonrpc.write_object({"notifications": listener.promised.write()})
            params = lifting.tag(acknowledged, identifier)
            await responder.send(jsonrpc.write_notification(revisions.ACKNOWLEDGED, params))
            self._tasks.tell_now(listener, own)
            while not (listener.ended or listener.overrun):
                for data in listener.drain():
                    await responder.send(data)
                if listener.session_closed:
                    await self._settle_again(request, profile, listener)
                await listener.news()
        finally:
            self._tasks.unlisten(listener, listener.promised.tasks)
            self._listening.remove(principal, listener)
        result = jsonrpc.write_object(
            {"resultType": lifting.COMPLETE, "_meta": lifting.subscription_meta(identifier)}
        )
        return Answer(body=jsonrpc.write_response(identifier, Response(identifier, result=result)))

    async def _settle(self, request: ClientRequest, profile: Profile, listener: Listener) -> None:
        visit = await self._binder.borrow(request.principal, request.affinity, None, request.caller, profile)
        await self._listening.settle(listener, visit)

    async def _settle_again(self, request: ClientRequest, profile: Profile, listener: Listener) -> None:
        """The session was closed under the listener: find another, and say that anything may have changed."""
        self._listening.leave(listener)
        pause_seconds = 0.0
        while not listener.ended:
            try:
                await self._settle(request, profile, listener)
            except ProxyError:
                pause_seconds = _RETRIES.after(pause_seconds)
                await asyncio.sleep(pause_seconds)
                continue
            self._listening.tell_all_changed(listener)
            return


def _respondent(request: ClientRequest, modern: ModernRequest) -> Hashable:
    """Who answers what the server asks in the course of this call, as far as clients can be told apart.

    A conversation that is named has one client; else it is told by its connection. Where that is a proxy's,
    it may be anybody's, so each call counts as another client's.
    """
    if request.affinity is not None:
        return (request.affinity, modern.client_info)
    if comes_from_proxy(request.http.headers):
        return object()
    connection = request.http.protocol
    assert isinstance(connection, Connection)
    return (connection.number, modern.client_info)


def in_modern_words(error: ProxyError, message: Request) -> ProxyError:
    """An error that a modern client can be told: what the server itself said is lifted, its status stays."""
    if not isinstance(error, UpstreamRejected | HandshakeRefused) or error.raw_error is None:
        return error
    return error.saying(lifting.lift_error(error.raw_error, jsonrpc.read_object(message.params)).raw)


def _check_tool(headers: MultiMapping[str], modern: ModernRequest, marks: Marks) -> ToolMarks | None:
    """Compare ``Mcp-Param-*`` headers with the arguments of the tool that is called, if it can be.

    Gives what is known of the tool; None for nothing.

    Raises:
        HeaderMismatch: a header is not what the arguments say.
    """
    name = jsonrpc.read_string(modern.params.get("name")) or ""
    tool = marks.get(name)
    if tool is None:
        return None
    values = {param.header: list(headers.getall(param.header, [])) for param in tool.mirrored}
    mirroring.check_params(tool.mirrored, modern.params.get("arguments"), values)
    return tool
