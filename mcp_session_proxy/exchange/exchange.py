"""One client request on its way: sent, answered, and never executed twice.

An exchange sends its request on the upstream session of its visit and reads what comes back. What
the server says meanwhile goes to the *outlet*, the client's side of the exchange. When something
breaks, this table decides (``Exchange.run``):

===========================================  ====================================================
refused before any byte was sent             sent again within the deadline, with backoff
rejected because the session is gone         re-opened from the journal, sent again once
stream ended or lost, it had event ids       asked for again behind the newest one, for as long as the
                                             server may be silent: see ``resumption``
answer lost, a read                          sent again once
answer lost, anything else                   an error that says the outcome is unknown
===========================================  ====================================================

An answer is lost when the connection breaks or the stream ends, and nothing can be resumed: it had no event
id, the server refuses to go on from there, cannot be asked for two minutes, or has lost the session.

What happened is told by exceptions (``upstream.transport``), and the table is the order of the ``except``
clauses in ``_run_at_most_once``. A case that nobody has thought of falls through all of them and is not sent
again: that is the safe side.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from enum import Enum
from typing import Final, TypeVar

from .. import events
from ..aio import Tasks
from ..backoff import Backoff
from ..errors import (
    InternalError,
    OutcomeUnknown,
    ProxyError,
    RequestCancelled,
    SessionLost,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..events import Observer
from ..protocol import jsonrpc, lost, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..protocol.lost import Verdict
from ..protocol.progress import ProgressRun, under_other_token
from ..sessions.binding import Visit
from ..tracing import CONTEXT_KEYS, TRACEPARENT, UNTRACED, RequestTrace, UpstreamTrace
from ..upstream.incarnation import Incarnation
from ..upstream.journal import JOURNALLED
from ..upstream.question import refuse_request
from ..upstream.transport import TOO_DEEP, Arriving, Caller, ConnectionLost, Refused, Reply
from .cutoff import CutOff, Cutoff
from .outlet import NO_OUTLET, Outlet
from .resumption import AnswerLost, find_answer

_T = TypeVar("_T")
_RETRIES: Final = Backoff(0.05, 1.0)
_CANCEL_GRACE_SECONDS: Final = 5.0
_MAX_DELIVERIES: Final = 100
# Nobody but the client has any use for their results, so large ones are passed on as they come.
_PASSED_ON: Final = frozenset({revisions.TOOLS_CALL, revisions.PROMPTS_GET, revisions.RESOURCES_READ})

# What is left of a result that was.
PASSED_ON: Final = b""


class _SessionGone(Exception):
    """The server rejected the request because it does not know the session: it was not executed."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class _Heard(Enum):
    """What the server has said of a request so far."""

    NOTHING = "nothing"
    SOMETHING = "something"
    ANSWER = "answer"  # a part of its response, which is at the client


# Looking a member up in its class costs more than what is done with it.
_NOTHING, _SOMETHING, _ANSWER = _Heard


class Exchange:
    """One request in flight. ``upstream_seconds`` is how long the server took, once it is over, and
    ``refusal`` is what the response came with, if the server gave it as one.

    ``token`` is the client's progress token as raw JSON, None if it gave none. ``caller`` holds the headers
    that the request travels with, from its first attempt to its resumption.
    """

    # Whether its response may be that the call has become a task, which its client hears as such.
    may_become_task = False
    # What most exchanges never change is said here and not for each of them.
    upstream_id = 0
    upstream_seconds: float | None = None
    refusal: UpstreamRejected | None = None
    _trace: UpstreamTrace = UNTRACED
    _heard = _NOTHING
    _aborted: ProxyError | None = None
    _cancelled = False
    _delivered: Response | None = None

    def __init__(
        self, request: Request, token: bytes | None, visit: Visit, outlet: Outlet, observe: Observer
    ) -> None:
        self.request = request
        self.token = token
        self.caller = self._outgoing = visit.caller  # ``_outgoing``: with what a trace adds
        self._visit = visit
        self.session = session = visit.session
        self._incarnation = session.incarnation  # that the newest attempt went out on
        self._outlet = outlet
        self._observe = observe
        self._cutoff = Cutoff()
        self._deliveries = Tasks()

    async def run(self, trace: RequestTrace = UNTRACED) -> Response:
        """The server's response.

        ``trace`` is told how it goes; the server is told of it where the client named a trace.

        Raises:
            UpstreamError: there is none; the error says what is known of the outcome.
            RequestCancelled: the client cancelled and the server fell silent.
            ProxyError: somebody gave it up with this error (``give_up``).
        """
        started = time.perf_counter()
        self._trace = upstream = trace.sends(self.session.tag)
        self._outgoing = self.caller
        if upstream.headers:
            self._outgoing = self.caller.with_more(upstream.headers)
            self.request = _with_context(self.request, dict(upstream.headers))
        try:
            try:
                with self._cutoff:
                    response = await self._run_at_most_once()
            except CutOff:
                # An answer that came meanwhile on another stream counts, unless the request was given up.
                if self._delivered is None or self._aborted is not None:
                    raise self._aborted or cancelled() from None
                response = self._delivered
            except UpstreamTimeout:
                # MCP 2025-11-25, basic/lifecycle, "Timeouts": whoever stops waiting says so.
                self._incarnation.tell_soon(
                    self._cancellation({"reason": jsonrpc.quote("timeout")}), self.caller
                )
                raise
        except BaseException as error:
            upstream.failed(_reason(error))
            raise
        finally:
            self.upstream_seconds = time.perf_counter() - started
            self._aborted = None  # it leads to this frame, and that here: let go, both are freed at once
        # Only what was granted: a lost session's successor is asked for no more than it had.
        if response.result is not None and self.request.method in JOURNALLED:
            self.session.record.journal.record(self.request.method, self.request.params)
        upstream.answered(response.result, response.error)
        return response

    async def _run_at_most_once(self) -> Response:
        """Attempts, until one has an answer or the table says that there may be no other.

        The two ways to send again are kept apart, since they promise different things. What was certainly not
        executed may be sent again whatever it is, in principle without end; only patience and the server's
        health bound that. What may have been executed is sent again if it only reads, and once: a server that
        breaks over a request twice would break over it a third time.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        revived = repeated = False
        pause_seconds = 0.0
        while True:
            # 1. A session that can be used: re-opened, or looked at after a long silence, if need be.
            incarnation = await self._keep_or_retire(self.session.ready(self.caller))
            if self._cancelled:
                raise cancelled()
            # 2. One attempt. Each of the clauses is a row of the table.
            try:
                return await self._attempt(incarnation)
            except _SessionGone as gone:
                if revived:
                    raise SessionLost("The MCP server lost the session twice in a row.") from None
                # Once: a server that loses every session at once does not get new ones for ever.
                revived = True
                await self._keep_or_retire(self.session.revive(incarnation, gone.how, self.caller))
                self._retried("session-lost")
            except UpstreamUnreachable:
                # No byte was sent, so it may be sent again whatever it is, while it could wait for a session.
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() - started + pause_seconds >= self._visit.patience_seconds:
                    raise
                # Where there are other replicas, the session is opened anew on one that takes connections.
                await self._keep_or_retire(self.session.refused(self.caller))
                await asyncio.sleep(pause_seconds)
                self._retried("refused")
            except (ConnectionLost, AnswerLost) as error:
                # A read by the protocol: what tools say of themselves are hints that nobody has checked.
                if repeated or self.request.method not in revisions.READ_METHODS:
                    raise await self._unknown_outcome(incarnation, error) from error
                repeated = True
                self._retried("read-repeated")

    def _retried(self, reason: str) -> None:
        label = revisions.method_label(self.request.method)
        self._trace.retried(reason)
        self._observe(
            events.Retried(method=label, reason=reason, session=self.session.tag, trace_id=self._trace.id)
        )

    async def _keep_or_retire(self, work: Awaitable[_T]) -> _T:
        """Do what makes the session usable; when it cannot be, nobody may get it again."""
        try:
            return await work
        except (SessionLost, UpstreamRejected):
            self._visit.retire()
            raise

    async def _unknown_outcome(self, incarnation: Incarnation, error: Exception) -> ProxyError:
        """The error for a request that may have been executed; looks whether the session survived."""
        label = revisions.method_label(self.request.method)
        self._observe(events.ReplayRefused(method=label, session=self.session.tag, trace_id=self._trace.id))
        # What broke the stream may have ended the session: found out now, and not by the next request.
        if not await incarnation.confirm():
            self.session.lost(incarnation, "stream")
        broken = str(error) or "The connection to the MCP server broke while it was working on this request."
        return OutcomeUnknown(f"{broken} It may or may not have been executed; it was not sent again.")

    # -- one attempt ---------------------------------------------------------------------------

    async def _attempt(self, incarnation: Incarnation) -> Response:
        """Send the request once, and read what comes back to its end.

        Raises:
            _SessionGone, UpstreamUnreachable: it was not executed.
            ConnectionLost, AnswerLost: it may have been.
            UpstreamError: something that is no reason to send it again, whether it was executed or not.
        """
        # 1. From here on the incarnation knows the call, so what comes for it on another stream finds it.
        self._incarnation = incarnation
        identifier = self.upstream_id = incarnation.calls.begin(self)
        raw_id, params = b"%d" % identifier, self.request.params
        # Our id stands for the client's token, for clients that share a session may choose the same one.
        if self.token is not None and params is not None:
            params = jsonrpc.with_progress_token(params, raw_id)
        body = jsonrpc.write_request(raw_id, self.request.method, params)
        try:
            # 2. Send it, and read until the response has come or what it was to come on is over.
            async with incarnation.channel.send(body, self._outgoing, raw_id) as reply:
                # A session on which something is taken is not one on which everything is refused.
                if incarnation.refusals.count:
                    incarnation.refusals.clear()
                reply.gives_arriving = self.request.method in _PASSED_ON
                reply.gives_runs = self.token is not None
                try:
                    response = await self._read(reply)
                except ConnectionLost:
                    # A place to go on from makes it no loss yet.
                    if reply.last_event_id is None:
                        raise
                    response = None
            # 3. Servers may answer in a later stream.
            if response is None:
                response = await find_answer(
                    reply,
                    incarnation,
                    self._outgoing,
                    read=self._read,
                    resumed=lambda: self._retried("stream-resumed"),
                )
        except Refused as refused:
            return await self._refused(refused, incarnation)
        except asyncio.CancelledError:
            # The task's own end, when nobody has told the server before: its client has left for good.
            if not self._cancelled and self._aborted is None and self._delivered is None:
                self._left()
            raise
        finally:
            incarnation.calls.end(identifier, self.request.method)
        # 4. Nearly always that is all.
        if response.error is None:
            if response.result is None:
                # A response without a result or an error is one that was too deep to be read.
                raise UpstreamProtocolError(TOO_DEEP)
            return response
        # 5. Who has said something before has begun to work, so there an error is the request's own.
        if self._heard is _NOTHING:
            await self._check_for_loss(response.error, incarnation)
        return _whole(response)

    async def _check_for_loss(self, raw_error: bytes, incarnation: Incarnation) -> None:
        """Some servers say that the session is gone in an error that looks like any other."""
        verdict = lost.judge_error(jsonrpc.read_error(raw_error))
        if verdict is not Verdict.ALIVE and not await incarnation.confirm():
            raise _SessionGone("error")

    async def _refused(self, refused: Refused, incarnation: Incarnation) -> Response:
        """The server took notice and refused: a lost session, an error for the client, or an answer.

        Taking a living session for dead costs its user a state, and may run a request twice. So a refusal
        that only looks like a loss costs a ping first, and is the client's to see if the session lives.

        Raises:
            _SessionGone: it certainly did not carry the request out.
            ProxyError: what the client is told.
        """
        verdict, response = refused.session, refused.response
        if verdict is Verdict.GONE or (verdict is Verdict.SUSPECT and not await incarnation.confirm()):
            raise _SessionGone(str(refused.how)) from None
        # An error under the request's own id is its answer, unless it is about the caller or the moment.
        if response is None or not refused.is_an_answer or not _answers(response.id, self.upstream_id):
            incarnation.note_refusal(refused)
            raise refused.error from refused
        incarnation.refusals.clear()
        if isinstance(refused.error, UpstreamRejected):
            self.refusal = refused.error
        return _whole(response)

    async def _read(self, reply: Reply) -> Response | None:
        """The final response that this reply brings; None if it ends without one."""
        begun = False
        while (messages := await reply.read()) is not None:
            # From an event id on its client could be cut off at the server and come back: here it can, too.
            if not messages and not begun and reply.last_event_id is not None:
                begun = True
                await self._outlet.begin()
            # What is told in one piece goes on in one piece, in its order.
            notes: list[Notification] = []
            for message in messages:
                if isinstance(message, Notification):
                    note = self._named_for_client(message)
                    if note is not None:
                        notes.append(note)
                    continue
                if notes:
                    await self._outlet.notify(*notes)
                    notes.clear()
                if isinstance(message, Request):
                    await self._ask(message)
                elif isinstance(message, Arriving):
                    return await self._receive(message)
                # One to another request is dropped: its own reply will bring it, or nothing.
                elif _answers(message.id, self.upstream_id):
                    return message
            if notes:
                await self._outlet.notify(*notes)
        return None

    async def _receive(self, arriving: Arriving) -> Response | None:
        """A large response: passed on as it comes, where the client's side takes it so, or gathered.

        Of one that was passed on, an empty result is left.
        """
        coming = arriving.coming
        if coming is None or not _answers(arriving.id, self.upstream_id):
            return None
        before, self._heard = self._heard, _ANSWER
        try:
            if await self._outlet.pass_on(self.request.id, coming):
                return Response(self.request.id, result=PASSED_ON)
        except ConnectionLost as error:
            # Even a read cannot be sent again: no other answer can follow what the client has of this one.
            raise await self._unknown_outcome(self._incarnation, error) from error
        self._heard = before
        return await coming.gather()

    # -- what the server says meanwhile ----------------------------------------------------------

    async def _interim(self, message: Request | Notification) -> None:
        """Pass on what the server says of this request on another stream than its own."""
        if isinstance(message, Request):
            await self._ask(message)
        elif (note := self._named_for_client(message)) is not None:
            await self._outlet.notify(note)

    async def _ask(self, request: Request) -> None:
        # The session is between the server and us: a ping on it is answered here, not by a client.
        if request.method == revisions.PING:
            self._incarnation.answer_ping(request)
            return
        self._heard = _SOMETHING
        if request.method == revisions.LIST_ROOTS:
            self.session.record.roots.asked(request.id)
        await self._outlet.ask(self.session, request)

    def _named_for_client(self, message: Notification) -> Notification | None:
        """What the server tells before its response, under the client's own names; None if it is not for it.

        Progress comes under our id for the request, on whatever stream the server finds open: on this one it
        may be another call's, or that of a task that an earlier call has left behind.
        """
        self._heard = _SOMETHING
        if message.method != revisions.PROGRESS:
            # A server may tell of a change in the course of the call that made it, and nowhere else.
            self.session.router.note_change(self.session, message)
            return message
        if isinstance(message, ProgressRun):
            if message.token == b"%d" % self.upstream_id:
                return None if self.token is None else message.under(self.token)
            for note in message.apart():
                self._named_for_client(note)
            return None
        renamed = under_other_token(message, self.upstream_id, self.token or jsonrpc.NULL)
        if renamed is None:
            other = self._incarnation.calls.progressing(message)
            # Never ours to pass on: a client may have given that number to a request of its own.
            if other is not None and other is not self:
                other.deliver(message)
        return None if self.token is None else renamed

    async def undo(self, response: Response) -> None:
        """Nobody takes this response, for its client has left. Most leave nothing behind that would go on."""

    def detach_outlet(self) -> None:
        """Nobody listens any more: what the server may still say is dropped."""
        self._outlet = NO_OUTLET

    @property
    def asks(self) -> object:
        """As ``calls.CallHandler.asks``."""
        return self._outlet.asks

    def deliver(self, message: Message) -> None:
        """Take what the server sent for this exchange outside of its own stream.

        Its answer should not come there, but servers that have lost the stream of the call give it so.
        """
        if isinstance(message, Response):
            # The stream on which it should have come may be silent until the time is over, so it is cut.
            if self._cutoff.open and self._delivered is None and self._heard is not _ANSWER:
                self._delivered = _whole(message)
                self._cutoff.at(asyncio.get_running_loop().time())
            return
        # Nothing slows a server down on its standalone stream when the client reads slowly.
        if len(self._deliveries) >= _MAX_DELIVERIES:
            if isinstance(message, Request):
                refuse_request(self.session, message)
            return
        self._deliveries.spawn(self._interim(message))

    # -- cancellation ------------------------------------------------------------------------------

    async def cancel(self, params: bytes | None, caller: Caller) -> None:
        """The client cancels: tell the server, and wait only a little longer for a response.

        ``caller`` is that of the POST that brought the notification. The server need not respond
        (MCP 2025-11-25, basic/utilities/cancellation).
        """
        # It has crossed the answer on its way.
        if not self._cutoff.open or params is None:
            return
        self._cancelled = True
        now = asyncio.get_running_loop().time()
        if self.upstream_id not in self._incarnation.calls.in_flight:
            self._cutoff.at(now)  # between two attempts: the server knows of none
            return
        self._cutoff.at(now + _CANCEL_GRACE_SECONDS)
        await self._incarnation.tell(self._cancellation(jsonrpc.read_object(params)), caller)

    def give_up(self, error: ProxyError) -> None:
        """End this exchange now, and tell the server: ``run`` raises the error. Once over, it stays so."""
        if self._cutoff.open and self._aborted is None:
            self._aborted = error
            self._cutoff.at(asyncio.get_running_loop().time())
            self.announce_cancellation(error.message)

    def _left(self) -> None:
        self.announce_cancellation("The client is gone.")

    def announce_cancellation(self, reason: str) -> None:
        """Tell the server that nobody waits for its response any more."""
        if self.upstream_id in self._incarnation.calls.in_flight:
            self._incarnation.tell_soon(self._cancellation({"reason": jsonrpc.quote(reason)}), self.caller)

    def _cancellation(self, members: Mapping[str, bytes]) -> bytes:
        named = {**members, "requestId": b"%d" % self.upstream_id}
        return jsonrpc.write_notification(revisions.CANCELLED, jsonrpc.write_object(named))


def _with_context(request: Request, context: Mapping[str, str]) -> Request:
    """The request with another trace context in its ``_meta``, if it has one there."""
    meta = jsonrpc.read_meta(request.params)
    if request.params is None or TRACEPARENT not in meta:
        return request
    members = {key: value for key, value in meta.items() if key not in CONTEXT_KEYS}
    members |= {key: jsonrpc.quote(value) for key, value in context.items()}
    params = jsonrpc.replace_members(request.params, {"_meta": jsonrpc.write_object(members)})
    return Request(request.id, request.method, params)


def _reason(error: BaseException) -> str:
    """What a trace is told of a request that got no response."""
    if isinstance(error, ProxyError):
        return error.reason
    return "cancelled" if isinstance(error, asyncio.CancelledError) else InternalError.reason


def _whole(response: Response) -> Response:
    """A response whose error, if it is one, has the form that strict clients insist on."""
    if response.error is None:
        return response
    return Response(response.id, error=jsonrpc.error_object(response.error))


def cancelled() -> RequestCancelled:
    """What a client is told that has cancelled its request."""
    return RequestCancelled("The client cancelled this request.")


def _answers(raw_id: bytes, identifier: int) -> bool:
    """Whether a response in our request's own body is meant for it; some servers lose ids, or write them
    otherwise.
    """
    if raw_id.strip(b'"') in (b"%d" % identifier, jsonrpc.NULL, b"server-error"):
        return True
    return jsonrpc.read_number(raw_id) == identifier
