"""What outlives the process: opened before anything is built, restored into what was built, written behind
its work, and left whole at its end.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
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

_Slots: TypeAlias = frozenset[Slot[UpstreamSession]]


class KeptState:
    """The store, as this process uses it, from ``open`` to ``close``."""

    cluster: Cluster

    def __init__(self, store: KeptStore, settings: Settings, observe: Observer) -> None:
        self.keys = store.keys
        self._observe = observe
        self._member = secrets.token_hex(_MEMBER_BYTES)
        self._store = store
        self._started = time.time()
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
        """What makes this process a member. Raises CannotKeepState: the others have none of its servers."""
        self.cluster = Cluster(
            in_force,
            core,
            membership=self.membership,
            keys=self.keys,
            card=self._bare_card,
            is_gone=self._store.is_gone,
            directory=self._store.directory,
            tls=tls,
            observe=self._observe,
        )
        cards = [card for other in self._others if (card := read_card(other.card)) is not None]
        own = {replica.name for replica in core.fleet.replicas}
        theirs = {name for card in cards for name in card.servers}
        if theirs and own.isdisjoint(theirs):
            raise CannotKeepState(
                f"{self._store} is in use by a proxy in front of {', '.join(sorted(theirs))} "
                f"(process {cards[0].pid})",
                f"Give each {self._store.of_its_own}",
                self._store.option,
            )
        return self.cluster

    async def begin(self, in_force: InForce, handle: Serve, questions: Mapping[str, Answer]) -> None:
        """Serve other members from now on, by ``handle`` and ``questions``. Go on with what was stored, with
        all of it if nobody else is there, and write down what becomes of it.

        Raises:
            CannotKeepState: all of it is of other servers.
            CannotListen: the others could not reach this one.
        """
        began = time.monotonic()
        await self.cluster.open(handle, questions)
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
        self.cluster.begin()

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
