"""A file of SQLite's that any number of processes share: opened, written in transactions, and opened anew.

Everything is done in one thread of its own: the event loop never waits for the disk. The journal is a
write-ahead log with ``synchronous=NORMAL``, which a killed process cannot harm; a power cut may lose the last
moments. SQLite's exceptions end here.

Whoever has access to the file may remove it, put another in its place or damage it while it is in use, and
SQLite goes on writing to what nobody finds again. ``check`` finds that out; ``open`` opens what is there.
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
# A large file is read through when it is opened.
_ALONE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02
# The database, and what SQLite keeps beside it, without which that is nothing.
_FILES: Final = ("", "-wal", "-shm")

T = TypeVar("T")
_Work = Callable[[], Any]


class NewerStore(StoreFailure):
    """The file was written by a newer version, which may have meant things that this one does not know."""


class DamagedStore(StoreFailure):
    """The file is no database, not one of ours, or damaged."""


class SqliteFile:
    """The file at a path, once it is open. ``prepare`` is called in the transaction that opens it: it has the
    tables in there, or raises DamagedStore or NewerStore.
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
        """Open the file, or make it; open it anew, if it is open.

        With ``set_aside``, which is called in the thread and moves a damaged file away, another one is made
        in its place. Processes that do so at once do it one after the other.

        Raises:
            DamagedStore, NewerStore: it is none that could be used.
            StoreFailure: it cannot be read or written.
        """
        await self.run(self._open if set_aside is None else lambda: self._open_or_replace(set_aside))

    async def close(self) -> None:
        """Close it."""
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
        """Do it in the thread. Cancelling does not stop it: what was begun is done whole.

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
        """Do it in the thread, in one transaction with what others want at the same time: each has its own
        result, and what fails is undone alone.

        The way to the thread and back costs more than the work, and so does a transaction.

        Raises:
            StoreFailure: nothing was changed.
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
                continue  # nobody waits for it any more
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
        # Before SQLite does: it would make it readable for the group, by the usual umask.
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
        # What is damaged may not even be closed in order.
        with contextlib.suppress(sqlite3.Error):
            self.db.close()

    def _transact(self, work: Callable[[], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self.db.execute("COMMIT")
        except BaseException:
            # A disk that is full may have rolled it back already.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return result

    def _transact_all(self, works: Sequence[_Work]) -> list[Any]:
        """The result of each, or what kept it from that."""
        if len(works) == 1:
            return [self._transact(works[0])]
        return self._transact(lambda: self._do_all(works))

    def _do_all(self, works: Sequence[_Work]) -> list[Any]:
        # Nearly always all of it can be done, and then none needs a way back of its own.
        self.db.execute("SAVEPOINT all_of_it")
        try:
            return [work() for work in works]
        except sqlite3.Error:
            if not self.db.in_transaction:
                raise  # with it, all of the transaction was undone
            self.db.execute("ROLLBACK TO all_of_it")
            return [self._attempt(work) for work in works]

    def _attempt(self, work: _Work) -> Any:
        self.db.execute("SAVEPOINT attempt")
        try:
            result = work()
        except sqlite3.Error as error:
            if not self.db.in_transaction:
                raise  # with it, all of the transaction was undone
            self.db.execute("ROLLBACK TO attempt")
            result = error
        self.db.execute("RELEASE attempt")
        return result


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process is in such a block for this directory meanwhile.

    Raises:
        StoreFailure: one is, and does not come to its end.
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
