"""One process as a member: its lease, the shards that it owns, and how long the store takes."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from .engine import Claimed, ClaimOutcome, Engine, RecordPlace, StoredMember, StoredShard, StoreFailure

LEASE_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 1.0

T = TypeVar("T")


class Membership:
    """Acts at the store in the name of ``member``, whose ``card`` gives what it tells of itself now.

    ``up`` is whether the store did what it was asked to last; ``told`` hears of each verb and how long it
    took, in seconds. Who has lost a shard to another member knows it by ``fenced``, the count of writes that
    were refused for that.
    """

    def __init__(
        self,
        engine: Engine,
        member: str,
        *,
        card: Callable[[], bytes],
        told: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self.member = member
        self.up = True
        self.fenced = 0
        self._engine = engine
        self._card = card
        self._told = told
        self._fences: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._fences)

    async def beat(self) -> None:
        """Be alive for another while. Raises StoreFailure."""
        await self._ask("beat", self._engine.beat(self.member, self._card(), LEASE_SECONDS, 0))

    async def beat_on(self) -> None:
        """Be alive until this is cancelled. A store that fails is asked again."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(StoreFailure):
                await self.beat()

    async def claim(self, shard: str, ttl_seconds: float) -> Claimed:
        """Own a shard, if no other living member does. Raises StoreFailure."""
        claimed = await self._claim(shard, ttl_seconds)
        if claimed.outcome is ClaimOutcome.NO_LEASE:
            # The process, or its machine, stood still for longer than a lease lasts.
            await self.beat()
            claimed = await self._claim(shard, ttl_seconds)
        if claimed.owner == self.member:
            self._fences[shard] = claimed.fence
        else:
            self._fences.pop(shard, None)
        return claimed

    async def _claim(self, shard: str, ttl_seconds: float) -> Claimed:
        return await self._ask("claim", self._engine.claim(self.member, shard, ttl_seconds))

    async def write(
        self, shard: str, changes: Mapping[RecordPlace, bytes | None], ttl_seconds: float
    ) -> bool:
        """Store records of a shard, which is claimed if need be; gives whether this member owns it.

        Raises:
            StoreFailure: nothing was written.
        """
        if shard not in self._fences:
            await self.claim(shard, ttl_seconds)
        fence = self._fences.get(shard)
        if fence is None:
            return False
        written = await self._ask(
            "write", self._engine.write(self.member, shard, fence, changes, ttl_seconds)
        )
        if not written.done:
            self.fenced += 1
            del self._fences[shard]
        return written.done

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """All records of a shard. Raises StoreFailure."""
        return await self._ask("load", self._engine.load(shard))

    async def let_go_if_empty(self, shard: str) -> None:
        """Own a shard no longer that has no records left, so that it is forgotten: callers come and go.

        Raises:
            StoreFailure: it stays as it is.
        """
        fence = self._fences.get(shard)
        if fence is None or await self.load(shard):
            return
        # Its time is over from now on.
        await self.write(shard, {}, 0.0)
        self._fences.pop(shard, None)
        await self._ask("release", self._engine.release(self.member, shard, fence))

    async def shards(self) -> Sequence[StoredShard]:
        """All shards that there are. Raises StoreFailure."""
        return await self._ask("shards", self._engine.shards())

    async def others(self) -> Sequence[StoredMember]:
        """All other members that are alive. Raises StoreFailure."""
        members = await self._ask("members", self._engine.members())
        return [other for other in members if other.member != self.member]

    async def bury(self, other: StoredMember) -> None:
        """Another member is known to be gone. Raises StoreFailure."""
        await self._ask("bury", self._engine.bury(other.member, other.card))

    async def leave(self) -> None:
        """Own nothing any more. Raises StoreFailure."""
        self._fences.clear()
        await self._ask("leave", self._engine.leave(self.member))

    async def _ask(self, verb: str, answer: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            result = await answer
        except StoreFailure:
            self.up = False
            raise
        self.up = True
        self._told(verb, time.perf_counter() - began)
        return result
