"""Where one request goes: served here, or sent to the member that owns its shard, and what then.

A request is served by exactly one member. It is sent again only if certainly nobody has begun it; one that
only reads may be sent once more all the same. Nothing here knows HTTP: a request is whatever can be served
here or sent to another member (``Routable``).
"""

import asyncio
import contextlib
from typing import Final, Protocol, TypeVar

from .. import events
from ..aio import Tasks
from ..errors import (
    Draining,
    MemberUnreachable,
    Misrouted,
    OutcomeUnknown,
    StoreUnavailable,
    TooManyWaiters,
)
from ..events import Observer
from ..store.engine import StoreFailure
from .card import Card
from .outcomes import Misdirected, PeerBroke, PeerFailure, PeerRefused
from .rules import StoreOutage
from .shards import HeldShard, Shards

# How many members a request follows that name another owner. A member that names none is about to let go of
# the shard, which another one can have in a moment.
_MOST_HOPS: Final = 2
# How much time there is between two looks whether a lease has ended. A member that leaves ends it early.
_LOOK_SECONDS: Final = 0.2
# The least time between two questions to a member that has no answer yet.
_PAUSE_SECONDS: Final = 0.02

R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Routable(Protocol[R]):
    """One request that is to be answered here or by another member.

    ``hops`` is how many members have forwarded it to get here. ``deadline`` is until when it may wait for the
    end of a lease, by the event loop's clock. A request that ``is_stream`` asks for a stream of what may
    come: it works on nothing, so a shard may change its owner while it is open.
    """

    hops: int
    deadline: float
    is_stream: bool

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing, however often it is sent."""
        ...

    async def serve(self) -> R:
        """Answer it here."""
        ...

    async def send(self, card: Card, hops: int) -> R:
        """Have another member answer it. Raises PeerFailure."""
        ...


class Routing:
    """Sends each request to where its shard is."""

    def __init__(self, shards: Shards, observe: Observer) -> None:
        self.shards = shards
        self.waiting = 0
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._observe = observe
        self._now = asyncio.get_running_loop().time

    async def answer(self, shard: str, request: Routable[T]) -> T:
        """The answer to a request of this shard, from wherever it is.

        Raises:
            Misdirected: it was forwarded to here, and the shard is elsewhere.
            OverloadError: no member could take it.
            OutcomeUnknown: a member has taken it, and it is not known what came of it.
        """
        tries, followed, repeated, pause_seconds = 0, 0, False, _PAUSE_SECONDS
        while True:
            place = await self._place(shard, request)
            if isinstance(place, HeldShard):
                with place.used_by(request.is_stream):
                    return await request.serve()
            if request.hops:
                raise Misdirected(place)
            began = self._now()
            try:
                answer = await self._send(place, request)
            except Misdirected as elsewhere:
                tries += 1
                followed += elsewhere.owner is not None
                self._tell("misdirected")
                self.shards.correct(shard, place, elsewhere.owner)
                # A member that stood still may answer long after the deadline; others were not tried yet
                # then.
                overdue = self._now() >= request.deadline and tries > _MOST_HOPS
                if overdue or followed > _MOST_HOPS:
                    raise Misrouted("The proxies do not agree on who serves this caller.") from None
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LOOK_SECONDS)
            except PeerBroke:
                self._tell("broke")
                self.shards.correct(shard, place, None)
                if repeated or not request.is_read:
                    raise OutcomeUnknown(
                        "The proxy that was serving this request has gone, and what came of it is not known."
                    ) from None
                repeated = True
            except PeerRefused:
                self._tell("refused")
                await self._wait_for_end(shard, place, request)
            except PeerFailure as error:
                self._tell("unreachable")
                raise MemberUnreachable(
                    "The proxy that serves this caller cannot be reached from here. Try again."
                ) from error
            else:
                self._tell("answered", None if request.is_stream else self._now() - began)
                return answer

    async def _send(self, member: str, request: Routable[T]) -> T:
        """The answer of another member. Raises PeerFailure."""
        card = await self._card(member)
        if card is None:
            # Most likely it has left. If only its card cannot be read, the tries run out.
            raise Misdirected(None)
        return await request.send(card, request.hops + 1)

    def _tell(self, outcome: str, seconds: float | None = None) -> None:
        self._observe(events.Forwarded(outcome=outcome, seconds=seconds))

    # -- where it is -------------------------------------------------------------------------------

    async def _place(self, shard: str, request: Routable[T]) -> HeldShard | str:
        """Where a shard is, as far as anybody knows."""
        shards = self.shards
        held = shards.held.get(shard)
        if held is None and shards.draining:
            # The shard may be about to be let go of: by then it has gone, or stays.
            held = await shards.settled(shard)
        try:
            if held is not None:
                return held if shards.membership.is_sure else await shards.verify(held)
            # A member that has forwarded the request may know better than this one.
            if not request.hops and (owner := shards.elsewhere.get(shard)) is not None:
                return owner
            if shards.draining:
                return await self._successor(shard, request)
            return await shards.find(shard)
        except StoreFailure as error:
            if shards.rules.outage is StoreOutage.REFUSE or shards.draining:
                raise StoreUnavailable("The store that the proxies share cannot be reached.") from error
        return await shards.find_without_store(shard)

    async def _successor(self, shard: str, request: Routable[T]) -> str:
        """The member that goes on with a shard which this one has let go of: any other one will do.

        Raises:
            Misdirected: the request was forwarded, so the member that sent it finds the successor itself.
            Draining: there is no other member.
        """
        if request.hops:
            # The store has told the sender that the shard is here: that has to be put right.
            with contextlib.suppress(StoreFailure):
                await self.shards.membership.settle(shard)
            raise Misdirected(None)
        card = await self.shards.members.anyone()
        if card is None:
            raise Draining("The proxy is shutting down.")
        return card.member

    async def _card(self, member: str) -> Card | None:
        """How to reach a member; None if it has gone, as far as can be told."""
        try:
            return await self.shards.members.card(member)
        except StoreFailure:
            return None

    # -- somebody who is gone ------------------------------------------------------------------------

    async def _wait_for_end(self, shard: str, member: str, request: Routable[T]) -> None:
        """Wait until a member counts as gone at whose addresses nobody listens.

        Raises:
            MemberUnreachable: it still counts as alive at the request's deadline.
            TooManyWaiters: too many requests wait already.
        """
        shards = self.shards
        shards.correct(shard, member, None)
        seconds = request.deadline - self._now()
        if seconds <= 0:
            raise MemberUnreachable("The proxy that served this caller has gone. Try again in a moment.")
        if self.waiting >= shards.rules.max_waiters:
            raise TooManyWaiters("Too many requests wait for a proxy that has gone.")
        ending = self._endings.get(member)
        if ending is None:
            ending = self._endings[member] = self._tasks.spawn(self._see_end(member), "end of a lease")
            ending.add_done_callback(lambda _: self._endings.pop(member, None))
        self.waiting += 1
        try:
            await asyncio.wait([ending], timeout=seconds)
        finally:
            self.waiting -= 1

    async def _see_end(self, member: str) -> None:
        """Wait until a member counts as gone or has come back, or until the store fails.

        One task does this for all requests that wait.
        """
        shards = self.shards
        try:
            if await shards.members.bury_the_gone(member):
                return
            before = None
            while (left := await shards.membership.lease_of(member)) is not None:
                if before is not None and left > before:
                    return  # it beats: it is there again, or was too busy to be reached
                before = left
                await asyncio.sleep(min(left, _LOOK_SECONDS))
            await shards.members.dismiss(member)
        except StoreFailure:
            await asyncio.sleep(_LOOK_SECONDS)
