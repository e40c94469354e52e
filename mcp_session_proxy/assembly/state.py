"""What outlives the process (``--state-dir``, ``--store``): opened before anything is built, restored into
what was built, written behind its work, and left whole at its end.
"""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from .. import __version__, events
from ..aio import Tasks
from ..events import Observer
from ..ops.introspection import StateView
from ..sessions.books import Slot
from ..sessions.ledger import SessionLedger
from ..sessions.modes import OnStop
from ..sessions.restoring import Restored, Restorer
from ..settings.config import Settings
from ..store.engine import ClaimOutcome, StoredMember, StoreFailure
from ..store.events import EventStore
from ..store.membership import Membership
from ..upstream.keeping import describe
from ..upstream.session import UpstreamSession
from .core import Core
from .in_force import InForce
from .stores import CannotKeepState, KeptStore

_MEMBER_BYTES: Final = 8

_Slots: TypeAlias = frozenset[Slot[UpstreamSession]]


class KeptState:
    """The store, as this process uses it, from ``open`` to ``close``."""

    def __init__(self, store: KeptStore, observe: Observer) -> None:
        self.keys = store.keys
        self.restored = Restored()
        self.ledger: SessionLedger
        self._observe = observe
        self._member = secrets.token_hex(_MEMBER_BYTES)
        self._store = store
        self._started = time.time()
        self._tasks = Tasks()
        self.membership = Membership(store.engine, self._member, card=self._card, told=self._tell)

    def _card(self) -> bytes:
        facts = {"pid": os.getpid(), "started": self._started, "version": __version__}
        return json.dumps(facts).encode()

    def _tell(self, verb: str, seconds: float) -> None:
        self._observe(events.StoreAsked(verb=verb, seconds=seconds))

    @property
    def events(self) -> EventStore:
        """Where events are kept beside the records."""
        return self._store.engine.events

    def view(self) -> StateView:
        """What operators see of it."""
        return StateView(kept=self._store.kept, up=self.membership.up, pending_records=self.ledger.pending)

    # -- the beginning -----------------------------------------------------------------------------

    @classmethod
    async def open(
        cls, store: KeptStore, observe: Observer, *, replace: Callable[[], Awaitable[None]]
    ) -> "KeptState":
        """Use a store, alone. ``replace`` has the process that this one replaces leave it, if there is one:
        only once it is known that the store can be used, for then nobody serves.

        Raises:
            CannotKeepState: another process uses it.
            CannotStart: the process that has it does not leave it.
        """
        try:
            state = cls(store, observe)
            await replace()
            await state._join()
        except BaseException:
            await store.close()
            raise
        return state

    async def _join(self) -> None:
        try:
            self._store.join(self._member)
            living = await self._find_living()
            if living:
                raise CannotKeepState(
                    f"{self._store} is in use by {_describe(living[0])}",
                    f"Stop that one first, or give each {self._store.of_its_own}",
                    self._store.option,
                )
            await self.membership.beat()
        except StoreFailure as error:
            # A disk that is full keeps nobody from serving.
            self._observe(events.StoreFailed(problem=str(error)))

    async def _find_living(self) -> list[StoredMember]:
        """Who else uses the directory. Those that have died are buried on the way."""
        deadline = time.monotonic() + self._store.gone_seconds
        while True:
            living = []
            for other in await self.membership.others():
                if self._store.is_gone(other):
                    await self.membership.bury(other)
                else:
                    living.append(other)
            if not living or time.monotonic() > deadline:
                return living
            await asyncio.sleep(0.05)

    async def restore(self, in_force: InForce, core: Core) -> None:
        """Make what was stored what it was, and write down from now on what becomes of it.

        Raises:
            CannotKeepState: all of it is of other servers.
        """
        settings = in_force.settings
        pool, binder = core.pool, core.binder
        ledger = SessionLedger(
            self.membership,
            self.keys,
            books=pool.books,
            directory=binder.directory,
            ttl_seconds=lambda: _ttl_seconds(in_force.settings),
            observe=self._observe,
        )
        restorer = Restorer(
            binder=binder,
            make=core.opener.make,
            keys=self.keys,
            profile_of=core.profiles.of_initialize,
            room=core.memory.subscriptions,
            note_claim=core.acceptances.remember,
            drop=ledger.drop,
            observe=self._observe,
        )
        began = time.monotonic()
        try:
            for stored in await self.membership.shards():
                claimed = await self.membership.claim(stored.shard, _ttl_seconds(settings))
                if claimed.outcome in (ClaimOutcome.TAKEN, ClaimOutcome.MINE):
                    records = await self.membership.load(stored.shard)
                    await restorer.restore(stored.shard, claimed.fence, records, self.restored)
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
        found = self.restored
        if found.strange and not found.sessions:
            raise CannotKeepState(
                f"{self._store} holds sessions of {', '.join(sorted(found.strange))}, "
                f"and this proxy is in front of {settings.upstream_shown}",
                f"Give it {self._store.of_its_own}, or remove what is there",
                self._store.option,
            )
        self.ledger = ledger
        if found.sessions or found.clients or found.lost:
            self._observe(
                events.StateRestored(
                    sessions=found.sessions,
                    clients=found.clients,
                    lost=found.lost,
                    seconds=time.monotonic() - began,
                )
            )
        pool.on_added.append(ledger.note_session)
        pool.on_removed.append(ledger.drop_session)
        binder.on_arrival.append(ledger.note_client)
        binder.on_departure.append(ledger.drop_client)
        binder.attachments.on_attached.append(ledger.attached)
        binder.attachments.on_detached.append(ledger.note_client)
        core.acceptances.on_found.append(ledger.note_claim)
        core.delivery.on_change.append(ledger.note_client)
        core.delivery.on_said.append(ledger.note_said)
        core.parking.on_parked.append(ledger.note_upstream)
        self._tasks.spawn(self._beat_on(), "beat")
        ledger.on_emptied.append(self._let_go_soon)
        self._tasks.spawn(ledger.keep_up(), "ledger")
        self._tasks.spawn(restorer.wake_anonymous(), "wake")

    async def _beat_on(self) -> None:
        """Be alive until this is cancelled. A store that fails is asked again."""
        while True:
            await asyncio.sleep(self.membership.beat_seconds)
            with contextlib.suppress(StoreFailure):
                await self.membership.beat()
                self.membership.trust()

    def _let_go_soon(self, shard: str) -> None:
        self._tasks.spawn(self._let_go_if_empty(shard), "let go")

    async def _let_go_if_empty(self, shard: str) -> None:
        with contextlib.suppress(StoreFailure):
            await self.membership.let_go_if_empty(shard)

    # -- the end -----------------------------------------------------------------------------------

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
        self._tasks.cancel()
        await self._tasks.ended()
        try:
            if hasattr(self, "ledger"):
                await self.ledger.flush()
            await self.membership.leave()
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
        await self._store.close()


def _ttl_seconds(settings: Settings) -> float:
    """How long records are kept that nobody comes for: none is of use for longer."""
    return 2 * max(settings.client_session_timeout, settings.idle_timeout)


def _describe(other: StoredMember) -> str:
    """Another process, for people."""
    try:
        card = json.loads(other.card)
        return f"another mcp-session-proxy (process {card['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another mcp-session-proxy"
