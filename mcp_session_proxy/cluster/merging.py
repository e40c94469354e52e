"""Two members have served one caller: the one that has lost its shard gives its records to the owner.

That happens when a store fails over and loses what it has acknowledged, or when a member has served without
the store. The owner then has the sessions of both: client sessions keep theirs, and the others are free for
the caller's next requests.
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
# Asks a member to take in records that were left; gives whether it has taken them.
Send = Callable[[str, "LeftRecords"], Awaitable[bool]]

# Of so many shards at a time records are given away, for a member may lose many at once.
_AT_ONCE: Final = 8
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 1.0
# The names of the records need room, too.
_MOST_BYTES: Final = PEER_BODY_BYTES * 3 // 4


class LeftRecords(msgspec.Struct, frozen=True):
    """Records of a shard that its former owner has left, sealed as in the store.

    ``fence`` is the one under which they were made. ``records`` have kind, name and value.
    """

    shard: str
    fence: int
    records: list[tuple[str, str, bytes]]


def write_records(left: LeftRecords) -> bytes:
    """Records that were left, as bytes (MessagePack)."""
    return msgspec.msgpack.encode(left)


def read_records(data: bytes) -> LeftRecords | None:
    """What ``write_records`` has written; None if the bytes are something else."""
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
        """Give the owner of a shard that was lost those of these records that the store does not have."""
        if records:
            self._tasks.spawn(self._give(shard, fence, records), "merge")

    async def take(self, left: LeftRecords) -> bool:
        """Take in records that another member has left; gives whether they were taken.

        They are not if the shard is not here.

        Raises:
            StoreFailure: nothing was taken in.
        """
        records = {RecordPlace(kind, name): data for kind, name, data in left.records}
        return isinstance(await self._shards.merge(left.shard, left.fence, records), HeldShard)

    async def _give(self, shard: str, fence: int, records: Records) -> None:
        async with self._turns:
            for _ in range(_TRIES):
                try:
                    if await self._try(shard, fence, records):
                        return
                except (StoreFailure, PeerFailure):
                    pass  # sessions that cannot be given away end by their server's own timeout
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _try(self, shard: str, fence: int, records: Records) -> bool:
        # Nearly always nothing is missing: the owner has gone on with what is stored.
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
        """Stop giving records away."""
        self._tasks.cancel()


def _parts(records: Records) -> Iterator[list[tuple[str, str, bytes]]]:
    """The records, in parts of a size that members take; upstream sessions come before client sessions.

    A record that is too large by itself is left out.
    """
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
