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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion11

from ..aio import break_circle
from ..bounds import SMALL_BYTES
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, revisions, sse
from ..protocol.inbound import HeartbeatFormat
from ..sessions.client import ClientSession
from ..sessions.kept_stream import Stream
from ..sessions.mailbox import Mailbox
from ..upstream.transport import ArrivingResult
from .answers import Answer
from .connection import begin_stream
from .head import Head
from .heartbeats import Heartbeats
from .ordinary_answer import OrdinaryAnswer, fits

STREAM_HEADERS: Final = {
    "Content-Type": revisions.SSE,
    # Whatever compresses a stream on its way collects it to do so (RFC 9111, section 5.2.2.6).
    "Cache-Control": "no-cache, no-transform",
    # Keeps nginx and its like from collecting the stream before passing it on.
    "X-Accel-Buffering": "no",
}
# Each piece that is taken is a sign of life, so that reading a large answer slowly is not reading nothing.
_PIECE_BYTES: Final = 256 * 1024


class AnswerPhase(Enum):
    """How far an answer has come. It goes on from top to bottom, and never back."""

    UNDECIDED = "undecided"  # nothing was written: it may become JSON or a stream
    STREAM = "stream"  # an event stream has begun
    JSON = "json"  # a large JSON text has begun, and is passed on as it comes
    CLIENT_LEFT = "client left"  # what comes now is kept for its return, if it can return
    PASSED_ON = "passed on"  # a large answer was written as it came, but for the end of the body
    BROKEN = "broken"  # or a part of it
    OVER = "over"


# Looking a member up in its class costs more than all that is done with it here.
_UNDECIDED, _STREAM, _JSON, _CLIENT_LEFT, _PASSED_ON, _BROKEN, _OVER = AnswerPhase
_WRITTEN: Final = (_PASSED_ON, _BROKEN, _OVER)


class Responder(msgspec.Struct, eq=False):
    """The client's side of one POST, whose requests it answers. Implements ``relay.PostChannel``.

    ``client`` is the client session that the POST names, None without one. ``mailbox_of`` gives what keeps
    what its client missed when it was lost: few answers ever need that. ``share`` is the memory for large
    answers on their way. ``messages`` are what the POST has brought.

    To ``Heartbeats`` it is a ``Writer``.
    """

    http: web.BaseRequest
    head: Head
    heartbeats: Heartbeats
    client: ClientSession | None = None
    mailbox_of: Callable[[ClientSession], Mailbox] | None = None
    share: Share = UNBOUNDED
    messages: Sequence[jsonrpc.Message | jsonrpc.Rejection] = ()
    is_of_batch: bool = False

    takes_messages: bool = False
    last_write: float = 0.0
    writing: bool = False
    _phase: AnswerPhase = _UNDECIDED
    _response: web.StreamResponse | None = None  # the stream, once it has begun
    _kept: Stream | None = None
    # Of these two, msgspec makes new ones for each responder.
    _answers: list[Answer] = []
    _headers: dict[str, str] = {}  # of the answers that the stream begins with
    _lock: asyncio.Lock | None = None  # made when there is something to write in turn

    def __post_init__(self) -> None:
        self.last_write = self.heartbeats.now()
        # A client that takes JSON alone cannot be told anything before its answer.
        if self.head.accepts.stream:
            self.takes_messages = True
            self.heartbeats.add(self)

    # -- before the end ------------------------------------------------------------------------

    async def begin(self) -> None:
        """Begin an event stream, if the client can come back to it: so would the server's have begun."""
        # AUTO does not count, which only guesses who prefers JSON: the server has begun a stream, so without
        # us the client would have no JSON either.
        wants_json = self.takes_json and self.heartbeats.rules.heartbeat_format is HeartbeatFormat.JSON
        if wants_json or self.begun or not self.head.accepts.stream:
            return
        if _has_cursors(self.client, self.head):
            await self.beat()

    async def send(self, *messages: bytes) -> bool:
        """Write messages before the final response, in one piece; False if the client does not take them."""
        if not self.head.accepts.stream:
            return False
        async with self._turn():
            # Asked in turn and not before: the answer may end while this waits. A client without a session
            # has no way to come back for what it misses.
            if self._phase in _WRITTEN or (self._phase is _CLIENT_LEFT and self.client is None):
                return False
            if self.client is None:
                await self._write(sse.write_events(messages))
            else:
                await self._write(b"".join(map(self._event, messages)))
            return True

    async def beat(self) -> None:
        """Write a comment after a time of silence."""
        turn = self._turn()
        # What is being written is as good as a beat.
        if turn.locked() or not self.is_open:
            return
        # A lock that is free goes to those who have waited for it, and one of them may end the answer.
        async with turn:
            if self.is_open:
                await self._write(sse.HEARTBEAT)

    @property
    def is_open(self) -> bool:
        """Whether somebody is there who waits for more."""
        return self._phase in (_UNDECIDED, _STREAM)

    @property
    def begun(self) -> bool:
        """Whether the answer has become an event stream."""
        return self._response is not None

    @property
    def takes_json(self) -> bool:
        """Whether the client understands JSON."""
        return self.head.accepts.json

    @property
    def prefers_json(self) -> bool:
        """Whether the client names JSON first, and has not shown yet that it reads event streams."""
        reads_streams = self.client is not None and self.client.had_stream
        return self.head.accepts.prefers_json and not reads_streams

    def hold(self) -> None:
        """Write nothing before the answer: its headers matter."""
        self.heartbeats.remove(self)

    def close(self) -> None:
        """The handler is over, one way or another."""
        self.heartbeats.remove(self)

    def client_left(self) -> None:
        """The client's connection is gone; what comes now is kept for its return, if it can return."""
        self.takes_messages = False
        if self._phase not in _WRITTEN:
            self._phase = _CLIENT_LEFT

    # -- the end ---------------------------------------------------------------------------------

    async def respond(self, answer: Answer) -> None:
        """Take the final response to one request of a batch."""
        if self._response is None and _stays_whole(answer, self.head):
            self._answers.append(answer)
            return
        async with self._turn():
            await self._write_answer(answer)

    async def finish(self, answer: Answer | None = None) -> web.StreamResponse:
        """End the answer, all requests being responded to; ``answer`` is that of a POST with one request.

        Here it is decided at last: what has not become a stream until now is one JSON text, with the status
        and the headers that fit it.
        """
        if self._phase in _WRITTEN and self._response is not None:
            return await self._finish_passed_on(self._response)
        if self._response is not None or not (answer is None or _stays_whole(answer, self.head)):
            return await self._finish_stream(answer)
        self._phase = _OVER
        self.heartbeats.remove(self)
        if self._kept is not None:
            self._kept.drop()  # nobody has seen an event id, so nobody can ask for it
        if answer is None:
            answer = Answer(body=jsonrpc.write_batch([one.body for one in self._answers]))
        body = answer.body if answer.plain is None else answer.plain
        # So little fits into the transport's buffer: it can be written whole, and waits for no client.
        is_small = len(body) <= SMALL_BYTES
        if is_small and answer.status == 200 and not (answer.headers or self.head.cors) and fits(self.http):
            return OrdinaryAnswer(body)
        headers = {**self.head.cors, **answer.headers, "Content-Type": answer.content_type}
        if is_small:
            return web.Response(body=body, status=answer.status, headers=headers)
        return await self._write_whole(body, answer.status, headers)

    async def _finish_stream(self, answer: Answer | None) -> web.StreamResponse:
        async with self._turn():
            # In one turn, whatever fails: a beat or a message that waits for it must find the answer over.
            try:
                last = b""
                if answer is not None and self._phase is _STREAM and len(answer.body) <= SMALL_BYTES:
                    last = self._event(answer.body)  # goes out together with the end
                elif answer is not None:
                    await self._write_answer(answer)
                await self._flush()
                await self._end(last)
            finally:
                self._phase = _OVER
                self.heartbeats.remove(self)
        if self._response is None:
            return web.Response()  # the client left before it began: nobody reads this
        return self._response

    # -- a large answer, as it comes ---------------------------------------------------------------

    async def pass_on(self, opening: bytes, coming: ArrivingResult) -> bool:
        """Write the final response to the one request of a POST as it comes, as ``relay.PostChannel`` says.

        A client that reads slowly slows its server down; what comes after it has left is read and dropped.
        """
        async with self._turn():
            if self.is_of_batch or not self.is_open:
                return False
            as_json = self._response is None and self.takes_json
            if as_json and coming.length_bytes is None and self.http.version < HttpVersion11:
                return False  # nobody could tell a broken body from a whole one
            if not as_json and self.client is not None:
                return False  # it may come back for the event, so the whole of that is kept
            piece = await coming.read()
            try:
                if as_json:
                    await self._begin_json(len(opening), coming.length_bytes)
                else:
                    opening = sse.EVENT_BEGIN + opening
                while piece:
                    await self._write(opening + (piece if as_json else sse.on_one_line(piece)))
                    opening = piece = b""  # let go of before the next one comes
                    piece = await coming.read()
                if not as_json:
                    await self._write(sse.EVENT_END)
            except BaseException:
                self._phase = _BROKEN
                raise
            self._phase = _PASSED_ON
            return True

    async def _begin_json(self, opening_bytes: int, result_bytes: int | None) -> None:
        headers = {**self.head.cors, "Content-Type": revisions.JSON}
        self._phase, self._response = _JSON, web.StreamResponse(headers=headers)
        if result_bytes is not None:
            self._response.content_length = opening_bytes + result_bytes
        if self._kept is not None:
            self._kept.drop()  # nobody has seen an event id, so nobody can ask for it
        self.heartbeats.add(self)  # whoever takes no streams was not watched until now
        await self._try(self._response.prepare(self.http))

    async def _finish_passed_on(self, response: web.StreamResponse) -> web.StreamResponse:
        if self._phase is _BROKEN:
            self.cut_off()  # without its end, what there is of it looks like an answer to nobody
        else:
            self.last_write = self.heartbeats.now()
            await self._try(response.write_eof())
        self._phase = _OVER
        self.heartbeats.remove(self)
        return response

    async def _write_whole(self, body: bytes, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        """Write a large answer in pieces, so that ``Heartbeats`` sees whether they are taken."""
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)

        async def write() -> None:
            await response.prepare(self.http)
            await self._write_pieces(response, body)
            await response.write_eof()

        self.heartbeats.add(self)  # whoever takes no streams was not watched until now
        try:
            await self._try(write())
        finally:
            self.heartbeats.remove(self)
        return response

    async def _write_answer(self, answer: Answer) -> None:
        """Write a response as an event; its headers count if it is what the stream begins with."""
        self._headers = {**self._headers, **answer.headers}
        await self._flush()
        await self._write(self._event(answer.body))

    async def _flush(self) -> None:
        """Write the responses that came while it was still undecided whether this is a stream."""
        answers, self._answers = self._answers, []
        for answer in answers:
            await self._write(self._event(answer.body))

    async def _end(self, last: bytes) -> None:
        """Write the end of the stream, with what is the last of it."""
        if self._phase is _STREAM and self._response is not None:
            self.last_write = self.heartbeats.now()
            # The end waits for the client as well, whose minute begins now.
            await self._try(self._response.write_eof(last))
        if self._kept is not None and self._response is None:
            self._kept.drop()  # nobody has seen an event id, so nobody can ask for it
        elif self._kept is not None:
            # Written to its end it is kept for a while, in case that it did not arrive. What a client that
            # had left is known to have missed is kept as long as there is room.
            self._kept.close(reached_at=self.last_write if self._phase is _STREAM else None)

    def _turn(self) -> asyncio.Lock:
        """What lets one write at a time."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    # -- writing ---------------------------------------------------------------------------------

    def _event(self, data: bytes) -> bytes:
        """A message as the next event of the stream, kept for a client that can come back."""
        event_id = None if self.client is None else self._keep(self.client).append(data)
        return sse.write_event(data, event_id=event_id)

    def _keep(self, client: ClientSession) -> Stream:
        if self._kept is None:
            assert self.mailbox_of is not None
            asked = [message.id for message in self.messages if isinstance(message, jsonrpc.Request)]
            self._kept = self.mailbox_of(client).open(asked)
        return self._kept

    async def _write(self, data: bytes) -> None:
        self.last_write = self.heartbeats.now()
        if self._phase is not _CLIENT_LEFT:
            await self._try(self._write_on(data))

    async def _write_on(self, data: bytes) -> None:
        if self._response is None:
            # Before anything is awaited, since a departure in between has the last word. And it is told to
            # the connection before the first byte: some clients close it as soon as they have read enough.
            self._phase = _STREAM
            self._response = web.StreamResponse(headers={**self.head.cors, **self._headers, **STREAM_HEADERS})
            begin_stream(self.http)
            await self._response.prepare(self.http)
            if self.client is not None and _has_cursors(self.client, self.head):
                data = sse.write_cursor(self._keep(self.client).event_id(0)) + data
        await self._write_pieces(self._response, data)

    async def _write_pieces(self, response: web.StreamResponse, data: bytes) -> None:
        if len(data) <= SMALL_BYTES:
            await response.write(data)
            return
        # Counted and not asked for: the call was executed, so its answer is not refused for want of memory.
        self.share.hold(len(data))
        try:
            whole = memoryview(data)  # a piece of it is no copy
            for start in range(0, len(data), _PIECE_BYTES):
                self.last_write = self.heartbeats.now()
                await response.write(whole[start : start + _PIECE_BYTES])
        finally:
            self.share.give_back(len(data))

    async def _try(self, writing: Awaitable[object]) -> None:
        """Write, and note if that shows that the client has left; ``Heartbeats`` sees to it that it ends."""
        self.writing = True
        try:
            await writing
        # A RuntimeError is uvloop's, about a connection that is closed.
        except (ConnectionError, RuntimeError) as error:
            self.client_left()
            break_circle(error)
        finally:
            self.writing = False

    def cut_off(self) -> None:
        """As ``Writer.cut_off``."""
        if self.http.transport is not None:
            self.http.transport.abort()


def _stays_whole(answer: Answer, head: Head) -> bool:
    """Whether an answer makes no stream by itself: errors never do, they need their HTTP status."""
    return head.accepts.json or answer.status != 200


def _has_cursors(client: ClientSession | None, head: Head) -> bool:
    """Whether a client reads events without data, so that it can come back from the first byte on."""
    return client is not None and revisions.takes_cursors(head.version, client.record.version)
