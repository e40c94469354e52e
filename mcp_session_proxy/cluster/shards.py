"""Where each shard is: here, at another member, or with nobody until somebody claims it.

What is known is kept without a limit of time. What is here is certain as long as this member is *sure* of its
lease, which is a comparison; what is elsewhere is put right by whoever is asked there in vain.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Final, Protocol

from .. import events
from ..aio import Signal, Tasks, all_of
from ..bounds import KNOWN_PLACES
from ..events import Observer
from ..store.engine import Claimed, ClaimOutcome, RecordPlace, StoreFailure
from ..store.membership import Membership
from .lease import Served
from .members import Members
from .outlasting import Outlasting
from .rules import ClusterRules, StoreOutage

# How long a claim lives of which nothing has been written, if its owner goes.
_CLAIM_SECONDS: Final = 30.0
# How many shards are verified together: what comes together costs a store less than one after the other.
_AT_ONCE: Final = 32
# How long a claim may stand that is given back at once.
_PAUSE_SECONDS: Final = 0.1
# How often it is looked for shards of which nothing is left; those found so twice are let go of.
_TIDY_SECONDS: Final = 10.0
# How often some shards are verified that are sure: a store may lose what it has acknowledged.
_VERIFY_SECONDS: Final = 30.0
_SAMPLE: Final = 100
# How often it is looked for shards that nobody has come for, and how many of them are taken at a time.
# Whoever looks is told of every shard that there is, so as long as there is nothing to find, no more than so
# many members do so each time.
_ORPHANS_SECONDS: Final = 60.0
_ORPHANS: Final = 20
_WHO_LOOK: Final = 5


class Contents(Protocol):
    """What shards are made of. A protocol, because a simulation has none of it."""

    async def take(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> None:
        """Make of a shard's records what they tell of."""
        ...

    async def flush(self, shard: str) -> bool:
        """Write all that there is of a shard; gives whether that was done."""
        ...

    def records(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """All that there is of a shard, as it would be written."""
        ...

    def note(self, shard: str) -> None:
        """All that there is of a shard is to be written again."""
        ...

    def let_go(self, shard: str) -> None:
        """Have nothing of a shard any more, and say nothing of that to the server or the store."""
        ...

    def is_quiet(self, shard: str) -> bool:
        """Whether nothing of a shard is under way, or waits for its client."""
        ...

    def is_empty(self, shard: str) -> bool:
        """Whether there is nothing of a shard."""
        ...


class HeldShard:
    """A shard that is here. ``uses`` counts the requests that are being served, ``streams`` those that hear
    what may come; with ``fence`` 0 it was not claimed yet, because the store cannot be reached.
    """

    __slots__ = ("fence", "found_empty", "shard", "streams", "uses")

    def __init__(self, shard: str, fence: int) -> None:
        self.shard = shard
        self.fence = fence
        self.uses = 0
        self.streams = 0
        self.found_empty = False

    @contextlib.contextmanager
    def used_by(self, is_stream: bool) -> Iterator[None]:
        """A request is served meanwhile."""
        self.uses += not is_stream
        self.streams += is_stream
        try:
            yield
        finally:
            self.uses -= not is_stream
            self.streams -= is_stream

    def __repr__(self) -> str:
        return f"<HeldShard {self.shard[:8]} fence={self.fence} uses={self.uses}>"


class Shards:
    """All shards that this member knows of. ``rules`` may be replaced at any time.

    ``held`` are those that are here, ``elsewhere`` names the owners of others. Where the store cannot be
    asked, ``lease_left`` asks the other members for what is left of this one's lease (see ``Outlasting``),
    and ``who_has`` asks them for a shard. Where it may have forgotten who has one, ``who_serves`` asks them.
    """

    def __init__(
        self,
        membership: Membership,
        members: Members,
        contents: Contents,
        *,
        rules: ClusterRules,
        observe: Observer,
        lease_left: Callable[[], Awaitable[float | None]],
        who_has: Callable[[str], Awaitable[str | None]],
        who_serves: Callable[[str], Awaitable[Served]],
    ) -> None:
        self.rules = rules
        self.membership = membership
        self.members = members
        self.contents = contents
        self.held: dict[str, HeldShard] = {}
        self.elsewhere: dict[str, str] = {}
        self.draining = False
        self.released = Signal()
        # Told of a shard that somebody else owns, under which fence it was here, and what there was of it.
        self.on_lost: list[Callable[[str, int, Mapping[RecordPlace, bytes]], None]] = []
        self._observe = observe
        self._outlasting = Outlasting(membership, lease_left)
        self._who_has = who_has
        self._who_serves = who_serves
        self._busy: dict[str, asyncio.Task[Any]] = {}
        self._orphans: set[str] = set()
        self._tasks = Tasks()
        membership.on_fenced.append(self.lost)
        # The store has lost the claim to a shard that is here.
        membership.on_forgotten.append(
            lambda shard: self._tasks.spawn(self._verify_if_held(shard), "claim again")
        )

    @property
    def provisional(self) -> int:
        """How many are served though nobody could claim them."""
        return sum(not held.fence for held in self.held.values())

    # -- finding -----------------------------------------------------------------------------------

    async def find(self, shard: str) -> HeldShard | str:
        """Where a shard is, by the store: here from now on, or the member that owns it.

        All who ask at once share one question.

        Raises:
            StoreFailure: it cannot be asked.
        """
        found: HeldShard | str = await self._alone(shard, self._find)
        return found

    async def _alone(self, shard: str, work: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
        """Do something with a shard, once for all who want the same, and after what is done with it now."""
        while (task := self._busy.get(shard)) is not None and task.get_name() != work.__name__:
            await asyncio.wait([task])
        if task is None:
            task = self._busy[shard] = self._tasks.spawn(work(shard), work.__name__)
            task.add_done_callback(lambda done: self._done(shard, done))
        return await asyncio.shield(task)

    def _done(self, shard: str, task: asyncio.Task[Any]) -> None:
        if self._busy.get(shard) is task:
            del self._busy[shard]
        if not task.cancelled():
            task.exception()  # whoever waits has got it

    async def _find(self, shard: str) -> HeldShard | str:
        membership, held = self.membership, self.held.get(shard)
        claimed = await self._claim(shard, 0 if held is None else held.fence)
        if claimed.owner is None or claimed.owner != membership.member:
            if held is not None:
                self.lost(shard, claimed.owner)
            if claimed.owner is None:
                raise StoreFailure("the store does not take this member for alive")
            self._note(shard, claimed.owner)
            return claimed.owner
        if held is not None:
            if claimed.outcome is ClaimOutcome.MINE and held.fence == claimed.fence:
                return held
            if _is_all(held, claimed):
                # The store had forgotten it.
                held.fence = claimed.fence
                self.contents.note(shard)
                return held
            if held.fence:
                # Somebody has: what is here is older than what is written.
                self.lost(shard, membership.member)
                membership.claim_stands(shard, claimed.fence)
        # What was claimed by somebody else in this member's name, as who writes does, came without.
        records = claimed.records if claimed.outcome is ClaimOutcome.TAKEN else await membership.load(shard)
        if records:
            # A claim alone does not live for long, and they would go with it.
            await membership.write(shard, {}, self.rules.ttl_seconds)
        await self.contents.take(shard, claimed.fence, records)
        if held is not None and not held.fence:
            # It was served without the store. What others have left is there beside it now.
            held.fence = claimed.fence
            self.contents.note(shard)
            return held
        self.elsewhere.pop(shard, None)
        found = self.held[shard] = HeldShard(shard, claimed.fence)
        if records:
            self._observe(events.ShardTaken(fence=claimed.fence, records=len(records)))
        return found

    async def _claim(self, shard: str, fence: int) -> Claimed:
        """Claim a shard that is here under this fence, or is not, or without one (0). Raises StoreFailure."""
        membership = self.membership
        if fence:
            claimed = await membership.claim(shard, _CLAIM_SECONDS, fence)
            # Under a lower fence it was taken from a store that had forgotten it, perhaps to be given back.
            was_forgotten = claimed.outcome is ClaimOutcome.OWNED and claimed.fence <= fence
            if was_forgotten and (await self._who_serves(shard)).owner is None:
                await asyncio.sleep(_PAUSE_SECONDS)
                claimed = await membership.claim(shard, _CLAIM_SECONDS, fence)
            return claimed
        claimed = await self._claim_unless_served(shard)
        if claimed.outcome is ClaimOutcome.MINE:
            # It was let go of here, and nobody else has taken it. What was under way then has ids of that
            # fence, so what comes now needs another one.
            await membership.release(shard)
            claimed = await membership.claim(shard, _CLAIM_SECONDS)
        return claimed

    async def _claim_unless_served(self, shard: str) -> Claimed:
        """Claim a shard that was not claimed here before, unless another member says that it serves it.

        The others are asked only while the store may have forgotten that.

        Raises:
            StoreFailure: it cannot be asked, and nobody says so.
        """
        membership = self.membership
        doubted = membership.doubts_store
        if not doubted:
            claimed = await membership.claim_if_alive(shard, _CLAIM_SECONDS)
            if not membership.doubts_store:
                return claimed
            # It has turned out meanwhile.
            if claimed.outcome is ClaimOutcome.TAKEN:
                await membership.release(shard)
        served = await self._who_serves(shard)
        # Of two who serve it without a fence, the store decides.
        if served.owner is not None and (served.fence or shard not in self.held):
            return Claimed(ClaimOutcome.OWNED, served.owner, served.fence)
        return await membership.claim(shard, _CLAIM_SECONDS, served.fence)

    async def _verify_if_held(self, shard: str) -> None:
        if shard in self.held:
            with contextlib.suppress(StoreFailure):  # it is verified again soon
                await self.find(shard)

    def _note(self, shard: str, owner: str) -> None:
        self.elsewhere.pop(shard, None)
        if len(self.elsewhere) >= KNOWN_PLACES:
            del self.elsewhere[next(iter(self.elsewhere))]
        self.elsewhere[shard] = owner

    def correct(self, shard: str, wrong: str, owner: str | None) -> None:
        """A member has said that it is not the owner, and who is, if it knows."""
        if self.elsewhere.get(shard) == wrong:
            del self.elsewhere[shard]
        if owner is not None and owner not in (wrong, self.membership.member):
            self._note(shard, owner)

    async def find_without_store(self, shard: str) -> HeldShard | str:
        """Where a shard is, by the other members; here, for the time being, if nobody has it."""
        owner = await self._who_has(shard)
        held = self.held.get(shard)  # somebody may have found it meanwhile
        if held is not None:
            return held
        if owner is not None:
            self._note(shard, owner)
            return owner
        self.elsewhere.pop(shard, None)
        held = self.held[shard] = HeldShard(shard, 0)
        self._observe(events.ShardProvisional())
        return held

    async def settled(self, shard: str) -> HeldShard | None:
        """A shard once nothing is being done with it: it may be about to be let go of, or to stay."""
        while (task := self._busy.get(shard)) is not None:
            await asyncio.wait([task])
        return self.held.get(shard)

    # -- being sure --------------------------------------------------------------------------------

    async def verify(self, held: HeldShard) -> HeldShard | str:
        """Where a shard is that was here, when this member was sure of its lease last.

        Where nobody reaches the store: here, if the operator wants that (``--store-outage``).

        Raises:
            StoreFailure: it is not known, and that counts.
        """
        try:
            return await self.find(held.shard)
        except StoreFailure:
            if self.rules.outage is StoreOutage.REFUSE:
                raise
        if not await self._outlasting.is_alive() and not self.membership.is_sure:
            for shard in list(self.held):
                self.lost(shard)
            self._outlasting.assume()
        return self.held.get(held.shard) or await self.find_without_store(held.shard)

    async def keep(self) -> None:
        """Be alive, until this is cancelled: beat, and see what follows from that and from the time."""
        now = self.membership.now
        tidied = verified = looked = now()
        while True:
            await asyncio.sleep(self.membership.beat_seconds)
            try:
                if not await self.membership.beat():
                    await self._verify_all()
                elif self.provisional:
                    await self._verify_all([shard for shard, held in self.held.items() if not held.fence])
                await self.membership.settle_all()
                await self.members.look_for_news()
                if now() - tidied >= _TIDY_SECONDS:
                    tidied = now()
                    await self._tidy()
                if now() - verified >= _VERIFY_SECONDS:
                    verified = now()
                    await self._verify_some()
                if now() - looked >= self._orphans_seconds:
                    looked = now()
                    await self._adopt_orphans()
            except StoreFailure:
                # What could not be done is tried again with the next beat.
                if self.rules.outage is StoreOutage.SERVE:
                    self._outlasting.begin()
            except Exception as error:
                self._observe(events.Crashed(where="cluster", error=repr(error)))

    async def _verify_all(self, shards: list[str] | None = None) -> None:
        """The lease had run out, or the store was away: see which shards are still this member's own."""
        lapsed, lapses = shards is None, self.membership.lapses
        before = len(self.held)
        to_verify = list(self.held) if shards is None else shards
        for start in range(0, len(to_verify), _AT_ONCE):
            part = to_verify[start : start + _AT_ONCE]
            await all_of(self.find(shard) for shard in part if shard in self.held)
        if lapsed:
            self.membership.trust(lapses)
            self._observe(events.LeaseLapsed(shards=before, lost=before - len(self.held)))

    async def _verify_some(self) -> None:
        sample = list(self.held)[:_SAMPLE]
        for shard in sample:
            held = self.held.pop(shard, None)
            if held is not None:
                self.held[shard] = held  # the next sample has others
                await self.find(shard)

    # -- losing and letting go ---------------------------------------------------------------------

    def lost(self, shard: str, owner: str | None = None) -> None:
        """Somebody else owns it: nothing of it is here any more, but for what is under way.

        What the ``owner`` may not have of it is told to whoever wants to know.
        """
        held = self.held.pop(shard, None)
        if held is None:
            return
        left = self.contents.records(shard) if self.on_lost and owner is not None else {}
        self.membership.forget(shard)
        self.contents.let_go(shard)
        self._observe(events.ShardLost(uses=held.uses))
        for told in self.on_lost:
            told(shard, held.fence, left)

    async def merge(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> HeldShard | str:
        """Take in what somebody has of a shard who has served it under this fence, and has lost it; gives
        where it is, if that is not here.

        Raises:
            StoreFailure: nothing was taken in.
        """
        place = await self.find(shard)
        if isinstance(place, str):
            return place
        await self.settled(shard)
        merging = self._busy[shard] = self._tasks.spawn(self._merge(shard, fence, records), "merge")
        merging.add_done_callback(lambda done: self._done(shard, done))
        return await asyncio.shield(merging)

    async def _merge(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> HeldShard | str:
        membership, held = self.membership, self.held.get(shard)
        if held is None:
            raise StoreFailure("it has gone on to somebody else meanwhile")
        # What either has under way has ids of its own fence, so what comes now needs another one.
        await membership.release(shard)
        claimed = await membership.claim(shard, _CLAIM_SECONDS, max(held.fence, fence))
        if claimed.owner != membership.member:
            self.lost(shard, claimed.owner)
            raise StoreFailure("it has gone on to somebody else meanwhile")
        held.fence = claimed.fence
        await membership.write(shard, {}, self.rules.ttl_seconds)
        await self.contents.take(shard, claimed.fence, records)
        self.contents.note(shard)
        return held

    async def look_at(self, shard: str) -> None:
        """Something of a shard has gone: let go of it if that was the last. Raises StoreFailure."""
        if self._is_over(shard):
            await self._alone(shard, self._let_go)

    def _is_over(self, shard: str) -> bool:
        held = self.held.get(shard)
        if held is None or held.uses or held.streams:
            return False
        return self.contents.is_empty(shard)

    async def _let_go(self, shard: str) -> None:
        if self._is_over(shard):
            del self.held[shard]
            await self.membership.let_go_if_empty(shard)
            await self.membership.release(shard)

    async def _tidy(self) -> None:
        """Let go of shards of which there was nothing, now and the last time: anybody can make up callers."""
        for shard, held in list(self.held.items()):
            was_empty, held.found_empty = held.found_empty, self._is_over(shard)
            if was_empty and held.found_empty:
                await self._alone(shard, self._let_go)

    @property
    def _orphans_seconds(self) -> float:
        if self._orphans:
            return _ORPHANS_SECONDS
        return _ORPHANS_SECONDS * max(1.0, (1 + len(self.members)) / _WHO_LOOK)

    async def _adopt_orphans(self) -> None:
        """Take some shards that nobody has come for: what is idle in them has to end some day."""
        if self.draining:
            return
        ownerless = {stored.shard for stored in await self.membership.shards() if stored.owner is None}
        # Who has just let go of them, or died, may have callers that come to another member any moment.
        for shard in list(ownerless & self._orphans)[:_ORPHANS]:
            await self.find(shard)
        self._orphans = ownerless

    async def release(self, shard: str) -> bool:
        """Let another member have a shard, if nothing of it is under way; gives whether one can have it now.

        Raises:
            StoreFailure: it could not be written, and stays; or it has gone, and the store may not know yet.
        """
        if not _is_quiet(self.held.get(shard), self.contents):
            return False
        done: bool = await self._alone(shard, self._release)
        return done

    async def _release(self, shard: str) -> bool:
        # Somebody may have come while it was being verified.
        if not _is_quiet(self.held.get(shard), self.contents):
            return False
        held = self.held.pop(shard)
        try:
            written = await self.contents.flush(shard)
        except BaseException:
            self.held[shard] = held
            raise
        if not written:
            self.held[shard] = held
            return False
        self.contents.let_go(shard)
        self._observe(events.ShardReleased())
        try:
            await self.membership.release(shard)
        finally:
            self.released.give()
        return True

    def close(self) -> None:
        """Begin nothing any more."""
        self._tasks.cancel()
        self._outlasting.close()


def _is_quiet(held: HeldShard | None, contents: Contents) -> bool:
    """Whether nothing of a shard that is here is under way."""
    return held is not None and not held.uses and contents.is_quiet(held.shard)


def _is_all(held: HeldShard, claimed: Claimed) -> bool:
    """Whether nothing newer can be written than what is here: nobody has had the shard since, or only for a
    moment, by a claim to what the store had forgotten, which was given back.
    """
    if claimed.fence == held.fence + 1:
        return True
    is_given_back = held.fence > 0 and claimed.fence == held.fence + 2
    return is_given_back and claimed.outcome is ClaimOutcome.TAKEN and not claimed.records
