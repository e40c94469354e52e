"""Makes of records what they tell of: client sessions, and upstream sessions that sleep until a caller comes.

A credential is never stored, so nothing can be said to a server in a caller's name before that caller comes.
Who has shown none is no secret, and is gone on with at once.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from .. import events
from ..errors import BadRequest, InvalidParams, OverBudget, ProxyError
from ..events import Observer
from ..memory import Share
from ..store.engine import RecordPlace
from ..store.sealing import Keys, Unsealed
from ..upstream.life import Life
from ..upstream.record import KnownSession
from ..upstream.session import UpstreamSession
from ..upstream.transport import NOBODY
from .binding import Binder
from .books import Slot
from .client import ClientSession, Farewell
from .identity import ANONYMOUS, Profile, SessionKey
from .kept_stream import AGE
from .ledger import place_of
from .mailbox import Former
from .record import UnreadableRecord
from .stored import (
    CLAIM,
    CLIENT,
    UPSTREAM,
    StoredClientSession,
    UpstreamRecord,
    read_claim,
    read_client,
    read_upstream,
)
from .stored_tasks import TASK, StoredTask, read_task

# Of the ids that requests have at a server, each owner of a shard has this many, below 2**31 in all.
_IDS: Final = 1 << 20
_BLOCKS: Final = 1 << 11
_WAKES_A_SECOND: Final = 20

# What makes an upstream session that is known from elsewhere.
Make = Callable[[SessionKey, Profile, KnownSession], UpstreamSession]


class Restored(msgspec.Struct):
    """What came of the records of one or more shards.

    ``strange`` are the names of servers that are none of ours, and that sessions were found of.
    """

    sessions: int = 0
    clients: int = 0
    lost: int = 0
    strange: set[str] = msgspec.field(default_factory=set)


class Restorer:
    """Restores shards. ``profile_of`` reads a client's ``initialize``, ``room`` is for what clients want.

    ``note_claim`` is told who the tokens with a claim count as, ``note_principal`` whose records are in a
    shard. ``readmit_task`` goes on with a task of this age in seconds, once its session is here, and says
    whether it does. ``clock`` gives the seconds since 1970 that times are stored in.
    """

    def __init__(
        self,
        *,
        binder: Binder,
        make: Make,
        keys: Keys,
        profile_of: Callable[[bytes | None], Profile],
        room: Share,
        note_claim: Callable[[str, str], None],
        drop: Callable[[str, RecordPlace], None],
        observe: Observer,
        note_principal: Callable[[str, str], None] = lambda *_: None,
        readmit_task: Callable[[StoredTask, float], bool] = lambda *_: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._binder = binder
        self._make = make
        self._keys = keys
        self._profile_of = profile_of
        self._room = room
        self._note_claim = note_claim
        self._note_principal = note_principal
        self._readmit_task = readmit_task
        self._drop = drop
        self._observe = observe
        self._clock = clock
        self._now = asyncio.get_running_loop().time

    async def restore(
        self, shard: str, fence: int, records: Mapping[RecordPlace, bytes], result: Restored
    ) -> None:
        """Restore one shard, owned under this fence; what came of it is added to ``result``.

        What is here already stays as it is: records may tell of it, too.
        """
        sessions: list[UpstreamRecord] = []
        clients: list[tuple[RecordPlace, StoredClientSession]] = []
        tasks: list[tuple[RecordPlace, StoredTask]] = []
        for place, sealed in records.items():
            try:
                data = self._keys.open(place_of(shard, place), sealed)
                if place.kind == TASK:
                    tasks.append((place, read_task(data)))
                else:
                    self._read(shard, fence, place, data, sessions, clients)
            except (Unsealed, UnreadableRecord, OverBudget):
                self._tell(shard, place.name if place.kind == UPSTREAM else "-", "unreadable", result)
        principals = (
            {record.principal or shard for record in sessions}
            | {client.record.principal.digest for _, client in clients}
            | {task.principal for _, task in tasks}
        )
        for principal in principals:
            self._note_principal(principal, shard)
        homes = self._sessions_here(principals)
        owners = {client.home for _, client in clients}
        for record in sorted(sessions, key=lambda record: -record.unused_seconds):
            if record.known.tag not in homes:
                slot = await self._adopt(shard, record, owners, result)
                if slot is not None:
                    homes[record.known.tag] = slot
        self._readmit_all(shard, fence, clients, homes, result)
        for place, task in tasks:
            if not self._readmit_task(task, max(0.0, self._clock() - task.began)):
                self._drop(shard, place)

    def _readmit_all(
        self,
        shard: str,
        fence: int,
        clients: Sequence[tuple[RecordPlace, StoredClientSession]],
        homes: Mapping[str, Slot[UpstreamSession]],
        result: Restored,
    ) -> None:
        directory = self._binder.directory
        for place, stored in sorted(clients, key=lambda each: (each[1].attached, each[1].record.last_used)):
            here = directory.look_up(stored.record.principal, stored.record.id)
            if here is not None:
                # One that was forgotten, and adopted under its former id, may have left two records.
                if here.stored_as not in (None, place.name):
                    self._drop(shard, place)
            elif self._now() - stored.record.last_used < directory.rules.timeout_seconds:
                self._readmit(place, stored, homes, fence)
                result.clients += 1
            else:
                self._drop(shard, place)

    def _sessions_here(self, principals: set[str]) -> dict[str, Slot[UpstreamSession]]:
        """By its tag, each session that these principals have here."""
        books = self._binder.pool.books
        slots = [slot for each in principals for slot in books.slots_of(each)]
        return {slot.session.tag: slot for slot in slots if slot.usable and not slot.is_elsewhere}

    def _read(
        self,
        shard: str,
        fence: int,
        place: RecordPlace,
        data: bytes,
        sessions: list[UpstreamRecord],
        clients: list[tuple[RecordPlace, StoredClientSession]],
    ) -> None:
        wall, now = self._clock(), self._now()
        if place.kind == UPSTREAM:
            sessions.append(read_upstream(data, wall, fence % _BLOCKS * _IDS + 1))
        elif place.kind == CLIENT:
            clients.append((place, read_client(data, now, wall - now, self._profile_of, self._room)))
        elif place.kind == CLAIM:
            self._note_claim(place.name, read_claim(data, shard))

    async def _adopt(
        self, shard: str, record: UpstreamRecord, owners: set[str | None], result: Restored
    ) -> Slot[UpstreamSession] | None:
        known, now = record.known, self._now()
        if record.reserved and known.tag not in owners:
            self._tell(shard, known.tag, "unowned", result)
            return None
        try:
            profile = self._profile_of(record.params)
            if record.version_is_free:
                profile = replace(profile, version_is_free=True)
            key = SessionKey(record.principal or shard, record.affinity, profile.digest)
            session = self._make(key, profile, known)
            await session.open(NOBODY)
        except (BadRequest, InvalidParams):
            self._tell(shard, known.tag, "unreadable", result)
            return None
        except ProxyError:
            result.strange.add(known.server)
            self._tell(shard, known.tag, "no-server", result)
            return None
        session.born = now - record.age_seconds
        session.record.requests = record.requests
        session.record.last_used = now - record.unused_seconds
        slot = self._binder.pool.adopt(
            session, key, profile, reserved=record.reserved, idle_since=now - record.unused_seconds
        )
        if slot is None:
            session.abandon()
            self._tell(shard, known.tag, "no-room", result)
            return None
        if record.lingering_seconds is not None:
            slot.lingering_since = now - record.lingering_seconds
        self._tell(shard, known.tag, "asleep", result)
        return slot

    def _readmit(
        self,
        place: RecordPlace,
        stored: StoredClientSession,
        homes: Mapping[str, Slot[UpstreamSession]],
        fence: int,
    ) -> None:
        client = ClientSession(stored.record)
        client.stored_as = place.name
        if stored.nonce is not None:
            client.former = Former(stored.nonce, fence * AGE, stored.taken)
        if stored.deleted:
            client.farewell = Farewell.DELETED
        if stored.attached:
            client.record.last_used = self._now()
        home = None if stored.home is None else homes.get(stored.home)
        self._binder.readmit(client, home, attached=stored.attached, orderly=stored.orderly)

    def _tell(self, shard: str, session: str, outcome: str, result: Restored) -> None:
        if outcome == "asleep":
            result.sessions += 1
        else:
            result.lost += 1
            # What cannot be read may be read by whoever wrote it, and ends by itself.
            if outcome != "unreadable":
                self._drop(shard, RecordPlace(UPSTREAM, session))
        tag = SessionKey(shard, None, "").principal_tag
        self._observe(events.SessionRestored(session=session, principal=tag, outcome=outcome))

    async def wake_anonymous(self) -> None:
        """Go on with the sessions of callers who have shown nothing, a few at a time."""
        for slot in self._binder.pool.books.slots_of(ANONYMOUS.digest):
            if slot.session.life is Life.ASLEEP:
                await self._wake(slot.session)
                await asyncio.sleep(1 / _WAKES_A_SECOND)

    async def _wake(self, session: UpstreamSession) -> None:
        """Go on with a session in nobody's name. One that its server has forgotten is opened anew only if
        somebody holds it: that is for the pool to decide.
        """
        incarnation = session.incarnation
        try:
            if await incarnation.confirm():
                await session.wake(NOBODY)
                return
        except ProxyError:
            return  # the first request tries again
        if session.life is Life.ASLEEP:
            tag = session.record.principal_tag
            self._observe(events.SessionWoken(session=session.tag, principal=tag, outcome="gone"))
            session.lost(incarnation, "check")
