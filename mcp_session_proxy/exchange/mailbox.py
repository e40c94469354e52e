"""What is kept for the streams of one client session, so that a re-opened stream misses nothing.

A mailbox has numbered streams: 0 is the standalone GET stream, the others are POST responses that
became streams. Each keeps its newest events, within a bound, under ids by which the client can
continue (MCP 2025-11-25, basic/transports, "Resumability and Redelivery").
"""

import asyncio
import itertools
import secrets
from collections import deque
from typing import Final, NamedTuple

STANDALONE: Final = 0
_MAX_STREAMS: Final = 16
_MAX_BYTES: Final = 1024 * 1024
# What a client that is reading has not read yet goes only over these: it is on its way.
_MAX_UNREAD_EVENTS: Final = 10_000
_MAX_UNREAD_BYTES: Final = 16 * 1024 * 1024
_MAX_SHELF_BYTES: Final = 256 * 1024 * 1024
_SCAN: Final = 64


class StoredEvent(NamedTuple):
    """One event and its number in its stream."""

    number: int
    data: bytes


class Shelf:
    """Counts what all clients' POST streams keep together, so that lost clients cannot fill the memory.

    Over the bound, streams that nobody reads are emptied, the one that was written to longest ago first.
    Standalone streams do not count: what they keep is mostly one message for all clients of a session.
    """

    def __init__(self, max_bytes: int = _MAX_SHELF_BYTES) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._streams: dict[Stream, None] = {}

    def put(self, stream: "Stream", size_bytes: int) -> None:
        """A stream keeps more."""
        self.bytes += size_bytes
        self._streams.pop(stream, None)
        self._streams[stream] = None
        if self.bytes > self._max_bytes:
            self._make_room(stream)

    def _make_room(self, newest: "Stream") -> None:
        for stream in list(itertools.islice(self._streams, _SCAN)):
            if self.bytes <= self._max_bytes:
                return
            if stream is not newest and not stream.followed:
                stream.empty()
            else:
                self._streams[stream] = self._streams.pop(stream)  # not again at the next look

    def take(self, size_bytes: int) -> None:
        """A stream keeps less."""
        self.bytes -= size_bytes

    def remove(self, stream: "Stream") -> None:
        """A stream keeps nothing any more."""
        self._streams.pop(stream, None)


class Stream:
    """One stream's newest events, and whoever follows it. A new follower ends the one before."""

    __slots__ = (
        "_bytes",
        "_current",
        "_events",
        "_followers",
        "_next",
        "_prefix",
        "_shelf",
        "_wakes",
        "closed",
        "max_events",
        "taken",
    )

    def __init__(self, prefix: str, max_events: int, shelf: Shelf | None = None) -> None:
        self._prefix = prefix
        self._shelf = shelf
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self.max_events = max_events
        self._next = 1
        self._followers = 0
        self._current = 0
        self._wakes: list[asyncio.Future[None]] = []
        self.taken = 0  # the number of the newest event that was given to a follower
        self.closed = False

    @property
    def followed(self) -> bool:
        """Whether a client reads this stream now."""
        return self._current != 0

    def append(self, data: bytes) -> str:
        """Keep one event, dropping the oldest over the bound; gives its id."""
        number = self._next
        self._next += 1
        self._events.append(StoredEvent(number, data))
        self._bytes += len(data)
        if self._shelf is not None:
            self._shelf.put(self, len(data))
        while len(self._events) > 1 and self._is_too_much():
            self._count_less(len(self._events.popleft().data))
        self._wake()
        return self.event_id(number)

    def _count_less(self, size_bytes: int) -> None:
        self._bytes -= size_bytes
        if self._shelf is not None:
            self._shelf.take(size_bytes)

    def empty(self) -> None:
        """Let go of what is kept; what comes later is kept again."""
        self._events.clear()
        self._count_less(self._bytes)
        if self._shelf is not None:
            self._shelf.remove(self)

    def leave_shelf(self) -> None:
        """Nobody can come back to this stream: it lives as long as somebody reads it, and does not count."""
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            shelf.take(self._bytes)
            shelf.remove(self)

    def _is_too_much(self) -> bool:
        if self.followed and self._events[0].number > self.taken:
            return len(self._events) > _MAX_UNREAD_EVENTS or self._bytes > _MAX_UNREAD_BYTES
        return len(self._events) > self.max_events or self._bytes > _MAX_BYTES

    def event_id(self, number: int) -> str:
        """The id under which the client knows an event."""
        return f"{self._prefix}-{number}"

    def after(self, number: int) -> list[StoredEvent]:
        """The kept events that came after this one."""
        return [event for event in self._events if event.number > number]

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._wake()

    def end_following(self) -> None:
        """End the follower there is; the stream stays."""
        self._current = 0
        self._wake()

    def take_over(self) -> int:
        """Become the follower, ending the one before; gives a number that stands for it."""
        self._followers += 1
        self._current = self._followers
        self._wake()
        return self._current

    def leave(self, follower: int) -> None:
        """Stop following."""
        if self._current == follower:
            self._current = 0

    def is_follower(self, follower: int) -> bool:
        """Whether no newer follower came."""
        return self._current == follower

    async def changed(self) -> None:
        """Wait until an event is added, the stream closes, or another follower comes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakes.append(future)
        try:
            await future
        finally:
            if future in self._wakes:
                self._wakes.remove(future)

    def _wake(self) -> None:
        wakes, self._wakes = self._wakes, []
        for future in wakes:
            if not future.done():
                future.set_result(None)


class Mailbox:
    """The streams of one client session."""

    __slots__ = ("_max_events", "_next", "_nonce", "_shelf", "streams")

    def __init__(self, max_events: int, shelf: Shelf | None = None) -> None:
        self._max_events = max_events
        self._shelf = shelf
        # Ids from before a restart must not be taken for ours.
        self._nonce = secrets.token_hex(3)
        self._next = STANDALONE
        self.streams: dict[int, Stream] = {}
        self.open()

    def set_max_events(self, max_events: int) -> None:
        """Keep this many events in each stream from now on; what is too much goes with the next event."""
        self._max_events = max_events
        for stream in self.streams.values():
            stream.max_events = max_events

    @property
    def standalone(self) -> Stream:
        """The stream of the client's GET."""
        return self.streams[STANDALONE]

    def open(self) -> Stream:
        """A new stream; the oldest POST stream goes when there are too many."""
        number = self._next
        self._next += 1
        if len(self.streams) >= _MAX_STREAMS:
            oldest = next(number for number in self.streams if number != STANDALONE)
            gone = self.streams.pop(oldest)
            gone.close()
            gone.leave_shelf()
        shelf = None if number == STANDALONE else self._shelf
        stream = self.streams[number] = Stream(f"{self._nonce}-{number}", self._max_events, shelf)
        return stream

    def drop(self, stream: Stream) -> None:
        """Forget a POST stream that reached its client whole."""
        for number, kept in self.streams.items():
            if kept is stream:
                stream.leave_shelf()
                del self.streams[number]
                return

    def find(self, event_id: str) -> tuple[Stream, int] | None:
        """The stream and the event number that a ``Last-Event-ID`` names, if they are kept here."""
        nonce, _, rest = event_id.partition("-")
        number, _, event = rest.partition("-")
        if nonce != self._nonce or not (number.isdecimal() and event.isdecimal()):
            return None
        stream = self.streams.get(int(number[:9]))
        return None if stream is None else (stream, int(event[:18]))

    def close(self) -> None:
        """End all streams."""
        for stream in self.streams.values():
            stream.close()
            stream.leave_shelf()
