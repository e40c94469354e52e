"""The engine for one machine: a database file that several processes share.

Every verb is one transaction (``BEGIN IMMEDIATE``) in the file's thread. If a power cut loses the last ones,
some sessions are opened anew, and no more.

Leases are measured by the time since the machine was started. When it is started anew, all former leases have
ended. All other times are told by the file's own clock.
"""

import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..bounds import RECORD_BYTES
from . import sqlite_events
from .clock import since_boot
from .engine import Claimed, ClaimOutcome, Fenced, RecordPlace, StoredMember, StoredShard, StoreFailure
from .sqlite_clock import FileClock
from .sqlite_file import DamagedStore, NewerStore, SqliteFile

SCHEMA: Final = 1
# "msps" in the header: what `file` and we tell the file by.
_APPLICATION: Final = 0x6D737073
# A shard may be forgotten earlier than it should be, by this part of its time. So not every write has to
# change the time.
_SOONER: Final = 0.01
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    member TEXT PRIMARY KEY, card BLOB NOT NULL, until REAL NOT NULL, reserved INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE shards (
    shard TEXT PRIMARY KEY, owner TEXT, fence INTEGER NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE records (
    shard TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (shard, kind, name)
);
"""

# Each record in its place: those that were written last lie together.
_IN_PLACE: Final = "ON CONFLICT (shard, kind, name) DO UPDATE SET value=excluded.value"


class SqliteEngine:
    """Implements ``engine.Engine`` on one file, which is made when there is none; ``events`` are in it, too.

    ``now`` is a clock that never goes back as long as the machine runs, ``wall`` gives seconds since 1970:
    the file's ``clock`` is made of the two. ``boot`` tells one start of the machine from another.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
        boot: str | None = None,
    ) -> None:
        self._path = path
        self._opened = 0  # how often
        self.is_new = False  # whether the file had nothing in it when it was opened
        self._now = now or since_boot
        self.clock = FileClock(self._now, wall, boot)
        self.file = SqliteFile(path, self._prepare)
        self.events = sqlite_events.SqliteEvents(
            lambda work: self.file.change(lambda: work(self._db)), sqlite_events.FileReader(path), self.clock
        )

    @property
    def _db(self) -> sqlite3.Connection:
        return self.file.db

    async def open(self, set_aside: Callable[[DamagedStore], object] | None = None) -> None:
        """Open the file, or make it, or open it anew: see ``SqliteFile.open``."""
        self._opened += 1
        await self.file.open(set_aside)
        await self.events.reopen()

    async def close(self) -> None:
        """Close it."""
        await self.events.close()
        await self.file.close()

    # -- the file, in its thread -------------------------------------------------------------------

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._check_schema(db)
        # Beside what an earlier version may have made, to which they mean nothing.
        _create(db, sqlite_events.TABLES)
        if self.clock.begin(db):
            # Whoever was alive before the machine was started anew is not, whatever its lease says.
            db.execute("DELETE FROM members")

    def _check_schema(self, db: sqlite3.Connection) -> None:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        self.is_new = False
        if (application, version) == (_APPLICATION, SCHEMA):
            return
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == _APPLICATION and version > SCHEMA:
            raise NewerStore(f"{self._path} was written by a newer version (format {version})")
        if tables:
            raise DamagedStore(f"{self._path}: it is another program's database")
        _create(db, _TABLES)
        db.execute(f"PRAGMA application_id={_APPLICATION}")
        db.execute(f"PRAGMA user_version={SCHEMA}")
        self.is_new = True

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()

    def _lives(self, member: str | None) -> float | None:
        """How long a member's lease still lasts; None where it has run out, or there is none."""
        row = None if member is None else self._one("SELECT until FROM members WHERE member=?", member)
        left = 0.0 if row is None else row[0] - self._now()
        return left if left > 0 else None

    def _owner(self, shard: str) -> tuple[str | None, int]:
        row: tuple[str | None, int] | None = self._one("SELECT owner, fence FROM shards WHERE shard=?", shard)
        return row or (None, 0)

    # -- the verbs ---------------------------------------------------------------------------------

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        """See ``Engine.beat``."""

        def work() -> bool:
            known = self._lives(member) is not None
            now = self._now()
            self._db.execute(
                "INSERT OR REPLACE INTO members VALUES (?,?,?,?)", (member, card, now + ttl_seconds, reserved)
            )
            self._db.execute("DELETE FROM members WHERE until <= ?", (now,))
            gone = (
                "SELECT shard FROM shards WHERE until <= ?"
                " AND (owner IS NULL OR owner NOT IN (SELECT member FROM members))"
            )
            self._db.execute(f"DELETE FROM records WHERE shard IN ({gone})", (self.clock(),))
            self._db.execute(f"DELETE FROM shards WHERE shard IN ({gone})", (self.clock(),))
            self.events.sweep(self._db)
            self.clock.note(self._db)
            return known

        return await self.file.change(work)

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """See ``Engine.claim``."""

        def work() -> Claimed:
            if self._lives(member) is None:
                return Claimed(ClaimOutcome.NO_LEASE, None, 0)
            owner, fence = self._owner(shard)
            if owner == member:
                return Claimed(ClaimOutcome.MINE, member, fence)
            if (left := self._lives(owner)) is not None:
                return Claimed(ClaimOutcome.OWNED, owner, fence, left)
            fence = max(fence, min_fence) + 1
            self._db.execute(
                "INSERT OR REPLACE INTO shards VALUES (?,?,?,?)",
                (shard, member, fence, self.clock() + ttl_seconds),
            )
            return Claimed(ClaimOutcome.TAKEN, member, fence, records=_records(self._db, shard))

        return await self.file.change(work)

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        """See ``Engine.write``."""
        stored = [(shard, *place, value) for place, value in changes.items() if value is not None]
        dropped = [(shard, *place) for place, value in changes.items() if value is None]

        def work() -> Fenced:
            found = self._one("SELECT owner, fence, until FROM shards WHERE shard=?", shard)
            if found is None and self._opened > 1:
                # Nobody else has it: the file is another one, to which this has to be claimed again.
                raise StoreFailure(f"{self._path} was made anew, and does not know this shard yet")
            owner, current, until = found or (None, 0, 0.0)
            if (owner, current) != (member, fence):
                return Fenced(False, owner, current)
            sqlite_events.write_rows(self._db, "INSERT INTO records", stored, _IN_PLACE)
            if dropped:
                self._db.executemany("DELETE FROM records WHERE shard=? AND kind=? AND name=?", dropped)
            wanted = self.clock() + ttl_seconds
            if abs(wanted - until) > _SOONER * ttl_seconds:
                self._db.execute("UPDATE shards SET until=? WHERE shard=?", (wanted, shard))
            return Fenced(True, member, fence)

        return await self.file.change(work)

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """See ``Engine.release``."""

        def work() -> Fenced:
            owner, current = self._owner(shard)
            if (owner, current) != (member, fence) or (to is not None and self._lives(to) is None):
                return Fenced(False, owner, current)
            self._db.execute("UPDATE shards SET owner=?, fence=? WHERE shard=?", (to, fence + 1, shard))
            return Fenced(True, to, fence + 1)

        return await self.file.change(work)

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        """See ``Engine.reserve``."""

        def work() -> int:
            (others,) = self._one(
                "SELECT coalesce(sum(reserved), 0) FROM members WHERE member != ? AND until > ?",
                member,
                self._now(),
            )
            given: int = max(0, min(wanted, most - others))
            self._db.execute("UPDATE members SET reserved=? WHERE member=?", (given, member))
            return given

        return await self.file.change(work)

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """See ``Engine.load``."""

        return await self.file.run(lambda: _records(self._db, shard))

    async def shards(self) -> Sequence[StoredShard]:
        """See ``Engine.shards``."""

        def work() -> Sequence[StoredShard]:
            rows = self._db.execute(
                "SELECT shard, (SELECT member FROM members WHERE member=owner AND members.until > ?), fence"
                " FROM shards ORDER BY shard",
                (self._now(),),
            )
            return [StoredShard(*row) for row in rows]

        return await self.file.run(work)

    async def members(self) -> Sequence[StoredMember]:
        """See ``Engine.members``."""

        def work() -> Sequence[StoredMember]:
            now = self._now()
            rows = self._db.execute(
                "SELECT member, card, until - ? FROM members WHERE until > ? ORDER BY member", (now, now)
            )
            return [StoredMember(*row) for row in rows]

        return await self.file.run(work)

    async def news(self) -> int:
        """See ``Engine.news``."""

        def work() -> int:
            # Members on one machine are few: all cards are read here, and nowhere else.
            rows = self._db.execute(
                "SELECT member, card FROM members WHERE until > ? ORDER BY member", (self._now(),)
            )
            return zlib.crc32(repr(rows.fetchall()).encode())

        return await self.file.run(work)

    async def bury(self, member: str, card: bytes) -> bool:
        """See ``Engine.bury``."""

        def work() -> bool:
            done = self._db.execute("DELETE FROM members WHERE member=? AND card=?", (member, card))
            return done.rowcount > 0

        return await self.file.change(work)

    async def leave(self, member: str) -> None:
        """See ``Engine.leave``."""

        def work() -> None:
            self._db.execute("DELETE FROM members WHERE member=?", (member,))
            self._db.execute("UPDATE shards SET owner=NULL WHERE owner=?", (member,))

        await self.file.change(work)


def _records(db: sqlite3.Connection, shard: str) -> Mapping[RecordPlace, bytes]:
    # Whoever has changed the file may have left values of other types, or of any size: damaged ones.
    rows = db.execute(
        "SELECT kind, name, CASE WHEN length(value) <= ? THEN CAST(value AS BLOB) ELSE x'' END"
        " FROM records WHERE shard=?",
        (RECORD_BYTES, shard),
    )
    return {RecordPlace(kind, name): value for kind, name, value in rows}


def _create(db: sqlite3.Connection, tables: str) -> None:
    for statement in tables.split(";"):
        db.execute(statement)
