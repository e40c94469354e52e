"""Where each shard is: here, at another member, or with nobody until a member claims it.

What is known of that has no limit of time. A shard that is held here is certain as long as this member is
*sure* of its lease, which takes one comparison. What is known of other members may be out of date: a member
that is sent a request of a shard which it does not have says so, and is no longer believed to own it.
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

# How long the store keeps a claim without records after its owner has gone.
_CLAIM_SECONDS: Final = 30.0
# How many shards are verified together: that costs a store less than one after the other.
_AT_ONCE: Final = 32
# How long a claim may stand that another member is about to give back.
_PAUSE_SECONDS: Final = 0.1
# The time between two looks for shards of which nothing is left. Those found empty twice are let go of.
_TIDY_SECONDS: Final = 10.0
# The time between two verifications of some shards though the member is sure of them: a store may lose what
# it has acknowledged.
_VERIFY_SECONDS: Final = 30.0
_SAMPLE: Final = 100
# The time between two looks for shards that nobody owns, and how many of them are taken at a time. A look
# lists every shard in the store. So while there is nothing to find, about so many members look in that time,
# however many there are.
_ORPHANS_SECONDS: Final = 60.0
_ORPHANS: Final = 20
_WHO_LOOK: Final = 5


class Contents(Protocol):
    """What belongs to shards in this process. It is a protocol because the simulation has nothing of it."""

    async def take(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> None:
        """Make sessions and tasks of a shard's records."""
        ...

    async def flush(self, shard: str) -> bool:
        """Write all that there is of a shard; gives whether all of it was written."""
        ...

    def records(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """All that there is of a shard, as it would be written."""
        ...

    def note(self, shard: str) -> None:
        """Note that all that there is of a shard is to be written again."""
        ...

    def let_go(self, shard: str) -> None:
        """Drop all that there is of a shard, without a word to the server or the store."""
        ...

    def is_quiet(self, shard: str) -> bool:
        """Whether nothing of a shard is under way, or waits for its client."""
        ...

    def is_empty(self, shard: str) -> bool:
        """Whether there is nothing of a shard."""
        ...


class HeldShard:
    """A shard that is here. ``uses`` counts the requests that are being served, and ``streams`` the open
    streams of what may come. ``fence`` is 0 until the shard ``is_claimed``.
    """

    __slots__ = ("fence", "found_empty", "shard", "streams", "uses")

    def __init__(self, shard: str, fence: int) -> None:
        self.shard = shard
        self.fence = fence
        self.uses = 0
        self.streams = 0
        self.found_empty = False

    @property
    def is_claimed(self) -> bool:
        """Whether it was claimed at the store.

        While the store cannot be reached, shards are served without.
        """
        return self.fence > 0

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
        return sum(not held.is_claimed for held in self.held.values())

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
        """Do ``work`` with a shard, once for all who want the same at a time.

        Nothing else is done with the shard meanwhile; what is being done with it now comes to its end first.
        The task is named after its work, which tells the same work from another.
        """
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
            task.exception()  # those who wait for the task have got it

    async def _find(self, shard: str) -> HeldShard | str:
        """Claim a shard, and compare what the store says of it with what is here. Raises StoreFailure."""
        membership, held = self.membership, self.held.get(shard)
        claimed = await self._claim(shard, 0 if held is None else held.fence)
        # 1. Another member owns it, or the store does not take this one for alive.
        if claimed.owner is None or claimed.owner != membership.member:
            if held is not None:
                self.lost(shard, claimed.owner)
            if claimed.owner is None:
                raise StoreFailure("the store does not take this member for alive")
            self._note(shard, claimed.owner)
            return claimed.owner
        if held is not None:
            # 2. It is here, as the store has it.
            if claimed.outcome is ClaimOutcome.MINE and held.fence == claimed.fence:
                return held
            # 3. It is here, and the store had forgotten it: all of it is written again.
            if _is_all(held, claimed):
                held.fence = claimed.fence
                self.contents.note(shard)
                return held
            # 4. Another member has had it since: what is here is older than what is written.
            if held.is_claimed:
                self.lost(shard, membership.member)
                membership.claim_stands(shard, claimed.fence)
        # 5. Its records become sessions. If the ledger has claimed it in order to write, they did not come
        # with the claim.
        records = claimed.records if claimed.outcome is ClaimOutcome.TAKEN else await membership.load(shard)
        if records:
            # A claim alone is kept for a short time only, and the records would be dropped with it.
            await membership.write(shard, {}, self.rules.ttl_seconds)
        await self.contents.take(shard, claimed.fence, records)
        if held is not None and not held.is_claimed:
            # It was served without the store: what was stored is here beside what has come since.
            held.fence = claimed.fence
            self.contents.note(shard)
            return held
        self.elsewhere.pop(shard, None)
        found = self.held[shard] = HeldShard(shard, claimed.fence)
        if records:
            self._observe(events.ShardTaken(fence=claimed.fence, records=len(records)))
        return found

    async def _claim(self, shard: str, fence: int) -> Claimed:
        """Claim a shard that is held here under this fence; 0 if it is not, or was never claimed.

        Raises:
            StoreFailure: it is not known who owns it.
        """
        membership = self.membership
        if fence:
            claimed = await membership.claim(shard, _CLAIM_SECONDS, fence)
            # A lower fence shows that the store had forgotten the shard when the other member claimed it. If
            # that does not serve it, it is about to give the claim back.
            was_forgotten = claimed.outcome is ClaimOutcome.OWNED and claimed.fence <= fence
            if was_forgotten and (await self._who_serves(shard)).owner is None:
                await asyncio.sleep(_PAUSE_SECONDS)
                claimed = await membership.claim(shard, _CLAIM_SECONDS, fence)
            return claimed
        claimed = await self._claim_unless_served(shard)
        if claimed.outcome is ClaimOutcome.MINE:
            # It was let go of here, and nobody else has claimed it. Requests that were under way then have
            # ids of that fence, so those that come now need another one.
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
            # The doubt has begun while the claim was under way.
            if claimed.outcome is ClaimOutcome.TAKEN:
                await membership.release(shard)
        served = await self._who_serves(shard)
        # If it is served here and there without a fence, the store decides.
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
        """Note that the member ``wrong`` does not own a shard, and who does, if it knows."""
        if self.elsewhere.get(shard) == wrong:
            del self.elsewhere[shard]
        if owner is not None and owner not in (wrong, self.membership.member):
            self._note(shard, owner)

    async def find_without_store(self, shard: str) -> HeldShard | str:
        """Where a shard is, as the other members say; here, without a claim, if none of them has it."""
        owner = await self._who_has(shard)
        held = self.held.get(shard)  # another request may have found it meanwhile
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
        """Wait until nothing is being done with a shard; gives it if it is here then."""
        while (task := self._busy.get(shard)) is not None:
            await asyncio.wait([task])
        return self.held.get(shard)

    # -- being sure --------------------------------------------------------------------------------

    async def verify(self, held: HeldShard) -> HeldShard | str:
        """Where a shard is that is held here, for a member that is not sure of its lease.

        If nobody reaches the store, it is here, unless the operator wants otherwise (``--store-outage``).

        Raises:
            StoreFailure: the store cannot be asked, and the operator wants requests to be refused then.
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
        """Keep the lease and the shards in order, until this is cancelled: one round for each beat."""
        now = self.membership.now
        tidied = verified = looked = now()
        while True:
            await asyncio.sleep(self.membership.beat_seconds)
            try:
                outlasts = self.rules.outage is StoreOutage.SERVE
                if not await (self._outlasting if outlasts else self.membership).beat():
                    await self._verify_all()
                elif self.provisional:
                    await self._verify_all([each.shard for each in self.held.values() if not each.is_claimed])
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
        """See which of these shards are still this member's own; of all that are held, if none are named.

        All are verified when the lease had run out.
        """
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
        """Drop a shard that another member owns now. Requests that are under way come to their ends.

        ``on_lost`` is told what there was of it, because the ``owner`` may lack some of that.
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
        """Take in the records of a member that has served a shard under this fence, and has lost it.

        Gives where the shard is. If it is another member's, nothing is taken in.

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
        # Requests that are under way at either member have ids of its fence, so those that come now need
        # another one.
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
        """Let go of a shard if nothing is left of it. To be called when something of it has gone.

        Raises:
            StoreFailure: the store may not know yet.
        """
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
        """Let go of shards that were empty this time and the last: anybody can make up callers."""
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
        """Take some shards that nobody owns: their sessions have to be ended when they are idle for long."""
        if self.draining:
            return
        ownerless = {stored.shard for stored in await self.membership.shards() if stored.owner is None}
        # Only those that had no owner the last time, either: when a member has just gone, its callers come to
        # other members by themselves.
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
    """Whether nothing newer can be stored than what is held here.

    That is so if nobody has owned the shard since, or only by a claim to what the store had forgotten, which
    was given back at once.
    """
    if claimed.fence == held.fence + 1:
        return True
    is_given_back = held.fence > 0 and claimed.fence == held.fence + 2
    return is_given_back and claimed.outcome is ClaimOutcome.TAKEN and not claimed.records
