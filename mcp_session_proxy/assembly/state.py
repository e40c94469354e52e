"""The state that outlives the process (``--state-dir``, ``--store``), from its opening to its closing.

It is opened before the core is built, and restored when that is done; it is written behind the work of
requests, and is complete when the process ends.
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
# How long a process may still count as alive that was just killed.
_GONE_SECONDS: Final = 0.5
# How long a process may take to end that has seen that it must.
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
        self._others: list[StoredMember] = []  # the other members at the start of this one
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
        """Makes a ``Parking`` whose sealed states every member can read."""
        return partial(Parking, secret=self.keys.requests, member=self._member)

    @property
    def events(self) -> EventStore:
        """The event store beside the records."""
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
        """Join the members that use a store.

        ``replace`` ends the process that this one replaces, if there is one. It is called only when the store
        has been opened, because from then on no process serves.

        Raises:
            CannotStart: the process that is to be replaced goes on.
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
            # A proxy whose disk is full can still serve.
            self._observe(events.StoreFailed(problem=str(error)))

    async def _find_living(self) -> list[StoredMember]:
        """The other members that are alive. The leases of those that are gone are ended."""
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            living, _ = await bury_gone(self.membership, self._store.is_gone)
            if not living or time.monotonic() > deadline:
                return living
            await asyncio.sleep(0.05)

    def build(self, in_force: InForce, core: Core, tls: Contexts) -> Cluster:
        """Build what makes this process a member."""
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
        """Serve other members, restore what was stored, and begin to write.

        ``handle`` answers what other members send on, and ``questions`` what they ask. Everything is restored
        at once if there are no other members; else each caller's shard is taken when the caller comes.

        Raises:
            CannotKeepState: all that is stored is of other servers, or the other members have other servers.
            CannotListen: other members could not connect to this one.
        """
        began = time.monotonic()
        await self._refuse_other_servers()
        await self.cluster.open(handle, questions)
        await self._wait_for_earlier()
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

    async def _refuse_other_servers(self) -> None:
        """Tell the others which servers this proxy is in front of, and end if some have other servers.

        Members send callers on to each other, so all of them must be in front of the same servers. A proxy
        that serves already goes on, and this one ends.

        Raises:
            CannotKeepState: a member has other servers.
        """
        try:
            await self.membership.beat()
            others = await self.membership.others()
        except StoreFailure:
            return
        cards = [card for other in others if (card := read_card(other.card)) is not None]
        for card in cards:
            if card.addresses and self._has_other_servers(card):
                raise self._in_use(card)
        self._give_way(cards)

    def _give_way(self, cards: Iterable[Card]) -> None:
        """Of two proxies with other servers that start at the same time, the later one ends.

        Each looks twice, before and after it can be reached, so that at least one of them sees the other.

        Raises:
            CannotKeepState: this is the later one.
        """
        for card in cards:
            if self._has_begun_before(card):
                raise self._in_use(card)

    async def _wait_for_earlier(self) -> None:
        """Wait for proxies with other servers that began before this one, and are still starting.

        This one can be reached now. They may have seen it and be about to end, or they have not and serve.

        Raises:
            CannotKeepState: one of them serves, or is still starting after ten seconds.
        """
        deadline = time.monotonic() + _STAYS_SECONDS
        while starting := [card for card in self.cluster.members if self._has_begun_before(card)]:
            if time.monotonic() > deadline or any(card.addresses for card in starting):
                raise self._in_use(starting[0])
            await asyncio.sleep(0.05)
            try:
                await self.cluster.members.look()
            except StoreFailure:
                return

    def _has_begun_before(self, card: Card) -> bool:
        own = self._bare_card()
        return self._has_other_servers(card) and (card.started, card.member) < (own.started, own.member)

    def _has_other_servers(self, card: Card) -> bool:
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
        """Hand all shards over to other members, each when nothing of it is under way.

        Gives False at once if there are none, or if sessions are to end with the proxy.
        """
        return on_stop is OnStop.KEEP and await self.cluster.part(patience_seconds)

    async def spare(self, core: Core, on_stop: OnStop) -> _Slots:
        """Write all that there is; gives the sessions that are not ended, for the next process."""
        if on_stop is OnStop.END or not await self.ledger.finish():
            return frozenset()
        return frozenset(
            slot
            for slot in core.pool.books.slots()
            if slot.usable and slot.used and slot.aside is None and describe(slot.session) is not None
        )

    async def close(self) -> None:
        """Write what is not written yet, and close the store."""
        try:
            if hasattr(self, "cluster"):
                await self.cluster.close()
            # If the start has failed, the state may be another proxy's, so nothing is written.
            if self._begun:
                await self.ledger.flush()
            await self.membership.leave()
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
        await self._store.close()
