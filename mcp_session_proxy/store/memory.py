"""The engine whose store is the memory of its process: what the other engines do, in the plainest way."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from .engine import Claimed, ClaimOutcome, Fenced, RecordPlace, StoredMember, StoredShard


class _Beat(msgspec.Struct):
    card: bytes
    until: float
    reserved: int


class _Shard(msgspec.Struct):
    owner: str | None = None
    fence: int = 0
    until: float = 0.0  # when it is forgotten if nobody owns it
    records: dict[RecordPlace, bytes] = msgspec.field(default_factory=dict)


class MemoryEngine:
    """Implements ``engine.Engine``. ``now`` is a clock that never goes back."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or asyncio.get_running_loop().time
        self._leases: dict[str, _Beat] = {}
        self._shards: dict[str, _Shard] = {}
        self._news = 0

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        """See ``Engine.beat``."""
        known = self._lives(member)
        self._end_leases()
        self._news += not known or self._leases[member].card != card
        self._leases[member] = _Beat(card, self._now() + ttl_seconds, reserved)
        self._sweep()
        return known

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """See ``Engine.claim``."""
        if not self._lives(member):
            return Claimed(ClaimOutcome.NO_LEASE, None, 0)
        stored = self._shards.setdefault(shard, _Shard())
        if stored.owner == member:
            return Claimed(ClaimOutcome.MINE, member, stored.fence)
        if stored.owner is not None and self._lives(stored.owner):
            left = self._leases[stored.owner].until - self._now()
            return Claimed(ClaimOutcome.OWNED, stored.owner, stored.fence, left)
        stored.owner, stored.fence = member, max(stored.fence, min_fence) + 1
        stored.until = self._now() + ttl_seconds
        return Claimed(ClaimOutcome.TAKEN, member, stored.fence, records=dict(stored.records))

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        """See ``Engine.write``."""
        stored = self._shards.get(shard, _Shard())
        if (stored.owner, stored.fence) != (member, fence):
            return Fenced(False, stored.owner, stored.fence)
        for place, value in changes.items():
            if value is None:
                stored.records.pop(place, None)
            else:
                stored.records[place] = value
        stored.until = self._now() + ttl_seconds
        return Fenced(True, member, fence)

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """See ``Engine.release``."""
        stored = self._shards.get(shard, _Shard())
        if (stored.owner, stored.fence) != (member, fence) or (to is not None and not self._lives(to)):
            return Fenced(False, stored.owner, stored.fence)
        stored.owner, stored.fence = to, fence + 1
        return Fenced(True, to, stored.fence)

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        """See ``Engine.reserve``."""
        others = sum(
            lease.reserved for name, lease in self._leases.items() if name != member and self._lives(name)
        )
        given = max(0, min(wanted, most - others))
        if self._lives(member):
            self._leases[member].reserved = given
        return given

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """See ``Engine.load``."""
        return dict(self._shards[shard].records) if shard in self._shards else {}

    async def shards(self) -> Sequence[StoredShard]:
        """See ``Engine.shards``."""
        return [
            StoredShard(shard, self._living(stored.owner), stored.fence)
            for shard, stored in sorted(self._shards.items())
        ]

    async def members(self) -> Sequence[StoredMember]:
        """See ``Engine.members``."""
        now = self._now()
        return [
            StoredMember(member, lease.card, lease.until - now)
            for member, lease in sorted(self._leases.items())
            if lease.until > now
        ]

    async def bury(self, member: str, card: bytes) -> bool:
        """See ``Engine.bury``."""
        lease = self._leases.get(member)
        if lease is None or lease.card != card:
            return False
        del self._leases[member]
        self._news += 1
        return True

    async def news(self) -> int:
        """See ``Engine.news``."""
        return self._news

    async def leave(self, member: str) -> None:
        """See ``Engine.leave``."""
        self._news += self._leases.pop(member, None) is not None
        for stored in self._shards.values():
            if stored.owner == member:
                stored.owner = None

    # -- inside ------------------------------------------------------------------------------------

    def _lives(self, member: str) -> bool:
        lease = self._leases.get(member)
        return lease is not None and lease.until > self._now()

    def _living(self, owner: str | None) -> str | None:
        return owner if owner is not None and self._lives(owner) else None

    def _sweep(self) -> None:
        """Forget the shards that nobody has owned for their time."""
        now = self._now()
        for shard, stored in list(self._shards.items()):
            if self._living(stored.owner) is None and stored.until <= now:
                del self._shards[shard]

    def _end_leases(self) -> None:
        # Only leases are dropped: a member without one owns its shards until another one claims them.
        now, before = self._now(), len(self._leases)
        self._leases = {member: lease for member, lease in self._leases.items() if lease.until > now}
        self._news += len(self._leases) != before
