"""What outlives the process: opened before anything is built, restored into what was built, written behind
its work, and left whole at its end.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final, TypeAlias

from .. import __version__, events
from ..cluster.card import Card, read_card, write_card
from ..cluster.members import bury_gone
from ..downstream.peer_door import Answer, Serve
from ..events import Observer
from ..exchange.parking import Parking
from ..ops.introspection import StateView
from ..sessions.books import Slot
from ..sessions.event_ledger import EventLedger
from ..sessions.ledger import SessionLedger
from ..sessions.modes import OnStop
from ..settings.config import Settings
from ..settings.tls import Contexts
from ..store.engine import StoredMember, StoreFailure
from ..store.events import EventStore
from ..store.membership import Membership
from ..upstream.keeping import describe
from ..upstream.session import UpstreamSession
from .cluster import Cluster
from .core import Core
from .in_force import InForce
from .stores import CannotKeepState, KeptStore

_MEMBER_BYTES: Final = 8
# A process that was just killed may not be gone yet.
_GONE_SECONDS: Final = 0.5
# Nor one that has seen that it has to end.
_STAYS_SECONDS: Final = 10.0

_Slots: TypeAlias = frozenset[Slot[UpstreamSession]]


class KeptState:
    """The store, as this process uses it, from ``open`` to ``close``."""

    cluster: Cluster

    def __init__(self, store: KeptStore, settings: Settings, observe: Observer) -> None:
        self.keys = store.keys
        self._observe = observe
        self._member = secrets.token_hex(_MEMBER_BYTES)
        self._store = store
        self._started = store.clock()
        self._others: list[StoredMember] = []  # who was there when this one came
        self._begun = False
        self.event_ledger: EventLedger | None = None  # set where events are kept beside the memory
        self.membership = Membership(
            store.engine,
            self._member,
            card=lambda: write_card(self._card()),
            told=self._tell,
            lease_seconds=settings.lease,
        )

    def _card(self) -> Card:
        """What this member tells of itself now."""
        card = self._bare_card()
        return self.cluster.complete(card) if hasattr(self, "cluster") else card

    def _bare_card(self) -> Card:
        return Card(member=self._member, pid=os.getpid(), started=self._started, version=__version__)

    def _tell(self, verb: str, seconds: float) -> None:
        self._observe(events.StoreAsked(verb=verb, seconds=seconds))

    @property
    def ledger(self) -> SessionLedger:
        """What is to be written."""
        return self.cluster.ledger

    @property
    def parking(self) -> Callable[..., Parking]:
        """What makes the place of parked calls: any member can read the states of any other."""
        return partial(Parking, secret=self.keys.requests, member=self._member)

    @property
    def events(self) -> EventStore:
        """Where events are kept beside the records."""
        return self._store.engine.events

    def view(self) -> StateView:
        """What operators see of it."""
        return StateView(
            kept=self._store.kept,
            up=self.membership.up,
            pending_records=self.ledger.pending,
            pending_streams=0 if self.event_ledger is None else self.event_ledger.pending,
        )

    # -- the beginning -----------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        store: KeptStore,
        settings: Settings,
        observe: Observer,
        *,
        replace: Callable[[], Awaitable[None]],
    ) -> "KeptState":
        """Be a member of those who use a store. ``replace`` has the process that this one replaces leave it,
        if there is one: only once it is known that the store can be used, for then nobody serves.

        Raises:
            CannotKeepState: it is used by proxies in front of other servers.
            CannotStart: the process that has it does not leave it.
        """
        try:
            state = cls(store, settings, observe)
            await replace()
            await state._join()
        except BaseException:
            await store.close()
            raise
        return state

    async def _join(self) -> None:
        try:
            self._store.join(self._member)
            self._others = await self._find_living()
            await self.membership.beat()
        except StoreFailure as error:
            # A disk that is full keeps nobody from serving.
            self._observe(events.StoreFailed(problem=str(error)))

    async def _find_living(self) -> list[StoredMember]:
        """Who else uses the store. Those that have died are buried on the way."""
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            living, _ = await bury_gone(self.membership, self._store.is_gone)
            if not living or time.monotonic() > deadline:
                return living
            await asyncio.sleep(0.05)

    def build(self, in_force: InForce, core: Core, tls: Contexts) -> Cluster:
        """What makes this process a member."""
        self.cluster = Cluster(
            in_force,
            core,
            membership=self.membership,
            keys=self.keys,
            card=self._bare_card,
            clock=self._store.clock,
            is_gone=self._store.is_gone,
            directory=self._store.directory,
            tls=tls,
            observe=self._observe,
        )
        return self.cluster

    async def begin(self, in_force: InForce, handle: Serve, questions: Mapping[str, Answer]) -> None:
        """Serve other members from now on, by ``handle`` and ``questions``. Go on with what was stored, with
        all of it if nobody else is there, and write down what becomes of it.

        Raises:
            CannotKeepState: all of it is of other servers, or others who use it have none of this one's.
            CannotListen: the others could not reach this one.
        """
        began = time.monotonic()
        await self._refuse_strangers()
        await self.cluster.open(handle, questions)
        await self._see_who_stays()
        try:
            if not self._others:
                await self.cluster.take_all()
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
        found = self.cluster.contents.restored
        if found.strange and not found.sessions:
            raise CannotKeepState(
                f"{self._store} holds sessions of {', '.join(sorted(found.strange))}, "
                f"and this proxy is in front of {in_force.settings.upstream_shown}",
                f"Give it {self._store.of_its_own}, or remove what is there",
                self._store.option,
            )
        if found.sessions or found.clients or found.lost:
            self._observe(
                events.StateRestored(
                    sessions=found.sessions,
                    clients=found.clients,
                    lost=found.lost,
                    seconds=time.monotonic() - began,
                )
            )
        self._begun = True
        self.cluster.begin(self._store.look_after)

    async def _refuse_strangers(self) -> None:
        """Say which servers this one has, and see who says others: callers of the one would be sent on to the
        other. Whoever serves already stays.

        Raises:
            CannotKeepState: somebody does.
        """
        try:
            await self.membership.beat()
            others = await self.membership.others()
        except StoreFailure:
            return
        cards = [card for other in others if (card := read_card(other.card)) is not None]
        for card in cards:
            if card.addresses and self._is_strange(card):
                raise self._in_use(card)
        self._give_way(cards)

    def _give_way(self, cards: Iterable[Card]) -> None:
        """Of two that start at the same time, the later one gives way. It is looked twice, before and after a
        process can be reached, so that of the two the second one to be seen is seen in time.

        Raises:
            CannotKeepState: it is this one.
        """
        for card in cards:
            if self._is_before(card):
                raise self._in_use(card)

    async def _see_who_stays(self) -> None:
        """This one can be reached now. One that began before it may not have seen that, and stay; or it
        has, and is about to end.

        Raises:
            CannotKeepState: it stays.
        """
        deadline = time.monotonic() + _STAYS_SECONDS
        while starting := [card for card in self.cluster.members if self._is_before(card)]:
            if time.monotonic() > deadline or any(card.addresses for card in starting):
                raise self._in_use(starting[0])
            await asyncio.sleep(0.05)
            try:
                await self.cluster.members.look()
            except StoreFailure:
                return

    def _is_before(self, card: Card) -> bool:
        own = self._bare_card()
        return self._is_strange(card) and (card.started, card.member) < (own.started, own.member)

    def _is_strange(self, card: Card) -> bool:
        return bool(card.servers) and self.cluster.servers.isdisjoint(card.servers)

    def _in_use(self, card: Card) -> CannotKeepState:
        return CannotKeepState(
            f"{self._store} is in use by a proxy in front of {', '.join(sorted(card.servers))} "
            f"(process {card.pid})",
            f"Give each {self._store.of_its_own}",
            self._store.option,
        )

    # -- the end -----------------------------------------------------------------------------------

    async def part(self, patience_seconds: float, on_stop: OnStop) -> bool:
        """Let the other members have what there is, as it falls quiet; gives whether there are any."""
        return on_stop is OnStop.KEEP and await self.cluster.part(patience_seconds)

    async def spare(self, core: Core, on_stop: OnStop) -> _Slots:
        """Write all that there is; gives the sessions that stay at their servers for whoever comes next."""
        if on_stop is OnStop.END or not await self.ledger.finish():
            return frozenset()
        return frozenset(
            slot
            for slot in core.pool.books.slots()
            if slot.usable and slot.used and slot.aside is None and describe(slot.session) is not None
        )

    async def close(self) -> None:
        """Write what is left to be written, and let go of the store."""
        try:
            if hasattr(self, "cluster"):
                await self.cluster.close()
            # Of a start that has failed nothing is written: what was of no use here is somebody else's.
            if self._begun:
                await self.ledger.flush()
            await self.membership.leave()
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
        await self._store.close()
