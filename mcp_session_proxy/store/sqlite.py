"""The engine for one machine: a file that any number of processes share. SQLite's exceptions end here.

Every verb is one transaction, ``BEGIN IMMEDIATE``, in one thread of its own: the event loop never waits for
the disk. The journal is a write-ahead log with ``synchronous=NORMAL``, which a killed process cannot harm; a
power cut may lose the last moments, and that only means sessions that are opened anew.

Leases are told by the time since the machine was started. After another start, nobody is alive of before.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from ..bounds import RECORD_BYTES
from . import sqlite_events
from .clock import since_boot
from .engine import Claimed, ClaimOutcome, Fenced, RecordPlace, StoredMember, StoredShard, StoreFailure

SCHEMA: Final = 1
# "msps" in the header: what `file` and we tell the file by.
_APPLICATION: Final = 0x6D737073
_BUSY_SECONDS: Final = 2.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
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

T = TypeVar("T")


class NewerStore(StoreFailure):
    """The file was written by a newer version, which may have meant things that this one does not know."""


class DamagedStore(StoreFailure):
    """The file is no database, not one of ours, or damaged."""


class SqliteEngine:
    """Implements ``engine.Engine`` on one file, which is made when there is none; ``events`` are in it, too.

    ``now`` is a clock that never goes back as long as the machine runs, ``wall`` gives seconds since 1970.
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
        self._now = now or since_boot
        self._wall = wall
        self._boot = _boot_id() if boot is None else boot
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._db: sqlite3.Connection
        self._wanted: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._changing = False
        self.events = sqlite_events.SqliteEvents(
            lambda work: self._change(lambda: work(self._db)), sqlite_events.FileReader(path), self._wall
        )

    async def open(self) -> None:
        """Open the file, or make it.

        Raises:
            DamagedStore, NewerStore: it is none that could be used.
            StoreFailure: it cannot be read or written.
        """
        await self._run(self._open)

    async def close(self) -> None:
        """Close it."""
        await self.events.close()
        with contextlib.suppress(StoreFailure):
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        """Do it in the thread. Cancelling does not stop it: what was begun is done whole."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreFailure(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreFailure(f"{self._path}: {error.strerror or error}") from error

    async def _change(self, work: Callable[[], T]) -> T:
        """Do it in the thread, in one transaction with what others want at the same time: each has its own
        result, and what fails is undone alone.

        The way to the thread and back costs more than the work, and so does a transaction.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._wanted.append((work, result))
        if not self._changing:
            self._changing = True
            # After those who want something in this turn of the loop, too.
            loop.call_soon(self._begin_changes)
        try:
            return await result
        except sqlite3.Error as error:
            raise StoreFailure(f"{self._path}: {error}") from error

    def _begin_changes(self) -> None:
        wanted, self._wanted = self._wanted, []
        works = [work for work, _ in wanted]
        doing = asyncio.get_running_loop().run_in_executor(self._thread, self._transact_all, works)
        doing.add_done_callback(lambda done: self._end_changes([result for _, result in wanted], done))

    def _end_changes(self, results: Sequence[asyncio.Future[Any]], done: "asyncio.Future[list[Any]]") -> None:
        failure = done.exception()
        outcomes = [failure] * len(results) if failure is not None else done.result()
        for result, outcome in zip(results, outcomes, strict=True):
            if result.done():
                continue  # nobody waits for it any more
            if isinstance(outcome, BaseException):
                result.set_exception(outcome)
            else:
                result.set_result(outcome)
        if self._wanted:
            self._begin_changes()
        else:
            self._changing = False

    # -- the file, in the thread -------------------------------------------------------------------

    def _open(self) -> None:
        # Before SQLite does: it would make it readable for the group, by the usual umask.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = db = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("BEGIN IMMEDIATE")
            self._check_schema()
            # Beside what an earlier version may have made, to which they mean nothing.
            self._create(sqlite_events.TABLES)
            self._check_boot()
            db.execute("COMMIT")
            checked = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            db.close()
            if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                raise DamagedStore(f"{self._path}: {error}") from error
            raise
        except StoreFailure:
            db.close()
            raise
        if checked != ("ok",):
            db.close()
            raise DamagedStore(f"{self._path}: {checked[0]}")

    def _check_schema(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if (application, version) == (_APPLICATION, SCHEMA):
            return
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == _APPLICATION and version > SCHEMA:
            raise NewerStore(f"{self._path} was written by a newer version (format {version})")
        if tables:
            raise DamagedStore(f"{self._path}: it is another program's database")
        self._create(_TABLES)
        self._db.execute(f"PRAGMA application_id={_APPLICATION}")
        self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def _create(self, tables: str) -> None:
        for statement in tables.split(";"):
            self._db.execute(statement)

    def _check_boot(self) -> None:
        """Whoever was alive before the machine was started anew is not, whatever its lease says."""
        row = self._db.execute("SELECT value FROM meta WHERE name='boot'").fetchone()
        if row != (self._boot,):
            self._db.execute("DELETE FROM members")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (self._boot,))

    def _close(self) -> None:
        self._db.close()

    def _transact(self, work: Callable[[], T]) -> T:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self._db.execute("COMMIT")
        except BaseException:
            # A disk that is full may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return result

    def _transact_all(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """The result of each, or what kept it from that."""
        if len(works) == 1:
            return [self._transact(works[0])]
        return self._transact(lambda: [self._attempt(work) for work in works])

    def _attempt(self, work: Callable[[], Any]) -> Any:
        self._db.execute("SAVEPOINT attempt")
        try:
            result = work()
        except sqlite3.Error as error:
            if not self._db.in_transaction:
                raise  # with it, all of the transaction was undone
            self._db.execute("ROLLBACK TO attempt")
            result = error
        self._db.execute("RELEASE attempt")
        return result

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
            self._db.execute(f"DELETE FROM records WHERE shard IN ({gone})", (self._wall(),))
            self._db.execute(f"DELETE FROM shards WHERE shard IN ({gone})", (self._wall(),))
            self.events.sweep(self._db)
            return known

        return await self._change(work)

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
                (shard, member, fence, self._wall() + ttl_seconds),
            )
            return Claimed(ClaimOutcome.TAKEN, member, fence, records=_records(self._db, shard))

        return await self._change(work)

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
            owner, current = self._owner(shard)
            if (owner, current) != (member, fence):
                return Fenced(False, owner, current)
            sqlite_events.write_rows(self._db, "INSERT INTO records", stored, _IN_PLACE)
            if dropped:
                self._db.executemany("DELETE FROM records WHERE shard=? AND kind=? AND name=?", dropped)
            self._db.execute("UPDATE shards SET until=? WHERE shard=?", (self._wall() + ttl_seconds, shard))
            return Fenced(True, member, fence)

        return await self._change(work)

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """See ``Engine.release``."""

        def work() -> Fenced:
            owner, current = self._owner(shard)
            if (owner, current) != (member, fence) or (to is not None and self._lives(to) is None):
                return Fenced(False, owner, current)
            self._db.execute("UPDATE shards SET owner=?, fence=? WHERE shard=?", (to, fence + 1, shard))
            return Fenced(True, to, fence + 1)

        return await self._change(work)

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

        return await self._change(work)

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """See ``Engine.load``."""

        return await self._run(lambda: _records(self._db, shard))

    async def shards(self) -> Sequence[StoredShard]:
        """See ``Engine.shards``."""

        def work() -> Sequence[StoredShard]:
            rows = self._db.execute(
                "SELECT shard, (SELECT member FROM members WHERE member=owner AND members.until > ?), fence"
                " FROM shards ORDER BY shard",
                (self._now(),),
            )
            return [StoredShard(*row) for row in rows]

        return await self._run(work)

    async def members(self) -> Sequence[StoredMember]:
        """See ``Engine.members``."""

        def work() -> Sequence[StoredMember]:
            now = self._now()
            rows = self._db.execute(
                "SELECT member, card, until - ? FROM members WHERE until > ? ORDER BY member", (now, now)
            )
            return [StoredMember(*row) for row in rows]

        return await self._run(work)

    async def news(self) -> int:
        """See ``Engine.news``."""

        def work() -> int:
            # Members on one machine are few: all cards are read here, and nowhere else.
            rows = self._db.execute(
                "SELECT member, card FROM members WHERE until > ? ORDER BY member", (self._now(),)
            )
            return zlib.crc32(repr(rows.fetchall()).encode())

        return await self._run(work)

    async def bury(self, member: str, card: bytes) -> bool:
        """See ``Engine.bury``."""

        def work() -> bool:
            done = self._db.execute("DELETE FROM members WHERE member=? AND card=?", (member, card))
            return done.rowcount > 0

        return await self._change(work)

    async def leave(self, member: str) -> None:
        """See ``Engine.leave``."""

        def work() -> None:
            self._db.execute("DELETE FROM members WHERE member=?", (member,))
            self._db.execute("UPDATE shards SET owner=NULL WHERE owner=?", (member,))

        await self._change(work)


def _records(db: sqlite3.Connection, shard: str) -> Mapping[RecordPlace, bytes]:
    # Whoever has changed the file may have left values of other types, or of any size: damaged ones.
    rows = db.execute(
        "SELECT kind, name, CASE WHEN length(value) <= ? THEN CAST(value AS BLOB) ELSE x'' END"
        " FROM records WHERE shard=?",
        (RECORD_BYTES, shard),
    )
    return {RecordPlace(kind, name): value for kind, name, value in rows}


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(round(time.time() - since_boot(), -2))
