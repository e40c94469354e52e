"""What is kept for the streams of one client session, so that a re-opened stream misses nothing.

A mailbox has numbered streams: 0 is the standalone GET stream, the others are POST responses that
became streams. Each keeps its newest events, within a bound, under ids by which the client can
continue (MCP 2025-11-25, basic/transports, "Resumability and Redelivery"). Number 0 of a stream is its
beginning: the id that a client is given before anything has happened.

Written is not received: a POST's stream is kept for a while after its end, also when all of it seems to have
reached the client.
"""

import itertools
import re
import secrets
from collections import deque
from typing import Final, NamedTuple

from ..aio import Signal
from ..bounds import KEPT_STREAM_BYTES, KEPT_STREAMS, UNREAD_BYTES, UNREAD_EVENTS
from ..memory import UNBOUNDED, Share
from .contention import Contention

STANDALONE: Final = 0
_SCAN: Final = 64
_EVENT_ID: Final = re.compile(r"([0-9a-f]{6})-([0-9]{1,9})-([0-9]+)")


class StoredEvent(NamedTuple):
    """One event and its number in its stream."""

    number: int
    data: bytes


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
            stream.drop()
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
            next(iter(self._reached)).drop()
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

    ``mailbox`` is where it can be found, under its ``number``, until it is dropped.
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
        "_mailbox",
        "_next",
        "_number",
        "_prefix",
        "closed",
        "reached_at",
        "taken",
    )

    def __init__(
        self,
        prefix: str,
        budget: EventBudget,
        *,
        mailbox: "Mailbox | None" = None,
        number: int = STANDALONE,
    ) -> None:
        self._prefix = prefix
        self._budget = budget
        self._counts = True  # what it keeps is counted in the budget
        self._mailbox = mailbox
        self._number = number
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._next = 1
        self._followers = 0
        self._current = 0
        self._contention: Contention | None = None
        self._displaced: dict[int, float] = {}
        self._changed = Signal()
        self.taken = 0  # the number of the newest event that was given to a follower
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
        return self.event_id(number)

    def _drop_oldest(self) -> None:
        data = self._events.popleft().data
        self._bytes -= len(data)
        if self._counts:
            self._budget.take(data)

    @property
    def kept_bytes(self) -> int:
        """What is kept, the copies that other streams keep as well among it."""
        return self._bytes

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
        if self._counts:
            self._counts = False
            for event in self._events:
                self._budget.take(event.data)
            self._budget.remove(self)
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.streams.pop(self._number, None)

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


class Mailbox:
    """The streams of one client session."""

    __slots__ = ("_budget", "_next", "_nonce", "streams")

    def __init__(self, budget: EventBudget) -> None:
        self._budget = budget
        # Ids from before a restart must not be taken for ours.
        self._nonce = secrets.token_hex(3)
        self._next = STANDALONE
        self.streams: dict[int, Stream] = {}
        self.open()

    @property
    def standalone(self) -> Stream:
        """The stream of the client's GET."""
        return self.streams[STANDALONE]

    def open(self) -> Stream:
        """A new stream; when there are too many, the POST stream worth least goes, the oldest of them."""
        number = self._next
        self._next += 1
        if len(self.streams) >= KEPT_STREAMS:
            posts = [stream for kept, stream in self.streams.items() if kept != STANDALONE]
            gone = min(posts, key=lambda stream: stream.worth)
            gone.close()
            gone.drop()
        prefix = f"{self._nonce}-{number}"
        # The standalone one goes with the mailbox only.
        home = None if number == STANDALONE else self
        stream = Stream(prefix, self._budget, mailbox=home, number=number)
        self.streams[number] = stream
        return stream

    def find(self, event_id: str) -> tuple[Stream, int] | None:
        """The stream that a ``Last-Event-ID`` names and where to go on in it; None where it names nothing
        that could go on. No id at all names the standalone stream, behind what was taken of it.

        MCP 2025-11-25, basic/transports, "Resumability and Redelivery": what is replayed must be of the very
        stream that was cut, for a message is sent on one stream only. So an id has three parts. The first is
        drawn anew for each mailbox: after a restart the same numbers mean other messages, and a client that
        missed something must not be given something else for it. The second is the stream's; a stream of a
        POST that is gone, or has ended with nothing behind that place, is not replaced by another one. The
        third is where to go on. The client may name an event that it has read or, cut off in the middle, one
        before what we believe it has: it is right, since written is not received.

        The one exception is a standalone stream from before a restart. To its client it is the same one, and
        clients that are refused it never open it again; it goes on behind what was taken of ours.
        """
        if not event_id:
            return self.standalone, self.standalone.taken
        parts = _EVENT_ID.fullmatch(event_id)
        if parts is None:
            return None
        # The last number is cut where no stream ever gets to: Python refuses to read thousands of digits.
        nonce, number, event = parts[1], int(parts[2]), int(parts[3][:18])
        if number == STANDALONE:
            stream = self.standalone
            return stream, stream.begins_after(event) if nonce == self._nonce else stream.taken
        post = self.streams.get(number) if nonce == self._nonce else None
        if post is None or (post.closed and not post.after(event)):
            return None
        return post, post.begins_after(event)

    def close(self) -> None:
        """End all streams."""
        for stream in list(self.streams.values()):
            stream.close()
            stream.drop()
