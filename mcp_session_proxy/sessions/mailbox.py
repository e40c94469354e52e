"""What is kept for the streams of one client session, so that a re-opened stream misses nothing.

A mailbox has numbered streams: 0 is the standalone GET stream, the others are POST responses that
became streams. Each keeps its newest events, within a bound, under ids by which the client can
continue (MCP 2025-11-25, basic/transports, "Resumability and Redelivery"). Number 0 of a stream is its
beginning: the id that a client is given before anything has happened.

Written is not received: a POST's stream is kept for a while after its end, also when all of it seems to have
reached the client.

What is here is in memory. Where an event store is, too (``event_ledger``), all of it is written there behind
the work, so that it outlives the process and what memory has no room for.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..bounds import KEPT_STREAMS
from .kept_stream import EventBudget, Keeping, Stream

STANDALONE: Final = 0
_EVENT_ID: Final = re.compile(r"([0-9a-f]{6})-([0-9]{1,18})-([0-9]+)")


class Missing(NamedTuple):
    """What is to be read from the event store: of which stream, where it lies, and behind which event.

    ``named`` is the event that its client has named.
    """

    number: int
    place: str
    after: int
    named: int


class Former(NamedTuple):
    """What a process before this one has left of a mailbox, and where it goes on.

    ``begins`` is a multiple of ``AGE``, above all of before. ``taken`` is the newest event of the standalone
    stream that was given to a follower, where that is known.
    """

    nonce: str
    begins: int
    taken: int | None = None


class Mailbox:
    """The streams of one client session."""

    __slots__ = ("_begins", "_budget", "_keeping", "_next", "nonce", "streams")

    def __init__(
        self, budget: EventBudget, keeping: Keeping | None = None, former: Former | None = None
    ) -> None:
        self._budget = budget
        self._keeping = keeping
        # Ids from before a restart must not be taken for ours, unless it is known where they lead to.
        self.nonce = secrets.token_hex(3) if former is None else former.nonce
        self._begins = 0 if former is None else former.begins
        self._next = self._begins + 1
        self.streams: dict[int, Stream] = {}
        # It goes with the mailbox only.
        prefix = f"{self.nonce}-{STANDALONE}"
        copy = None if keeping is None else keeping.copy(prefix)
        standalone = Stream(prefix, budget, begins=self._begins, copy=copy)
        self.streams[STANDALONE] = standalone
        if former is not None and former.taken is not None:
            standalone.taken = min(former.taken, self._begins)

    @property
    def standalone(self) -> Stream:
        """The stream of the client's GET."""
        return self.streams[STANDALONE]

    def open(self, asked: Sequence[bytes] = ()) -> Stream:
        """A new stream, of the answer to requests with these ids. When there are too many, the POST stream
        worth least goes, the oldest of them.
        """
        number = self._next
        self._next += 1
        stream = self._add(number, asked)
        # Its client is given the id of its beginning, and may come back before anything has happened.
        if stream.copy is not None:
            stream.copy.changed(stream)
        return stream

    def _add(self, number: int, asked: Sequence[bytes]) -> Stream:
        if len(self.streams) >= KEPT_STREAMS:
            posts = [stream for kept, stream in self.streams.items() if kept != STANDALONE]
            gone = min(posts, key=lambda stream: stream.worth)
            gone.close()
            gone.drop()
        prefix = f"{self.nonce}-{number}"
        copy = None if self._keeping is None else self._keeping.copy(prefix, asked)
        stream = Stream(prefix, self._budget, found_in=self.streams, number=number, copy=copy)
        self.streams[number] = stream
        return stream

    def missing(self, event_id: str) -> Missing | None:
        """What of a ``Last-Event-ID`` is not in memory, and may be in the event store; None if nothing."""
        place = self._place(event_id)
        if self._keeping is None or place is None:
            return None
        number, after = place
        where = f"{self._keeping.home}/{self.nonce}-{number}"
        stream = self.streams.get(number)
        if stream is None:
            # It is of an earlier process, or memory had no room for it.
            return Missing(number, where, -1, after) if number < self._next else None
        return Missing(number, where, after, after) if stream.lacks(after) else None

    def add_again(self, missing: Missing, asked: Sequence[bytes], last: int) -> Stream:
        """Have a stream again of which nothing was in memory, and which has ended with this event."""
        stream = self._add(missing.number, asked)
        # What comes behind a lost end must be behind what its client has seen of that.
        stream.end_at(max(last, missing.named) if self.is_former(missing.number) else last)
        return stream

    def is_former(self, number: int) -> bool:
        """Whether a stream is one of an earlier process."""
        return STANDALONE < number <= self._begins

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

        The one exception is a standalone stream from before a restart of which nothing was stored. To its
        client it is the same one, and clients that are refused it never open it again; it goes on behind what
        was taken of ours.
        """
        place = self._place(event_id)
        if place is None:
            return None
        number, after = place
        stream = self.streams.get(number)
        if stream is None or (number != STANDALONE and stream.closed and not stream.after(after)):
            return None
        return stream, stream.begins_after(after)

    def _place(self, event_id: str) -> tuple[int, int] | None:
        """The stream that an id names, and the event; None if it names nothing."""
        if not event_id:
            return STANDALONE, self.standalone.taken
        parts = _EVENT_ID.fullmatch(event_id)
        if parts is None:
            return None
        # The last number is cut where no stream ever gets to: Python refuses to read thousands of digits.
        nonce, number, event = parts[1], int(parts[2]), int(parts[3][:18])
        if nonce == self.nonce:
            return number, event
        return (STANDALONE, self.standalone.taken) if number == STANDALONE else None

    def note_anew(self) -> None:
        """The event store may have lost what it had: all that is in memory is to be written again."""
        for stream in self.streams.values():
            stream.note_anew()

    def close(self) -> None:
        """End all streams: nobody can come back to them."""
        for stream in list(self.streams.values()):
            stream.close()
            stream.drop()

    def part(self) -> None:
        """End all streams: somebody else goes on with them, or nobody (the proxy is shutting down)."""
        for stream in list(self.streams.values()):
            stream.close()
            stream.leave_memory()
