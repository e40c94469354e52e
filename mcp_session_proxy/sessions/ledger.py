"""Writes down what a store is to keep: behind the work, in batches, and never more than there is.

What has changed is noted as the thing itself, and read when it is written: the newest state wins, and a
store that is away costs no memory but these notes. Nothing here is on the way of a call. What changes slowly
(when a session was used last, where its stream is) is looked for now and then, among what was used since.

What a client comes to and lets go of is written within moments. It counts on its id as soon as it has that;
and after a crash its program begins anew, so a session that it had let go of must be free.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from ..aio import all_of
from ..events import Observer
from ..store.engine import RecordPlace, StoreFailure
from ..store.membership import Membership
from ..store.sealing import Keys
from ..upstream.keeping import describe
from ..upstream.session import UpstreamSession
from .books import Books, Slot
from .client import ClientSession, Farewell
from .directory import Directory
from .notes import Batch, RecordNotes
from .rounds import Rounds
from .store_trouble import StoreTrouble
from .stored import (
    CLAIM,
    CLIENT,
    UPSTREAM,
    StoredClientSession,
    UpstreamRecord,
    write_claim,
    write_client,
    write_upstream,
)

# Shards that are written together.
_AT_ONCE: Final = 16
# How often it is looked for what has changed in a session, and for clients that were used.
_LOOK_SECONDS: Final = 1.0
# What a server has said since comes again if this process is killed. One record for each that says something.
_SAID_SECONDS: Final = 0.1
# How far what is stored of a session's use may be behind it.
_USED_SECONDS: Final = 30.0
_LAST_WRITE_SECONDS: Final = 5.0
# Of the name of a record, which has 32 hexadecimal digits: milliseconds since 1970, until the year 2500.
_MOMENT_CHARS: Final = 11
# So much of what is compared says whether a session was taken.
_TAKEN: Final = 4

# What a note is about: a session, a client session, or bytes; None if the record is to go.
Subject: TypeAlias = "Slot[UpstreamSession] | ClientSession | bytes | None"


class SessionLedger:
    """Writes what is in the pool's ``books`` and in the ``directory`` by ``membership``, sealed by ``keys``.

    ``ttl_seconds`` gives how long records are kept that nobody comes for, ``shard_of`` where those of a
    principal are, ``clock`` the seconds since 1970 that times are stored in.
    """

    def __init__(
        self,
        membership: Membership,
        keys: Keys,
        *,
        books: Books[UpstreamSession],
        directory: Directory,
        ttl_seconds: Callable[[], float],
        observe: Observer,
        shard_of: Callable[[str], str] = lambda principal: principal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # Told of a shard of which something has gone, and nothing new was written.
        self.on_emptied: list[Callable[[str], None]] = []
        self.keys = keys
        self.membership = membership
        self._books = books
        self._directory = directory
        self._ttl_seconds = ttl_seconds
        self._shard_of = shard_of
        self.clock = clock
        self._now = asyncio.get_running_loop().time
        self._notes: RecordNotes[Subject] = RecordNotes()
        self._noted = asyncio.Event()
        self._turn = asyncio.Lock()
        # Done before what is written then, which is of an earlier moment. One that gives False could not do
        # it yet.
        self.before_writing: list[Callable[[], Awaitable[bool]]] = []
        self._said: dict[UpstreamSession, None] = {}
        self._finished = False
        self._rounds = Rounds(books, directory, self._now)
        self._trouble = StoreTrouble(observe)
        self._written: dict[Slot[UpstreamSession], tuple[object, ...]] = {}  # what each session was like

    @property
    def pending(self) -> int:
        """How many records are to be written."""
        return self._notes.pending

    # -- notes -------------------------------------------------------------------------------------

    def note_session(self, slot: Slot[UpstreamSession]) -> None:
        """Something of an upstream session has changed."""
        if slot.is_elsewhere:
            return
        self.note(self._shard_of(slot.key.principal), RecordPlace(UPSTREAM, slot.session.tag), slot)

    def _note_if_changed(self, slot: Slot[UpstreamSession]) -> None:
        if slot.usable and self._written.get(slot) != _state_of(slot):
            self.note_session(slot)

    def note_upstream(self, session: UpstreamSession) -> None:
        """As ``note_session``, of an upstream session whose slot is to be looked for."""
        for slot in self._books.slots_of(session.principal):
            if slot.session is session:
                self._note_if_changed(slot)

    def note_said(self, session: UpstreamSession) -> None:
        """Its server has said something on its stream, which goes on from another place: soon to be noted."""
        if not self._said:
            asyncio.get_running_loop().call_later(_SAID_SECONDS, self._note_those_said)
        self._said[session] = None

    def _note_those_said(self) -> None:
        said, self._said = self._said, {}
        for session in said:
            self.note_upstream(session)

    def drop_session(self, slot: Slot[UpstreamSession]) -> None:
        """An upstream session is none any more."""
        self._written.pop(slot, None)
        if not slot.is_elsewhere:
            self.note(self._shard_of(slot.key.principal), RecordPlace(UPSTREAM, slot.session.tag), None)

    def note_client(self, client: ClientSession) -> None:
        """Something of a client session has changed."""
        if client.farewell is Farewell.ELSEWHERE:
            return
        self.note(*self._place_of_client(client), client)
        # That it belongs to this one, or to nobody else now, is written on the upstream session.
        home = client.home
        if home is not None:
            # Each client that comes or goes asks: of all that is compared, only what that changes.
            written = self._written.get(home)
            if written is None or written[:_TAKEN] != _taken_of(home):
                self._note_if_changed(home)

    def _place_of_client(self, client: ClientSession) -> tuple[str, RecordPlace]:
        if client.stored_as is None:
            client.stored_as = _name_of(client, self.keys, self.clock)
        return self._shard_of(client.record.principal.digest), RecordPlace(CLIENT, client.stored_as)

    def attached(self, client: ClientSession, session: UpstreamSession) -> None:
        """A client session has come to an upstream session."""
        # What it borrows for one request is none of its record; and of one that begins it is told anyway.
        home = client.home
        if home is not None and home.session is session and self._directory.knows(client):
            self.note_client(client)

    def drop_client(self, client: ClientSession) -> None:
        """A client session is no more."""
        if client.farewell is not Farewell.ELSEWHERE:
            self.note(*self._place_of_client(client), None)

    def note_claim(self, claim: str, principal: str) -> None:
        """All tokens with this claim count as this principal, once they are accepted."""
        self.note(self._shard_of(principal), RecordPlace(CLAIM, claim), write_claim(principal))

    def note(self, shard: str, place: RecordPlace, subject: Subject = None) -> None:
        """A record is to be what its subject is when it is written; None if it is of no use any more."""
        # What is let go of at the end has changed for us, and not for who goes on with it.
        if self._finished and subject is not None:
            return
        self._notes.note(shard, place, subject)
        self._noted.set()

    def let_go(self, shard: str) -> None:
        """Another process goes on with a shard: what was noted of it is for that one to write."""
        self._notes.let_go(shard)

    def has_notes(self, shard: str) -> bool:
        """Whether something of a shard is to be written."""
        return self._notes.has(shard)

    # -- writing -----------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Write what is noted, until this is cancelled."""
        looked = self._now()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(looked + _LOOK_SECONDS):
                    await self._noted.wait()
            await asyncio.sleep(self._trouble.pause_seconds)
            if self._now() - looked >= _LOOK_SECONDS:
                looked = self._now()
                self.look()
            await self.flush()

    async def finish(self) -> bool:
        """Write all that there is, as it is now: the process is about to end, and somebody else to go on.

        From now on only what has gone is noted. Gives whether all was written.
        """
        self._written.clear()
        self.look(everybody=True)
        self._finished = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_SECONDS):
                await self.flush()
        return not self._notes

    def look(self, *, everybody: bool = False) -> None:
        """Note what has changed without anybody's telling."""
        slots = list(self._books.slots()) if everybody else self._rounds.slots()
        for slot in slots:
            self._note_if_changed(slot)
        clients = self._directory.newest_used_first() if everybody else self._rounds.clients()
        for client in clients:
            # Most of them come, call and go, and were written when they went.
            if everybody or client.record.last_used >= client.stored_at:
                self.note_client(client)

    async def flush(self) -> None:
        """Write what is noted now. What cannot be written stays noted, also when this is cancelled."""
        async with self._turn:
            notes = self._notes.take()  # of which shards may be let go of meanwhile
            emptied: list[str] = []
            self._noted.clear()
            try:
                shards = list(notes)
                for start in range(0, len(shards), _AT_ONCE):
                    part = {
                        shard: {place: self._seal(shard, place, each) for place, each in notes[shard].items()}
                        for shard in shards[start : start + _AT_ONCE]
                        if shard in notes
                    }
                    # Where a server's stream goes on must not be known before what came until there: whoever
                    # goes on there would miss it. From an earlier place it hears some of it twice. At the end
                    # of a process there is no other chance to tell.
                    if not await _all_done(self.before_writing) and not self._finished:
                        part = {shard: _without_places(changes) for shard, changes in part.items()}
                    # What comes together costs a store less than one after the other.
                    await all_of(
                        self._write_shard(shard, changes, notes, emptied) for shard, changes in part.items()
                    )
            except StoreFailure as error:
                self._trouble.begin(error)
            finally:
                self._notes.settle()
        for shard in emptied:
            for told in self.on_emptied:
                told(shard)

    async def _write_shard(
        self,
        shard: str,
        changes: dict[RecordPlace, bytes | None],
        notes: Batch[Subject],
        emptied: list[str],
    ) -> None:
        """Write a shard's records, and take them out of ``notes``. Raises StoreFailure."""
        if changes:
            if not await self.membership.write(shard, changes, self._ttl_seconds()):
                return
            self._trouble.end()
        left = {place: each for place, each in notes.pop(shard, {}).items() if place not in changes}
        if left:
            notes[shard] = left
            self._noted.set()  # what has to wait is soon tried again
        elif not any(changes.values()):
            emptied.append(shard)

    def seal_all(
        self, shard: str, slots: Iterable[Slot[UpstreamSession]], clients: Iterable[ClientSession]
    ) -> dict[RecordPlace, bytes]:
        """The records of these, as they are written."""
        subjects: dict[RecordPlace, Subject] = {}
        for slot in slots:
            subjects[RecordPlace(UPSTREAM, slot.session.tag)] = slot
        for client in clients:
            _, place = self._place_of_client(client)
            subjects[place] = client
        sealed = {place: self._seal(shard, place, subject) for place, subject in subjects.items()}
        return {place: data for place, data in sealed.items() if data is not None}

    def _seal(self, shard: str, place: RecordPlace, subject: Subject) -> bytes | None:
        if isinstance(subject, ClientSession):
            data = self._write_client(subject)
        elif isinstance(subject, Slot):
            data = self._write_session(subject)
        else:
            data = subject
        return None if data is None else self.keys.seal(place_of(shard, place), data)

    def _write_session(self, slot: Slot[UpstreamSession]) -> bytes | None:
        # One that nobody has used is as good as a new one, and one that is set aside soon gone.
        known = describe(slot.session) if slot.usable and slot.used and slot.aside is None else None
        if known is None:
            return None
        now, session = self._now(), slot.session
        self._written[slot] = _state_of(slot)
        lingering = slot.lingering_since
        return write_upstream(
            UpstreamRecord(
                known=known,
                affinity=slot.key.affinity,
                params=session.record.initialize_params,
                version_is_free=session.record.version_is_free,
                requests=session.requests,
                reserved=slot.reserved,
                age_seconds=now - session.born,
                unused_seconds=0.0 if slot.leases else now - slot.idle_since,
                lingering_seconds=None if lingering is None else now - lingering,
                principal=slot.key.principal,
            ),
            self.clock(),
        )

    def _write_client(self, client: ClientSession) -> bytes | None:
        if client.forgotten:
            return None
        home = client.home
        nonce, taken = _mailbox_of(client, at_end=self._finished)
        client.stored_at = self._now()
        return write_client(
            StoredClientSession(
                record=client.record,
                home=None if home is None else home.session.tag,
                attached=client.lease is not None,
                deleted=client.farewell is Farewell.DELETED,
                nonce=nonce,
                taken=taken,
                orderly=self._finished,
            ),
            self.clock() - client.stored_at,
        )


def _mailbox_of(client: ClientSession, *, at_end: bool) -> tuple[str | None, int | None]:
    """By which name its streams are kept, and where its client is, if that will not change any more."""
    if client.mailbox is None:
        former = client.former
        return (None, None) if former is None else (former.nonce, former.taken)
    stream = client.mailbox.standalone
    return client.mailbox.nonce, stream.taken if at_end and not stream.followed else None


def _name_of(client: ClientSession, keys: Keys, clock: Callable[[], float]) -> str:
    """What its record is called: a hash, so that an id means the same record whenever it is brought.

    One that we have minted is new, and its name begins with the time. So the names of those that come
    together lie together in an index, and one page of that is written for all of them instead of one for
    each.
    """
    name = keys.name_of(client.id)
    if client.record.adopted:
        return name
    moment = f"{int(clock() * 1000):0{_MOMENT_CHARS}x}"
    return moment + name[len(moment) :]


def place_of(shard: str, place: RecordPlace) -> str:
    """What a record is sealed for: it means nothing anywhere else."""
    return f"{shard}/{place.kind}/{place.name}"


async def _all_done(works: Iterable[Callable[[], Awaitable[bool]]]) -> bool:
    """Do all of it; gives whether it was done."""
    return all([await work() for work in works])


def _without_places(changes: dict[RecordPlace, bytes | None]) -> dict[RecordPlace, bytes | None]:
    """Without the records that say where a server's stream goes on."""
    return {place: data for place, data in changes.items() if place.kind != UPSTREAM or data is None}


def _taken_of(slot: Slot[UpstreamSession]) -> tuple[object, ...]:
    return slot.used, slot.reserved, slot.aside, slot.lingering_since


def _state_of(slot: Slot[UpstreamSession]) -> tuple[object, ...]:
    """What is compared to see whether a session has changed; at first, whether it was taken."""
    session = slot.session
    journal = session.record.journal
    return (
        *_taken_of(slot),
        session.number,
        session.life,
        session.record.last_used // _USED_SECONDS,
        journal.log_level,
        tuple(journal.subscriptions),
        session.incarnation.last_event_id,
        session.incarnation.calls.unanswered(),
        session.told_lists,
    )
