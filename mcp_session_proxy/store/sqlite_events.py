"""Events in the file of the engine for one machine."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from .engine import StoreFailure
from .events import Numbered

TABLES: Final = """
CREATE TABLE IF NOT EXISTS event_streams (place TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_streams_until ON event_streams (until);
CREATE TABLE IF NOT EXISTS events (
    place TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (place, number)
);
"""
# What one statement writes at most.
_ROWS: Final = 32
# What one round of forgetting takes away at most, so that nobody waits long for the file.
_SWEPT: Final = 500


T = TypeVar("T")


class InTransaction(Protocol):
    """Does work on the database, in its thread, in one transaction."""

    def __call__(self, work: Callable[[sqlite3.Connection], Any]) -> Awaitable[Any]:
        """Give what the work gives. Raises StoreFailure."""
        ...


class FileReader:
    """Reads the file in a thread and on a connection of its own, both made when they are first needed.

    A write may wait for the disk, and whoever comes back for events must not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store reader")
        self._db: sqlite3.Connection | None = None

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Give what the work gives. Raises StoreFailure."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, work)
        except sqlite3.Error as error:
            raise StoreFailure(f"{self._path}: {error}") from error

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            # Where there is no file, none is made.
            place = f"{self._path.absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA query_only=1")
        return work(self._db)

    async def let_go(self) -> None:
        """Let go of the file: whatever is there is opened when it is read next."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    async def close(self) -> None:
        """Let go of the file for good."""
        await self.let_go()
        self._thread.shutdown(wait=False)


class SqliteEvents:
    """Implements ``events.EventStore``. ``clock`` gives the seconds that the ends of things are told in."""

    def __init__(self, transact: InTransaction, reader: FileReader, clock: Callable[[], float]) -> None:
        self._transact = transact
        self._reader = reader
        self._clock = clock

    async def append(self, place: str, events: Sequence[Numbered], keep: int, ttl_seconds: float) -> None:
        """See ``EventStore.append``."""
        rows = [(place, number, data) for number, data in events]

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO event_streams VALUES (?,?)", (place, self._clock() + ttl_seconds)
            )
            write_rows(db, "INSERT OR REPLACE INTO events", rows)
            db.execute(
                "DELETE FROM events WHERE place=? AND number <="
                " (SELECT number FROM events WHERE place=? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (place, place, keep),
            )

        await self._transact(work)

    async def after(self, place: str, number: int) -> Sequence[Numbered]:
        """See ``EventStore.after``."""

        def work(db: sqlite3.Connection) -> Sequence[Numbered]:
            return db.execute(
                "SELECT number, CAST(data AS BLOB) FROM events JOIN event_streams USING (place)"
                " WHERE place=? AND number > ? AND until > ? ORDER BY number",
                (place, number, self._clock()),
            ).fetchall()

        found: Sequence[Numbered] = await self._reader.read(work)
        return found

    async def reopen(self) -> None:
        """Read from the file that lies there now."""
        await self._reader.let_go()

    async def close(self) -> None:
        """Let go of the file."""
        await self._reader.close()

    async def drop(self, place: str) -> None:
        """See ``EventStore.drop``."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM events WHERE place=?", (place,))
            db.execute("DELETE FROM event_streams WHERE place=?", (place,))

        await self._transact(work)

    def sweep(self, db: sqlite3.Connection) -> None:
        """Forget what has had its time. Called in the thread, in a transaction, every now and then."""
        over = db.execute(
            "SELECT place FROM event_streams WHERE until <= ? LIMIT ?", (self._clock(), _SWEPT)
        ).fetchall()
        db.executemany("DELETE FROM events WHERE place=?", over)
        db.executemany("DELETE FROM event_streams WHERE place=?", over)


def write_rows(
    db: sqlite3.Connection, insert: str, rows: Sequence[tuple[Any, ...]], on_conflict: str = ""
) -> None:
    """Insert rows by few statements: each costs a turn of the interpreter, which the event loop waits for."""
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        values = [value for row in part for value in row]
        db.execute(_statement(insert, len(part), len(part[0]), on_conflict), values)


@cache
def _statement(insert: str, rows: int, columns: int, on_conflict: str) -> str:
    row = f"({','.join('?' * columns)})"
    return f"{insert} VALUES {','.join([row] * rows)} {on_conflict}"
