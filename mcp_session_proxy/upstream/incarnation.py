"""One incarnation of an upstream session: what one handshake opened and one goodbye ends.

Here is everything that is lost together with the session at the server: the channel, what the server said of
itself, the calls in flight, the standalone stream, the pings. What survives is in the ``Record`` that all
incarnations of a session share. Code that talks to the server holds an incarnation, and compares it with
``is``, because what one incarnation was asked, the next one knows nothing of.

MCP 2025-11-25: basic/lifecycle, basic/transports, basic/utilities/ping.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from typing import Final

from ..aio import Tasks
from ..errors import ProxyError, UpstreamProtocolError
from ..memory import Kept
from ..protocol import jsonrpc, lost, revisions
from ..protocol.jsonrpc import Message, Request, Response
from ..protocol.lifting import ServerFacts, read_server_facts
from ..protocol.lost import Verdict
from .calls import Calls, is_progress
from .deadlock import Refusals, is_deadlocked
from .fleet import Residence
from .record import KnownSession, Record
from .refusing import Refusing
from .stream import StandaloneStream
from .transport import Caller, Channel, ConnectionLost, Refused, first_response
from .unheard import Held

_PING_SECONDS: Final = 10.0
_POST_SECONDS: Final = 10.0
_MAX_BACKGROUND: Final = 100


class Standing(Enum):
    """What the server knows of an incarnation."""

    OPENING = "opening"  # the handshake is under way
    STANDS = "stands"
    LOST = "lost"  # nothing any more, or it is out of reach for good; needs no goodbye
    CLOSED = "closed"  # the proxy is done with it


class Incarnation:
    """One session at the server. ``initialization`` opens it, ``close`` ends it.

    ``missed`` is called when messages of the standalone stream may have been lost. ``on_lost`` is called when
    it turns out, with no request under way that would notice it, that the server does not know the session
    any more or cannot be reached. ``hear`` gets what the server says of its own accord; it is set when the
    session is opened. None of them may block.
    """

    def __init__(
        self,
        record: Record,
        residence: Residence,
        number: int,
        *,
        missed: Callable[[], None],
        on_lost: Callable[["Incarnation", str], None],
    ) -> None:
        self.record = record
        self.residence = residence
        self.number = number
        self.standing = Standing.OPENING
        self._result: Kept  # as soon as it stands
        self.calls = Calls(record)
        self.held = Held(record, self.refuse)
        self.refusals = Refusals()
        self.hear: Callable[[Message], None] = lambda _: None
        self.channel: Channel  # from the moment on in which the server has opened a session
        self._missed = missed
        self._on_lost = on_lost
        self._owes_goodbye = False
        self._stream: StandaloneStream | None = None
        self.former: KnownSession | None = None  # what it was elsewhere, if it goes on from there
        self._confirming: asyncio.Task[bool] | None = None
        self._resolving: asyncio.Task[None] | None = None
        self.tasks = Tasks()  # end with it at the latest
        self._refusing = Refusing(self.tell, self.tasks, record.room_for_questions)

    def __repr__(self) -> str:
        return (
            f"<Incarnation {self.record.tag}.{self.number} {self.standing.value} {len(self.calls.in_flight)}>"
        )

    @property
    def stands(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self.standing is Standing.STANDS

    @property
    def initialize_result(self) -> bytes:
        """What the server said of itself in the handshake, raw."""
        return self._result.data

    @cached_property
    def facts(self) -> ServerFacts:
        """The same, read."""
        return read_server_facts(self.initialize_result)

    # -- the beginning and the end -----------------------------------------------------------

    def opened(self, channel: Channel | None) -> None:
        """The server has opened a session on this channel; None: it is ended again, and another is tried for.

        Raises:
            UpstreamProtocolError: it is another caller's.
        """
        self.residence.channel = channel
        if channel is None:
            self._owes_goodbye = False
            return
        self.channel = channel
        if self.residence.is_anothers:
            self._owes_goodbye = False  # it would end the session for the other one
            raise UpstreamProtocolError(
                "The MCP server gave a new session the id of another caller's session, so it was not used: "
                "the two would see each other's state."
            )
        self._owes_goodbye = True

    def stand(self, result: Kept) -> None:
        """The handshake is done, or none was needed: the session can be used."""
        self._result = result
        # It may have been closed while its handshake was coming to its end.
        if self.standing is Standing.OPENING:
            self.standing = Standing.STANDS
        self.calls.touch()

    def end(self, standing: Standing) -> None:
        """Stop what runs for it, without a goodbye: one that is lost needs none."""
        # What the proxy is done with is not lost any more.
        if self.standing is not Standing.CLOSED:
            self.standing = standing
        # There is nobody to say goodbye to, but what carries the session may still be open.
        if standing is Standing.LOST and self._owes_goodbye:
            self._owes_goodbye = False
            self.channel.drop()
        self.tasks.cancel()

    async def close(self) -> None:
        """End it at the server, once, even if its handshake was cut short. Raises nothing."""
        self.end(Standing.CLOSED)
        await self.say_goodbye()
        # Until its server has been told, the session lives there.
        self.residence.leave()

    async def say_goodbye(self) -> None:
        """Tell the server that the session is over, if it knows it and has not been told yet."""
        if self._owes_goodbye:
            # Before it is sent, so that nobody sends another meanwhile.
            self._owes_goodbye = False
            await self.channel.close(self.record.credentials)

    # -- requests ----------------------------------------------------------------------------

    def tell_soon(self, body: bytes, caller: Caller | None = None) -> None:
        """Send a notification or a response in the background."""
        # A server that asks and never reads the answers must not fill the memory with them.
        if len(self.tasks) < _MAX_BACKGROUND and self.standing is not Standing.CLOSED:
            self.tasks.spawn(self.tell(body, caller), f"post {self.record.tag}")

    async def tell(self, body: bytes, caller: Caller | None = None) -> bool:
        """Send a notification or a response; gives whether the server took it.

        ``caller`` is that of the request that it came in or belongs to, None for one of the proxy's own.
        """
        self.calls.act()
        try:
            async with (
                asyncio.timeout(_POST_SECONDS),
                self.channel.send(body, caller or self.record.credentials),
            ):
                # There is no answer to wait for.
                return True
        except (ProxyError, Refused, ConnectionLost, TimeoutError):
            return False

    def answer_ping(self, request: Request) -> None:
        """Answer the server's ping (basic/utilities/ping); servers end sessions whose pings go unanswered."""
        self.tell_soon(jsonrpc.write_response(request.id, Response(request.id, result=b"{}")))

    def refuse(self, request: Request) -> None:
        """Answer a server's request that nobody will answer."""
        if self.standing is not Standing.CLOSED:
            self._refusing.refuse(request)
        self.record.roots.answered(request.id)

    # -- whether it lives --------------------------------------------------------------------

    async def confirm(self) -> bool:
        """Whether it is still alive, asked by a ping. One ping for all who ask at once.

        A suspicion is cheap and a revival is not, so only the server's own word ends a session. Who asks
        while the ping is under way shares its answer, and so does who asks when the incarnation has been
        found lost meanwhile. One that the proxy itself has closed counts as alive: what the server said
        before stands.
        """
        if not self.stands:
            return self.standing is Standing.CLOSED
        if self._confirming is None:
            self._confirming = self.tasks.spawn(self._ping(), f"ping {self.record.tag}")
            self._confirming.add_done_callback(self._confirmed)
        confirming = self._confirming
        try:
            return await asyncio.shield(confirming)
        except asyncio.CancelledError:
            # The ping was called off, and not this task, which goes on with what the server has said itself.
            if confirming.cancelled() and not is_being_cancelled():
                return self.standing is not Standing.LOST
            raise

    def _confirmed(self, _: asyncio.Task[bool]) -> None:
        self._confirming = None

    async def _ping(self) -> bool:
        """True unless the server says, one way or another, that it does not know the session."""
        identifier = b"%d" % self.record.next_id()
        body = jsonrpc.write_request(identifier, revisions.PING, None)
        try:
            async with (
                asyncio.timeout(_PING_SECONDS),
                self.channel.send(body, self.record.credentials, identifier) as reply,
            ):
                # It took this one, whatever the answer says, so there is no row of refusals.
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
            self.calls.touch()

    def note_refusal(self, refused: Refused) -> None:
        """The server refused something on this session in words that say nothing of it."""
        suspect = self.refusals.note(refused, asyncio.get_running_loop().time())
        # A server that gives no id keeps no session, so there is none that it could be stuck on.
        if suspect and self._resolving is None and self.channel.session_id is not None and self.stands:
            self._resolving = self.tasks.spawn(self._resolve_deadlock(), f"deadlock {self.record.tag}")

    async def _resolve_deadlock(self) -> None:
        record = self.record
        try:
            gone = await is_deadlocked(
                self.residence.replica.transport,
                self.channel,
                record.credentials,
                record.initialize_params,
                record.rules.handshake_timeout_seconds,
            )
            self.refusals.clear()
            if gone:
                self._on_lost(self, "refusals")
        finally:
            self._resolving = None

    def tick(self, now: float, keepalive_seconds: float) -> None:
        """Called regularly: pings a session that was quiet for the keep-alive time."""
        self.held.expire(now)
        # By what was sent and not by what was heard: some servers count only what they receive.
        quiet_seconds = now - self.calls.last_activity
        if quiet_seconds >= keepalive_seconds and not self.calls.in_flight and self.stands:
            # Noted before it is sent, so that the next round does not send another.
            self.calls.touch()
            self.tasks.spawn(self._tell_if_gone("ping"), f"keep-alive {self.record.tag}")

    async def _tell_if_gone(self, how: str) -> bool:
        """Ask the server whether it knows the session, and call ``on_lost`` with ``how`` if it does not.

        Gives whether the session is gone.
        """
        if await self.confirm():
            return False
        self._on_lost(self, how)
        return True

    # -- the standalone stream ----------------------------------------------------------------------

    @property
    def wants_stream(self) -> bool:
        """Whether the standalone stream is asked for."""
        return self._stream is not None

    @property
    def streaming(self) -> bool:
        """Whether the standalone stream stands."""
        return self._stream is not None and self._stream.is_open

    @property
    def last_event_id(self) -> str | None:
        """Where somebody else could go on with the stream."""
        if self._stream is not None:
            return self._stream.last_event_id
        return None if self.former is None else self.former.last_event_id

    @property
    def gaps(self) -> int:
        """How often messages of the stream may have been missed, as it was opened anew."""
        return 0 if self._stream is None else self._stream.gaps

    async def open_stream(self) -> None:
        """Open the standalone stream, and give it a moment to stand before the first call is sent."""
        stream = self._stream = StandaloneStream(
            # By the credentials of the moment: they may be renewed in the life of a stream.
            connect=lambda last_event_id: self.channel.open_stream(self.record.credentials, last_event_id),
            take=self.take,
            unreachable=self._is_better_elsewhere,
            vanished=lambda: self._tell_if_gone("stream"),
            missed=self._missed,
            goes_on=self.former is not None,
            after=self.last_event_id,
        )
        self.tasks.spawn(stream.hold(), f"listen {self.record.tag}")
        await stream.tried()

    def _is_better_elsewhere(self) -> bool:
        """The server takes no connections: give the session up where there is another server for it."""
        self.residence.suspect()
        if not self.residence.can_move:
            return False
        self._on_lost(self, "unreachable")
        return True

    def take(self, message: Message) -> None:
        """Take what the server says outside of the stream of the call that it belongs to, if to any."""
        if isinstance(message, Request) and message.method == revisions.PING:
            self.answer_ping(message)
            return
        # Some servers tell the progress of a call, and even its answer, on the standalone stream.
        handler = self.calls.named_by(message)
        if handler is not None:
            handler.deliver(message)
        elif is_progress(message):
            return  # its request is over, and clients would take our number for one of theirs
        else:
            self.hear(message)


def is_being_cancelled() -> bool:
    """Whether the running task itself is to end, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _names_a_lost_session(answer: Response) -> bool:
    """Whether a ping was refused over the session; servers may refuse pings for other reasons."""
    if answer.error is None:
        return False
    return lost.judge_error(jsonrpc.read_error(answer.error)) is not Verdict.ALIVE
