"""A caller that two members have served: what the one that has lost it has of it goes to its owner.

A store that fails over may lose what it has acknowledged, and who has served without the store has what was
never written there. The sessions of both become one caller's: those of its clients who come to them, and
further free ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import msgspec

from ..aio import Tasks
from ..bounds import PEER_BODY_BYTES
from ..store.engine import RecordPlace, StoreFailure
from .outcomes import PeerFailure
from .shards import HeldShard, Shards

Records = Mapping[RecordPlace, bytes]
# Has a member take in records of a shard that was served under a fence; gives whether it has.
Send = Callable[[str, "LeftRecords"], Awaitable[bool]]

# Who has lost many callers at once gives away what it has of so many at a time.
_AT_ONCE: Final = 8
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 1.0
# Beside the bytes of a record there is its name.
_MOST_BYTES: Final = PEER_BODY_BYTES * 3 // 4


class LeftRecords(msgspec.Struct, frozen=True):
    """Records of a shard, sealed as they would be stored, and the fence under which they were made."""

    shard: str
    fence: int
    records: list[tuple[str, str, bytes]]


def write_records(left: LeftRecords) -> bytes:
    """The same as bytes."""
    return msgspec.msgpack.encode(left)


def read_records(data: bytes) -> LeftRecords | None:
    """What was written so; None if it is something else."""
    try:
        return msgspec.msgpack.decode(data, type=LeftRecords)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class Merging:
    """Gives away what is left of shards that were lost, and takes in what others have left."""

    def __init__(self, shards: Shards, send: Send) -> None:
        self._shards = shards
        self._send = send
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks = Tasks()
        shards.on_lost.append(self.give)

    def give(self, shard: str, fence: int, records: Records) -> None:
        """A shard was lost of which there are these records here: its owner gets what it does not have."""
        if records:
            self._tasks.spawn(self._give(shard, fence, records), "merge")

    async def take(self, left: LeftRecords) -> bool:
        """Take in what another member has left; gives whether the shard is here. Raises StoreFailure."""
        records = {RecordPlace(kind, name): data for kind, name, data in left.records}
        return isinstance(await self._shards.merge(left.shard, left.fence, records), HeldShard)

    async def _give(self, shard: str, fence: int, records: Records) -> None:
        async with self._turns:
            for _ in range(_TRIES):
                try:
                    if await self._try(shard, fence, records):
                        return
                except (StoreFailure, PeerFailure):
                    pass  # what cannot be given away ends with the server's own time-out
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _try(self, shard: str, fence: int, records: Records) -> bool:
        # Nearly always the owner has it all: it has gone on with what is stored.
        known = await self._shards.membership.load(shard)
        missing = {place: data for place, data in records.items() if place not in known}
        if not missing:
            return True
        place = await self._shards.find(shard)
        for part in _parts(missing):
            left = LeftRecords(shard, fence, part)
            taken = await (self.take(left) if isinstance(place, HeldShard) else self._send(place, left))
            if not taken:
                return False
        return True

    def close(self) -> None:
        """Give nothing away any more."""
        self._tasks.cancel()


def _parts(records: Records) -> Iterator[list[tuple[str, str, bytes]]]:
    """All that fit, in parts that members take from each other; sessions before those who had them."""
    part: list[tuple[str, str, bytes]] = []
    size = 0
    for (kind, name), data in sorted(records.items(), key=lambda item: item[0].kind, reverse=True):
        if len(data) > _MOST_BYTES:
            continue
        if size + len(data) > _MOST_BYTES:
            yield part
            part, size = [], 0
        part.append((kind, name, data))
        size += len(data)
    if part:
        yield part
