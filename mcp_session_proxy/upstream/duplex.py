"""Sessions whose messages all travel on one way: a child's pipes, or the event stream of HTTP+SSE.

Over Streamable HTTP an answer comes on the request that it answers. Here everything that a server says comes
on one *link*, and a ``DuplexSession`` finds out what belongs to which call:

===============================================  =========================================================
a response                                       to the reply that waits for its id; one that nobody waits
                                                 for is dropped: its call was given up
the progress of a call                           to that call's reply, by its token
anything else while exactly one call runs        to that call's reply: it belongs to it, and its client hears
                                                 it even without a standalone stream
anything else, and a ping                        to the standalone stream, as over HTTP: what it belongs to
                                                 is found out above
===============================================  =========================================================

and in which words of ``transport`` the end of a link is told:

===============================================  =========================================================
it had ended before a message was sent           ``Refused``, ``Verdict.GONE``: certainly not carried out
it ended before anything of one was written      the same
it ended after that                              ``ConnectionLost``: it may have been carried out
it ended while nobody was looking                the standalone stream ends, and is refused from then on
nothing comes for a call for too long            ``UpstreamTimeout``; the session goes on
===============================================  =========================================================

A transport of this kind opens a link for each session (``Link``) and makes a ``DuplexSession`` of it::

    def connect(self) -> DuplexSession:
        return DuplexSession(self._open_link, self._sweeper)

    async def _open_link(self, session: DuplexSession, caller: Caller) -> Link:
        ...  # whatever is read from then on is given to ``session.take``, and its end to ``session.end``

Nothing here has a status, an event id or a name for the session: nothing can be resumed, and a session lives
no longer than its link.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from ..bounds import CALL_UNREAD_BYTES, UNHEARD_BYTES, UNHEARD_MESSAGES, WORDLESS_TIMES
from ..errors import ProxyError, SessionLost, UpstreamTimeout
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..protocol.lost import Verdict
from .calls import is_progress
from .inbox import Inbox, Sweeper
from .transport import Caller, ConnectionLost, NoStream, Refused, Reply, StreamRefused

# Written by ``jsonrpc.write_request``, which puts parameters last: nothing but a ping ends so.
_PING_ENDS: Final = b',"method":"ping"}'
# A server that has answered may take so long to say that it has taken what it answered.
_WORD_SECONDS: Final = 1.0


class Link(Protocol):
    """What carries the messages of one session.

    It gives each message that arrives to the session's ``take``, in order, and tells its ``end``, once,
    after everything that was read before.
    """

    def send(self, body: bytes, caller: Caller) -> asyncio.Future[None] | None:
        """Send one message, without waiting.

        Gives what is done when the server has taken it, or has what became of it for an error, in
        ``transport``'s words; None where nothing is heard of that. An answer may come before it. Whoever has
        sent it cancels it when it is of no use any more, and the link when it ends.

        Raises:
            UpstreamUnreachable: nothing of it can have been taken, and it may be tried again.
            UpstreamTimeout: the server takes nothing for too long.
        """
        ...

    def pause(self) -> None:
        """Read no more for now: somebody is slow to take what has come."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    async def close(self, caller: Caller) -> None:
        """Say goodbye, and end: within a few seconds, also what has ended already. Raises nothing."""
        ...

    def drop(self) -> None:
        """End it now, without a goodbye; what that takes goes on by itself. Raises nothing."""
        ...


class DuplexReply(Inbox, eq=False):
    """One message on its way: the context manager that ``DuplexSession.send`` gives, and its reply.

    ``offset`` is how much was sent before it. ``heard_at`` is when it began, or the server said something of
    it last, by the event loop's clock. ``hears_all``: what names no call can be about this one.
    """

    # A struct and no other class, since every call before such a server makes one.
    session: "DuplexSession"
    body: bytes
    caller: Caller
    identifier: bytes | None
    silence_seconds: float
    offset: int = 0
    heard_at: float = 0.0
    hears_all: bool = True
    _taken: "asyncio.Future[None] | None" = None

    async def __aenter__(self) -> "DuplexReply":
        """Send it."""
        taken = self.session.put_on_link(self)
        if taken is not None:
            try:
                await self._until_taken(taken)
            except BaseException:
                self._leave()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """It has been read, or nobody wants the rest."""
        # Nearly always it has been read to its end, and nobody knows of it any more.
        if self.identifier in self.session.replies or self._arrived or self._taken is not None:
            self._leave()

    async def _until_taken(self, taken: asyncio.Future[None]) -> None:
        """Wait for the server's word on the message, or for what it says about it before that.

        Some servers give their word only when all is done, and what they ask meanwhile has to be answered.
        """
        self._taken = taken
        taken.add_done_callback(self.wake)
        while not (taken.done() or self._arrived or self._error):
            await self._hear()
        if self._arrived:
            taken.add_done_callback(self._was_taken)
        elif taken.done():
            if (error := _outcome(taken)) is not None:
                raise error
        elif self._error is not None:
            raise self._error

    def _was_taken(self, taken: asyncio.Future[None]) -> None:
        """The server's word has come. One that says no is the end, if the answer is not there already."""
        if (error := _outcome(taken)) is not None:
            self.end(error)

    def _leave(self) -> None:
        self.session.leave(self)
        taken = self._taken
        if taken is not None and not taken.done():
            # Who has answered is about to give its word, too. Else what is still to be said is of no use.
            is_answered = self._over and self._error is None and self.identifier is not None
            taken.get_loop().call_later(_WORD_SECONDS if is_answered else 0, taken.cancel)

    def _was_read(self) -> None:
        self.session.was_read()

    @property
    def due(self) -> float:
        """When it has waited for too long: a sign of life counts for all that wait on a link, for a while."""
        if self._over:
            return math.inf
        seconds, session = self.silence_seconds, self.session
        return min(max(self.heard_at, session.heard_at) + seconds, self.heard_at + WORDLESS_TIMES * seconds)

    def give_up_if_due(self, now: float) -> None:
        """End it if it has waited for too long."""
        if self.due <= now:
            if self._arrived:
                self.heard_at = now  # what has come and is not read was no silence
            else:
                self.end(UpstreamTimeout("The MCP server accepted the request and then fell silent."))


def _outcome(taken: asyncio.Future[None]) -> BaseException | None:
    """What became of a message, by the word that was given or that never will be."""
    return ConnectionLost() if taken.cancelled() else taken.exception()


class DuplexSession:
    """One session over one link. Implements ``transport.Channel``.

    ``open_link`` opens the link, with the headers of the request that it is for: it raises ``UpstreamError``
    and leaves nothing behind then, nor if it is cancelled.

    ``ended`` says why the link has ended, once it has. ``opening`` is true until the first answer has come:
    a link that ends before knows more to say of it than that. ``strays`` counts answers that nobody waited
    for, and what was dropped over a bound. ``replies`` are the requests that wait for answers, by their ids.
    """

    # It is known by its link, and needs no name.
    session_id = None
    route = None

    def __init__(
        self, open_link: Callable[["DuplexSession", Caller], Awaitable[Link]], sweeper: Sweeper
    ) -> None:
        self.sweeper = sweeper
        self.version: str | None = None
        self.ended: str | None = None
        self.opening = True
        self.strays = 0
        self.sent_bytes = 0
        self.heard_at = 0.0
        self._now = asyncio.get_running_loop().time
        self._open_link = open_link
        self._link: Link | None = None
        self.replies: dict[bytes, DuplexReply] = {}
        self._pings = 0  # those among them that hear nothing but their answers
        self._paused = False  # the link is read no more for now
        self._unasked = Inbox()
        self._listened_to = False

    def __repr__(self) -> str:
        return f"<DuplexSession {self.ended or 'open'} {len(self.replies)}>"

    # -- transport.Channel ---------------------------------------------------------------------------

    @property
    def silence_seconds(self) -> float:
        """How long the server may say nothing about a request."""
        return self.sweeper.silence_seconds

    @asynccontextmanager
    async def open(
        self, body: bytes, caller: Caller, identifier: bytes, /, *, silence_seconds: float
    ) -> AsyncIterator[Reply]:
        """Open the link and send ``initialize``; see ``transport.Channel.open``."""
        self._link = await self._open_link(self, caller)
        if self.ended is None:
            self.sweeper.watched.add(self._give_up_due)
        sent = False
        try:
            async with self.send(body, caller, identifier, silence_seconds=silence_seconds) as reply:
                sent = True
                yield reply
        finally:
            if not sent:
                self.drop()

    def agree(self, version: str) -> None:
        """Note the version; no message repeats it."""
        self.version = version

    def send(
        self,
        body: bytes,
        caller: Caller,
        identifier: bytes | None = None,
        /,
        *,
        silence_seconds: float | None = None,
    ) -> DuplexReply:
        """Send one message; see ``transport.Channel.send``."""
        if silence_seconds is None:
            silence_seconds = self.sweeper.silence_seconds
        return DuplexReply(self, body, caller, identifier, silence_seconds)

    @asynccontextmanager
    async def open_stream(
        self,
        caller: Caller,  # noqa: ARG002
        last_event_id: str | None,  # noqa: ARG002
    ) -> AsyncIterator[Reply]:
        """What belongs to no call; see ``transport.Channel.open_stream``. There is one at a time."""
        if self.ended is not None:
            raise StreamRefused(NoStream.NO_SESSION)
        self._listened_to = True
        try:
            yield self._unasked
        finally:
            self._listened_to = False

    def resume(
        self,
        caller: Caller,  # noqa: ARG002
        last_event_id: str,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[Reply]:
        """Nothing can be resumed here."""
        raise StreamRefused(NoStream.NOT_OFFERED)

    async def close(self, caller: Caller) -> None:
        """End the session with its link; see ``transport.Channel.close``."""
        self.end("closed by the proxy")
        if self._link is not None:
            await self._link.close(caller)

    def drop(self) -> None:
        """Let go of the link, without a goodbye."""
        self.end("given up by the proxy")
        if self._link is not None:
            self._link.drop()

    # -- what the link does ----------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Take a message that has arrived. Does not block, and raises nothing."""
        if self.ended is not None:
            return
        if isinstance(message, Response):
            # What comes from now on is not about this call, even if nobody has read the answer yet.
            reply = self.replies.pop(message.id, None)
            if reply is None:
                # Some servers write numbers otherwise.
                reply = self.replies.pop(b"%d" % jsonrpc.read_number(message.id), None)
            if reply is None:
                self.strays += 1
                return
            self.opening = False
            if not reply.hears_all:
                self._pings -= 1
            reply.end(last=message)
        elif (reply := self._named_by(message)) is None:
            self._take_unasked(message)
        elif reply.unread_bytes < CALL_UNREAD_BYTES:
            reply.heard_at = self._now()
            reply.put(message)
        elif self._calls == 1:
            # Its client reads slowly, and nobody else waits for anything here: the server is slowed down.
            reply.heard_at = self._now()
            reply.put(message)
            self._pause()
        else:
            # Progress, of which the next one says more; the others must not wait for this one's client.
            self.strays += 1

    def heard(self) -> None:
        """A sign of life that is no message, for all calls: the server keeps the link alive."""
        self.heard_at = self._now()

    def end(self, why: str, *, unwritten_bytes: int = 0, error: ProxyError | None = None) -> None:
        """The link has ended. Does nothing for one that has before.

        Of what was sent last, ``unwritten_bytes`` were certainly never written; each message counts as one
        byte more than its body has. ``error`` is what the other calls hear in place of ``ConnectionLost``,
        where more is known of what became of them.
        """
        if self.ended is not None:
            return
        self.ended = why
        self.sweeper.watched.discard(self._give_up_due)
        written_bytes = self.sent_bytes - unwritten_bytes
        for reply in self.replies.values():
            reply.end(self._gone() if reply.offset >= written_bytes else error or ConnectionLost())
        self._unasked.end()

    # -- whose a message is ------------------------------------------------------------------------------

    @property
    def _calls(self) -> int:
        """How many calls run, pings apart."""
        return len(self.replies) - self._pings

    def _named_by(self, message: Request | Notification) -> DuplexReply | None:
        """The call that a message belongs to; None if that is not known."""
        if is_progress(message):
            token = bytes(jsonrpc.view_object(message.params).get("progressToken", b""))
            return self.replies.get(token) or self.replies.get(b"%d" % jsonrpc.read_number(token))
        if self._calls != 1:
            return None
        # Servers end sessions whose pings go unanswered, and whoever reads a call may be slow.
        if isinstance(message, Request) and message.method == revisions.PING and self._listened_to:
            return None
        return next(reply for reply in self.replies.values() if reply.hears_all)

    def _take_unasked(self, message: Request | Notification) -> None:
        unasked = self._unasked
        # Whoever listens takes it in a moment; before there is anybody, there is a bound.
        if not self._listened_to and (
            unasked.unread >= UNHEARD_MESSAGES or unasked.unread_bytes >= UNHEARD_BYTES
        ):
            self.strays += 1
            return
        unasked.put(message)

    # -- what replies do ---------------------------------------------------------------------------------

    def put_on_link(self, reply: DuplexReply) -> asyncio.Future[None] | None:
        """Give a message to the link, whose word on it is given; see ``Link.send``.

        A request waits for its answer before it is sent, for nothing may come too early.

        Raises:
            Refused: the link has ended.
            UpstreamUnreachable, UpstreamTimeout: as ``Link.send``.
        """
        if self.ended is not None:
            raise self._gone()
        link, body, identifier = self._link, reply.body, reply.identifier
        assert link is not None, "the session was never opened"
        reply.offset = self.sent_bytes
        if identifier is None:
            reply.end()
        else:
            self.replies[identifier] = reply
            reply.heard_at = now = self._now()
            if now + reply.silence_seconds < self.sweeper.looks_at:
                self.sweeper.look_at(reply.due)
            # Whoever asks whether the session lives listens for the answer, and for nothing else.
            if body.endswith(_PING_ENDS):
                reply.hears_all = False
                self._pings += 1
            # The others must not wait because the first one's client reads slowly.
            if self._paused and self._calls > 1:
                self._resume()
        try:
            taken = link.send(body, reply.caller)
        except BaseException:
            self.leave(reply)
            raise
        self.sent_bytes += len(body) + 1
        return taken

    def _gone(self) -> Refused:
        error = SessionLost(f"The MCP server has gone: {self.ended}.")
        return Refused(error, how="ended", session=Verdict.GONE)

    def leave(self, reply: DuplexReply) -> None:
        """A request is over for whoever sent it; what it has not read may be somebody else's."""
        identifier = reply.identifier
        if identifier is not None and self.replies.get(identifier) is reply:
            del self.replies[identifier]
            if not reply.hears_all:
                self._pings -= 1
        for message in reply.take_unread():
            if not (isinstance(message, Response) or is_progress(message)):
                self._take_unasked(message)

    def _give_up_due(self, now: float) -> float:
        """Give up the calls that have waited for too long; gives when the next one will have."""
        for reply in self.replies.values():
            reply.give_up_if_due(now)
        return min([reply.due for reply in self.replies.values()], default=math.inf)

    def was_read(self) -> None:
        """Somebody has taken what has come."""
        if self._paused:
            self._resume()

    def _pause(self) -> None:
        if not self._paused and self._link is not None:
            self._paused = True
            self._link.pause()

    def _resume(self) -> None:
        if self._link is not None:
            self._paused = False
            # Nobody could hear it meanwhile.
            self.heard()
            self._link.resume()
