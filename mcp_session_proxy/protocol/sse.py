"""Server-Sent Events: bytes to events and back, incrementally.

Follows the WHATWG HTML standard, "Server-sent events", sections 9.2.5 and 9.2.6 (parsing and
interpreting an event stream). The parser gives the same events however the bytes are split.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ..bounds import EVENT_ID_BYTES, SERVER_EVENT_BYTES
from ..errors import UpstreamProtocolError

HEARTBEAT: Final = b": keep-alive\n\n"
# Where a client has asked for more than is kept.
GAP: Final = b": what came before this is kept no longer\n\n"
# Around the data of an event of type ``message``.
EVENT_BEGIN: Final = b"event: message\ndata: "
EVENT_END: Final = b"\n\n"
_BOM: Final = b"\xef\xbb\xbf"
# What a line of an event costs in memory beyond its bytes, so that many empty ones count as what they are.
_LINE_BYTES: Final = 32
# More than a network read gives at once; lists of lines do not grow beyond what one such piece holds.
_PIECE_BYTES: Final = 512 * 1024
_COLON: Final = ord(":")
_DATA: Final = b"data: "


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. ``type`` is ``message`` unless the stream said otherwise."""

    data: bytes
    type: str = "message"


class SseParser:
    """Turns the bytes of one stream into events.

    ``last_event_id`` and ``retry_milliseconds`` hold the newest values the stream gave, also when
    they came with an event without data (MCP 2025-11-25, basic/transports, "Sending Messages",
    where servers prime a stream that way). Such an event is not reported: no message is empty.
    """

    __slots__ = (
        "_data",
        "_data_bytes",
        "_max_event_bytes",
        "_pending",
        "_pending_id",
        "_skip_line_feed",
        "_started",
        "_tail",
        "_tail_bytes",
        "_type",
        "last_event_id",
        "retry_milliseconds",
    )

    def __init__(self, *, max_event_bytes: int = SERVER_EVENT_BYTES) -> None:
        self.last_event_id: str | None = None
        self.retry_milliseconds: int | None = None
        self._max_event_bytes = max_event_bytes
        self._tail: list[bytes] = []  # pieces of a line whose end has not arrived
        self._tail_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._type = ""
        self._pending_id: bytes | None = None
        self._pending = False  # whether the event has any field yet
        self._skip_line_feed = False
        self._started = False

    @property
    def pending_bytes(self) -> int:
        """How much is kept of an event whose end has not come."""
        return self._data_bytes + self._tail_bytes

    @property
    def open_line(self) -> bytes:
        """The data, as far as it has come, of an event that has no other yet; empty where there is none."""
        if self._data or not self._tail:
            return b""
        # A line whose end has not come is in several pieces; the rest of it will be one more.
        self._tail = [b"".join(self._tail)]
        line = self._tail[0] if self._started else self._tail[0].removeprefix(_BOM)
        return line[len(_DATA) :] if line.startswith(_DATA) else b""

    def forget_line(self) -> None:
        """Whoever has taken ``open_line`` reads the rest of that line without this."""
        self._tail = []
        self._tail_bytes = 0
        self._started = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes; give the events that they complete.

        Raises:
            UpstreamProtocolError: one event is over the size limit.
        """
        if self._skip_line_feed and chunk:
            # The last chunk ended in CR, which already ended the line; an LF now is its other half.
            self._skip_line_feed = False
            chunk = chunk.removeprefix(b"\n")
        events: list[SseEvent] = []
        if not (self._pending or self._tail_bytes):
            chunk = self._take_whole_events(chunk, events)
        if not chunk:
            return events
        if len(chunk) <= _PIECE_BYTES:
            self._feed(chunk, events)
        else:
            for start in range(0, len(chunk), _PIECE_BYTES):
                events += self.feed(chunk[start : start + _PIECE_BYTES])
        if self.pending_bytes > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"The server sent an event of more than {self._max_event_bytes} bytes."
            )
        return events

    def _take_whole_events(self, chunk: bytes, events: list[SseEvent]) -> bytes:
        """Take the events that a chunk begins with, if all whole ones in it are ordinary; gives what is left.

        What nearly all servers write nearly always is a line that names the type, or none, and one of data.
        So however many there are, they are found by looking at the chunk and not at each.
        """
        text = chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk
        begin = EVENT_BEGIN if text.startswith(EVENT_BEGIN) else _DATA
        end = text.rfind(EVENT_END)
        if end < 0 or not text.startswith(begin):
            return chunk
        data = text[len(begin) : end].split(EVENT_END + begin)
        # Line ends where there should be none are those of other events. A CR by itself ends a line, too.
        line_ends = len(data) * begin.count(b"\n") + (len(data) - 1) * len(EVENT_END)
        if text.count(b"\n", 0, end) != line_ends or text.find(b"\r", 0, end) >= 0 or not all(data):
            return chunk
        events += map(SseEvent, data)
        self._started = True
        return text[end + len(EVENT_END) :]

    def _feed(self, chunk: bytes, events: list[SseEvent]) -> None:
        for line in self._split(chunk):
            if line:
                # What nearly all lines are that are not empty; others take their time.
                if line[:6] == _DATA:
                    self._pending = True
                    self._data.append(line[6:])
                    self._data_bytes += len(line) + _LINE_BYTES
                elif line[0] != _COLON:  # a comment
                    self._take_field(line)
            elif self._pending and (event := self._dispatch()) is not None:
                events.append(event)

    def _split(self, chunk: bytes) -> list[bytes]:
        """The lines that a chunk completes; what follows them waits for its end."""
        self._tail.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._tail_bytes += len(chunk)
            return []
        # CR alone ends a line as well, which only ``splitlines`` knows; whether the last line has ended, it
        # does not say.
        block = b"".join(self._tail)
        if b"\r" in block:
            lines = block.splitlines()
            self._skip_line_feed = block[-1:] == b"\r"
            tail = b"" if block[-1:] in (b"\r", b"\n") else lines.pop()
        else:
            lines = block.split(b"\n")
            tail = lines.pop()
        self._tail = [tail]
        self._tail_bytes = len(tail)
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _take_field(self, line: bytes) -> None:
        self._pending = True
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + _LINE_BYTES
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            # An id with NUL is ignored, says the standard: it could not be a header's value.
            if b"\0" not in value:
                self._pending_id = value if len(value) <= EVENT_ID_BYTES else b""
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_milliseconds = int(value)

    def _dispatch(self) -> SseEvent | None:
        if self._pending_id is not None:
            # The empty id resets, as the standard says; so does one that is too long to be of use.
            self.last_event_id = self._pending_id.decode("utf-8", "replace") or None
            self._pending_id = None
        data, kind = b"\n".join(self._data), self._type
        self._data.clear()
        self._data_bytes = 0
        self._type = ""
        self._pending = False
        if not data:
            return None
        return SseEvent(data, kind or "message")


def write_cursor(event_id: str, *, retry_seconds: float | None = None) -> bytes:
    """An event without data: where a client can go on, and how long it should wait before it does.

    MCP 2025-11-25, basic/transports, "Sending Messages to the Server", where streams begin with one.
    """
    retry = b"" if retry_seconds is None else write_retry(retry_seconds)
    return b"".join((b"id: ", event_id.encode(), b"\n", retry, b"data: \n\n"))


def write_retry(seconds: float) -> bytes:
    """The time to wait before a stream is opened again, as a field of whatever event it stands in.

    It counts as soon as its line is read, and alone it makes no event, which older clients could not read.
    """
    return b"retry: %d\n" % round(seconds * 1000)


def write_event(data: bytes, *, event_id: str | None = None) -> bytes:
    """One event of type ``message`` that holds a JSON text.

    JSON has no raw line ends inside strings, so line ends between its tokens become spaces and the
    event is always a single ``data`` line.
    """
    data = on_one_line(data)
    if event_id is None:
        return b"".join((EVENT_BEGIN, data, EVENT_END))
    return b"".join((b"event: message\nid: ", event_id.encode(), b"\ndata: ", data, b"\n\n"))


def write_events(messages: Sequence[bytes]) -> bytes:
    """Several such events, without ids."""
    between = EVENT_END + EVENT_BEGIN
    data = between.join(messages)
    # Hardly a message has a line end in it, so they are looked at together.
    if data.count(b"\n") > (len(messages) - 1) * between.count(b"\n") or b"\r" in data:
        data = between.join(map(on_one_line, messages))
    return b"".join((EVENT_BEGIN, data, EVENT_END))


def on_one_line(data: bytes) -> bytes:
    """A JSON text, or a piece of one, on one line."""
    if b"\n" in data or b"\r" in data:
        return data.replace(b"\r", b" ").replace(b"\n", b" ")
    return data
