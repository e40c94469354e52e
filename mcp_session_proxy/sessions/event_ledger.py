"""Keeps in an event store what mailboxes hold: written behind the work, read when a client comes back for
what memory does not have.

Nothing waits here but that client, and it a second at most. What is to be written is noted as the stream
itself: a store that is slow or away costs no memory but these notes, and what a mailbox lets go of meanwhile
is not kept. Events are sealed, each for its place.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

import msgspec

from .. import events as told
from ..aio import all_of
from ..bounds import KEPT_STREAM_BYTES
from ..errors import OutcomeUnknown, ProxyError
from ..events import Observer
from ..protocol import jsonrpc
from ..protocol.jsonrpc import Response
from ..store.engine import StoreFailure
from ..store.events import EventStore
from ..store.sealing import Keys, Unsealed
from .event_room import EventRoom
from .kept_stream import Keeping, StoredEvent, Stream
from .mailbox import Mailbox, Missing
from .store_trouble import StoreTrouble

# The first of a stream of a POST: the ids of its requests. Real ones begin behind it.
_ASKED: Final = 0
_READ_SECONDS: Final = 1.0
_WRITE_SECONDS: Final = 5.0
_SETTLE_SECONDS: Final = 0.5
_AT_ONCE: Final = 16
# Places that are to be forgotten while the store is away; the others end by themselves.
_GONE: Final = 10_000

T = TypeVar("T")


class EventRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many events are kept for each stream, and for how long the end of a POST's stream is. In the event
    store, for how long after the last of them, and how much of one process.
    """

    max_events: int
    linger_seconds: float
    ttl_seconds: float = 600.0
    store_bytes: int = 1 << 30


class EventLedger:
    """Writes to and reads from a ``store``. ``rules`` may be replaced at any time."""

    def __init__(self, store: EventStore, keys: Keys, rules: EventRules, observe: Observer) -> None:
        self.rules = rules
        self._store = store
        self._keys = keys
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._notes: dict[Stream, None] = {}
        self._in_hand: dict[Stream, None] = {}  # those of them that are being written
        self._gone: dict[str, None] = {}
        self._room = EventRoom()
        self._noted = asyncio.Event()
        self._turn = asyncio.Lock()
        self._trouble = StoreTrouble(observe)

    @property
    def pending(self) -> int:
        """How many streams have something to be written."""
        return len(self._notes.keys() | self._in_hand.keys())

    def keeping(self, principal: str, identifier: str) -> Keeping:
        """How the mailbox of this principal's client session is kept."""
        return Keeping(f"{principal}/{self._keys.name_of(identifier)}", self._note, self._drop)

    # -- notes -------------------------------------------------------------------------------------

    def _note(self, stream: Stream) -> None:
        self._notes[stream] = None
        self._noted.set()

    def _drop(self, stream: Stream) -> None:
        self._notes.pop(stream, None)
        if stream.copy is not None and len(self._gone) < _GONE:
            self._gone[stream.copy.place] = None
            self._noted.set()

    # -- writing -----------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Write what is noted, until this is cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(self._trouble.pause_seconds)
            await self.flush()

    async def finish(self) -> None:
        """Write what there is: the process is about to end. It is not waited for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WRITE_SECONDS):
                await self.flush()

    async def settle(self) -> bool:
        """Write what there is, unless that takes its time: somebody waits. Gives False if it does, and all of
        it is to be tried again; a store that fails is not waited for.
        """
        if not (self._notes or self._turn.locked()) or self._trouble.lasts:
            return True
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self.flush()
        except TimeoutError:
            return self._trouble.lasts
        return True

    async def flush(self) -> None:
        """Write what is noted now. What cannot be written stays noted, also when this is cancelled."""
        async with self._turn:
            self._noted.clear()
            notes, self._notes = self._notes, {}
            gone, self._gone = self._gone, {}
            self._in_hand = notes
            try:
                for streams in _batches(notes):
                    await all_of(self._write(stream) for stream in streams)
                    for stream in streams:
                        del notes[stream]
                for place in self._room.make(self._now(), self.rules.store_bytes):
                    gone[place] = None
                for places in _batches(gone):
                    await all_of(self._erase(place) for place in places)
                    for place in places:
                        del gone[place]
                self._trouble.end()
            except StoreFailure as failure:
                self._trouble.begin(failure)
            finally:
                self._in_hand = {}
                # What was noted since is as good: what is to be written is looked for when it is written.
                self._notes = notes | self._notes
                self._gone |= dict(itertools.islice(gone.items(), _GONE - len(self._gone)))
                if self._notes or self._gone:
                    self._noted.set()

    async def _write(self, stream: Stream) -> None:
        rules, copy = self.rules, stream.copy
        if copy is None:
            return
        place, before = copy.place, copy.written
        events = stream.after(-1 if before is None else before)[-max(rules.max_events, 1) :]
        last = events[-1].number if events else before or _ASKED
        if before is None and copy.asked:
            events.insert(0, StoredEvent(_ASKED, jsonrpc.write_array(copy.asked)))
        if not events and before is None:
            return  # nothing but its time has changed, of what is not there
        # One that is larger than all that a stream may keep is for memory only.
        sealed = [
            (number, self._keys.seal(f"{place}/{number}", data))
            for number, data in events
            if len(data) <= KEPT_STREAM_BYTES
        ]
        # What was written to its end is kept in case that it did not arrive, and not for long.
        ttl_seconds = rules.ttl_seconds if stream.reached_at is None else rules.linger_seconds
        most = max(rules.max_events, 1) + bool(copy.asked)
        fit = self._room.fit(place, [len(data) for _, data in sealed], most)
        if ttl_seconds > 0:
            appended = self._store.append(place, sealed, fit.keep, ttl_seconds)
            await self._ask("append", _in_time(appended))
            self._room.put(place, fit, self._now() + ttl_seconds)
        else:
            await self._erase(place)
        copy.written = last

    async def _erase(self, place: str) -> None:
        self._room.remove(place)
        await self._ask("drop", _in_time(self._store.drop(place)))

    async def _ask(self, verb: str, answer: Awaitable[T]) -> T:
        began = self._now()
        try:
            result = await answer
        except StoreFailure:
            raise
        except TimeoutError as error:
            raise StoreFailure(f"the event store has not done {verb} in time") from error
        except Exception as error:  # it may be somebody else's code
            raise StoreFailure(f"the event store: {verb}: {type(error).__name__}: {error}") from error
        self._observe(told.StoreAsked(verb=verb, seconds=self._now() - began))
        return result

    # -- reading -----------------------------------------------------------------------------------

    async def fetch(self, mailbox: Mailbox, event_id: str) -> None:
        """Have in the mailbox what a ``Last-Event-ID`` asks for, as far as it is in the store."""
        missing = mailbox.missing(event_id)
        if missing is None:
            return
        asked, found = await self._read(missing)
        stream = mailbox.streams.get(missing.number)
        if stream is None and (asked or found):
            stream = mailbox.add_again(missing, asked, found[-1].number if found else 0)
            stream.put_back(found)
            # Whoever would have answered is gone.
            if mailbox.is_former(missing.number):
                for identifier in _unanswered(asked, found):
                    stream.append(jsonrpc.write_error(identifier, _lost()))
        elif stream is not None:
            stream.put_back(found)

    async def _read(self, missing: Missing) -> tuple[list[bytes], list[StoredEvent]]:
        """The ids of a stream's requests, and its events, in order; nothing where that fails."""
        place, after = missing.place, missing.after
        try:
            rows = await self._ask("after", _soon(self._store.after(place, after)))
        except StoreFailure as failure:
            self._trouble.begin(failure)
            self._noted.set()  # so that it is found out when it works again
            return [], []
        asked: list[bytes] = []
        found: list[StoredEvent] = []
        for number, sealed in sorted(dict(rows).items()):
            try:
                data = self._keys.open(f"{place}/{number}", sealed)
            except Unsealed:
                continue
            if number == _ASKED:
                asked = jsonrpc.read_array(data)
            elif number > after:
                found.append(StoredEvent(number, data))
        return asked, found


async def _in_time(answer: Awaitable[T]) -> T:
    """What is written, or TimeoutError."""
    async with asyncio.timeout(_WRITE_SECONDS):
        return await answer


async def _soon(answer: Awaitable[T]) -> T:
    """What is read, or TimeoutError: somebody waits for it.

    It is looked for twice, so that the time in which this process stood still is not the store's: what has
    come by then is there at the second look.
    """
    reading = asyncio.ensure_future(answer)
    try:
        for _ in range(2):
            await asyncio.wait([reading], timeout=_READ_SECONDS / 2)
            if reading.done():
                return reading.result()
        raise TimeoutError
    finally:
        reading.cancel()


def _batches(notes: Iterable[T]) -> Iterable[list[T]]:
    """What is written at the same time, of what is there now."""
    every = list(notes)
    return (every[start : start + _AT_ONCE] for start in range(0, len(every), _AT_ONCE))


def _unanswered(asked: Iterable[bytes], found: Iterable[StoredEvent]) -> list[bytes]:
    """The ids of requests to which no answer is among the events."""
    answered = set()
    for event in found:
        with contextlib.suppress(ProxyError):
            message = jsonrpc.parse_message(event.data)
            if isinstance(message, Response):
                answered.add(message.id)
    return [identifier for identifier in asked if identifier not in answered]


def _lost() -> OutcomeUnknown:
    return OutcomeUnknown(
        "The proxy was stopped while this was under way. It may have been executed, or may not."
    )
