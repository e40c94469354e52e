"""One connection to a server, as a client speaks HTTP/1.1 on it (RFC 9112): one request at a time.

``httptools`` (llhttp) finds the parts of an answer and calls what is named ``on_...`` here; when, and with
what, is the server's choice, so everything that those keep has a bound. For one request::

    ServerConnection.ask      the request is written, as far as the server takes it
    HttpAnswer.begin    the head has come
    HttpAnswer.read     the body, as it comes, until it is empty
    HttpAnswer.close    nobody wants the rest: the connection is cut if there is any
    HttpAnswer.let_end  the rest does not matter: the connection serves again if it ends soon

An answer lets go of its connection in the step in which its last byte arrives, whoever has read how much of
it by then; so a connection is never tied to what somebody forgot to read.
"""

import asyncio
import math
import select
import socket
import zlib
from collections.abc import Callable
from enum import Enum
from typing import Final, cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy

from ...bounds import SERVER_FIELDS, SERVER_HEAD_BYTES, WORDLESS_TIMES
from ...errors import UpstreamTimeout
from ..transport import ConnectionLost
from .inflating import Decompressor, Nested, decompressor_of
from .trouble import Trouble, told

# What has come and was not read: a server that sends more has to wait.
_UNREAD_BYTES: Final = 64 * 1024
# A body is written in pieces of this size, so that a server that takes none makes nothing grow.
_PIECE_BYTES: Final = 128 * 1024
_END_OF_STREAM_SECONDS: Final = 1.0
_DAMAGED: Final = "The MCP server's answer to this request is not compressed as its Content-Encoding says."
_DECODING: Final = ("utf-8", "surrogateescape")


class _Malformed(Exception):
    """The server may not say that here."""


class AnswerStage(Enum):
    """How much of an answer has come."""

    HEAD = "head"  # not even its head
    BODY = "body"
    ENDED = "ended"  # all of it
    BROKEN = "broken"  # as much as ever will


# Looking a member up in its class costs more than all that is done with it here.
_HEAD, _BODY, _ENDED, _BROKEN = AnswerStage


# -- an answer ---------------------------------------------------------------------------------------


class HttpAnswer(msgspec.Struct, eq=False):
    """One answer of a server. Whoever gets it calls ``close`` or ``let_end``.

    ``status`` is 0 until ``begin`` is over. ``content_type`` is as it came, empty if there is none.
    ``pieces``, of ``unread_bytes``, are what has come of the body and was not taken yet. ``unread_codings``
    names those of its ``Content-Encoding`` that nobody here can undo: the body is given in them.
    """

    _connection: "ServerConnection | None"
    content_type: str = ""
    # Of these two, msgspec makes new ones for each answer.
    fields: list[tuple[bytes, bytes]] = []
    pieces: list[bytes] = []
    is_unwanted: bool = False
    left_bytes: int = 0  # of a body whose length is known, behind the piece in which its head ended
    sets_cookies: bool = False
    stage: AnswerStage = _HEAD
    status: int = 0
    trouble: Trouble = Trouble.BROKEN
    unread_bytes: int = 0
    unread_codings: str = ""
    _headers: CIMultiDictProxy[str] | None = None
    _inflater: Decompressor | Nested | None = None
    _waiter: "asyncio.Future[None] | None" = None

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers, in their order; bytes that are no UTF-8 are surrogates."""
        if self._headers is None:
            pairs = [(name.decode(*_DECODING), value.decode(*_DECODING)) for name, value in self.fields]
            self._headers = CIMultiDictProxy(CIMultiDict(pairs))
        return self._headers

    @property
    def announced_bytes(self) -> int | None:
        """How long the body is as it travels; None where that was not said."""
        said = {name.lower(): value for name, value in self.fields}
        if b"transfer-encoding" in said or b"content-length" not in said:
            return None
        return int(said[b"content-length"])

    @property
    def length_bytes(self) -> int | None:
        """How long the body is; None where that was not said, or it is compressed."""
        return self.announced_bytes if self._inflater is None else None

    # -- for who reads it ----------------------------------------------------------------------------

    async def begin(self) -> None:
        """Wait for the head.

        Raises:
            UpstreamProtocolError: what came is not HTTP.
            UpstreamTimeout: nothing came for too long.
            ConnectionLost: the connection ended.
        """
        while self.stage is _HEAD:
            await self._hear()
        if not self.status:
            raise told(self.trouble)

    def take(self) -> bytes:
        """What has come of the body and was not taken yet; empty if that is nothing. Raises as ``read``."""
        inflater = self._inflater
        # What has come meanwhile stays where it is, so that the server waits with more.
        if inflater is not None and inflater.has_more and (piece := self._inflate(inflater, b"")):
            return piece
        pieces = self.pieces
        data = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.unread_bytes > _UNREAD_BYTES and self._connection is not None:
            self._connection.go_on()
        self.unread_bytes = 0
        return data if inflater is None else self._inflate(inflater, data)

    async def read(self) -> bytes:
        """What has come of the body, or comes next; empty at its end.

        Raises:
            ConnectionLost: it broke off, or is not what it was said to be.
            UpstreamTimeout: nothing came for too long.
        """
        while not (data := self.take()):
            if self.stage is _ENDED:
                return b""
            if self.stage is _BROKEN:
                raise ConnectionLost if self.trouble is not Trouble.SILENT else told(Trouble.SILENT)
            await self._hear()
        return data

    async def read_beginning(self, size_bytes: int) -> bytes:
        """At most so much of the body, as far as it comes: a beginning is enough. Raises nothing."""
        pieces: list[bytes] = []
        missing = size_bytes
        try:
            while missing > 0 and (piece := await self.read()):
                pieces.append(piece[:missing])
                missing -= len(piece)
        except (ConnectionLost, UpstreamTimeout):
            pass
        return b"".join(pieces)

    def note_word(self) -> None:
        """What was read last is something to go by: the server does not only keep the connection alive."""
        if self._connection is not None:
            self._connection.note_word()

    def at_end(self) -> bool:
        """Whether the whole body has been read."""
        if self.stage is not _ENDED or self.pieces:
            return False
        return self._inflater is None or not self._inflater.has_more

    def keep_coded(self) -> None:
        """Give the body as it comes, whatever its ``Content-Encoding``: who gets it sees that header, too."""
        self._inflater = None

    def close(self) -> None:
        """Nobody wants more of it: a connection on which there is more is cut."""
        if self._connection is not None:
            self._connection.cut()

    def let_end(self) -> None:
        """All that matters was read. The connection serves again, if its body ends within a moment.

        Servers end an event stream just after its last event.
        """
        if self._connection is not None:
            self._connection.let_end()

    def _hear(self) -> "asyncio.Future[None]":
        """What is done when the connection brings something."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    def _inflate(self, inflater: Decompressor | Nested, data: bytes) -> bytes:
        try:
            piece = inflater.inflate(data)
            if not piece and self.stage is _ENDED and not self.pieces:
                inflater.check_end()
        except zlib.error as error:
            raise ConnectionLost(_DAMAGED) from error
        return piece

    # -- for its connection --------------------------------------------------------------------------

    def note_head(self, status: int) -> bool:
        """The head is whole. Gives whether the body ends with the connection (RFC 9112, section 6.3)."""
        # Of repeated ones the first counts.
        said = {name.lower(): value for name, value in reversed(self.fields)}
        self.status = status
        self.stage = _BODY
        self.content_type = said.get(b"content-type", b"").decode(*_DECODING)
        self.sets_cookies = b"set-cookie" in said
        if b"content-encoding" in said:
            # In several lines it means the same as in one (RFC 9110, section 5.3).
            codings = [value for name, value in self.fields if name.lower() == b"content-encoding"]
            self._inflater, self.unread_codings = decompressor_of(b",".join(codings))
        if b"transfer-encoding" in said:
            return not said[b"transfer-encoding"].lower().endswith(b"chunked")
        return b"content-length" not in said

    def divide(self, data: bytes) -> tuple[bytes, bytes]:
        """What comes next where the length of the body is known: what is of it, and what is behind it."""
        piece = data[: self.left_bytes]
        self.left_bytes -= len(piece)
        return piece, data[len(piece) :]

    def wake(self) -> None:
        """Something has changed: whoever waits looks what."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def let_go(self, trouble: Trouble = Trouble.BROKEN) -> None:
        """The connection is gone, or somebody else's; without an end, ``trouble`` says why there is none."""
        self._connection = None
        if self.stage is not _ENDED:
            self.stage, self.trouble = _BROKEN, trouble
        self.wake()


# -- a connection ------------------------------------------------------------------------------------


class ServerConnection(asyncio.Protocol):
    """One connection: idle, or with one request under way.

    ``deadline`` is when it is overdue, by the clock ``now``; whoever keeps it looks at that, and calls
    ``give_up``. ``on_idle`` is told when it can take the next request, ``on_lost`` when it has ended, and
    ``watch`` whenever the deadline is earlier than one would think.
    """

    __slots__ = (
        "_answer",
        "_ends_body",
        "_keeps",
        "_now",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_paused",
        "_paused_at",
        "_quiet_bytes",
        "_silence_seconds",
        "_socket",
        "_transport",
        "_unsent",
        "_watch",
        "_word_at",
        "_writing_paused",
        "deadline",
        "spoke_unasked",
    )

    def __init__(
        self,
        on_idle: Callable[["ServerConnection"], None],
        on_lost: Callable[["ServerConnection"], None],
        watch: Callable[[float], None],
        now: Callable[[], float],
    ) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._watch = watch
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None  # for one answer after the other
        self._answer: HttpAnswer | None = None
        self._silence_seconds = math.inf
        self._quiet_bytes = 0  # have come since there was last something to show for them
        self._unsent: memoryview | None = None  # of the body
        self._writing_paused = False
        self._paused = False
        self._paused_at = 0.0
        self._word_at = 0.0  # when the newest of what was asked for came, or it was asked
        self._ends_body = False  # the body ends with the connection
        self._keeps = False
        self.deadline = math.inf
        self.spoke_unasked = False
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent on it, as far as is known here."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, head: bytes, body: bytes, silence_seconds: float) -> HttpAnswer:
        """Send a request; the connection is open and idle. What was sent is never sent again here.

        ``silence_seconds`` bounds the time between two signs of the server's; ``math.inf`` is without end.
        Signs that bring nothing of what was asked for (``HttpAnswer.note_word``) make it ten times that.
        """
        assert self._transport is not None
        answer = self._answer = HttpAnswer(self)
        if self._parser is None:
            self._parser = _new_parser(self)
        self._quiet_bytes = 0
        self._silence_seconds = silence_seconds
        self._word_at = now = self._now()
        self.deadline = now + silence_seconds
        self._watch(self.deadline)
        if len(body) <= _PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._unsent = memoryview(body)
            self._transport.write(head)
            self._write_on(self._transport)
        return answer

    def let_end(self) -> None:
        """What still comes of the answer is dropped, and it has a moment to end."""
        if self._answer is not None:
            self._answer.is_unwanted = True
            self.deadline = self._now() + _END_OF_STREAM_SECONDS
            self._watch(self.deadline)
            self._resume_reading()

    def go_on(self) -> None:
        """What has come was read, so more may."""
        if self._paused:
            self._resume_reading()
            self._note_sign()
            self._watch(self.deadline)

    def give_up(self) -> None:
        """The deadline is over."""
        self.cut(Trouble.SILENT)

    def cut(self, trouble: Trouble = Trouble.BROKEN) -> None:
        """End it now. An answer that has not ended never does, because of this ``trouble``."""
        if self._transport is not None:
            self._transport.abort()
        self._let_go(trouble)

    def _let_go(self, trouble: Trouble = Trouble.BROKEN) -> None:
        self._transport = self._parser = self._unsent = None
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.let_go(trouble)

    def _note_sign(self) -> None:
        """The server has taken or said something."""
        # While it may not speak, its silence means nothing; and what is unwanted may not go on for long.
        if self._answer is not None and not self._answer.is_unwanted:
            self.deadline = math.inf
            if not self._paused:
                seconds = self._silence_seconds
                self.deadline = min(self._now() + seconds, self._word_at + WORDLESS_TIMES * seconds)

    def note_word(self) -> None:
        """It has said something that matters; what comes next has all its time."""
        self._word_at = self._now()
        self._note_sign()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._word_at += self._now() - self._paused_at
            self._transport.resume_reading()

    # -- asyncio's side ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection, with TLS where that is wanted."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not derived from it
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or some that nobody asked for."""
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:
            self.spoke_unasked = True
            self.cut()
            return
        self._quiet_bytes += len(data)
        was_in_head = answer.stage is _HEAD
        try:
            if answer.left_bytes:
                # Nothing in it has to be found. Behind it, empty lines are no harm (RFC 9112, section 2.2).
                piece, behind = answer.divide(data)
                self.on_body(piece)
                if not answer.left_bytes:
                    self.on_message_complete()
                    self._parser = None  # it has not seen the end
                    self._keeps = self._keeps and not behind.strip(b"\r\n")
            elif self._quiet_bytes > SERVER_HEAD_BYTES and was_in_head:
                self._feed_long_head(parser, answer, data)
            else:
                parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade, _Malformed):
            # Whatever follows the end of an answer takes nothing from it.
            if answer.stage is not _ENDED:
                self.cut(Trouble.BAD_HEAD if answer.stage is _HEAD else Trouble.BROKEN)
                return
            self._keeps = False
        if answer.stage is _ENDED:
            self._end()
        elif self._quiet_bytes > SERVER_HEAD_BYTES:
            self.cut(Trouble.BAD_HEAD if answer.stage is _HEAD else Trouble.BROKEN)
        else:
            if was_in_head and answer.stage is _BODY and (announced := answer.announced_bytes) is not None:
                answer.left_bytes = announced - answer.unread_bytes
            self._note_sign()
            answer.wake()

    def _feed_long_head(self, parser: HttpResponseParser, answer: HttpAnswer, data: bytes) -> None:
        """A head has to end within its limit, to the byte; what follows it may be as long as it likes."""
        view = memoryview(data)
        allowed = len(data) - (self._quiet_bytes - SERVER_HEAD_BYTES)
        parser.feed_data(view[:allowed])
        if answer.stage is _HEAD:
            raise _Malformed
        parser.feed_data(view[allowed:])

    def eof_received(self) -> None:
        """The server says no more. The transport closes by itself."""
        self._end_with_connection()

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended, in whatever way."""
        self._end_with_connection()
        self._let_go(Trouble.NOT_TAKEN if self._is_untaken(error) else Trouble.BROKEN)
        self._on_lost(self)

    def _is_untaken(self, error: Exception | None) -> bool:
        """Whether the other side certainly had not read all of the request, and so did nothing with it.

        Of a unix socket the system tells that: it takes nothing for an end that is closed, and resets a
        connection whose other end was closed with something unread. Whoever has read everything is followed
        by an end of file. Over a network a reset may come from anybody on the way, and tells nothing.
        """
        answer = self._answer
        if answer is None or answer.stage is not _HEAD or self._quiet_bytes:
            return False
        if self._unsent is not None:
            return True
        return self.is_local and isinstance(error, BrokenPipeError | ConnectionResetError)

    @property
    def is_local(self) -> bool:
        """Whether it is a unix socket."""
        return self._socket is not None and self._socket.family == socket.AF_UNIX

    @property
    def was_left(self) -> bool:
        """Whether the other side has closed it, of which the event loop may not have heard yet."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    def _end_with_connection(self) -> None:
        # Of a body without a length nobody knows more than that nothing follows.
        if self._ends_body and self._answer is not None and self._answer.stage is _BODY:
            self._answer.stage = _ENDED
            self._keeps = False
            self._end()

    def _end(self) -> None:
        """The answer has come whole: the connection is free, or of no more use."""
        answer = self._answer
        if not self._keeps or self._unsent is not None or not self.is_open:
            self.cut()
            return
        if self._paused:
            self._resume_reading()
        self._answer = None
        if answer is not None:
            answer.let_go()
        self._on_idle(self)

    def pause_writing(self) -> None:
        """The server takes less than it is sent."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._writing_paused = False
        if self._unsent is not None and self._transport is not None:
            self._write_on(self._transport)
            self.note_word()

    def _write_on(self, transport: asyncio.Transport) -> None:
        """Write of the body what the server takes."""
        # In no task: a server may answer before it has read all, and its answer is read meanwhile.
        while self._unsent is not None and not self._writing_paused:
            piece, rest = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self._unsent = rest or None
            transport.write(piece)

    # -- httptools' side -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins, or an interim one, or what nobody asked for."""
        if self._answer is None or self._answer.stage is not _HEAD:
            raise _Malformed

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; behind the body it is a trailer, which says nothing here."""
        answer = self._answer
        if answer is not None and answer.stage is _HEAD:
            if b"\0" in value:
                raise _Malformed
            answer.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head has ended."""
        answer, parser = self._answer, self._parser
        if answer is None or parser is None or len(answer.fields) > SERVER_FIELDS:
            raise _Malformed
        status = parser.get_status_code()
        if status < 200:
            # Nobody has asked for another protocol; any other interim answer says that there will be one.
            if status < 100 or status == 101:
                raise _Malformed
            answer.fields.clear()
            return
        self._quiet_bytes = 0
        self._ends_body = answer.note_head(status)
        # RFC 9112, section 9.5: a server that refuses and will close does not want the rest of the request.
        if self._unsent is not None and status >= 400 and not parser.should_keep_alive():
            self._unsent = None

    def on_body(self, piece: bytes) -> None:
        """Some of the body."""
        self._quiet_bytes = 0
        answer = self._answer
        if answer is None or answer.is_unwanted:
            return
        # Done here: event streams come in small chunks, and each of them is told.
        answer.pieces.append(piece)
        answer.unread_bytes += len(piece)
        if answer.unread_bytes > _UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._paused_at = self._now()
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """An answer has ended, or an interim one."""
        answer, parser = self._answer, self._parser
        if answer is not None and parser is not None and answer.stage is _BODY:
            answer.stage = _ENDED
            self._keeps = parser.should_keep_alive()


def _new_parser(connection: ServerConnection) -> HttpResponseParser:
    """What finds the parts of one answer after the other."""
    parser = HttpResponseParser(connection)
    # As much as servers in use get wrong, and nothing that makes an answer's end ambiguous.
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
