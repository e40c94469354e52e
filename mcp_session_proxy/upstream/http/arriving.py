"""Results that are passed on as they come, in a body of JSON and in an event.

What is kept of one is a piece at a time. ``gather`` goes back to reading the whole: nothing was taken then.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ...aio import in_pieces
from ...bounds import SERVER_EVENT_BYTES
from ...errors import UpstreamProtocolError
from ...protocol.arriving import Opening, ResultText
from ...protocol.jsonrpc import Response
from ...protocol.sse import SseParser
from ..transport import TOO_DEEP, ConnectionLost
from .http1 import HttpAnswer

# Given what has come, reads the rest, and gives the response.
Gather: TypeAlias = Callable[[bytes], Awaitable[Response | None]]

# A line that begins with this is one whose end was passed on already, but for a space.
_LINE_BEFORE: Final = b"data:  "


class ArrivingBody:
    """A result in a body of JSON, whose ``beginning`` has come. Implements ``transport.ArrivingResult``."""

    def __init__(
        self, answer: HttpAnswer, beginning: bytes, opening: Opening, max_depth: int, gather: Gather
    ) -> None:
        self._answer = answer
        self._beginning = beginning
        self._envelope_bytes = opening.end
        self._size_bytes = len(beginning)
        self._text = ResultText(max_depth)
        self._over = False
        self._gather = gather

    @property
    def length_bytes(self) -> int | None:
        """As ``transport.ArrivingResult.length_bytes``."""
        length_bytes = self._answer.length_bytes
        return None if length_bytes is None else length_bytes - self._envelope_bytes

    async def read(self) -> bytes:
        """As ``transport.ArrivingResult.read``."""
        while not self._over:
            if self._beginning:
                piece, ends = self._beginning[self._envelope_bytes :], False
                self._beginning = b""
            else:
                piece, ends = await self._next()
                self._count(piece)
                self._answer.note_word()
            text = await in_pieces(self._text.take(piece))
            if self._text.too_deep:
                raise UpstreamProtocolError(TOO_DEEP)
            # The last piece is not passed on before it is known to be the end: with its length announced, a
            # broken text would look whole.
            if ends:
                self._over = True
                text += self._text.end()
                if not self._text.is_whole:
                    raise ConnectionLost
            if text:
                return text
        return b""

    async def gather(self) -> Response | None:
        """As ``transport.ArrivingResult.gather``."""
        return await self._gather(self._beginning)

    def _count(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes > SERVER_EVENT_BYTES:
            raise UpstreamProtocolError(f"The server sent an answer of more than {SERVER_EVENT_BYTES} bytes.")

    async def _next(self) -> tuple[bytes, bool]:
        """What comes next, and whether that is the end."""
        piece = await self._answer.read()
        return piece, self._answer.at_end()


class ArrivingEvent(ArrivingBody):
    """The same in an event, whose ``parser`` has the beginning of its data."""

    length_bytes = None

    def __init__(
        self, answer: HttpAnswer, parser: SseParser, opening: Opening, max_depth: int, gather: Gather
    ) -> None:
        super().__init__(answer, parser.open_line, opening, max_depth, gather)
        self._parser = parser
        self._taken = False  # the parser knows of the line no longer
        self._in_line = True

    async def read(self) -> bytes:
        """As ``transport.ArrivingResult.read``."""
        if not self._taken:
            self._taken = True
            self._parser.forget_line()
        return await super().read()

    async def _next(self) -> tuple[bytes, bool]:
        """As in a body; the event ends with an empty line."""
        chunk = await self._answer.read()
        if not chunk:
            raise ConnectionLost  # amid the event
        piece = b""
        if self._in_line:
            end = _end_of_line(chunk)
            if end < 0:
                return chunk, False
            self._in_line = False
            piece, chunk = chunk[:end], _LINE_BEFORE + chunk[end:]
        # Where JSON is written over several lines, others follow.
        events = self._parser.feed(chunk)
        return (piece + events[0].data, True) if events else (piece, False)


def _end_of_line(chunk: bytes) -> int:
    """Where the line ends that a chunk begins in; -1 if it goes on."""
    ends = [at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0]
    return min(ends, default=-1)
