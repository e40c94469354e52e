"""The messages in the body of one HTTP answer: one JSON document, or an event stream.

What is in memory of a body that has not come whole is accounted for, as servers may send much of it slowly.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from ...aio import in_pieces
from ...bounds import SERVER_EVENT_BYTES, SMALL_BYTES
from ...errors import NoRoomForAnswer, OverBudget, UpstreamProtocolError
from ...memory import UNBOUNDED, Share
from ...protocol import arriving, jsonrpc, large, progress, revisions
from ...protocol.arriving import Opening
from ...protocol.depth import DEFAULT_MAX_DEPTH
from ...protocol.jsonrpc import Message, Response
from ...protocol.progress import ProgressRun
from ...protocol.sse import SseEvent, SseParser
from ..transport import Arriving
from .arriving import ArrivingBody, ArrivingEvent
from .http1 import HttpAnswer

_SHOWN_CHARS: Final = 100
_CACHED_TYPES: Final = 64  # the texts are servers' choice, so the cache has a bound


@lru_cache(maxsize=_CACHED_TYPES)
def is_event_stream(content_type: str) -> bool:
    """Whether a body of this content type is an event stream."""
    return content_type.partition(";")[0].strip().lower() == revisions.SSE


class BodyLimits(msgspec.Struct, frozen=True):
    """What an answer may be: how deep its JSON, and the memory that there is for large ones on their way."""

    max_json_depth: int = DEFAULT_MAX_DEPTH
    room: Share = UNBOUNDED


class HttpReply:
    """The messages of one answer. Implements ``transport.Reply``."""

    __slots__ = (
        "_answer",
        "_limits",
        "_parser",
        "_spoke",
        "_taken",
        "gives_arriving",
        "gives_runs",
        "is_stream",
    )

    def __init__(self, answer: HttpAnswer, limits: BodyLimits) -> None:
        self._begin(answer, limits)

    def _begin(self, answer: HttpAnswer, limits: BodyLimits) -> None:
        """From here on it can be read."""
        self._answer = answer
        self._limits = limits
        self._parser: SseParser | None = None
        self._taken = 0
        self._spoke = False  # some event was a message
        self.gives_arriving = self.gives_runs = False
        self.is_stream = is_event_stream(answer.content_type)

    @property
    def last_event_id(self) -> str | None:
        """The newest event id of the stream."""
        return None if self._parser is None else self._parser.last_event_id

    @property
    def retry_seconds(self) -> float | None:
        """How long the stream asks to wait before it is resumed."""
        if self._parser is None or self._parser.retry_milliseconds is None:
            return None
        return self._parser.retry_milliseconds / 1000

    async def read(self) -> list[Message] | None:
        """The JSON-RPC messages that arrived next; None at the end. Raises as ``transport.Reply.read``."""
        answer = self._answer
        chunk = await answer.read()
        if self.is_stream:
            if chunk:
                return await self._read_events(chunk)
            if not self._spoke:
                self._nothing()
            return None
        if answer.at_end():
            return await self._parse_body(chunk)
        if self.gives_arriving:
            chunk = await self._read_on(chunk, enough_bytes=SMALL_BYTES)
            opening = arriving.read_opening(chunk)
            if opening is not None and not answer.at_end():
                return [self._body_arriving(chunk, opening)]
        return await self._parse_body(await self._read_on(chunk))

    def _body_arriving(self, beginning: bytes, opening: Opening) -> Arriving:
        """The response of a body that has begun so."""

        async def gather(beginning: bytes) -> Response | None:
            messages = await self._parse_body(await self._read_on(beginning))
            return _first_response(messages or ())

        max_depth = self._limits.max_json_depth
        return Arriving(opening.id, coming=ArrivingBody(self._answer, beginning, opening, max_depth, gather))

    def _event_arriving(self, parser: SseParser) -> Arriving | None:
        """The response of the event that the stream is in the middle of, if it is a large one."""
        # One that could be resumed is gathered: that its stream breaks off takes nothing from it then.
        if parser.pending_bytes <= SMALL_BYTES or parser.last_event_id is not None:
            return None
        opening = arriving.read_opening(parser.open_line)
        if opening is None:
            return None

        async def gather(_: bytes) -> Response | None:
            while chunk := await self._answer.read():
                if messages := await self._read_events(chunk):
                    return _first_response(messages)
            return None

        self.gives_arriving = False  # the next one is behind it
        self.give_back()
        max_depth = self._limits.max_json_depth
        return Arriving(opening.id, coming=ArrivingEvent(self._answer, parser, opening, max_depth, gather))

    async def _parse_body(self, body: bytes) -> list[Message] | None:
        max_depth = self._limits.max_json_depth
        if len(body) > SMALL_BYTES:  # others have their turn meanwhile
            return await in_pieces(large.read_answer(body, max_depth=max_depth)) or self._nothing()
        # An empty body has no message, as that of a 202.
        return (jsonrpc.parse_upstream_body(body, max_depth=max_depth) or self._nothing()) if body else None

    def _nothing(self) -> list[Message]:
        """No message was found in what came.

        Raises:
            UpstreamProtocolError: how it is compressed says why.
        """
        # Some name a coding and use none: what can be read is read, whatever it is called.
        if self._answer.unread_codings:
            raise UpstreamProtocolError(
                "The MCP server compressed its answer in a way that it was not asked for, and that cannot be "
                f"read here (Content-Encoding: {self._answer.unread_codings[:_SHOWN_CHARS]}). "
                "The request may have been executed."
            )
        return []

    async def _read_events(self, chunk: bytes) -> list[Message]:
        """The messages of the events that this piece of the stream completes."""
        max_depth = self._limits.max_json_depth
        messages: list[Message] = []
        before = self.last_event_id
        texts = [event.data for event in self._feed(chunk)]
        found: Sequence[bytes | ProgressRun] = texts
        if self.gives_runs and progress.may_be_in(chunk):
            found = progress.join_runs(texts, max_depth=max_depth)
        # What cannot be read, or is too deep, is dropped, and the stream goes on: its response may come.
        for text in found:
            if isinstance(text, ProgressRun):
                messages.append(text)
            elif len(text) <= SMALL_BYTES:
                messages += jsonrpc.parse_upstream_body(text, max_depth=max_depth)
            else:
                messages += await self._read_large(text, before)
        if messages:
            self._spoke = True
            self._answer.note_word()
        if self.gives_arriving and self._parser is not None:
            response = self._event_arriving(self._parser)
            if response is not None:
                messages.append(response)
        return messages

    async def _read_large(self, data: bytes, before: str | None) -> list[Message]:
        """The messages of a large event. ``before`` is where the stream was before the piece that it came in.

        It is there still as long as this takes, for whoever would go on with it: of that piece nobody has had
        anything yet.
        """
        parser = self._parser
        assert parser is not None
        newest, parser.last_event_id = parser.last_event_id, before
        messages = await in_pieces(large.read_answer(data, max_depth=self._limits.max_json_depth))
        parser.last_event_id = newest
        return messages

    def _feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that this piece of the stream completes."""
        parser = self._parser = self._parser or SseParser()
        events = parser.feed(chunk)
        # Nearly all events are small, and gone as soon as they are whole.
        if parser.pending_bytes > SMALL_BYTES or self._taken:
            self._account(parser.pending_bytes)
        return events

    async def _read_on(self, beginning: bytes, *, enough_bytes: int = SERVER_EVENT_BYTES) -> bytes:
        """The whole body, of which this has come, or somewhat more than enough of it."""
        pieces, size = [beginning], len(beginning)
        while size <= enough_bytes and (piece := await self._answer.read()):
            pieces.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                self._account(size)
            if size > SERVER_EVENT_BYTES:
                raise UpstreamProtocolError(
                    f"The server sent an answer of more than {SERVER_EVENT_BYTES} bytes."
                )
        return b"".join(pieces)

    def _account(self, size_bytes: int) -> None:
        """So much is in memory of an answer that has not come whole."""
        more_bytes, room = size_bytes - self._taken, self._limits.room
        try:
            if more_bytes > 0:
                # As a large one, whatever it has now: small ones never come here.
                room.take(more_bytes, large=True)
            else:
                room.give_back(-more_bytes)
        except OverBudget as error:
            raise NoRoomForAnswer(
                "The MCP server's answer is too large for the memory that is left (--memory-budget). "
                "The request may have been executed."
            ) from error
        self._taken = size_bytes

    def give_back(self) -> None:
        """Nothing more will be read: what is in memory of it is no more."""
        if self._taken:
            self._limits.room.give_back(self._taken)
            self._taken = 0


def _first_response(messages: Iterable[Message]) -> Response | None:
    return next((message for message in messages if isinstance(message, Response)), None)
