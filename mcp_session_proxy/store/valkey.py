"""The engine for several machines: a Valkey, or a Redis from 6.2 on, that all of them reach.

Every verb is one script there (``valkey_scripts``), or one command that reads. All keys begin alike, with the
cluster's name in braces, so that they are in one hash slot. They hold names of members, shards and records,
which are keyed hashes or random, and values that are sealed by whoever writes them.

    leases   members, by when their leases end     until    shards, by when nobody needs them any more
    cards    what each of them tells of itself,    o:SHARD  its owner (m), fence (f), how long it is kept (t)
    reserved how many sessions each has            s:SHARD  its records, by KIND/NAME
    common   what all members have in common       e:PLACE  events of one stream of one client
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from . import valkey_scripts as scripts
from .address import StoreAddress
from .engine import Claimed, ClaimOutcome, Fenced, RecordPlace, StoredMember, StoredShard
from .sealing import Keys, Unsealed
from .valkey_events import ValkeyEvents
from .valkey_line import TIMEOUT_SECONDS, Line, Store
from .valkey_scripts import Script

_OUTCOMES: Final = {
    -1: ClaimOutcome.NO_LEASE,
    0: ClaimOutcome.OWNED,
    1: ClaimOutcome.MINE,
    2: ClaimOutcome.TAKEN,
}
# How many shards are asked about at once.
_PAGE: Final = 500


class ValkeyEngine:
    """Implements ``engine.Engine`` for the cluster that is called ``namespace``.

    Once there are ``keys``, cards are sealed: nobody who can merely write to the store may say where a member
    is reached. A card that cannot be opened is left out. ``now`` gives seconds in place of the store's own
    clock, for tests.
    """

    def __init__(
        self,
        address: StoreAddress,
        namespace: str,
        *,
        now: Callable[[], float] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        store = Store(address, timeout_seconds)
        self._now = now
        self._prefix = prefix = f"msp:{{{namespace}}}:"
        self._leases, self._cards = prefix + "leases", prefix + "cards"
        self._reserved, self._until, self._common = prefix + "reserved", prefix + "until", prefix + "common"
        # On lines of their own, because a beat must not wait for anything else.
        self._writing, self._asking, self._beating = Line(store), Line(store), Line(store)
        self._in_common = b""
        self.keys: Keys | None = None
        self.events = ValkeyEvents(Line(store), prefix)
        self._own_card = b"", b""  # the newest one, and how that lies in the store
        self._claimed: dict[
            str, tuple[str, int]
        ] = {}  # by member, what it has claimed last; under which fence
        self._seen: dict[str, tuple[bytes, bytes]] = {}  # each member's card, and how that lies in the store

    async def close(self) -> None:
        """Close all connections."""
        lines = (self._writing, self._asking, self._beating, self.events)
        await asyncio.gather(*(line.close() for line in lines))

    async def agree(self, offered: bytes, instead_of: bytes = b"") -> bytes:
        """Store ``offered`` as what all members have in common, if there is nothing yet or ``instead_of``.

        Gives what is there then. It is kept as long as anything else is.

        Raises:
            StoreFailure: it is not known.
        """
        found: bytes = await self._run(
            self._asking, scripts.COMMON, [self._common], [offered, instead_of], timed=False
        )
        self._in_common = found
        return found

    # -- the verbs ---------------------------------------------------------------------------------

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        """See ``Engine.beat``."""
        keys = [self._leases, self._cards, self._reserved, self._until, self._common]
        if self.keys is not None:
            # A card that has not changed is not sealed anew, so that the store sees that it is the same.
            if self._own_card[0] != card:
                self._own_card = card, self.keys.seal(_card_place(member), card)
            card = self._own_card[1]
        claimed = self._claimed.get(member, ("", 0))
        args = [member, card, _ms(ttl_seconds), reserved, self._prefix, random.random(), self._in_common]
        known = bool(await self._run(self._beating, scripts.BEAT, keys, [*args, *claimed]))
        if not known and self._claimed.get(member) == claimed:
            del self._claimed[member]  # so that a loss is told once
        return known

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """See ``Engine.claim``."""
        args = [member, shard, _ms(ttl_seconds), min_fence]
        found = await self._run(self._asking, scripts.CLAIM, self._keys_of(shard), args)
        outcome, owner, fence, left, *records = found
        if _OUTCOMES[outcome] is ClaimOutcome.TAKEN:
            self._claimed[member] = (shard, fence)
        return Claimed(
            _OUTCOMES[outcome],
            owner.decode() or None,
            fence,
            left / 1000,
            _records(records[0]) if records else {},
        )

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        """See ``Engine.write``."""
        stored = [
            part for place, value in changes.items() if value is not None for part in (_field(place), value)
        ]
        dropped = [_field(place) for place, value in changes.items() if value is None]
        args = [member, shard, fence, _ms(ttl_seconds), len(stored) // 2, *stored, *dropped]
        return _fenced(await self._run(self._writing, scripts.WRITE, self._keys_of(shard), args))

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """See ``Engine.release``."""
        keys = [self._leases, self._owner(shard)]
        if member in self._claimed and self._claimed[member][0] == shard:
            del self._claimed[member]  # it may be forgotten from now on
        return _fenced(await self._run(self._writing, scripts.RELEASE, keys, [member, fence, to or ""]))

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        """See ``Engine.reserve``."""
        keys = [self._leases, self._reserved]
        given: int = await self._run(self._asking, scripts.RESERVE, keys, [member, wanted, most])
        return given

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """See ``Engine.load``."""
        (found,) = await self._asking.ask(("HGETALL", f"{self._prefix}s:{shard}"))
        return _records(found)

    async def shards(self) -> Sequence[StoredShard]:
        """See ``Engine.shards``."""
        living = {each.member for each in await self.members()}
        (found,) = await self._asking.ask(("ZRANGE", self._until, 0, -1))
        names = sorted(name.decode() for name in found)
        shards = []
        for page in _pages(names):
            owned = await self._asking.ask(*(("HMGET", self._owner(shard), "m", "f") for shard in page))
            for shard, (owner, fence) in zip(page, owned, strict=True):
                if fence is not None:
                    name = None if owner is None else owner.decode()
                    shards.append(StoredShard(shard, name if name in living else None, int(fence)))
        return shards

    async def members(self) -> Sequence[StoredMember]:
        """See ``Engine.members``."""
        found = await self._run(self._asking, scripts.MEMBERS, [self._leases, self._cards], [])
        parts, members, self._seen = iter(found), [], {}
        for name, stored, left in zip(parts, parts, parts, strict=True):
            member = name.decode()
            card = self._open_card(member, stored)
            if card is not None:
                self._seen[member] = card, stored
                members.append(StoredMember(member, card, left / 1000))
        return sorted(members)

    def _open_card(self, member: str, stored: bytes) -> bytes | None:
        if self.keys is None:
            return stored
        try:
            return self.keys.open(_card_place(member), stored)
        except Unsealed:
            return None

    async def news(self) -> int:
        """See ``Engine.news``."""
        (found,) = await self._asking.ask(("HGET", self._cards, "/news"))
        return 0 if found is None else int(found)

    async def bury(self, member: str, card: bytes) -> bool:
        """See ``Engine.bury``."""
        keys = [self._leases, self._cards, self._reserved]
        if self.keys is not None:
            seen, stored = self._seen.get(member, (b"", b""))
            card = stored if seen == card else card
        return bool(await self._run(self._beating, scripts.BURY, keys, [member, card], timed=False))

    async def leave(self, member: str) -> None:
        """See ``Engine.leave``."""
        self._claimed.pop(member, None)
        keys = [self._leases, self._cards, self._reserved, self._until, self._common]
        await self._run(self._beating, scripts.LEAVE, keys, [member], timed=False)

    # -- inside ------------------------------------------------------------------------------------

    def _owner(self, shard: str) -> str:
        return f"{self._prefix}o:{shard}"

    def _keys_of(self, shard: str) -> list[str]:
        return [self._leases, self._owner(shard), f"{self._prefix}s:{shard}", self._until, self._common]

    async def _run(
        self, line: Line, script: Script, keys: Sequence[str], args: Sequence[Any], *, timed: bool = True
    ) -> Any:
        if timed:
            args = ["" if self._now is None else _ms(self._now()), *args]
        return await line.run(script, keys, args)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _card_place(member: str) -> str:
    return f"card/{member}"


def _field(place: RecordPlace) -> str:
    return f"{place.kind}/{place.name}"


def _records(found: Sequence[bytes]) -> Mapping[RecordPlace, bytes]:
    return {
        RecordPlace(*name.decode().split("/", 1)): value
        for name, value in zip(found[::2], found[1::2], strict=True)
    }


def _fenced(answer: Any) -> Fenced:
    done, owner, fence = answer
    return Fenced(bool(done), owner.decode() or None, fence)


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _PAGE):
        yield names[first : first + _PAGE]
