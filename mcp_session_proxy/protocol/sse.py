"""Server-Sent Events: bytes to events and back, incrementally.

Follows the WHATWG HTML standard, "Server-sent events", sections 9.2.5 and 9.2.6 (parsing and
interpreting an event stream). The parser gives the same events however the bytes are split.
"""

from typing import Final

import msgspec

from ..errors import UpstreamProtocolError

HEARTBEAT: Final = b": keep-alive\n\n"
DEFAULT_MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. ``type`` is ``message`` unless the stream said otherwise."""

    data: bytes
    type: str = "message"


class SseParser:
    """Turns the bytes of one stream into events.

    ``last_event_id`` and ``retry_milliseconds`` hold the newest values the stream gave, also when
    they came with an event without data (MCP 2025-11-25, basic/transports, "Sending Messages",
    where servers prime a stream that way).
    """

    __slots__ = (
        "_data",
        "_max_event_bytes",
        "_pending_id",
        "_size",
        "_skip_line_feed",
        "_started",
        "_tail",
        "_type",
        "last_event_id",
        "retry_milliseconds",
    )

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self.last_event_id: str | None = None
        self.retry_milliseconds: int | None = None
        self._max_event_bytes = max_event_bytes
        self._tail: list[bytes] = []  # pieces of a line whose end has not arrived
        self._data: list[bytes] = []
        self._type = ""
        self._pending_id: str | None = None
        self._size = 0
        self._skip_line_feed = False
        self._started = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes; give the events that they complete.

        Raises:
            UpstreamProtocolError: one event is over the size limit.
        """
        if not chunk:
            return []
        if self._skip_line_feed:
            # The last chunk ended in CR, which already ended the line; an LF now is its other half.
            self._skip_line_feed = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        self._size += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._tail.append(chunk)
            self._check_size()
            return []
        self._tail.append(chunk)
        block = b"".join(self._tail)
        lines = block.splitlines()
        self._skip_line_feed = block[-1:] == b"\r"
        self._tail = [] if block[-1:] in (b"\n", b"\r") else [lines.pop()]
        if not self._started:
            self._started = True
            if lines and lines[0].startswith(_BOM):
                lines[0] = lines[0][len(_BOM) :]
        events: list[SseEvent] = []
        for line in lines:
            if line:
                self._take_field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        self._size = sum(map(len, self._data)) + sum(map(len, self._tail))
        self._check_size()
        return events

    def _check_size(self) -> None:
        if self._size > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"The server sent an event of more than {self._max_event_bytes} bytes."
            )

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._pending_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_milliseconds = int(value)

    def _dispatch(self) -> SseEvent | None:
        if self._pending_id is not None:
            # The empty id resets, as the standard says.
            self.last_event_id = self._pending_id or None
        data, kind = b"\n".join(self._data), self._type
        self._data.clear()
        self._type = ""
        if not data:
            return None
        return SseEvent(data, kind or "message")


def write_event(data: bytes, *, event_id: str | None = None) -> bytes:
    """One event of type ``message`` that holds a JSON text.

    JSON has no raw line ends inside strings, so line ends between its tokens become spaces and the
    event is always a single ``data`` line.
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    if event_id is None:
        return b"event: message\ndata: %b\n\n" % data
    return b"event: message\nid: %b\ndata: %b\n\n" % (event_id.encode(), data)
