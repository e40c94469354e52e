"""How an answer is written: JSON or an event stream, decided as late as possible.

A POST whose final response comes first is answered in JSON, with the status that fits it. From the
first message before that, or after a time of silence, the answer is an event stream, if the client takes
one; at once, where both the server's answer and ours can be resumed. That time is a heartbeat's, or longer
for clients that may take event streams in word only.

Streams of client sessions are kept in the mailbox, so that a client whose connection broke can go on
where it was; those that can read it are told an id before anything has happened (MCP 2025-11-25,
basic/transports).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from ..aio import Tasks
from ..exchange.mailbox import Mailbox, Stream
from ..memory import SMALL_BYTES, UNBOUNDED, Share
from ..protocol import jsonrpc, revisions, sse
from ..protocol.inbound import Accepts, HeartbeatFormat
from .connection import begin_stream

_STREAM_HEADERS: Final = {
    "Content-Type": revisions.SSE,
    "Cache-Control": "no-cache, no-transform",
    # Keeps nginx and its like from collecting the stream before passing it on.
    "X-Accel-Buffering": "no",
}
_WRITE_SECONDS: Final = 60.0
_PIECE_BYTES: Final = 256 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One final response. ``status`` and ``headers`` count only while nothing has been written.

    ``plain`` goes in place of the JSON-RPC ``body`` where this answer is the whole HTTP response.
    """

    body: bytes
    plain: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    content_type: str = revisions.JSON
    failed: bool = False  # the server answered with an error of its own

    @property
    def sent(self) -> bytes:
        """What goes out where this answer is the whole HTTP response."""
        return self.body if self.plain is None else self.plain


class Heart:
    """Writes a comment to every stream that was silent for the interval, so that nobody cuts it, and cuts
    off clients that read nothing.

    One timer for all of them. The responders of POSTs that were not answered yet become event streams
    at their first beat. Those of clients that prefer JSON, or that take it at all (``heartbeat_format``), get
    that beat only when ``json_patience_seconds`` are about to end. Both may be changed at any time.
    """

    def __init__(
        self,
        interval_seconds: float,
        *,
        json_patience_seconds: float = 0.0,
        heartbeat_format: HeartbeatFormat = HeartbeatFormat.AUTO,
    ) -> None:
        self.interval_seconds = interval_seconds
        self.json_patience_seconds = json_patience_seconds
        self.heartbeat_format = heartbeat_format
        self.now = asyncio.get_running_loop().time
        self._responders: dict[Responder, None] = {}
        self._beats = Tasks()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, responder: "Responder") -> None:
        """Begin to watch a responder."""
        self._responders[responder] = None
        if self._timer is None:
            self._schedule()

    def remove(self, responder: "Responder") -> None:
        """Stop watching it."""
        self._responders.pop(responder, None)

    def set_interval(self, interval_seconds: float) -> None:
        """Beat at another interval from now on."""
        self.interval_seconds = interval_seconds
        if self._timer is not None:
            self._timer.cancel()
            self._schedule()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period_seconds, self._tick)

    @property
    def _period_seconds(self) -> float:
        return self.interval_seconds / 3

    def _longest_silence(self, responder: "Responder") -> float:
        """The seconds after which a responder must write; the next look may be too late."""
        if responder.begun or not self._waits_for_json(responder):
            return self.interval_seconds
        return max(self.interval_seconds, self.json_patience_seconds - self._period_seconds)

    def _waits_for_json(self, responder: "Responder") -> bool:
        if self.heartbeat_format is HeartbeatFormat.AUTO:
            return responder.prefers_json
        return self.heartbeat_format is HeartbeatFormat.JSON and responder.takes_json

    def _tick(self) -> None:
        now = self.now()
        for responder in self._responders:
            if responder.writing:
                if responder.last_write <= now - _WRITE_SECONDS:
                    responder.cut_off()
            elif responder.last_write <= now - self._longest_silence(responder):
                self._beats.spawn(responder.beat(), "heartbeat")
        self._timer = None
        if self._responders:
            self._schedule()


class Responder:
    """The client's side of one POST, whose requests it answers. Implements ``relay.Channel``.

    ``mailbox`` gives what keeps what a lost client missed: few answers ever need it. None for clients
    without a session. ``reads_streams`` says that the client has shown that it does, ``cursors`` whether it
    can read events without data, so that it can come back to its stream from the first byte on. ``answers``
    is the memory for large ones on their way.
    """

    __slots__ = (
        "_accepts",
        "_answers",
        "_batch",
        "_client_left",
        "_cursors",
        "_finished",
        "_heart",
        "_kept",
        "_lock",
        "_mailbox",
        "_request",
        "_response",
        "_share",
        "headers",
        "last_write",
        "prefers_json",
        "writing",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        accepts: Accepts,
        *,
        batch: bool,
        heart: Heart,
        headers: Mapping[str, str],
        mailbox: Callable[[], Mailbox] | None,
        reads_streams: bool = False,
        cursors: Callable[[], bool] | None = None,
        answers: Share = UNBOUNDED,
    ) -> None:
        self.prefers_json = accepts.prefers_json and not reads_streams
        self.last_write = heart.now()
        self.writing = False
        self.headers = headers
        self._request = request
        self._accepts = accepts
        self._batch = batch
        self._heart = heart
        self._mailbox = mailbox
        self._cursors = cursors
        self._share = answers
        self._kept: Stream | None = None
        self._response: web.StreamResponse | None = None
        self._answers: list[Answer] = []
        self._client_left = False
        self._finished = False
        self._lock: asyncio.Lock | None = None  # made when there is something to write in turn
        if accepts.stream:
            heart.add(self)

    # -- before the end ------------------------------------------------------------------------

    async def begin(self) -> None:
        """Begin an event stream, if the client can come back to it: so would the server's have begun."""
        wants_json = self._accepts.json and self._heart.heartbeat_format is HeartbeatFormat.JSON
        if self._accepts.stream and not self.begun and not wants_json and self._has_cursors():
            await self.beat()

    async def send(self, data: bytes) -> bool:
        """Write one message that is not the final response; False if the client does not take it."""
        if not self._accepts.stream:
            return False
        async with self._turn():
            if self._finished or (self._client_left and self._mailbox is None):
                return False
            await self._write_event(data)
            return True

    async def beat(self) -> None:
        """Write a comment after a time of silence."""
        turn = self._turn()
        if turn.locked() or self._finished or self._client_left:
            return
        async with turn:
            if not self._finished:
                await self._write(sse.HEARTBEAT)

    @property
    def begun(self) -> bool:
        """Whether the answer has become an event stream."""
        return self._response is not None

    @property
    def takes_json(self) -> bool:
        """Whether the client understands JSON."""
        return self._accepts.json

    @property
    def takes_streams(self) -> bool:
        """Whether the client understands event streams."""
        return self._accepts.stream

    def hold(self) -> None:
        """Write nothing before the answer: its headers matter."""
        self._heart.remove(self)

    def close(self) -> None:
        """The handler is over, one way or another."""
        self._heart.remove(self)

    def client_left(self) -> None:
        """The client's connection is gone; what comes now is kept for its return, if it can return."""
        self._client_left = True

    # -- the end ---------------------------------------------------------------------------------

    async def respond(self, answer: Answer) -> None:
        """Take the final response to one of the POST's requests."""
        if self._response is None and (self._accepts.json or answer.status != 200):
            self._answers.append(answer)
            return
        async with self._turn():
            self.headers = {**self.headers, **answer.headers}
            await self._flush()
            await self._write_event(answer.body)

    async def finish(self) -> web.StreamResponse:
        """End the answer, all requests being responded to."""
        if self._response is None:
            self._finished = True
            if self._kept is not None:
                self._kept.drop()  # nobody has seen an event id, so nobody can ask for it
            self._heart.remove(self)
            answer = self._whole()
            if answer is None:
                return web.Response(headers=self.headers)  # the client left; nobody reads this
            whole, body = _response(answer, self.headers), answer.sent
            return whole if len(body) <= SMALL_BYTES else await self._write_whole(whole, body)
        async with self._turn():
            self._finished = True
            await self._flush()
            await self._end()
            self._heart.remove(self)
            return self._response

    def _whole(self) -> Answer | None:
        if self._batch:
            return Answer(body=jsonrpc.write_batch([answer.body for answer in self._answers]))
        return self._answers[0] if self._answers else None

    async def _write_whole(self, whole: web.Response, body: bytes) -> web.StreamResponse:
        """Write a large answer in pieces, so that the heart sees whether they are taken."""
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(body)

        async def write() -> None:
            await response.prepare(self._request)
            await self._write_pieces(response, body)
            await response.write_eof()

        self._heart.add(self)  # whoever takes no streams was not watched until now
        try:
            await self._try(write())
        finally:
            self._heart.remove(self)
        return response

    async def _flush(self) -> None:
        """Write the responses that came while it was still undecided whether this is a stream."""
        answers, self._answers = self._answers, []
        for answer in answers:
            await self._write_event(answer.body)

    async def _end(self) -> None:
        if not self._client_left and self._response is not None:
            self.last_write = self._heart.now()
            await self._try(self._response.write_eof())
        if self._kept is not None:
            self._kept.close(reached_at=None if self._client_left else self.last_write)

    def _turn(self) -> asyncio.Lock:
        """What lets one write at a time."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    # -- writing ---------------------------------------------------------------------------------

    async def _write_event(self, data: bytes) -> None:
        event_id = None if self._mailbox is None else self._keep(self._mailbox).append(data)
        await self._write(sse.write_event(data, event_id=event_id))

    def _keep(self, mailbox: Callable[[], Mailbox]) -> Stream:
        if self._kept is None:
            self._kept = mailbox().open()
        return self._kept

    def _has_cursors(self) -> bool:
        return self._cursors is not None and self._cursors()

    async def _write(self, data: bytes) -> None:
        self.last_write = self._heart.now()
        if self._client_left:
            return
        await self._try(self._write_on(data))

    async def _write_on(self, data: bytes) -> None:
        if self._response is None:
            self._response = web.StreamResponse(headers={**self.headers, **_STREAM_HEADERS})
            begin_stream(self._request)
            await self._response.prepare(self._request)
            if self._mailbox is not None and self._has_cursors():
                data = sse.write_cursor(self._keep(self._mailbox).event_id(0)) + data
        await self._write_pieces(self._response, data)

    async def _write_pieces(self, response: web.StreamResponse, data: bytes) -> None:
        if len(data) <= SMALL_BYTES:
            await response.write(data)
            return
        self._share.hold(len(data))
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                self.last_write = self._heart.now()
                await response.write(data[start : start + _PIECE_BYTES])
        finally:
            self._share.give_back(len(data))

    async def _try(self, writing: Awaitable[None]) -> None:
        """Write, and note if that shows that the client has left; the heart sees to it that it ends."""
        self.writing = True
        try:
            await writing
        except (ConnectionError, RuntimeError) as error:
            self._client_left = True
            _break_circle(error)
        finally:
            self.writing = False

    def cut_off(self) -> None:
        """Give up a client that reads nothing: whatever is being written ends in a ConnectionError."""
        if self._request.transport is not None:
            self._request.transport.abort()


def respond_error(body: bytes, status: int, *header_sets: Mapping[str, str]) -> web.Response:
    """An error as a whole response."""
    headers = {name: value for headers in header_sets for name, value in headers.items()}
    return _response(Answer(body=body, status=status), headers)


def _response(answer: Answer, headers: Mapping[str, str]) -> web.Response:
    merged = {**headers, **answer.headers, "Content-Type": answer.content_type}
    return web.Response(body=answer.sent, status=answer.status, headers=merged)


def _break_circle(error: BaseException) -> None:
    """Let go of what was being written when a client left.

    The error's traceback leads to aiohttp's frames, and one of them leads back to the error: a circle that
    would keep megabytes until the garbage collector looks, which is seldom.
    """
    error.__traceback__ = None


async def _bounded(request: web.BaseRequest, writing: Awaitable[None]) -> None:
    """Write to a client, and cut the connection of one that reads nothing.

    Raises:
        ConnectionError, TimeoutError: the client has left, or was cut off.
    """
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await writing
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise


async def follow(
    request: web.BaseRequest,
    stream: Stream,
    *,
    after: int,
    heart: Heart,
    headers: Mapping[str, str],
    cursors: bool = False,
) -> web.StreamResponse:
    """Answer a GET with what a stream holds after an event and with what comes, until it is closed,
    another GET takes over, or the client leaves.

    ``cursors`` says that the client can read events without data.
    """
    response = web.StreamResponse(headers={**headers, **_STREAM_HEADERS})
    follower, retry_seconds = stream.take_over(heart.now())
    try:
        await response.prepare(request)
        beginning = sse.write_cursor(stream.event_id(after), retry_seconds=retry_seconds) if cursors else b""
        await _bounded(request, response.write(sse.HEARTBEAT + beginning))
        while stream.is_follower(follower):
            for event in stream.after(after):
                if not stream.is_follower(follower):
                    break  # the rest is for the new one
                data = sse.write_event(event.data, event_id=stream.event_id(event.number))
                await _bounded(request, response.write(data))
                after = event.number
                stream.taken = max(stream.taken, after)
            if stream.closed:
                break
            if stream.after(after) or not stream.is_follower(follower):
                continue
            try:
                async with asyncio.timeout(heart.interval_seconds):
                    await stream.changed()
            except TimeoutError:
                await _bounded(request, response.write(sse.HEARTBEAT))
        if (retry_seconds := stream.stays_away(follower)) is not None:
            # Whoever has taken the stream may be another tab with the same id, and so may this one be to it.
            farewell = sse.write_retry(retry_seconds)
            if cursors:
                farewell = sse.write_cursor(stream.event_id(after), retry_seconds=retry_seconds)
            await _bounded(request, response.write(farewell))
        await _bounded(request, response.write_eof())
        if stream.closed and not stream.after(after):
            stream.close(reached_at=heart.now())
    except (ConnectionError, TimeoutError) as error:  # the client left, or reads nothing
        _break_circle(error)
    finally:
        stream.leave(follower)
    return response
