"""What asyncio and the system leave to everybody to write: tasks kept until they end, a signal, long work,
waits, what tells one file from another, and what is special about unix sockets.
"""

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Awaitable, Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

_T = TypeVar("_T")
# As long as one piece of long work may take, in which everybody else waits.
_PIECE_SECONDS: Final = 0.005
# What the system allows for the path of a unix socket, without the zero at its end.
_UNIX_PATH_BYTES: Final = 107
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group (unix(7))


class Tasks(set[asyncio.Task[Any]]):
    """Tasks that run in the background. Each of them is kept in here until it has ended.

    The event loop itself keeps only weak references: a task that nobody else holds may vanish in the middle
    of its work. What a task raises is raised where it is awaited. If nobody awaits it, asyncio tells the
    exception handler of the loop when the task leaves this set.

    This is a plain set, so that one that stays empty costs no call of a Python function.
    """

    __slots__ = ()

    def spawn(self, work: Coroutine[Any, Any, _T], name: str | None = None) -> asyncio.Task[_T]:
        """Begin a task, and keep it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.keep(task)
        return task

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task that somebody else began."""
        self.add(task)
        task.add_done_callback(self.discard)

    def cancel(self, *spared: asyncio.Task[Any] | None) -> None:
        """Cancel all but those that are spared. The running task does not cancel itself."""
        for task in self - {*spared, asyncio.current_task()}:
            task.cancel()

    async def ended(self) -> None:
        """Wait until none but the running task is left; those that begin meanwhile are waited for, too."""
        while others := self - {asyncio.current_task()}:
            await asyncio.wait(others)


class Signal(list[asyncio.Future[None]]):
    """Wakes everybody who waits for it now. Nothing is remembered: who waits later, waits for the next time.

    So before waiting, look whether the thing waited for has happened already, and look again after waking;
    between a look and the wait there must be no ``await``. An ``asyncio.Event`` remembers, and has to be
    cleared by somebody who knows that everybody has seen it; where several wait, nobody knows that.

    This is a plain list of those who wait, for the same reason for which ``Tasks`` is a set.
    """

    __slots__ = ()

    def give(self, _: object = None) -> None:
        """Wake everybody who waits. May be what a future calls when it is done."""
        for future in self:
            if not future.done():  # its task may have been cancelled in this very step
                future.set_result(None)
        self.clear()

    async def wait(self) -> None:
        """Wait until the signal is given."""
        # Each has a future of its own: one for all would be cancelled with the first of them, or need a
        # shield, which costs each several calls.
        future = asyncio.get_running_loop().create_future()
        self.append(future)
        try:
            await future
        except BaseException:
            if future in self:
                self.remove(future)
            raise


async def all_of(works: Iterable[Awaitable[_T]]) -> list[_T]:
    """What all of these give, once none of them goes on. Raises what the first of those raises that fail."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast(list[_T], done)


def break_circle(error: BaseException | None) -> None:
    """Drop the traceback of an error, which most likely leads back to the error.

    It leads to frames of asyncio and aiohttp, and one of these keeps the error. Such a circle would keep
    megabytes of what was being read or written until the garbage collector runs, which is seldom.
    """
    if error is not None:
        error.__traceback__ = None


async def in_pieces(work: Generator[None, None, _T]) -> _T:
    """Do long work. Where it yields, other tasks get a turn, once some milliseconds have gone by.

    Do several such works one after the other: each that runs takes a part of everybody's time.
    """
    now = time.perf_counter
    until = now() + _PIECE_SECONDS
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        if now() >= until:
            await asyncio.sleep(0)
            until = now() + _PIECE_SECONDS


async def readable(connection: socket.socket) -> None:
    """Wait until something has arrived on a socket, or its other side has left. Nothing is read."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def note() -> None:
        loop.remove_reader(connection)
        if not arrived.done():  # whoever waited may have been called off in the same moment
            arrived.set_result(None)

    loop.add_reader(connection, note)
    try:
        await arrived
    finally:
        loop.remove_reader(connection)


def identity_of(path: str | Path) -> tuple[int, int] | None:
    """What tells a file or socket that is open from any other that is ever at its path; None where there is
    none.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def unix_name(path: Path) -> Iterator[str]:
    """A name for this path that is short enough for a unix socket: by way of its directory's descriptor."""
    if len(os.fsencode(path)) <= _UNIX_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def peer_process(connection: socket.socket) -> tuple[int, int]:
    """The process at the other end of a unix socket and its user, as the system knows them."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(found)
    return pid, user
