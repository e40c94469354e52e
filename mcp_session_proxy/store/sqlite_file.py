"""A database file of SQLite that several processes share: opened, written in transactions, and opened anew.

All work is done in a thread, so that the event loop never waits for the disk. The journal is a write-ahead
log with ``synchronous=NORMAL``: a process that is killed does no harm to it, and a power cut may lose the
last moments. SQLite's exceptions end here.

People may remove the file, replace or damage it while it is in use. SQLite then goes on writing to a file
that nobody finds again. ``check`` finds that out, and ``open`` opens what is there now.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from ..aio import identity_of
from .engine import StoreFailure

_BUSY_SECONDS: Final = 2.0
# How long a process waits for another one that opens the file. A large one is read through for that.
_ALONE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02
# The database, and the files that SQLite keeps beside it; without them it is not whole.
_FILES: Final = ("", "-wal", "-shm")

T = TypeVar("T")
_Work = Callable[[], Any]


class NewerStore(StoreFailure):
    """The file was written by a newer version of this program, in a format that this one does not know."""


class DamagedStore(StoreFailure):
    """The file is no database, it is another program's, or it is damaged."""


class SqliteFile:
    """The database file at a path.

    ``prepare`` is called in the transaction that opens it. It makes the tables that are missing, or raises
    DamagedStore or NewerStore.
    """

    db: sqlite3.Connection

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._wanted: list[tuple[_Work, asyncio.Future[Any]]] = []
        self._changing = False
        self._found: list[tuple[int, int] | None] = []  # what is open, of each of ``_FILES``
        self._damaged = False
        self._size = 0  # of the database in bytes, when it was opened or checked last

    async def open(self, set_aside: Callable[[DamagedStore], object] | None = None) -> None:
        """Open the file, which is made if there is none. A file that is open is closed first.

        ``set_aside`` is called in the thread to move a damaged file away; then another one is made. Of
        several processes that open the file at a time, one does this after the other.

        Raises:
            DamagedStore, NewerStore: the file cannot be used.
            StoreFailure: it cannot be read or written.
        """
        await self.run(self._open if set_aside is None else lambda: self._open_or_replace(set_aside))

    async def close(self) -> None:
        """Close the file, and end the thread."""
        with contextlib.suppress(StoreFailure):
            await self.run(self._close)
        self._thread.shutdown(wait=False)

    def check(self) -> bool:
        """Whether the file at the path is the one that is open, and nothing is known to be wrong with it.

        A file that has become smaller since the last check counts as damaged until it is opened anew. This
        asks the disk.
        """
        if self._found != self._find():
            return False
        former, self._size = self._size, self._measure()
        if self._size < former:
            # SQLite itself may not read for a long time what somebody has cut off.
            self._damaged = True
        return not self._damaged

    # -- work --------------------------------------------------------------------------------------

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread, and give its result. Cancelling does not stop what has begun.

        Raises:
            StoreFailure: it could not be done.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        except OSError as error:
            raise StoreFailure(f"{self._path}: {error.strerror or error}") from error

    async def change(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread, in a transaction, and give its result.

        Several works that are wanted at a time share one transaction, because a transaction and the way to
        the thread cost more than most works. Each gets its own result, and one that fails is undone alone.

        Raises:
            StoreFailure: this work has changed nothing.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._wanted.append((work, result))
        if not self._changing:
            self._changing = True
            # At the end of this turn of the event loop, so that works of the same turn share a transaction.
            loop.call_soon(self._begin_changes)
        try:
            return await result
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> StoreFailure:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            self._damaged = True
            return DamagedStore(f"{self._path}: {error}")
        return StoreFailure(f"{self._path}: {error}")

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
                continue  # whoever waited was cancelled
            if isinstance(outcome, BaseException):
                result.set_exception(outcome)
            else:
                result.set_result(outcome)
        if self._wanted:
            self._begin_changes()
        else:
            self._changing = False

    # -- in the thread -----------------------------------------------------------------------------

    def _open_or_replace(self, set_aside: Callable[[DamagedStore], object]) -> None:
        with _alone(self._path.parent):
            try:
                self._open()
            except DamagedStore as error:
                set_aside(error)
                self._open()

    def _open(self) -> None:
        if self._found:
            self._close()
        # Made before SQLite makes it, which would let the group read it under the usual umask.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.db = db = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("BEGIN IMMEDIATE")
            self._prepare(db)
            db.execute("COMMIT")
            checked = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            db.close()
            raise self._failure(error) from error
        except StoreFailure:
            db.close()
            raise
        if checked != ("ok",):
            db.close()
            raise DamagedStore(f"{self._path}: {checked[0]}")
        self._damaged = False
        self._found, self._size = self._find(), self._measure()

    def _measure(self) -> int:
        with contextlib.suppress(OSError):
            return self._path.stat().st_size
        return 0

    def _find(self) -> list[tuple[int, int] | None]:
        return [identity_of(f"{self._path}{suffix}") for suffix in _FILES]

    def _close(self) -> None:
        # Closing a damaged file may fail.
        with contextlib.suppress(sqlite3.Error):
            self.db.close()

    def _transact(self, work: Callable[[], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self.db.execute("COMMIT")
        except BaseException:
            # If the disk is full, SQLite may have rolled it back already.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return result

    def _transact_all(self, works: Sequence[_Work]) -> list[Any]:
        """Do all works in one transaction; gives the result of each, or its error."""
        if len(works) == 1:
            return [self._transact(works[0])]
        return self._transact(lambda: self._do_all(works))

    def _do_all(self, works: Sequence[_Work]) -> list[Any]:
        # Nearly always all succeed, and none needs a savepoint of its own.
        self.db.execute("SAVEPOINT all_of_it")
        try:
            return [work() for work in works]
        except sqlite3.Error:
            if not self.db.in_transaction:
                raise  # the error has undone the whole transaction
            self.db.execute("ROLLBACK TO all_of_it")
            return [self._attempt(work) for work in works]

    def _attempt(self, work: _Work) -> Any:
        self.db.execute("SAVEPOINT attempt")
        try:
            result = work()
        except sqlite3.Error as error:
            if not self.db.in_transaction:
                raise  # the error has undone the whole transaction
            self.db.execute("ROLLBACK TO attempt")
            result = error
        self.db.execute("RELEASE attempt")
        return result


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """A block in which one process at a time can be, for this directory.

    Raises:
        StoreFailure: another process was in it for too long.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _ALONE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreFailure(
                        f"{directory}: another process opens it, and comes to no end"
                    ) from None
                time.sleep(_PAUSE_SECONDS)
            except OSError:
                break  # not on every file system
        yield
    finally:
        os.close(descriptor)
