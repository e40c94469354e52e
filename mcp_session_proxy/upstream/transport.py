"""The seam between MCP and what carries it: what sessions and exchanges may know of the way to a server.

A *transport* leads to one server. It opens a *channel* for each session; what the session says goes out on
that, and what comes back is a *reply*: messages, and the end of a stream. A transport need have neither
statuses nor headers nor a URL, and all that a session says and hears may travel on one wire. So whatever can
go wrong is told here in terms of the protocol:

=======================  ======================================================================
``UpstreamUnreachable``  nothing was sent
``Refused``              the server took notice and refused: because the session is gone (then nothing
                         was carried out), may be gone, or for a reason that the client is told
``ConnectionLost``       it was sent, or may have been, and no answer can come on this way
``UpstreamTimeout``      it was sent, and the server says nothing for too long
``StreamRefused``        the server gives no stream now
=======================  ======================================================================

Any other ``UpstreamError`` is an answer that cannot be read. Streamable HTTP is the transport that there is;
tests put others in its place.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from functools import cached_property
from typing import Final, Protocol

import msgspec

from ..errors import ProxyError
from ..protocol import jsonrpc
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..protocol.lost import Verdict
from .http.head import write_callers


class Caller(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The headers and the raw query string of one request of a client's that travel upstream with it.

    ``reduced`` is the same with the headers that say who is calling, and no others; None where there are no
    others. They hold credentials: they stay in memory, and neither ``repr`` nor a log shows them.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    reduced: "Caller | None" = None

    @cached_property
    def written(self) -> bytes | None:
        """``headers`` as lines of HTTP, worked out once for all requests; see ``http.head.write_callers``."""
        return write_callers(self.headers)

    @property
    def credentials(self) -> "Caller":
        """What travels with requests that the proxy sends by itself: nothing that belongs to one call."""
        return self if self.reduced is None else self.reduced

    def renewed_by(self, newer: "Caller") -> "Caller":
        """The same request under the credentials of a newer one of the same caller."""
        said_by = newer.credentials
        own = [pair for pair in self.headers if pair not in self.credentials.headers]
        return Caller(headers=(*said_by.headers, *own), query=said_by.query, reduced=said_by)

    def with_more(self, headers: Iterable[tuple[str, str]]) -> "Caller":
        """The same for one request that has more headers, which do not say who is calling."""
        return Caller(headers=(*self.headers, *headers), query=self.query, reduced=self.credentials)

    def __repr__(self) -> str:
        return "Caller()"


NOBODY: Final = Caller()


TOO_DEEP: Final = "The MCP server's answer is nested deeper than --max-json-depth allows."


# -- what can go wrong -----------------------------------------------------------------------------


class ConnectionLost(Exception):
    """The connection broke after the message was, or may have been, sent; a text says what broke."""


class NotTaken(ConnectionLost):
    """It broke before the other side had read all of the message, which therefore did nothing there."""


class Concern(Enum):
    """What a refusal is about, as far as that shows before its words are read."""

    MESSAGE = "message"  # what was sent
    FORM = "form"  # how it was sent
    METHOD = "method"  # what the server cannot do at all
    PLACE = "place"  # there is no such thing where it was asked
    CALLER = "caller"  # who is calling
    RATE = "rate"  # how often
    MOMENT = "moment"  # nothing of all that: the server, or what stands before it, is in trouble
    UNCLEAR = "unclear"


class Refused(Exception):
    """The server refused a message.

    ``error`` is what the client is told. ``session`` is what the refusal says of the session; with
    ``Verdict.GONE``, the message was certainly not carried out. ``confirms_loss`` says the same once more, of
    the answer to a ping that followed a suspicion.

    ``words`` is all that the server said; ``response`` is the JSON-RPC error among it, with its ``code``, and
    ``is_an_answer`` says that this answers the message as it would have done without any refusal. With
    ``is_page``, the words are for people, and most likely those of whatever stands before the server.
    ``busy``: it said when to come back. ``how`` names its kind in events; those of one kind have one ``how``.
    """

    def __init__(
        self,
        error: ProxyError,
        *,
        how: int | str,
        session: Verdict = Verdict.ALIVE,
        confirms_loss: bool = False,
        concern: Concern = Concern.UNCLEAR,
        words: bytes = b"",
        response: Response | None = None,
        is_an_answer: bool = False,
        is_page: bool = False,
        busy: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.how = how
        self.session = session
        # What is gone for certain needs no second word.
        self.confirms_loss = confirms_loss or session is Verdict.GONE
        self.concern = concern
        self.words = words
        self.response = response
        self.is_an_answer = is_an_answer
        self.is_page = is_page
        self.busy = busy

    @property
    def code(self) -> int:
        """The code of the JSON-RPC error; 0 if there is none."""
        raw_error = None if self.response is None else self.response.error
        return jsonrpc.read_error(raw_error or b"{}").code


class NoStream(Enum):
    """Why a server gives no stream."""

    PASSING = "passing"  # it has not noticed that the former one is gone, or it is busy, or starting
    CRASH = "crash"  # something failed in it, most often over the event id
    CALLER = "caller"  # not to this caller
    NO_SESSION = "no-session"  # it does not know the session, or has no stream
    NOT_OFFERED = "not-offered"  # it has none, or none that goes on from there


class StreamRefused(Exception):
    """The server gives no stream now."""

    def __init__(self, why: NoStream) -> None:
        super().__init__(why.value)
        self.why = why

    @property
    def passes(self) -> bool:
        """Whether asking again in a while may help, whatever was asked for."""
        return self.why is NoStream.PASSING or self.why is NoStream.CRASH


# -- what comes back -------------------------------------------------------------------------------


class ArrivingResult(Protocol):
    """A result whose end has not come: either read piece by piece, or gathered."""

    @property
    def length_bytes(self) -> int | None:
        """How much ``read`` gives in all; None where nobody knows yet."""
        ...

    async def read(self) -> bytes:
        """What comes next, to the end of the envelope; empty behind it.

        Raises:
            ConnectionLost: it broke off, or ends before its envelope does.
            UpstreamTimeout: nothing came for too long.
            UpstreamProtocolError: it is too large, or too deep.
        """
        ...

    async def gather(self) -> Response | None:
        """The whole response; None if it is none. Raises as ``Reply.read``."""
        ...


class Arriving(Response, frozen=True, gc=True):
    """A large response that says whose it is, and is still on its way. Whoever gets it does one or the other
    with its ``coming`` result, and reads nothing else before.
    """

    coming: ArrivingResult | None = None


class Reply(Protocol):
    """What a server says on one message, or on a stream that was opened.

    With ``gives_arriving`` it may give a large response as ``Arriving``; otherwise it gathers each one. With
    ``gives_runs`` it may give progress that has come together as one ``ProgressRun``.
    """

    gives_arriving: bool
    gives_runs: bool

    @property
    def last_event_id(self) -> str | None:
        """The newest event id, to resume the stream with; None where it cannot be resumed."""
        ...

    @property
    def retry_seconds(self) -> float | None:
        """How long the stream asks to wait before it is resumed."""
        ...

    async def read(self) -> list[Message] | None:
        """The messages that arrived next, possibly none; None at the end.

        Raises:
            ConnectionLost: it broke off.
            UpstreamTimeout: nothing came for too long.
            UpstreamProtocolError: what comes is too large to be taken.
            NoRoomForAnswer: it does not fit into the memory that is left now.
        """
        ...


async def first_response(
    reply: Reply, take: Callable[[Request | Notification], None] = lambda _: None
) -> Response | None:
    """The first response that a reply brings. ``take`` gets what the server asks or tells before it.

    Raises as ``Reply.read``.
    """
    while (messages := await reply.read()) is not None:
        for message in messages:
            if isinstance(message, Response):
                return message
            take(message)
    return None


# -- the way there ---------------------------------------------------------------------------------


class Channel(Protocol):
    """All that one session says and hears.

    ``caller`` is, with each message, whose request it belongs to.
    """

    @property
    def silence_seconds(self) -> float:
        """How long a server that works on a request may say nothing."""
        ...

    @property
    def session_id(self) -> str | None:
        """What the server calls the session; None if it has no name for it, or keeps none."""
        ...

    @property
    def route(self) -> bytes | None:
        """What it takes beside that name to come to the session again, on the way to it; None if nothing."""
        ...

    @property
    def version(self) -> str | None:
        """The protocol version that was agreed on."""
        ...

    def open(
        self, body: bytes, caller: Caller, identifier: bytes, /, *, silence_seconds: float
    ) -> AbstractAsyncContextManager[Reply]:
        """Send ``initialize``, or another question that may open a session.

        Once this gives a reply, the session stands, and somebody has to ``close`` it.

        Raises as ``send``, and leaves nothing behind then that would have to be closed.
        """
        ...

    def agree(self, version: str) -> None:
        """The handshake has agreed on a version, which holds for all that follows."""
        ...

    def send(
        self,
        body: bytes,
        caller: Caller,
        identifier: bytes | None = None,
        /,
        *,
        silence_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[Reply]:
        """Send one message; its raw id is ``identifier`` if it is a request.

        The server may be silent for ``silence_seconds``, by default as long as about any request. Leaving the
        block before the reply has ended gives up the rest of it.

        Raises:
            UpstreamUnreachable: nothing was sent.
            Refused: the server refuses it.
            ConnectionLost: the connection broke after it was, or may have been, sent.
            UpstreamTimeout: no sign of an answer for too long.
            UpstreamProtocolError: it cannot be sent as it is, or what came back is no answer.
            NoRoomForAnswer: the answer does not fit into the memory that is left now.
        """
        ...

    def open_stream(self, caller: Caller, last_event_id: str | None) -> AbstractAsyncContextManager[Reply]:
        """The standalone stream: what the server says of its own accord, however seldom.

        With ``last_event_id`` it goes on behind that event.

        Raises:
            StreamRefused: the server gives none now.
            UpstreamUnreachable, ConnectionLost, UpstreamTimeout, UpstreamProtocolError: as ``send``.
        """
        ...

    def resume(self, caller: Caller, last_event_id: str) -> AbstractAsyncContextManager[Reply]:
        """The stream of a request, behind this event, after it ended or broke off without the answer.

        Silence on it is bounded as in ``send``. Raises as ``open_stream``.
        """
        ...

    async def close(self, caller: Caller) -> None:
        """End the session at the server, if it has one. Takes a few seconds at most; raises nothing."""
        ...

    def drop(self) -> None:
        """The server has lost the session: let go of whatever carries it, without a goodbye."""
        ...


class Transport(Protocol):
    """The way to one server."""

    @property
    def sessions_only(self) -> bool:
        """Whether no request can go to the server but on a session."""
        ...

    def connect(self) -> Channel:
        """A channel for a session that is to be opened. Nothing is sent yet, nothing can fail."""
        ...

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> Channel:
        """A channel for a session that stands at the server already, under this name. Nothing is sent yet.

        ``route`` is what the channel before had so.

        Raises:
            SessionLost: here, sessions live no longer than their channels.
        """
        ...

    async def reconsider(self, refused: Refused, caller: Caller) -> Channel | None:
        """Another channel to try, after a handshake was refused for which ``connect`` gave one.

        ``caller`` is whose it was. None where that would be no use, as for nearly every refusal. A channel
        that is given has to be opened. Takes 10 s at most; raises nothing.
        """
        ...
