"""The contents of shards: records become sessions and tasks when a shard is taken, and are dropped with it.

Any process can go on with an upstream session, because all that it takes is its id. So the server is told
nothing when a shard changes its owner, neither by the former owner nor by the next.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from ..aio import Tasks
from ..exchange.early import EarlyStreams
from ..exchange.late_call import LateCall
from ..exchange.listening import Listening
from ..exchange.parking import Parking
from ..exchange.tasks import Handles
from ..sessions import upkeep
from ..sessions.binding import Binder
from ..sessions.identity import ANONYMOUS
from ..sessions.ledger import SessionLedger
from ..sessions.restoring import Restored, Restorer
from ..store.engine import RecordPlace

_NOBODY: Final[frozenset[str]] = frozenset()


class Principals:
    """Which principals' records are in which shard.

    Nearly always a shard has the name of its one principal. But all tokens that make the same claim share a
    shard, and a token whose claim is not believed yet counts as a principal of its own.
    """

    def __init__(self) -> None:
        self._shards: dict[str, str] = {}
        self._principals: dict[str, set[str]] = {}

    def note(self, principal: str, shard: str) -> None:
        """The records of this principal are in this shard."""
        if principal != shard and self._shards.get(principal) != shard:
            self._shards[principal] = shard
            self._principals.setdefault(shard, set()).add(principal)

    def shard_of(self, principal: str) -> str:
        """Where the records of a principal are."""
        return self._shards.get(principal, principal)

    def of(self, shard: str) -> set[str]:
        """All principals whose records are there."""
        return {shard} | self._principals.get(shard, _NOBODY)

    def forget(self, shard: str) -> None:
        """Nothing of this shard is here any more."""
        for principal in self._principals.pop(shard, _NOBODY):
            self._shards.pop(principal, None)


class CoreContents:
    """The contents of shards. Implements ``shards.Contents``. ``restored`` counts what became of records."""

    def __init__(
        self,
        *,
        binder: Binder,
        parking: Parking,
        handles: Handles,
        listening: Listening,
        early: EarlyStreams,
        ledger: SessionLedger,
        restorer: Restorer,
        principals: Principals,
    ) -> None:
        self.restored = Restored()
        self._binder = binder
        self._parking = parking
        self._handles = handles
        self._listening = listening
        self._early = early
        self._ledger = ledger
        self._restorer = restorer
        self._principals = principals
        self._tasks = Tasks()

    async def take(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> None:
        """See ``shards.Contents``."""
        await self._restorer.restore(shard, fence, records, self.restored)
        if shard == ANONYMOUS.digest and records:
            self._tasks.spawn(self._restorer.wake_anonymous(), "wake")

    async def flush(self, shard: str) -> bool:
        """See ``shards.Contents``."""
        for principal in self._principals.of(shard):
            await self._handles.part(principal)
        self._note_sessions(shard)
        await self._ledger.flush()
        return not self._ledger.has_notes(shard)

    def records(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """See ``shards.Contents``."""
        books, directory = self._binder.pool.books, self._binder.directory
        principals = self._principals.of(shard)
        slots = [slot for each in principals for slot in books.slots_of(each) if not slot.is_elsewhere]
        clients = [client for each in principals for client in directory.of(each)]
        return self._ledger.seal_all(shard, slots, clients)

    def note(self, shard: str) -> None:
        """See ``shards.Contents``."""
        self._note_sessions(shard)
        for principal in self._principals.of(shard):
            for handle in self._handles.of(principal):
                handle.on_note(handle)
            for client in self._binder.directory.of(principal):
                if client.mailbox is not None:
                    client.mailbox.note_anew()

    def _note_sessions(self, shard: str) -> None:
        for principal in self._principals.of(shard):
            for slot in self._binder.pool.books.slots_of(principal):
                self._ledger.note_session(slot)
            for client in self._binder.directory.of(principal):
                self._ledger.note_client(client)

    def let_go(self, shard: str) -> None:
        """See ``shards.Contents``."""
        binder, pool = self._binder, self._binder.pool
        for principal in self._principals.of(shard):
            self._parking.give_up(principal)
            self._handles.let_go(principal)
            self._listening.end(principal)
            self._early.end_of(principal)
            # Before the client sessions that hold them: a session that is released would go to whoever waits.
            slots = pool.books.slots_of(principal)
            for slot in slots:
                upkeep.let_go(pool, slot)
            for client in binder.directory.of(principal):
                binder.let_go(client)
        self._principals.forget(shard)
        self._ledger.let_go(shard)

    def is_quiet(self, shard: str) -> bool:
        """See ``shards.Contents``."""
        principals, books = self._principals.of(shard), self._binder.pool.books
        return not any(
            self._parking.has(each) or books.is_opening(each) or self._has_calls(each) for each in principals
        )

    def _has_calls(self, principal: str) -> bool:
        """Whether a call of this principal goes on as a task. No other process could go on with it."""
        return any(
            handle.outcome is None and isinstance(handle, LateCall) for handle in self._handles.of(principal)
        )

    def is_empty(self, shard: str) -> bool:
        """See ``shards.Contents``."""
        if self._ledger.has_notes(shard):
            return False
        books, directory = self._binder.pool.books, self._binder.directory
        return not any(
            books.counted_of(each)
            or directory.count_of(each)
            or self._parking.has(each)
            or self._handles.count_of(each)
            for each in self._principals.of(shard)
        )

    async def close(self) -> None:
        """Cancel the tasks that run in the background."""
        self._tasks.cancel()
        await asyncio.sleep(0)
