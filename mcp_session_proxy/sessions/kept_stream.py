"""One stream of a client session: its newest events, and who follows it; and what all of them may keep."""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..aio import Signal
from ..bounds import KEPT_STREAM_BYTES, UNREAD_BYTES, UNREAD_EVENTS
from ..memory import UNBOUNDED, Share
from .contention import Contention

# Numbers of streams and of events begin anew with each process that goes on with a mailbox, this far apart:
# so they rise, whatever the one before gave away in its last moment.
AGE: Final = 1 << 32
_SCAN: Final = 64


class StoredEvent(NamedTuple):
    """One event and its number in its stream."""

    number: int
    data: bytes


class Copy:
    """What of a stream is in an event store, at its ``place`` there.

    ``asked`` are the ids of the requests that the stream is the answer to, ``written`` is the number of the
    newest event that is there. ``changed`` is told when there is something to write, ``over`` when nobody can
    come back to the stream.
    """

    __slots__ = ("asked", "changed", "over", "place", "written")

    def __init__(
        self,
        place: str,
        asked: Sequence[bytes],
        changed: "Callable[[Stream], None]",
        over: "Callable[[Stream], None]",
    ) -> None:
        self.place = place
        self.asked = asked
        self.changed = changed
        self.over = over
        self.written: int | None = None


class Keeping(NamedTuple):
    """How the streams of a mailbox are kept beside the memory. ``home`` is the mailbox's place there."""

    home: str
    changed: "Callable[[Stream], None]"
    over: "Callable[[Stream], None]"

    def copy(self, prefix: str, asked: Sequence[bytes] = ()) -> Copy:
        """That of the stream whose ids begin so."""
        return Copy(f"{self.home}/{prefix}", asked, self.changed, self.over)


class EventBudget:
    """What clients' streams may keep: so many events each, and a share of the memory all together.

    So lost and slow clients cannot fill the memory. ``max_events`` may be changed at any time.

    A message that many streams keep is there once, and counts once. Over the share, streams go that have
    probably reached their clients, the one that ended longest ago first; then streams that nobody reads are
    emptied, the one that was written to longest ago first, and of the others what their clients have taken.
    If that is not enough, clients that read too slowly lose the older half of what they have not read.
    """

    def __init__(self, max_events: int, share: Share = UNBOUNDED) -> None:
        self.max_events = max_events
        self._share = share
        # How many streams keep a message, by its identity, which is good for as long as one of them does.
        self._copies: dict[int, int] = {}
        self._streams: dict[Stream, None] = {}
        self._reached: dict[Stream, None] = {}

    def put(self, stream: "Stream", data: bytes) -> None:
        """A stream keeps one message more."""
        copies = self._copies.get(id(data), 0)
        self._copies[id(data)] = copies + 1
        if not copies:
            self._share.hold(len(data))
        self._streams.pop(stream, None)
        self._streams[stream] = None
        if self._share.is_over:
            self._make_room(stream)

    def take(self, data: bytes) -> None:
        """A stream keeps a message no longer."""
        copies = self._copies[id(data)] - 1
        if copies:
            self._copies[id(data)] = copies
        else:
            del self._copies[id(data)]
            self._share.give_back(len(data))

    def demote(self, stream: "Stream") -> None:
        """A stream was written to its end, so it is kept only in case that did not arrive."""
        self._streams.pop(stream, None)
        self._reached.pop(stream, None)
        self._reached[stream] = None

    def expire(self, before: float) -> None:
        """Drop the streams that were written to their end before this time; keep to a share that shrank."""
        while (stream := next(iter(self._reached), None)) is not None:
            if stream.reached_at is not None and stream.reached_at > before:
                break
            stream.leave_memory()
        if self._share.is_over:
            self._make_room(None)

    def remove(self, stream: "Stream") -> None:
        """A stream keeps nothing any more."""
        self._streams.pop(stream, None)
        self._reached.pop(stream, None)

    def _make_room(self, newest: "Stream | None") -> None:
        """Let go of what will be missed least, until the share is kept to.

        What has reached its client goes first: losing it costs something only if its client was cut off in
        that very moment. Then streams that nobody reads, which may be thousands of clients that never come
        back; only so many are looked at, in the order in which they were written to, so that a write costs
        the same however many there are, and those that were spared go to the end of the line. The stream that
        is being written to is spared, for its client is probably there. That clients lose what they have not
        read is the last resort, and the largest backlog pays first: it is the slow reader that brought it
        about.
        """
        while self._share.is_over and self._reached:
            next(iter(self._reached)).leave_memory()
        looked_at = list(itertools.islice(self._streams, _SCAN))
        for stream in looked_at:
            if not self._share.is_over:
                return
            if stream is not newest and not stream.followed:
                stream.empty()
            else:
                self._streams[stream] = self._streams.pop(stream)  # not again at the next look
                if stream.followed:
                    stream.forget_what_was_taken()
        for stream in sorted(looked_at, key=lambda stream: stream.kept_bytes, reverse=True):
            if not self._share.is_over:
                return
            stream.halve()


class Stream:
    """One stream's newest events, and whoever follows it. A new follower ends the one before.

    ``found_in`` is where it can be found, under its ``number``, until it is dropped.
    """

    __slots__ = (
        "_budget",
        "_bytes",
        "_changed",
        "_contention",
        "_counts",
        "_current",
        "_displaced",
        "_events",
        "_followers",
        "_found_in",
        "_next",
        "_number",
        "_prefix",
        "closed",
        "copy",
        "forgotten",
        "reached_at",
        "taken",
    )

    def __init__(
        self,
        prefix: str,
        budget: EventBudget,
        *,
        found_in: "dict[int, Stream] | None" = None,
        number: int = 0,
        begins: int = 0,
        copy: Copy | None = None,
    ) -> None:
        self._prefix = prefix
        self._budget = budget
        self.copy = copy
        self._counts = True  # what it keeps is counted in the budget
        self._found_in = found_in
        self._number = number
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._next = begins + 1
        self._followers = 0
        self._current = 0
        self._contention: Contention | None = None
        self._displaced: dict[int, float] = {}
        self._changed = Signal()
        self.taken = begins  # the number of the newest event that was given to a follower
        self.forgotten = begins  # the number of the newest event that is not in memory any more
        self.closed = False
        self.reached_at: float | None = None  # when all of it was written to its client

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
        if self._counts:
            self._budget.put(self, data)
        # The newest stays whatever its size: it may be all that its client is waiting for.
        while len(self._events) > 1 and self._is_too_much():
            self._drop_oldest()
        self._changed.give()
        if self.copy is not None:
            self.copy.changed(self)
        return self.event_id(number)

    def put_back(self, events: Sequence[StoredEvent]) -> None:
        """Have events again that are not in memory any more, in their order."""
        for event in reversed(events):
            oldest = self._events[0].number if self._events else self._next
            if event.number < oldest:
                self._events.appendleft(event)
                self._bytes += len(event.data)
                self.forgotten = event.number - 1
                if self._counts:
                    self._budget.put(self, event.data)

    def _drop_oldest(self) -> None:
        self.forgotten, data = self._events.popleft()
        self._bytes -= len(data)
        if self._counts:
            self._budget.take(data)

    @property
    def kept_bytes(self) -> int:
        """What is kept, the copies that other streams keep as well among it."""
        return self._bytes

    def end_at(self, number: int) -> None:
        """Be a stream that has ended with this event, and is in the event store up to there."""
        self.closed = True
        self._next = number + 1
        if self.copy is not None:
            self.copy.written = number

    def note_anew(self) -> None:
        """Have all that is kept written to the event store again, if anything was."""
        if self.copy is not None and self.copy.written is not None:
            self.copy.written = None
            self.copy.changed(self)

    def empty(self) -> None:
        """Let go of what is kept; what comes later is kept again."""
        while self._events:
            self._drop_oldest()
        self._budget.remove(self)

    def forget_what_was_taken(self) -> None:
        """Let go of what was given to the follower, and is kept in case that did not arrive."""
        while self._events and self._events[0].number <= self.taken:
            self._drop_oldest()

    def halve(self) -> None:
        """Let go of the older half of what is kept, but never of the newest event."""
        left_bytes = self._bytes // 2
        while len(self._events) > 1 and self._bytes > left_bytes:
            self._drop_oldest()

    def drop(self) -> None:
        """Nobody can come back to this stream: it lives as long as somebody reads it, and does not count."""
        self.leave_memory()
        if self.copy is not None:
            self.copy.over(self)
            self.copy = None

    def leave_memory(self) -> None:
        """It does not count any more, and is not found here; it may be found in the event store."""
        if self._counts:
            self._counts = False
            for event in self._events:
                self._budget.take(event.data)
            self._budget.remove(self)
        found_in, self._found_in = self._found_in, None
        if found_in is not None:
            found_in.pop(self._number, None)

    def _is_too_much(self) -> bool:
        # What a client that is there has not read yet is not kept in case of something: letting go of it is
        # a hole in what it reads. So that has a bound of its own, far above the other.
        if self.followed and self._events[0].number > self.taken:
            return len(self._events) > UNREAD_EVENTS or self._bytes > UNREAD_BYTES
        return len(self._events) > self._budget.max_events or self._bytes > KEPT_STREAM_BYTES

    def event_id(self, number: int) -> str:
        """The id under which the client knows an event."""
        return f"{self._prefix}-{number}"

    def after(self, number: int) -> list[StoredEvent]:
        """The kept events that came after this one."""
        return [event for event in self._events if event.number > number]

    def lacks(self, number: int) -> bool:
        """Whether something that came after this event is not in memory any more."""
        return number < self.forgotten

    def kept_after(self, number: int) -> int:
        """Where to go on behind an event: behind those that followed it and are kept no longer."""
        before = (self._events[0].number if self._events else self._next) - 1
        # From one process to the next, numbers rise by far more than there were events.
        return number if before % AGE == 0 else max(number, before)

    def begins_after(self, number: int) -> int:
        """Where to go on behind an event that a client names; nothing comes behind what has not happened."""
        return min(number, self._next - 1)

    @property
    def worth(self) -> int:
        """What is lost if this stream goes: 0 nothing, as far as we know, 1 the end of an answer, 2 more."""
        if not self.closed:
            return 2
        return 1 if self.reached_at is None else 0

    def close(self, *, reached_at: float | None = None) -> None:
        """Nothing more will come. With ``reached_at``, all of it was written to its client at that time."""
        self.closed = True
        if reached_at is not None:
            self.reached_at = reached_at
            if self._counts:
                self._budget.demote(self)
        self._changed.give()
        # It is kept for another time now.
        if reached_at is not None and self.copy is not None:
            self.copy.changed(self)

    def end_following(self) -> None:
        """End the follower there is; the stream stays."""
        self._current = 0
        self._changed.give()

    def take_over(self, now: float) -> tuple[int, float | None]:
        """Become the follower, ending the one before.

        Gives a number that stands for it, and the seconds that its client should wait before it comes back,
        where that has to be said.
        """
        retry_seconds = None
        if self._current:
            if self._contention is None:
                # Made for the few streams that are ever taken from somebody; most have one follower.
                self._contention = Contention()
            self._displaced[self._current] = self._contention.taken(now)
        elif self._contention is not None:
            retry_seconds = self._contention.settled(now)
        self._followers += 1
        self._current = self._followers
        self._changed.give()
        return self._current, retry_seconds

    def leave(self, follower: int) -> None:
        """Stop following; one whose place a newer one has taken leaves that to it."""
        self._displaced.pop(follower, None)
        if self._current == follower:
            self._current = 0

    def stays_away(self, follower: int) -> float | None:
        """The seconds that a follower's client should stay away, if a newer one has taken its place."""
        return self._displaced.get(follower)

    def is_follower(self, follower: int) -> bool:
        """Whether no newer follower came."""
        return self._current == follower

    async def changed(self) -> None:
        """Wait until an event is added, the stream closes, or another follower comes."""
        await self._changed.wait()
