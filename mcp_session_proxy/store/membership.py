"""One process as a member: its lease, and the shards that it owns."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from .clock import since_boot
from .doubt import Doubt
from .engine import Claimed, ClaimOutcome, Engine, RecordPlace, StoredMember, StoredShard, StoreFailure
from .fences import Fences

LEASE_SECONDS: Final = 5.0
# The part of a lease, from the sending of its beat on, in which a member is sure. The rest allows for clocks
# that run differently: the others wait until the end of the lease.
_SURE_PART: Final = 0.8
_BEATS_A_LEASE: Final = 5
_NEVER: Final = float("-inf")
# Verbs that succeed on a full disk, too, so that they do not show that the store is up.
_READING: Final = frozenset({"load", "shards", "members", "news"})

T = TypeVar("T")


class Membership:
    """Acts at the store in the name of ``member``. ``card`` gives what it tells of itself now.

    ``up`` is whether the store has done the last change that it was asked for. ``told`` is called with each
    verb that succeeds, and the seconds that it took. ``fenced`` counts the writes that were refused because
    another member owns the shard; ``on_fenced`` is called with such a shard and its owner. If the store has
    refused a write because it has lost the claim, ``on_forgotten`` is called with the shard.

    Until ``sure_until``, by the clock ``now``, no other member can own what this one owns.
    """

    def __init__(
        self,
        engine: Engine,
        member: str,
        *,
        card: Callable[[], bytes],
        told: Callable[[str, float], None] = lambda *_: None,
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], float] = since_boot,
    ) -> None:
        self.member = member
        self.up = True
        self.fenced = 0
        self.on_fenced: list[Callable[[str, str | None], None]] = []
        self.on_forgotten: list[Callable[[str], object]] = []
        self.sure_until = _NEVER
        self.reserved = 0
        self.lease_seconds = lease_seconds
        self.now = now
        self._engine = engine
        self._card = card
        self._told = told
        self.fences = Fences()
        self._owed: dict[str, int] = {}  # shards that were let go of, unknown to the store
        self.lapses = 0  # how often the lease had run out
        self._verified_lapses = 0
        self._beaten_at: float | None = None  # when the last beat was sent that the store took
        self._doubt = Doubt(now, lease_seconds)

    def __len__(self) -> int:
        return len(self.fences.owned)

    @property
    def owes(self) -> bool:
        """Whether a shard was let go of, and the store may not know it yet."""
        return bool(self._owed)

    # -- the lease ---------------------------------------------------------------------------------

    @property
    def beat_seconds(self) -> float:
        """The time between two beats."""
        return self.lease_seconds / _BEATS_A_LEASE

    async def beat(self) -> bool:
        """Renew the lease; gives False if it had run out, or if the store had forgotten it.

        Then other members may have taken what this one owned, and it is sure of nothing until ``trust``.

        Raises:
            StoreFailure: the lease was not renewed.
        """
        sent = self.now()
        first = self._beaten_at is None
        card = self._card()
        beating = self._engine.beat(self.member, card, self.lease_seconds, self.reserved)
        with self._doubt.beating():
            known = await self._ask("beat", beating)
            self._beaten_at = sent
            if not known and not first:
                self.lapses += 1
                self.sure_until = _NEVER
                self._doubt.begin()
        # The lease had run out earlier, and another call has beaten since, which has verified nothing.
        if self._verified_lapses != self.lapses:
            return False
        self.trust(self.lapses)
        return True

    def trust(self, lapses: int) -> None:
        """Note that what this member owns was verified after its lease had run out so many times."""
        self._verified_lapses = lapses
        if self._beaten_at is not None and lapses == self.lapses:
            self.sure_until = max(self.sure_until, self._beaten_at + _SURE_PART * self.lease_seconds)

    def assume(self, seconds: float) -> None:
        """Be sure for so long, though the store cannot be asked."""
        self.sure_until = self.now() + seconds

    @property
    def is_verified(self) -> bool:
        """Whether the lease has not run out since the last verification of what this member owns."""
        return self._verified_lapses == self.lapses

    @property
    def is_sure(self) -> bool:
        """Whether no other member can own now what this one owns."""
        return self.now() < self.sure_until

    @property
    def doubts_store(self) -> bool:
        """Whether the store may have forgotten who owns what; see ``Doubt``."""
        return bool(self._doubt)

    # -- shards ------------------------------------------------------------------------------------

    async def claim(self, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """Own a shard, if no other living member does. Raises StoreFailure."""
        claimed = await self.claim_if_alive(shard, ttl_seconds, min_fence)
        if claimed.outcome is ClaimOutcome.NO_LEASE:
            claimed = await self.claim_if_alive(shard, ttl_seconds, min_fence)
        return claimed

    async def claim_if_alive(self, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """Own a shard, if no other living member does, and if the store takes this member for alive.

        If it does not, the lease is renewed and nothing is claimed: a store that has forgotten this member
        may have forgotten the owner of the shard, too.

        Raises:
            StoreFailure: it is not known who owns it.
        """
        least = max(min_fence, self.fences.last(shard))
        claimed = await self._ask("claim", self._engine.claim(self.member, shard, ttl_seconds, least))
        if claimed.outcome is ClaimOutcome.NO_LEASE:
            # The store has forgotten it, or this process has stood still for longer than a lease.
            await self.beat()
            return claimed
        await self._doubt.hear_beats()
        self._owed.pop(shard, None)  # the store has said how it stands
        if claimed.owner == self.member:
            self.fences.own(shard, claimed.fence)
        else:
            self.fences.lose(shard)
        return claimed

    async def write(
        self, shard: str, changes: Mapping[RecordPlace, bytes | None], ttl_seconds: float
    ) -> bool:
        """Store records of a shard, which is claimed if it is not owned; gives whether they were stored.

        Raises:
            StoreFailure: nothing was written.
        """
        if shard not in self.fences.owned:
            await self.claim(shard, ttl_seconds)
        fence = self.fences.owned.get(shard)
        if fence is None:
            return False
        written = await self._ask(
            "write", self._engine.write(self.member, shard, fence, changes, ttl_seconds)
        )
        # If the shard was let go of or claimed anew meanwhile, the refusal says nothing of the present.
        if not written.done and self.fences.owned.get(shard) == fence:
            if written.fence < fence:
                self.fences.lose(shard)
                self._doubt.begin()
                for told_of in self.on_forgotten:
                    told_of(shard)
            # If this member owns it, it was claimed anew here, and the answer to that is still to come.
            elif written.owner != self.member:
                self.fences.lose(shard)
                self.fenced += 1
                for told in self.on_fenced:
                    told(shard, written.owner)
        return written.done

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """All records of a shard. Raises StoreFailure."""
        return await self._ask("load", self._engine.load(shard))

    async def release(self, shard: str) -> None:
        """Own a shard no longer. Its records stay for whoever claims it next.

        Raises:
            StoreFailure: the store may not know it yet; see ``settle``.
        """
        fence = self.fences.owned.pop(shard, None)
        if fence is not None:
            self._owed[shard] = fence
        await self.settle(shard)

    async def settle(self, shard: str) -> None:
        """Tell the store that a shard was let go of, if it may not know: until then no other can own it.

        Raises:
            StoreFailure: the store may still not know it.
        """
        fence = self._owed.get(shard)
        if fence is None:
            return
        await self._ask("release", self._engine.release(self.member, shard, fence))
        if self._owed.get(shard) == fence:
            del self._owed[shard]

    async def settle_all(self) -> None:
        """Settle all shards that were let go of. Raises StoreFailure: some of them are not settled."""
        for shard in list(self._owed):
            await self.settle(shard)

    async def let_go_if_empty(self, shard: str) -> None:
        """Let go of a shard that has no records left, and have the store forget it.

        Raises:
            StoreFailure: it may still be owned.
        """
        if shard in self.fences.owned and not await self.load(shard):
            # Nobody needs it any more, so it is kept for no time.
            await self.write(shard, {}, 0.0)
            await self.release(shard)

    def claim_stands(self, shard: str, fence: int) -> None:
        """Note that the store has this claim, though the shard was forgotten here since."""
        self.fences.own(shard, fence)

    def forget(self, shard: str) -> None:
        """Note that another member owns a shard."""
        self.fences.lose(shard)
        self._owed.pop(shard, None)

    async def shards(self) -> Sequence[StoredShard]:
        """All shards that there are. Raises StoreFailure."""
        return await self._ask("shards", self._engine.shards())

    # -- members -----------------------------------------------------------------------------------

    async def others(self) -> Sequence[StoredMember]:
        """All other members that are alive. Raises StoreFailure."""
        return [other for other in await self._members() if other.member != self.member]

    async def news(self) -> int:
        """A number that changes when a member comes, goes, or has another card. Raises StoreFailure."""
        return await self._ask("news", self._engine.news())

    async def lease_of(self, member: str) -> float | None:
        """How many seconds the lease of a member still lasts; None if it has none. Raises StoreFailure."""
        members = await self._members()
        return next((other.left_seconds for other in members if other.member == member), None)

    async def _members(self) -> Sequence[StoredMember]:
        members = await self._ask("members", self._engine.members())
        await self._doubt.hear_beats()
        if self._beaten_at is not None and all(each.member != self.member for each in members):
            self._doubt.begin()
        return members

    async def bury(self, other: StoredMember) -> None:
        """End the lease of a member that is known to be gone. Raises StoreFailure."""
        await self._ask("bury", self._engine.bury(other.member, other.card))

    async def reserve(self, wanted: int, most: int) -> int:
        """Reserve up to ``wanted`` sessions of ``most`` in all; gives how many were reserved.

        Raises:
            StoreFailure: what was reserved before stands.
        """
        self.reserved = await self._ask("reserve", self._engine.reserve(self.member, wanted, most))
        return self.reserved

    async def leave(self) -> None:
        """End the lease, and own nothing any more. Raises StoreFailure."""
        self.fences.owned.clear()
        self._owed.clear()
        await self._ask("leave", self._engine.leave(self.member))

    async def _ask(self, verb: str, answer: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            result = await answer
        except StoreFailure:
            self.up = False
            self._doubt.store_failed()
            raise
        self._doubt.store_answered()
        self.up = self.up or verb not in _READING
        self._told(verb, time.perf_counter() - began)
        return result
