"""A newer process takes the place of an older one: it gets the sockets, which go on listening.

Clients that connect meanwhile wait in the sockets' own queues, so none is refused. The two processes talk
over a unix socket (``SOCK_SEQPACKET``), which the older one keeps in a directory that both know:

    newer                          older
    connects           ------->    asks the system whose process that is: only its own user's may ask
                       <-------    the sockets (SCM_RIGHTS) and what each is for; goes on serving
    starts
    "ready"            ------->    stops accepting
                       <-------    "yours"
    accepts                        drains, as on SIGTERM, and ends

At no time do both accept. If anything fails before "ready", the older process goes on as before. If the older
process keeps state, it answers "wait" instead of "yours", drains first, and closes the connection when it has
let go of its directory. It does the same if it is told to end meanwhile. Linux only.

A process that asks is the same user's, but it may get stuck. So it keeps no other one from asking: several
may have the sockets at a time. The first that is ready takes the place, and the others are told so. They are
few: each process asks once, and when there are too many, the one that has asked first is dismissed.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .. import __version__, events
from ..aio import Tasks, identity_of, peer_process, readable, unix_name
from ..events import Observer
from ..settings.values import Address
from .sockets import Bound, CannotStart, Role, what_is_wrong

# What the two processes say to each other. It must not change, because their versions may differ.
_READY: Final = b"ready"
_YOURS: Final = b"yours"
_WAIT: Final = b"wait "  # followed by the most seconds that it may take
_TOO_SLOW: Final = b"it took too long to start"
_TAKEN: Final = b"it is being replaced already"
_DISPLACED: Final = b"others have asked since"
_PACKET_BYTES: Final = 64 * 1024
_MOST_SOCKETS: Final = 32
# How long the older process may take to answer. A process whose event loop turns answers at once.
_ANSWER_SECONDS: Final = 10.0
# How long the newer process may take to start until it is dismissed.
_START_SECONDS: Final = 120.0
# How many processes may have the sockets and be starting.
_MOST_ASKING: Final = 8
# After this time the older process tries again to accept, if it lacked file descriptors, and the newer one to
# connect, if the queue of the socket was full.
_PAUSE_SECONDS: Final = 0.1
# A drain may take long, but no longer time is believed.
_LONGEST_WAIT_SECONDS: Final = 24 * 3600.0
_OURS_ALONE: Final = 0o600


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with the sockets: the role of each, in their order, and its address in the settings.

    ``refused`` says why there are none.
    """

    version: str
    sockets: list[tuple[Role, str]] = []
    refused: str | None = None


def place(directory: Path, listen: Address) -> Path:
    """The path of the socket on which a process with this address waits for its successor."""
    return directory / f"replace-{listen.host or '*'}:{listen.port}.sock"


# -- the newer one -----------------------------------------------------------------------------------


class Predecessor:
    """The process that is to be replaced, and the sockets that it has given."""

    def __init__(
        self, connection: socket.socket, pid: int, sockets: Sequence[tuple[Role, str, socket.socket]]
    ):
        self.pid = pid
        self._connection = connection
        self._sockets = list(sockets)

    @classmethod
    async def find(cls, path: Path) -> "Predecessor | None":
        """Ask the process that waits at this path for its sockets; None if there is none, or it is ending.

        Raises:
            CannotStart: it does not give its sockets.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            try:
                await _connect(connection, path)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                return None  # there is no socket, or one that a killed process has left
            pid, user = peer_process(connection)
            if user != os.geteuid():
                raise CannotStart(f"--replace: {path} belongs to a process of another user (uid {user})")
            sockets = await _receive(connection, pid)
            if sockets is None:
                connection.close()
                return None
            return cls(connection, pid, sockets)
        except OSError as error:
            connection.close()
            raise CannotStart(f"--replace: {path}: {error.strerror or error}") from error
        except BaseException:
            connection.close()
            raise

    def sockets(self, role: Role, address: Address) -> Bound | None:
        """Its sockets of this role and address; None if it has none. The caller closes them."""
        wanted = (role, str(address))
        found = tuple(given for *what, given in self._sockets if tuple(what) == wanted)
        if not found:
            return None
        self._sockets = [each for each in self._sockets if each[:2] != wanted]
        return Bound(Address(address.host or "0.0.0.0", found[0].getsockname()[1]), found)

    async def replace(self) -> None:
        """Have it stop accepting. From then on no other process uses its sockets or its directory of state.

        Raises:
            CannotStart: it goes on, or does not end in time.
        """
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(_READY)
        verdict = await self._hear(_ANSWER_SECONDS)
        if verdict.startswith(_WAIT):
            verdict = await self._hear(_seconds(verdict.removeprefix(_WAIT)))
        # An empty packet means that the process has ended.
        if verdict not in (_YOURS, b""):
            raise CannotStart(f"--replace: process {self.pid} goes on: {verdict.decode(errors='replace')}")

    async def _hear(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                await readable(self._connection)
                return self._connection.recv(_PACKET_BYTES)
        except TimeoutError:
            raise _silent(self.pid) from None
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """Close the connection and the sockets that were not asked for. Idempotent.

        If the older process was not replaced, it goes on.
        """
        self._connection.close()
        for _, _, given in self._sockets:
            given.close()


async def _connect(connection: socket.socket, path: Path) -> None:
    """Connect, and try again while the queue of the socket is full: the system does not wait (unix(7)).

    Raises:
        CannotStart: it was full for too long.
        OSError: nobody listens there.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            while True:
                with unix_name(path) as name, contextlib.suppress(BlockingIOError):
                    connection.connect(name)
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        raise CannotStart(
            f"--replace: {path}: too many others ask there; stop them, and start again"
        ) from None


def _seconds(text: bytes) -> float:
    """The time that the older process has named, in seconds; 0 if it cannot be read."""
    try:
        return min(max(0.0, float(text)), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0


async def _receive(connection: socket.socket, pid: int) -> list[tuple[Role, str, socket.socket]] | None:
    """The sockets that it gives, each with role and address; None if it is ending.

    Raises:
        CannotStart: it gives none, or some that cannot be used.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await readable(connection)
    except TimeoutError:
        raise _silent(pid) from None
    packet, numbers, _, _ = socket.recv_fds(connection, _PACKET_BYTES, _MOST_SOCKETS)
    if not packet:
        return None
    given = [socket.socket(fileno=number) for number in numbers]
    try:
        handed = msgspec.json.decode(packet, type=Handed)
        _check(handed, given)
    except (msgspec.MsgspecError, ValueError) as error:
        for each in given:
            each.close()
        raise CannotStart(f"--replace: process {pid} hands nothing over: {error}") from None
    return [(role, written, each) for (role, written), each in zip(handed.sockets, given, strict=True)]


def _check(handed: Handed, given: Sequence[socket.socket]) -> None:
    if handed.refused is not None:
        raise ValueError(handed.refused)
    if len(handed.sockets) != len(given):
        raise ValueError(f"it has sent {len(given)} sockets instead of {len(handed.sockets)}")
    for each in given:
        if (problem := what_is_wrong(each)) is not None:
            raise ValueError(problem)


def _silent(pid: int) -> CannotStart:
    return CannotStart(f"--replace: process {pid} does not answer; stop it, and start again")


# -- the older one -----------------------------------------------------------------------------------


class Replaceable:
    """Gives the ``sockets`` to a newer process of the same user.

    ``cease`` is awaited when that is ready, and stops accepting. ``replaced`` is called when the newer
    process has been told so. ``wait_seconds`` gives how long this process may then take to let go of the
    directory of its state; None if it keeps none, and the newer one need not wait.
    """

    def __init__(
        self,
        path: Path,
        sockets: Mapping[tuple[Role, Address], Sequence[socket.socket]],
        *,
        cease: Callable[[], Awaitable[None]],
        replaced: Callable[[], None],
        wait_seconds: Callable[[], float | None],
        observe: Observer,
    ) -> None:
        self._path = path
        self._sockets = [
            (role, str(address), each) for (role, address), found in sockets.items() for each in found
        ]
        self._cease = cease
        self._replaced = replaced
        self._wait_seconds = wait_seconds
        self._observe = observe
        self._tasks = Tasks()
        self._waiting: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._own: tuple[int, int] | None = None
        # The processes that have the sockets and are not ready, by their ids, in the order in which they
        # asked.
        self._asking: dict[int, socket.socket] = {}
        # The process that takes the place of this one. The sockets are its own from then on.
        self._successor: socket.socket | None = None

    def open(self) -> None:
        """Wait for a successor at the path. A socket that is there is replaced in one step.

        Raises:
            OSError: the socket cannot be made there.
        """
        if self._path.exists() and not stat.S_ISSOCK(self._path.stat().st_mode):
            raise FileExistsError(f"{self._path} is no socket")
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with unix_name(draft) as name:
                waiting.bind(name)
            draft.chmod(_OURS_ALONE)
            # Nobody can have connected before: it does not listen yet.
            waiting.listen()
            waiting.setblocking(False)
            self._own = identity_of(draft)
            draft.replace(self._path)
        except BaseException:
            waiting.close()
            draft.unlink(missing_ok=True)
            raise
        self._waiting = waiting
        self._listen()

    def close(self) -> None:
        """Stop waiting for a successor.

        Nothing may accept any more: one that was starting takes the place.
        """
        if self._waiting is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._waiting)
        self._waiting.close()
        self._waiting = None
        if self._successor is None:
            self._remove_path()
            if self._asking:
                # Only one can have the sockets: the one that has asked last.
                *others, (_, self._successor) = self._asking.items()
                for _, connection in others:
                    self._dismiss(connection, _TAKEN)
                self._promise(self._successor)
        self._tasks.cancel()

    def leave(self) -> None:
        """Tell the successor that this process has let go of everything. ``close`` comes before."""
        if self._successor is not None:
            self._successor.close()
            self._successor = None

    def _remove_path(self) -> None:
        if self._own is not None and identity_of(self._path) == self._own:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _listen(self) -> None:
        self._pause = None
        if self._waiting is not None:
            asyncio.get_running_loop().add_reader(self._waiting, self._arrive)

    def _arrive(self) -> None:
        assert self._waiting is not None
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._waiting.accept()
        except (BlockingIOError, ConnectionError):
            return  # the process that connected has gone again
        except OSError:
            # The connection stays in the queue, so this would be called again at once, without end.
            loop.remove_reader(self._waiting)
            self._pause = loop.call_later(_PAUSE_SECONDS, self._listen)
            return
        connection.setblocking(False)
        self._tasks.spawn(self._answer(connection), "successor")

    async def _answer(self, connection: socket.socket) -> None:
        """Give the sockets to a process that asks, and let it take the place if it is ready first."""
        pid, problem = 0, None
        try:
            pid, user = peer_process(connection)
            if user != os.geteuid():
                problem = f"it is another user's (uid {user})"
            elif self._successor is not None:
                self._send(connection, refused=_TAKEN.decode())
            else:
                problem = await self._hand_over(connection, pid)
        except OSError as error:
            problem = str(error.strerror or error)
            if connection is self._successor:
                self._successor = None
        finally:
            # The connection of the successor stays open until this process has let go of everything.
            if connection is not self._successor:
                connection.close()
        if problem is not None:
            self._observe(events.ReplacementFailed(pid=pid, problem=problem))

    async def _hand_over(self, connection: socket.socket, pid: int) -> str | None:
        """Give the sockets, and wait until the process is ready; gives the problem, if there was one."""
        self._make_room(pid)
        self._asking[pid] = connection
        try:
            self._send(connection)
            problem = await self._wait_until_ready(connection)
        finally:
            if self._asking.get(pid) is connection:
                del self._asking[pid]
        if problem is not None:
            return problem
        if self._successor is not None:
            connection.send(_TAKEN)
            return None
        self._successor = connection
        await self._cease()
        self._promise(connection)
        self._observe(events.Replaced(pid=pid))
        self._replaced()
        return None

    def _make_room(self, pid: int) -> None:
        """Dismiss what the process has asked before, or, if too many ask, the one that has asked first."""
        before = self._asking.pop(pid, None)
        if before is None and len(self._asking) >= _MOST_ASKING:
            before = self._asking.pop(next(iter(self._asking)))
        if before is not None:
            self._dismiss(before, _DISPLACED)

    def _dismiss(self, connection: socket.socket, reason: bytes) -> None:
        """Tell a process that it does not get the place. The task that answers it finds it gone."""
        with contextlib.suppress(OSError):
            connection.send(reason)
            connection.shutdown(socket.SHUT_RD)

    def _promise(self, successor: socket.socket) -> None:
        """Tell the newer process that this one has stopped accepting, and whether it has to wait."""
        seconds = self._wait_seconds()
        with contextlib.suppress(OSError):  # if it has gone now, it is too late: it may have begun
            successor.send(_YOURS if seconds is None else _WAIT + str(seconds).encode())

    async def _wait_until_ready(self, connection: socket.socket) -> str | None:
        """Wait until the newer process is ready; gives the problem, if it is not."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await readable(connection)
        except TimeoutError:
            connection.send(_TOO_SLOW)
            return _TOO_SLOW.decode()
        return None if connection.recv(_PACKET_BYTES) == _READY else "it did not start"

    def _send(self, connection: socket.socket, *, refused: str | None = None) -> None:
        given = [] if refused else self._sockets
        handed = Handed(
            version=__version__, sockets=[(role, written) for role, written, _ in given], refused=refused
        )
        packet, numbers = msgspec.json.encode(handed), [each.fileno() for _, _, each in given]
        socket.send_fds(connection, [packet], numbers)
