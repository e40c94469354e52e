"""aiohttp's end of one client's connection, and what happens to a request when its client leaves.

Usually the handler is cancelled. A legacy POST says otherwise (``on_departure``): what its client asked
for goes on without it. How a connection is closed may also say that its client has left for good.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import _ErrInfo

from ..aio import break_circle
from ..bounds import BODY_HELD_BYTES, HEAD_FIELDS, HEAD_NAME_BYTES, HEAD_TIMES_A_FIELD
from ..errors import HeadTooLarge, OverBudget, ProxyError, TooManyConnections, UnsupportedHttp
from ..memory import Share
from ..protocol import jsonrpc, revisions
from ..sessions.binding import Binder
from ..sessions.client import ClientSession
from .framing import Framing
from .head import Head, Sender
from .places import Place, Places
from .request_loop import RequestLoop
from .unfinished import PUNCTUATION_BYTES, UnfinishedHeads, left_over

_NO_HTTP: Final = "This is not a valid HTTP request.\n"
_TOO_MANY: Final = "Too many headers received"  # aiohttp has no class for it
_EARLY_ANSWER_SECONDS: Final = 2.0
# Of what arrives with the end of a request, as much is not looked at more closely: it is all of that request.
_SMALL_BYTES: Final = 4096
# How long what has come of a body may lack memory before the connection is cut: enough to refuse it.
_UNREAD_SECONDS: Final = 1.0
_NO_MEMORY: Final = OverBudget(
    "The proxy has no memory left for requests whose heads take so long to arrive. Try again shortly."
)
_NUMBERS: Final = itertools.count(1)


def next_number() -> int:
    """A number that no connection has."""
    return next(_NUMBERS)


class Connection(RequestLoop):
    """One connection.

    ``departure`` is called when it is lost while a request is being answered; ``head`` is the head of the
    request before, and ``sender`` who sent it; it ``carries_many`` if it has had others; ``client`` is the
    client session that it has carried; ``number`` tells it from all others; ``place`` is its
    place among all connections (``places``), as long as it is open; ``heads`` are all that have not ended;
    ``bodies`` is the memory for bodies; ``quiet_looks`` in how many looks in a row it was idle.
    """

    __slots__ = (
        "_binder",
        "_body",
        "_ended_by_client",
        "_follows",
        "_framing",
        "_holds_body",
        "_holds_head",
        "_shared",
        "_streamed",
        "bodies",
        "carries_many",
        "client",
        "departure",
        "head",
        "heads",
        "number",
        "place",
        "places",
        "quiet_looks",
        "sender",
    )

    carries_many: bool
    departure: Callable[[], object] | None
    head: Head | None
    sender: Sender | None
    client: ClientSession | None
    place: Place | None
    places: Places
    heads: "UnfinishedHeads[Connection]"
    bodies: Share
    _binder: Binder | None
    _framing: Framing | None

    def begin(self, task: "asyncio.Task[None]", body: StreamReader) -> None:
        """A request begins; ``task`` is what works on it."""
        self.departure = task.cancel
        self._streamed = self._follows = False
        self._body = None if body.is_eof() else body

    def stream(self) -> None:
        """The request is answered by an event stream.

        Some clients close the connection as soon as they have their answer from it: that says nothing.
        """
        self._streamed = True

    def follow(self) -> None:
        """The request asks for a stream of what may come, and works on nothing."""
        self._follows = True
        if self._reading_paused and self.transport is not None:
            # Its body is large, goes on, and is read by nobody.
            self._loop.call_soon(self.transport.abort)

    def sent_by(self, sender: Sender) -> None:
        """The request that has come is this sender's.

        Raises:
            TooManyConnections: its principal has as many connections as one may have. This one ends.
        """
        if self.sender is not None and self.sender.principal != sender.principal:
            self.carries_many = True
        self.sender = sender
        if self.place is None:
            return  # lost already
        try:
            self.places.belong(self.place, sender.principal.digest)
        except TooManyConnections:
            self.sender = None
            self.close()
            raise

    def carry(self, client: ClientSession, binder: Binder, *, for_others: bool) -> None:
        """This connection has carried a client session, which is told when it is closed.

        One that carries several, or is a front proxy's (``for_others``), says nothing of any client when it
        is closed, so it counts as open for ever.
        """
        if self.transport is None:
            return  # lost already
        client.connections += 1
        if for_others or self.client is not None:
            self._shared = True
        self.client, self._binder = client, binder

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests."""
        # What aiohttp waits on between two requests.
        return self._waiter is not None and not self._waiter.done()

    @property
    def answers_get(self) -> bool:
        """Whether a GET is being answered."""
        request = self._current_request
        return request is not None and request.method == "GET"

    def part(self) -> None:
        """The answer that is being made is to be the last one here, unless it has begun already.

        The connection of a stream of what may come ends with that all the same. Such a stream is among the
        last things to end: what its client asked after it on this connection would only be refused, where
        another one may lead to a successor.
        """
        request = self._current_request
        if request is not None:
            request._message = request._message._replace(should_close=True)
            if self.answers_get:
                self.close()

    @property
    def is_kept_open(self) -> bool:
        """Whether it waits for its client to say the rest of a request, or to have enough of a stream."""
        request = self._current_request
        return self.follows or (request is not None and not request.content.is_eof())

    @property
    def follows(self) -> bool:
        """Whether its client has a stream of what may come, and works on nothing."""
        return self._follows and self._current_request is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.departure = self.head = self.sender = self.client = self._binder = None
        self.carries_many = self._shared = self._ended_by_client = self._streamed = self._follows = False
        self._holds_head = self._holds_body = False
        self._body = self._framing = None
        self.number = next_number()
        self.quiet_looks = 0
        # Last, because it begins: the server gives the connection its place, and aiohttp's task may take its
        # first step (eagerly, from Python 3.12 on).
        super().connection_made(transport)

    def pause_reading(self) -> None:
        """More has come of a body than whoever works on its request has taken; it may never be taken."""
        super().pause_reading()
        if self._holds_body:
            return
        try:
            self.bodies.take(BODY_HELD_BYTES, large=True)
            self._holds_body = True
        except OverBudget:
            # Whoever reads it refuses it, or has done so: one more answer comes here, and no other.
            self.part()
            if self._request_in_progress:
                self._loop.call_later(_UNREAD_SECONDS, self._cut_unread)
        if self.transport is not None and self.follows:
            # Nobody reads what follows such a request.
            self._loop.call_soon(self.transport.abort)

    def _cut_unread(self) -> None:
        """There was no memory for what has come of a body, and nobody has taken it since."""
        if self.transport is not None and self._reading_paused and not self._holds_body:
            self.transport.abort()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """It was taken."""
        self._let_go_of_body()
        super().resume_reading(resume_parser)

    def _let_go_of_body(self) -> None:
        if self._holds_body:
            self._holds_body = False
            self.bodies.give_back(BODY_HELD_BYTES)

    def data_received(self, data: bytes) -> None:
        """Something has arrived. Most of the time it is all of a request, and nothing else."""
        count = self._request_count
        super().data_received(data)
        if self._request_count == count or self._holds_head or len(data) > _SMALL_BYTES:
            self._weigh(len(data), self._request_count - count)

    def _weigh(self, size_bytes: int, requests: int) -> None:
        """See how much of what has arrived, with so many requests in it, is part of a head that goes on."""
        if requests:
            self._let_go()
            size_bytes = left_over(size_bytes, list(self._messages)[-requests:])
        elif (body := self._body_that_came()) is not None:
            self._let_go()
            self._weigh_framing(size_bytes, body)
            return
        # A connection that is being closed reads no further head.
        if size_bytes and not self._close and not self._force_close and not self._upgraded:
            self._holds_head = True
            if self.heads.hold(self, size_bytes) > _most_of_head(self.max_field_size):
                self._let_go()
                self.give_up(head_too_large(self.max_field_size))
            for connection in self.heads.excess():
                connection.give_up(_NO_MEMORY)

    def _body_that_came(self) -> StreamReader | None:
        """The body that what has just arrived was part of."""
        # Of the newest request: those before it have arrived whole.
        body = self._messages[-1][1] if self._messages else self._body
        if body is None or not body.is_eof():
            return body
        # The piece in which a body ends is still of the body; the next one is not.
        its_end, self._body = self._body if body is self._body else None, None
        return its_end

    def _weigh_framing(self, size_bytes: int, body: StreamReader) -> None:
        """See whether what follows a body is small enough."""
        # Not when its request begins: more of it may have come by then.
        if self._framing is None or self._framing.body is not body:
            self._framing = Framing(body)
        framing_bytes = self._framing.weigh(size_bytes, stands_still=self._reading_paused)
        if framing_bytes > _most_of_head(self.max_field_size):
            body.set_exception(web.RequestPayloadError("trailers are too large"))
        elif not body.is_eof() or framing_bytes <= self.max_field_size:
            return
        self.close()  # after the answer: an idle connection must not hold so much
        self._parser = None

    def _let_go(self) -> None:
        if self._holds_head:
            self._holds_head = False
            self.heads.end(self)

    def give_up(self, error: ProxyError) -> None:
        """Refuse a head that has not ended, and drop what there is of it.

        If a request is being answered, what its client has sent beyond it costs it the connection.
        """
        self._holds_head = False
        if self._request_in_progress or self._messages:
            # Not at once: this may be called amid aiohttp's own dealing with what has just arrived.
            if self.transport is not None:
                self._loop.call_soon(self.transport.abort)
            return
        # As aiohttp does with what is no HTTP, so that the refusal is written like any other answer. The
        # waiter comes first: ``close`` would cancel it.
        self._request_count += 1
        self._messages.append(
            (_ErrInfo(status=error.http_status, exc=error, message=error.message), EMPTY_PAYLOAD)
        )
        if self._waiter is not None:
            self._waiter.set_result(None)
        self.close()  # what is still to come is read and dropped
        # With all that it holds of the head.
        self._parser = None

    def eof_received(self) -> None:
        """The client will send no more: it closes the connection. (When we do, this is not called.)"""
        self._ended_by_client = True
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has left, or was cut off."""
        self._let_go()
        self._let_go_of_body()
        if self._framing is not None:
            break_circle(self._framing.body.exception())
        self._body = self._framing = None  # they lead back here
        between_requests = self._current_request is None and not self._streamed
        task = self._task_handler
        # An error is a reset by the other side. A connection that we close ends with neither.
        by_client = (self._ended_by_client or exc is not None) and between_requests
        super().connection_lost(exc)
        self._forget_messages()
        departure, self.departure = self.departure, None
        if departure is not None:
            departure()
        if task is not None:
            task.add_done_callback(_forget_frames)
        if self._binder is not None and self.client is not None and not self._shared:
            self._binder.connection_closed(self.client, by_client=by_client)
        self.client = self._binder = None

    def _forget_messages(self) -> None:
        """What nobody will answer any more leads back here, or to itself."""
        for message, _ in self._messages:
            if isinstance(message, _ErrInfo):
                break_circle(message.exc)
        self._messages.clear()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP; aiohttp's text would quote it, and a credential may be in it."""
        break_circle(exc)
        if isinstance(exc, LineTooLong) or message == _TOO_MANY:
            self.close()  # what is still to come is read and dropped, or our answer would not arrive
            return _refuse(head_too_large(self.max_field_size))
        if isinstance(exc, ProxyError):
            return _refuse(exc)
        return super().handle_error(request, status, exc, None if message is None else _NO_HTTP)


def _forget_frames(task: "asyncio.Task[None]") -> None:
    """Let go of what a task was doing when it was cancelled.

    Its error leads to the frame of aiohttp's ``start``, which leads back to the task where it waited for the
    rest of a body: a circle, with all that had come of the body.
    """
    try:
        task.exception()
    except asyncio.CancelledError as error:
        break_circle(error)


def _refuse(error: ProxyError) -> web.Response:
    body = jsonrpc.write_error(jsonrpc.NULL, error)
    response = _EarlyAnswer(
        body=body, status=error.http_status, headers=error.headers(), content_type=revisions.JSON
    )
    response.force_close()
    return response


class _EarlyAnswer(web.Response):
    """The answer to a client that may still be sending.

    A connection that is closed with unread data is reset, and the answer may be lost with it; so the client
    has a moment to read it and to close.
    """

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it. The client's leaving cancels the rest."""
        await super().write_eof(data)
        await asyncio.sleep(_EARLY_ANSWER_SECONDS)


def require_http_1(http: web.BaseRequest) -> None:
    """Refuse versions that are written otherwise; the parser reads 0.9 and 2.0 in a line of 1.1, too.

    Raises:
        UnsupportedHttp: it is neither HTTP/1.1 nor HTTP/1.0.
    """
    if http.version not in (HttpVersion11, HttpVersion10):
        # That of the answer, which would repeat the request's (RFC 9110, section 2.5).
        http._cache["version"] = HttpVersion11
        raise UnsupportedHttp("Send HTTP/1.1 or HTTP/1.0: no other version is spoken here.")


def measure_head(http: web.BaseRequest) -> int:
    """How many bytes the headers of a request have; each of them was found small enough.

    Raises:
        HeadTooLarge: they are too large together.
    """
    limit = http.protocol.max_field_size
    size_bytes = len(b"".join(map(b"".join, http.raw_headers)))
    # Most heads are too small for that.
    if size_bytes > HEAD_NAME_BYTES and any(len(name) > HEAD_NAME_BYTES for name, _ in http.raw_headers):
        raise HeadTooLarge(f"The name of a header field may have {HEAD_NAME_BYTES} bytes.")
    if size_bytes > HEAD_TIMES_A_FIELD * limit:
        raise head_too_large(limit)
    return size_bytes


def _most_of_head(limit_bytes: int) -> int:
    """A head that is larger than this before its end is too large, whatever follows."""
    return (HEAD_TIMES_A_FIELD + 1) * limit_bytes + HEAD_FIELDS * PUNCTUATION_BYTES


def head_too_large(limit_bytes: int) -> HeadTooLarge:
    """The error about a head that is over the limit, for one of its lines or for all of them."""
    return HeadTooLarge(
        f"The head of the request is too large: --max-header-bytes allows {limit_bytes} bytes for the request"
        f" line and for each of at most {HEAD_FIELDS} header fields, and {HEAD_TIMES_A_FIELD * limit_bytes}"
        " in all."
    )


def begin_stream(http: web.BaseRequest) -> None:
    """This request is answered by an event stream."""
    if isinstance(http.protocol, Connection):
        http.protocol.stream()


def begin_following(http: web.BaseRequest) -> None:
    """This request asks for a stream of what may come."""
    if isinstance(http.protocol, Connection):
        http.protocol.follow()


def on_departure(http: web.BaseRequest, tell: Callable[[], object]) -> None:
    """Call ``tell``, instead of cancelling the handler, if this request's client leaves before its answer."""
    connection = http.protocol
    assert isinstance(connection, Connection)
    if connection.transport is None:
        tell()  # it has left already
    else:
        connection.departure = tell
