"""One upstream session: handshake, ids, stream, keep-alive, journal, and a new life when it is lost.

The session owns everything that lives as long as it does: its GET stream (whose pings it answers),
its pings, its re-opening. All of that runs in tasks of its own; a client's request only borrows ids
and a reference. What comes on the GET stream is given to whoever made the call it belongs to, or
else to the router the session was made with.

MCP 2025-11-25: basic/lifecycle, basic/transports, basic/utilities/ping.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Coroutine, Hashable
from typing import Any, Final, Protocol, TypeGuard

from .. import events
from ..aio import Tasks
from ..backoff import Backoff
from ..errors import (
    INTERNAL_ERROR,
    Draining,
    OverBudget,
    ProxyError,
    SessionLost,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..events import Observer
from ..memory import UNBOUNDED, UNCOUNTED, Keeper, Loan, Share
from ..protocol import changes, jsonrpc, lost, questions, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..protocol.lifting import ServerFacts, read_server_facts
from ..protocol.lost import Verdict
from .deadlock import Refusals, is_deadlocked
from .handshake import Handshake, Versions
from .journal import Journal
from .roots import RootsTalk
from .stream import GetStream
from .transport import (
    NOBODY,
    NOWHERE,
    Caller,
    Channel,
    ConnectionLost,
    Refused,
    Transport,
    first_response,
)
from .unheard import Unheard

_PING_SECONDS: Final = 10.0
_POST_SECONDS: Final = 10.0
_FAREWELL_SECONDS: Final = 3.0
_RETRIES: Final = Backoff(0.05, 1.0)
# How long a server that asks within the handshake may wait for an answer.
_ANSWER_GRACE_SECONDS: Final = 1.0
_INITIALIZED_SECONDS: Final = 1.0
# Nothing waits longer for somebody who may never come.
_UNHEARD_SECONDS: Final = 600.0
_MAX_BACKGROUND: Final = 100
# Refusals leave room for answers to pings; what there are more of goes out one by one.
_REFUSALS_AT_ONCE: Final = 50
_MAX_REFUSALS: Final = 20_000
_MAX_REFUSAL_BYTES: Final = 1000


class CallHandler(Protocol):
    """Whoever waits for the answer to a call; told what arrives for it outside of its own stream."""

    def deliver(self, message: Message) -> None:
        """Take a message that names this call. Must not block."""
        ...


class Router(Protocol):
    """Whoever passes on what a session's server says of its own accord. Nothing here may block."""

    def route(self, session: "UpstreamSession", message: Message) -> None:
        """Take a message of the GET stream that names no call in flight."""
        ...

    def overhear(self, session: "UpstreamSession", message: Notification) -> None:
        """Note what a notification on a call's own stream says about everybody's lists and resources."""
        ...

    def session_changed(self, session: "UpstreamSession") -> None:
        """A new incarnation stands, or messages of its stream were missed, or the session was closed."""
        ...


class Placement(Protocol):
    """Decides which server a session lives on."""

    def place(self, tenant: "UpstreamSession") -> Transport:
        """The way to the server for a handshake that begins now. Raises UpstreamDown."""
        ...

    def versions(self, tenant: "UpstreamSession") -> Versions:
        """What is known of the versions that its server takes."""
        ...

    def is_anothers(self, tenant: "UpstreamSession") -> bool:
        """Whether its server has given its session's id to another principal, too."""
        ...

    def opened(self, tenant: "UpstreamSession") -> None:
        """The handshake succeeded."""
        ...

    def failed(self, tenant: "UpstreamSession", error: ProxyError | None) -> None:
        """The handshake failed, or was given up (None)."""
        ...

    def left(self, tenant: "UpstreamSession") -> None:
        """The session is closed."""
        ...

    def can_move(self, tenant: "UpstreamSession") -> bool:
        """Whether its server is down, and another one is not."""
        ...

    def suspect(self, tenant: "UpstreamSession") -> None:
        """Its server refused a connection."""
        ...

    def check_hope(self) -> None:
        """Raises UpstreamDown where waiting is no use."""
        ...


class LossHandler(Protocol):
    """Whoever keeps the session."""

    def __call__(self, *, beyond_help: bool = False) -> bool:
        """The session is gone; with ``beyond_help``, it could not be re-opened either.

        Gives whether the session was given up; else it is still wanted, and re-opens itself.
        """
        ...


class UpstreamSession:
    """One live session at the server; a new *incarnation* of it after each loss.

    ``initialize_params`` is raw JSON, whose version may be another one if ``version_is_free``.
    ``principal`` identifies the caller it serves, ``principal_tag`` is its short form for logs. What the
    server says before anybody hears it, and refusals of what it asks, count against ``room_for_questions``,
    the journal against ``room_for_subscriptions``; ``results`` keeps what the server says of itself.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        initialize_params: bytes,
        version_is_free: bool = False,
        client_name: str,
        principal: str,
        principal_tag: str,
        router: Router,
        observe: Observer,
        keepalive_seconds: float,
        check_after_seconds: float = 0.0,
        handshake_timeout_seconds: float = 60.0,
        patience_seconds: float = 10.0,
        room_for_questions: Share = UNBOUNDED,
        room_for_subscriptions: Share = UNBOUNDED,
        results: Keeper = UNCOUNTED,
    ) -> None:
        self.tag = "u" + secrets.token_hex(4)
        self.client_name = client_name
        self.principal = principal
        self._principal_tag = principal_tag
        self._placement = placement
        self._transport: Transport  # of the newest handshake
        self._now = asyncio.get_running_loop().time
        self.born = self._now()
        self.journal = Journal(room_for_subscriptions)
        self.roots = RootsTalk()
        self.incarnation = 0
        self.channel: Channel = NOWHERE
        self._results = results
        self._result = results.keep(b"{}")
        # Features whose list_changed some incarnation has promised: clients were told of it.
        self.told_lists: frozenset[str] = frozenset()
        # Progress tokens, ours, that are of use after their call's end; see ``exchange.tasks``.
        self.tokens: dict[int, CallHandler] = {}
        # What the server said of its own accord before anybody came; nobody has, until ``met``.
        self.unheard: Unheard | None = None
        self.met = False
        self.calls: dict[int, CallHandler] = {}
        # Who finds this session when coming back; only ``sessions.audience`` reads and writes it.
        self.audience: dict[Hashable, None] = {}
        self.requests = 0
        self._stream: GetStream | None = None
        self.last_activity = 0.0
        self.last_used = 0.0  # by a request
        self.credentials = NOBODY  # the newest caller's, for what this session sends by itself
        self.router = router
        self._observe = observe
        self.keepalive_seconds = keepalive_seconds
        self.check_after_seconds = check_after_seconds
        self.handshake_timeout_seconds = handshake_timeout_seconds
        self.patience_seconds = patience_seconds
        self._room_for_questions = room_for_questions
        self._initialize_params = initialize_params
        self._version_is_free = version_is_free
        self._next_id = 0
        self._facts: ServerFacts | None = None
        self._asked: asyncio.Future[None]  # the server has asked something in the handshake
        self._said: Unheard | None = None  # by the server, in a handshake that is under way
        self._closed = False
        self._dismissed: Channel = NOWHERE  # what needs no goodbye any more
        self._on_lost: LossHandler | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[bool] | None = None
        self._resolving: asyncio.Task[None] | None = None
        self.refusals = Refusals()
        self._listener: asyncio.Task[None] | None = None
        self._background = Tasks()
        self._refusals: deque[tuple[bytes, Loan]] = deque()

    def __repr__(self) -> str:
        return f"<UpstreamSession {self.tag}.{self.incarnation} in_flight={len(self.calls)}>"

    @property
    def initialize_result(self) -> bytes:
        """What the server said of itself in the handshake, raw."""
        return self._result.data

    @property
    def facts(self) -> ServerFacts:
        """The same, read."""
        if self._facts is None:
            self._facts = read_server_facts(self.initialize_result)
        return self._facts

    @property
    def closed(self) -> bool:
        """Whether this object's life is over."""
        return self._closed

    # -- opening and closing -----------------------------------------------------------------

    def watch(self, on_lost: LossHandler) -> None:
        """Call ``on_lost`` when the session turns out to be gone while no request is looking."""
        self._on_lost = on_lost

    async def open(self, caller: Caller) -> None:
        """Do the handshake, with the headers of the request that it is for.

        Raises:
            UpstreamError: the server could not be reached, refused, or answered something else.
            Draining: the session was closed meanwhile.
        """
        self.credentials = caller.credentials
        self._opening = asyncio.current_task()
        try:
            await self._handshake(caller)
        finally:
            self._opening = None
        if self._closed:
            self._stop_tasks()
            await self._delete()
            self._placement.left(self)
            raise _closed_meanwhile()

    async def _handshake(self, caller: Caller) -> None:
        self._transport = self._placement.place(self)
        self._said = Unheard(self.refuse, self._now(), self._room_for_questions)
        self._asked = asyncio.get_running_loop().create_future()
        self._stream = None
        try:
            await self._shake_hands(caller)
        except ProxyError as error:
            self._placement.failed(self, None if self._closed else error)
            self._stop_listening()
            if isinstance(error, UpstreamUnreachable):
                self._placement.check_hope()
            raise
        except BaseException:
            self._placement.failed(self, None)
            self._stop_listening()
            raise
        self._placement.opened(self)
        self.incarnation += 1
        self._facts = None
        self.told_lists |= changes.lists_told_of(self.facts)
        self.met, self.unheard = False, None
        self.refusals.clear()
        self._touch()
        said, self._said = self._said.drain(), None
        for message in said:
            self.router.route(self, message)
        if self._stream is None:
            await self._start_listening()

    async def _shake_hands(self, caller: Caller) -> None:
        try:
            async with asyncio.timeout(self.handshake_timeout_seconds):
                self._result = self._results.keep(await self._initialize(caller))
                if self._closed:
                    raise _closed_meanwhile()
                await self._send_initialized(caller)
                await self._replay_journal()
        except ProxyError:
            await self._delete()
            raise
        except ConnectionLost as error:
            await self._delete()
            # Nothing of a user's was executed, so for the pool this is as good as no connection.
            raise UpstreamUnreachable("The MCP server closed the connection during the handshake.") from error
        except TimeoutError as error:
            await self._delete()
            raise self._too_slow("finish the handshake") from error

    async def _initialize(self, caller: Caller) -> bytes:
        handshake = Handshake(
            self._transport,
            caller,
            allocate=self.allocate,
            take=self._take_in_handshake,
            stands=self._stand,
            silence_seconds=self.handshake_timeout_seconds,
        )
        if self._version_is_free:
            return await handshake.initialize_in(self._placement.versions(self), self._initialize_params)
        return await handshake.initialize(self._initialize_params)

    def _stand(self, channel: Channel) -> None:
        """The server has opened a session. Raises UpstreamProtocolError: it is another caller's."""
        self.channel = channel
        if self._placement.is_anothers(self):
            self._dismissed = channel  # a goodbye would end it for the other one
            raise UpstreamProtocolError(
                "The MCP server gave a new session the id of another caller's session, so it was not used: "
                "the two would see each other's state."
            )

    def _too_slow(self, what: str) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"The MCP server did not {what} within {self.handshake_timeout_seconds:g} s, "
            "which is what --handshake-timeout allows."
        )

    async def _send_initialized(self, caller: Caller) -> None:
        """Tell the server that the client is ready, and wait for its word.

        Some servers ask before they give it, on a GET stream: so that is opened when the word does not come
        at once, and a question is as good as the word.
        """
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[None] = loop.create_future()
        # Not one of the session's tasks before it has done its part: those end with the session, and a
        # handshake that is cut short may leave one behind at the server.
        sending = loop.create_task(self._post_initialized(caller, accepted), name=f"initialized {self.tag}")
        try:
            await asyncio.wait([accepted], timeout=_INITIALIZED_SECONDS)
            if not accepted.done():
                await self._start_listening()
                await asyncio.wait([accepted, self._asked], return_when=asyncio.FIRST_COMPLETED)
            if accepted.done():
                accepted.result()
        except BaseException:
            sending.cancel()
            raise
        self._background.keep(sending)

    async def _post_initialized(self, caller: Caller, accepted: asyncio.Future[None]) -> None:
        body = jsonrpc.write_notification(revisions.INITIALIZED, None)
        silence_seconds = self.handshake_timeout_seconds
        try:
            async with self.channel.send(body, caller, silence_seconds=silence_seconds) as reply:
                if not accepted.done():
                    accepted.set_result(None)
                await first_response(reply, self._take)  # there is none, but what the server says may be here
        except Refused as refused:
            self._judge(refused, accepted)
        except (ProxyError, ConnectionLost) as error:
            if not accepted.done():
                accepted.set_exception(error)
                accepted.exception()  # whoever waits gets it; maybe nobody does

    def _judge(self, refused: Refused, accepted: asyncio.Future[None]) -> None:
        """A refusal of ``notifications/initialized``: the session may be served all the same."""
        if refused.session is not Verdict.GONE:
            self._observe(events.InitializedRefused(session=self.tag, status=refused.how))
            if not accepted.done():
                accepted.set_result(None)
        elif not accepted.done():
            # Told as it came (404), it would make the client drop a session that it never had.
            error = UpstreamProtocolError(
                "The MCP server does not know the session that it has just opened. "
                "If a balancer before it sticks to neither cookies nor session ids, "
                "name its replicas to the proxy instead."
            )
            accepted.set_exception(error)
            accepted.exception()

    async def _replay_journal(self) -> None:
        for method, params in self.journal.requests():
            identifier = b"%d" % self.allocate()
            body = jsonrpc.write_request(identifier, method, params)
            try:
                async with self.channel.send(body, self.credentials, identifier) as reply:
                    await first_response(reply, self._take_in_handshake)
            except Refused:
                continue  # as it would be with an answer that says no

    def _take_in_handshake(self, message: Request | Notification) -> None:
        """Hold what the server says on a stream of the handshake: nobody can hear it before that is done.

        A server that waits for an answer to go on would wait for ever, so it gets a moment only.
        """
        if isinstance(message, Request) and message.method == revisions.PING:
            self.answer_ping(message)
        elif self._said is not None:
            self._hold_in_handshake(self._said, message)
            if isinstance(message, Request):
                loop = asyncio.get_running_loop()
                loop.call_later(_ANSWER_GRACE_SECONDS, self._stop_waiting, self._said)

    def _hold_in_handshake(self, said: Unheard, message: Request | Notification) -> None:
        said.hold(message)
        if isinstance(message, Request) and not self._asked.done():
            self._asked.set_result(None)

    def _stop_waiting(self, said: Unheard) -> None:
        if self._said is said:
            said.refuse_requests()

    def abandon(self) -> None:
        """Give up at once, without a goodbye."""
        self._closed = True
        self._stop_tasks()
        for task in (self._opening, self._reviving):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def close(self, reason: str) -> None:
        """Say goodbye to the server, also after a handshake that was abandoned. Raises nothing."""
        if self._closed:
            await self._delete()
            self._placement.left(self)
            return
        self._closed = True
        self._stop_tasks()
        self._observe(
            events.SessionClosed(
                session=self.tag,
                principal=self._principal_tag,
                reason=reason,
                age_seconds=asyncio.get_running_loop().time() - self.born,
                requests=self.requests,
            )
        )
        self.router.session_changed(self)
        if self._opening is None:
            await self._finish_reviving()
            await self._delete()
            self._placement.left(self)

    async def _finish_reviving(self) -> None:
        """Let a handshake that is under way come to its end: cut short, it may leave a session behind."""
        if self._reviving is not None:
            await asyncio.wait([self._reviving], timeout=_FAREWELL_SECONDS)
            if self._reviving is not None:
                self._reviving.cancel()
            self._stop_tasks()

    async def _delete(self) -> None:
        """End the session at the server, once."""
        if self.channel is not self._dismissed:
            self._dismissed = self.channel
            await self.channel.close(self.credentials)

    def _stop_tasks(self) -> None:
        self._background.cancel(self._reviving)

    # -- requests ----------------------------------------------------------------------------

    def allocate(self) -> int:
        """An id that no other request of this session ever had."""
        self._next_id += 1
        return self._next_id

    def register(self, identifier: int, handler: CallHandler) -> None:
        """A call begins: what names it is given to ``handler``."""
        self.calls[identifier] = handler
        self.requests += 1
        self.last_used = self.last_activity = self._now()

    def unregister(self, identifier: int) -> None:
        """A call is over."""
        self.calls.pop(identifier, None)
        self.last_activity = self._now()

    def _touch(self) -> None:
        self.last_activity = self._now()

    async def restore(self, journal: Journal) -> None:
        """Tell this new session what another one was told (its client comes back to a closed session).

        Raises:
            UpstreamError: it could not be told, or not within the time of a handshake.
        """
        for method, params in journal.requests():
            self.journal.record(method, params)
        try:
            async with asyncio.timeout(self.handshake_timeout_seconds):
                await self._replay_journal()
        except ConnectionLost as error:
            raise UpstreamUnreachable("The MCP server closed the connection.") from error
        except TimeoutError as error:
            raise self._too_slow("take over the state of the session that it lost") from error

    def is_ready(self) -> bool:
        """Whether a request can be sent at once; else ``make_ready`` first."""
        if self._reviving is not None:
            return False
        if not self.check_after_seconds or self.calls:
            return True
        return self._now() - self.last_activity < self.check_after_seconds

    async def make_ready(self, caller: Caller) -> None:
        """Wait for a re-opening that is under way; look whether a session that was quiet for long lives.

        ``caller`` is whoever sends the request that needs the session.

        Raises:
            SessionLost: it is gone and could not be re-opened.
        """
        if self._reviving is not None:
            await _join(self._reviving)
        elif not self.is_ready():
            incarnation = self.incarnation
            if not await self.confirm(incarnation):
                await self.revive(incarnation, "check", caller)

    async def refused(self, caller: Caller) -> None:
        """A connection to the server was refused, so nothing was sent: move elsewhere, where that can be.

        ``caller`` is whoever sends the request that was not sent.

        Raises:
            SessionLost: the session could not be re-opened elsewhere.
            UpstreamDown: waiting is no use.
        """
        self._placement.suspect(self)
        if self._placement.can_move(self):
            await self.revive(self.incarnation, "unreachable", caller)
        else:
            self._placement.check_hope()

    def post_soon(self, body: bytes, caller: Caller | None = None) -> None:
        """Send a notification or a response in the background."""
        if len(self._background) < _MAX_BACKGROUND and not self._closed:
            self.spawn(self.post_message(body, caller), f"post {self.tag}")

    async def post_message(self, body: bytes, caller: Caller | None = None) -> bool:
        """Send a notification or a response; gives whether the server took it.

        ``caller`` is that of the request that it came in or belongs to, None for one of the proxy's own.
        """
        self._touch()
        try:
            async with asyncio.timeout(_POST_SECONDS), self.channel.send(body, caller or self.credentials):
                return True
        except (ProxyError, Refused, ConnectionLost, TimeoutError):
            return False

    def answer_ping(self, request: Request) -> None:
        """Answer the server's ping (basic/utilities/ping); servers end sessions whose pings go unanswered."""
        self.post_soon(jsonrpc.write_response(request.id, Response(request.id, result=b"{}")))

    def refuse(self, request: Request) -> None:
        """Answer a server's request that nobody will answer, even if there are thousands: each may hold up a
        call at the server.
        """
        text = "No client is there to answer this request."
        body = jsonrpc.write_plain_error(request.id, INTERNAL_ERROR, text)
        if len(self._background) < _REFUSALS_AT_ONCE:
            self.post_soon(body)
        elif len(self._refusals) < _MAX_REFUSALS and len(body) <= _MAX_REFUSAL_BYTES and not self._closed:
            self._refuse_later(body)
        self.roots.answered(request.id)

    def _refuse_later(self, body: bytes) -> None:
        try:
            room = self._room_for_questions.lend(len(body))
        except OverBudget:
            return
        self._refusals.append((body, room))
        if len(self._refusals) == 1:
            self.spawn(self._refuse_the_rest(), f"refuse {self.tag}")

    async def _refuse_the_rest(self) -> None:
        while self._refusals:
            await self.post_message(self._refusals[0][0])
            self._refusals.popleft()

    def hold(self, message: Request | Notification) -> None:
        """Hold what the server said of its own accord until somebody comes who may hear it.

        What nobody can answer who comes to this session is refused: it was opened for clients that can do
        what its ``initialize`` says.
        """
        if isinstance(message, Request) and not self._may_be_answered(message):
            self.refuse(message)
            return
        if self.unheard is None:
            self.unheard = Unheard(self.refuse, self._now(), self._room_for_questions)
        self.unheard.hold(message)

    def _may_be_answered(self, request: Request) -> bool:
        declared = jsonrpc.read_object(jsonrpc.read_object(self._initialize_params).get("capabilities"))
        if not questions.is_question(request.method):
            return bool(declared)
        return questions.missing_capability(request.method, request.params, declared) is None

    def meet(self) -> list[Request | Notification]:
        """Somebody has come who may hear the server; gives what it said before."""
        self.met = True
        unheard, self.unheard = self.unheard, None
        return [] if unheard is None else unheard.drain()

    # -- loss and revival --------------------------------------------------------------------

    async def confirm(self, incarnation: int) -> bool:
        """Whether this incarnation is still alive, asked by a ping. One ping for all who ask at once.

        A session that the proxy itself has closed meanwhile counts as alive: what the server said before
        stands.
        """
        if self.incarnation != incarnation:
            return False
        if self._closed:
            return True
        if self._confirming is None:
            self._confirming = self.spawn(self._ping(), f"ping {self.tag}")
            self._confirming.add_done_callback(self._confirmed)
        confirming = self._confirming
        try:
            return await asyncio.shield(confirming)
        except asyncio.CancelledError:
            if confirming.cancelled() and not _is_being_cancelled():
                return True
            raise

    def _confirmed(self, _: asyncio.Task[bool]) -> None:
        self._confirming = None

    async def _ping(self) -> bool:
        """True unless the server says, one way or another, that it does not know the session."""
        identifier = b"%d" % self.allocate()
        body = jsonrpc.write_request(identifier, revisions.PING, None)
        try:
            async with (
                asyncio.timeout(_PING_SECONDS),
                self.channel.send(body, self.credentials, identifier) as reply,
            ):
                self.refusals.clear()
                answer = await first_response(reply)
                return answer is None or not _names_a_lost_session(answer)
        except Refused as refused:
            if refused.confirms_loss:
                return False
            self.note_refusal(refused)
            return True
        except (ProxyError, ConnectionLost, TimeoutError):
            return True  # the server is in trouble, which says nothing about the session
        finally:
            self._touch()

    def note_refusal(self, refused: Refused) -> None:
        """The server refused something on this session in words that say nothing of it."""
        suspect = self.refusals.note(refused, self._now())
        if suspect and self._resolving is None and self.channel.session_id is not None and not self._closed:
            self._resolving = self.spawn(self._resolve_deadlock(), f"deadlock {self.tag}")

    async def _resolve_deadlock(self) -> None:
        incarnation = self.incarnation
        try:
            gone = await is_deadlocked(
                self._transport,
                self.channel,
                self.credentials,
                self._initialize_params,
                self.handshake_timeout_seconds,
            )
            if self.incarnation == incarnation:
                self.refusals.clear()
                if gone:
                    self._lost("refusals")
        finally:
            self._resolving = None

    async def revive(self, incarnation: int, how: str, caller: Caller) -> None:
        """Open the session anew from its journal, unless that happened since ``incarnation``.

        Everyone who noticed the same loss waits for the same re-opening. ``how`` the loss showed, and with
        whose request.

        Raises:
            SessionLost: no new session could be opened.
        """
        if self._reviving is None:
            if self.incarnation != incarnation:
                return
            if self._closed:
                raise SessionLost("The MCP server lost the session, and the proxy has given it up.")
            self._observe(events.SessionLost(session=self.tag, principal=self._principal_tag, how=how))
            self._reviving = self.spawn(self._revive(caller), f"revive {self.tag}")
            self._reviving.add_done_callback(self._revived)
        await _join(self._reviving)

    def revive_soon(self, incarnation: int, how: str) -> None:
        """Re-open in the background, so that the next request finds a living session."""
        if not self._closed:
            self.spawn(self._revive_quietly(incarnation, how), f"revive {self.tag}")

    async def _revive_quietly(self, incarnation: int, how: str) -> None:
        try:
            await self.revive(incarnation, how, self.credentials)
        except ProxyError:
            if self._on_lost is not None and not self._closed:
                self._on_lost(beyond_help=True)

    def _revived(self, task: asyncio.Task[None]) -> None:
        self._reviving = None
        if not task.cancelled():
            task.exception()  # whoever waited has got it

    async def _revive(self, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._stop_listening()
        self._dismissed = self.channel
        former_result = self.initialize_result
        await self._handshake_patiently(caller, started + self.patience_seconds)
        self.router.session_changed(self)
        self.tell_differences(former_result)
        self._observe(
            events.SessionOpened(
                session=self.tag, principal=self._principal_tag, why="reopen", seconds=loop.time() - started
            )
        )

    def tell_differences(self, former_result: bytes) -> None:
        """Say so where the server says otherwise of itself than in a former ``InitializeResult``."""
        what = changes.differences(former_result, self.initialize_result)
        if what:
            self._observe(
                events.ServerChanged(
                    session=self.tag,
                    principal=self._principal_tag,
                    what=", ".join(what),
                    before=changes.name_and_version(former_result),
                    after=changes.name_and_version(self.initialize_result),
                )
            )

    async def _handshake_patiently(self, caller: Caller, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        while True:
            try:
                return await self._handshake(caller)
            except UpstreamUnreachable:
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() + pause_seconds >= deadline or self._closed:
                    raise
            await asyncio.sleep(pause_seconds)

    def tick(self, now: float) -> None:
        """Called regularly: pings a session that was quiet for the keep-alive time."""
        if self.unheard is not None and now - self.unheard.since > _UNHEARD_SECONDS:
            self.unheard.refuse_requests()
            self.unheard = None
        if now - self.last_activity < self.keepalive_seconds or self.calls or self._closed:
            return
        if self._reviving is None:
            self._touch()
            self.spawn(self._check("ping"), f"keep-alive {self.tag}")

    async def _check(self, how: str) -> bool:
        """Ask whether the session lives, and see to what follows if it does not. Gives whether it is gone."""
        incarnation = self.incarnation
        if await self.confirm(incarnation):
            return False
        if self.incarnation == incarnation:
            self._lost(how)
        return True

    def _lost(self, how: str) -> None:
        """The server does not know this session any more, as it turned out between requests."""
        if self._closed or self._reviving is not None or self._on_lost is None:
            return
        if self._on_lost():
            self._observe(events.SessionLost(session=self.tag, principal=self._principal_tag, how=how))
        else:
            self.revive_soon(self.incarnation, how)

    # -- the GET stream ----------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether the GET stream stands."""
        return self._stream is not None and self._stream.is_open

    @property
    def gaps(self) -> int:
        """How often messages of this incarnation's stream may have been missed, as it was opened anew."""
        return 0 if self._stream is None else self._stream.gaps

    async def _start_listening(self) -> None:
        """Open the GET stream, and give it a moment to stand before the first call is sent."""
        stream = self._stream = GetStream(
            connect=lambda last_event_id: self.channel.open_stream(self.credentials, last_event_id),
            take=self._take,
            unreachable=self._is_better_elsewhere,
            vanished=lambda: self._check("stream"),
            missed=lambda: self.router.session_changed(self),
        )
        self._listener = self.spawn(stream.hold(), f"listen {self.tag}")
        await stream.tried()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.cancel()

    def _is_better_elsewhere(self) -> bool:
        """The server takes no connections: give the session up where there is another server for it."""
        self._placement.suspect(self)
        if not self._placement.can_move(self):
            return False
        self._lost("unreachable")
        return True

    def _take(self, message: Message) -> None:
        if isinstance(message, Request) and message.method == revisions.PING:
            self.answer_ping(message)
            return
        handler = self._handler_for(message)
        if handler is not None:
            handler.deliver(message)
        elif _is_progress(message):
            return  # its request is over, and clients would take our number for one of theirs
        elif self._said is None:
            self.router.route(self, message)
        elif isinstance(message, Request | Notification):
            self._hold_in_handshake(self._said, message)

    def _handler_for(self, message: Message) -> CallHandler | None:
        """The call that a message on the GET stream names, if it names one."""
        if isinstance(message, Response):
            return self.calls.get(jsonrpc.read_number(message.id))
        if _is_progress(message):
            return self.handler_of_progress(message)
        return None

    def handler_of_progress(self, message: Notification) -> CallHandler | None:
        """The call, or what a call has left behind, whose progress this is."""
        number = jsonrpc.read_number(jsonrpc.read_object(message.params).get("progressToken"))
        return self.calls.get(number) or self.tokens.get(number)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something that ends with this session at the latest."""
        return self._background.spawn(work, name)


async def _join(reviving: asyncio.Task[None]) -> None:
    """Wait for a re-opening without owning it."""
    try:
        await asyncio.shield(reviving)
    except asyncio.CancelledError:
        if reviving.cancelled() and not _is_being_cancelled():
            raise SessionLost("The session is gone and the proxy is closing it.") from None
        raise
    except UpstreamRejected:
        raise  # what the server says of the caller's credentials is for the caller
    except (UpstreamError, Draining) as error:
        raise SessionLost(
            f"The MCP server lost the session and a new one could not be opened: {error.message}"
        ) from error


def _closed_meanwhile() -> Draining:
    return Draining("The session was closed while it was being opened.")


def _is_being_cancelled() -> bool:
    """Whether the running task itself is to end, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _names_a_lost_session(answer: Response) -> bool:
    """Whether a ping was refused over the session; servers may refuse pings for other reasons."""
    if answer.error is None:
        return False
    return lost.judge_error(jsonrpc.read_error(answer.error)) is not Verdict.ALIVE


def _is_progress(message: Message) -> TypeGuard[Notification]:
    return isinstance(message, Notification) and message.method == revisions.PROGRESS
