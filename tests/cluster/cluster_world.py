"""Members of a cluster without HTTP: a store in memory, a clock that is turned by hand or by the loop, and
contents that are nothing but names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fakes import Recorder

from mcp_session_proxy.cluster import questions
from mcp_session_proxy.cluster.card import Card, write_card
from mcp_session_proxy.cluster.lease import LeaseAnswer, Served, left_by, owner_by, served_by
from mcp_session_proxy.cluster.members import Members
from mcp_session_proxy.cluster.merging import LeftRecords, Merging
from mcp_session_proxy.cluster.outcomes import PeerFailure, PeerRefused
from mcp_session_proxy.cluster.routing import Routing
from mcp_session_proxy.cluster.rules import ClusterRules, StoreOutage
from mcp_session_proxy.cluster.shards import Shards
from mcp_session_proxy.store.engine import RecordPlace, StoreFailure
from mcp_session_proxy.store.membership import LEASE_SECONDS, Membership
from mcp_session_proxy.store.memory import MemoryEngine

PLACE = RecordPlace("session", "u1")
# How long a store is waited for, as by the engine that has one elsewhere.
TIMEOUT_SECONDS = 1.0


class Names:
    """Contents: of each shard, the names of its records."""

    def __init__(self) -> None:
        self.there: dict[str, set[str]] = {}
        self.busy: set[str] = set()
        self.membership: Membership
        self.let_go_of: list[str] = []
        self.noted: list[str] = []

    async def take(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> None:
        self.there.setdefault(shard, set()).update(place.name for place in records)

    async def flush(self, shard: str) -> bool:
        changes: dict[RecordPlace, bytes | None] = {
            RecordPlace("session", name): b"x" for name in self.there.get(shard, ())
        }
        return await self.membership.write(shard, changes, 60.0)

    def records(self, shard: str) -> dict[RecordPlace, bytes]:
        return {RecordPlace("session", name): b"x" for name in self.there.get(shard, ())}

    def note(self, shard: str) -> None:
        self.noted.append(shard)

    def let_go(self, shard: str) -> None:
        self.let_go_of.append(shard)
        self.there.pop(shard, None)

    def is_quiet(self, shard: str) -> bool:
        return shard not in self.busy

    def is_empty(self, shard: str) -> bool:
        return not self.there.get(shard)


class Store(MemoryEngine):
    """A store that can be away, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away_for: set[str] = set()
        self.stands_still = False  # it takes what it is asked, and answers nothing
        self.asked: list[str] = []

    def forget(self) -> None:
        """All that there is, as after FLUSHALL."""
        self._leases.clear()
        self._shards.clear()

    def asks(self, member: str, verb: str) -> None:
        if member in self.away_for:
            raise StoreFailure("away")
        self.asked.append(verb)


class ThroughCable:
    """The store as one member reaches it."""

    def __init__(self, store: Store, member: str) -> None:
        self._store = store
        self._member = member

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            self._store.asks(self._member, verb)
            if self._store.stands_still:
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise StoreFailure("no answer")
            return await getattr(self._store, verb)(*args, **kwargs)

        return ask


class Member:
    """One of them. ``gone`` are those that are known to have no process any more."""

    def __init__(self, world: "World", name: str, lease_seconds: float = LEASE_SECONDS, **rules: Any) -> None:
        self.name = name
        self.told = Recorder()
        self.world = world
        self.alive = True
        self.contents = Names()
        loop = asyncio.get_running_loop()
        self.membership = Membership(
            ThroughCable(world.store, name),  # type: ignore[arg-type]
            name,
            card=self._card,
            lease_seconds=lease_seconds,
            now=loop.time,
        )
        self.contents.membership = self.membership
        self.members = Members(
            self.membership, is_gone=lambda other: other.member in world.gone, observe=self.told
        )
        self.shards = Shards(
            self.membership,
            self.members,
            self.contents,
            rules=ClusterRules(**rules),
            observe=self.told,
            lease_left=self._lease_left,
            who_has=self._who_has,
            who_serves=self._who_serves,
        )
        self.merging = Merging(self.shards, self._send_left)
        self.routing = Routing(self.shards, self.told)
        self.keeping: asyncio.Task[None] | None = None

    def _card(self) -> bytes:
        draining = hasattr(self, "shards") and self.shards.draining
        return write_card(
            Card(
                member=self.name,
                pid=1,
                started=0.0,
                version="1",
                addresses=["played"],
                draining=draining,
                shards=0,
            )
        )

    async def join(self) -> None:
        await self.membership.beat()
        self.keeping = asyncio.create_task(self.shards.keep())

    def stop(self) -> None:
        """It stands still: no beats, and nobody listens."""
        self.alive = False
        if self.keeping is not None:
            self.keeping.cancel()

    async def _ask_all(self, member: str | None, shard: str | None) -> list[tuple[str, LeaseAnswer]]:
        others = self.world.reached_by(self)
        return [(each.name, await questions.answer(each.shards, member, shard)) for each in others]

    async def _lease_left(self) -> float | None:
        return left_by(await self._ask_all(self.name, None))

    async def _who_has(self, shard: str) -> str | None:
        return owner_by(await self._ask_all(self.name, shard), self.name)

    async def _who_serves(self, shard: str) -> Served:
        self.world.questions.append((self.name, shard))
        return served_by(await self._ask_all(None, shard))

    async def _send_left(self, member: str, left: LeftRecords) -> bool:
        to = self.world.members[member]
        return to in self.world.reached_by(self) and await to.merging.take(left)

    async def ask(self, shard: str, **way: Any) -> str:
        """Have a request answered; gives who has served it."""
        return await self.routing.answer(shard, Request(self, shard, **way))


class Request:
    """A request that is answered with the name of the member that serves it."""

    def __init__(
        self, at: Member, shard: str, *, hops: int = 0, is_read: bool = False, patience: float = 10.0
    ) -> None:
        self.hops = hops
        self.is_read = is_read
        self.is_stream = False
        self.deadline = asyncio.get_running_loop().time() + patience
        self._at = at
        self._shard = shard
        self._patience = patience

    async def serve(self) -> str:
        work = self._at.world.work
        if work is not None:
            await work(self._at.name)
        self._at.world.served.append(self._at.name)
        return self._at.name

    async def send(self, card: Card, hops: int) -> str:
        world = self._at.world
        to = world.members[card.member]
        if (failure := world.cut.get((self._at.name, to.name))) is not None:
            raise failure
        if not to.alive:
            raise PeerRefused
        world.hops.append((self._at.name, to.name))
        return await to.routing.answer(self._shard, Request(to, self._shard, hops=hops))


class World:
    """A store and its members. ``cut`` is what goes wrong between two of them."""

    def __init__(self) -> None:
        self.store = Store()
        self.members: dict[str, Member] = {}
        self.gone: set[str] = set()
        self.cut: dict[tuple[str, str], PeerFailure] = {}
        self.hops: list[tuple[str, str]] = []
        self.questions: list[tuple[str, str]] = []  # who has asked the others for which shard
        self.served: list[str] = []
        self.work: Callable[[str], Awaitable[None]] | None = None

    async def join(self, *names: str, **rules: Any) -> list[Member]:
        for name in names:
            self.members[name] = Member(self, name, **rules)
            await self.members[name].join()
        for member in self.members.values():
            await member.members.look()
        return [self.members[name] for name in names]

    def reached_by(self, member: Member) -> list[Member]:
        return [
            other
            for other in self.members.values()
            if other is not member and other.alive and (member.name, other.name) not in self.cut
        ]

    def close(self) -> None:
        for member in self.members.values():
            member.stop()
            member.shards.close()


REFUSE = StoreOutage.REFUSE
