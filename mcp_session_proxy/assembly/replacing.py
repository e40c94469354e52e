"""One process takes the place of another: it gets the listening sockets while they go on listening.

Who connects meanwhile waits in the sockets' own queues, so nobody is refused. The two talk over a unix socket
that the older one keeps in a directory of theirs, in packets of JSON (``SOCK_SEQPACKET``):

    newer                          older
    connects           ------->    asks the system who that is: the same user, or nobody
                       <-------    the sockets (SCM_RIGHTS) and what each is for; it serves on
    is ready but for this
    "ready"            ------->    accepts nobody any more
                       <-------    "yours"
    accepts                        drains, as on SIGTERM, and ends

At no time do both accept. Whatever goes wrong before "ready" leaves the older one as it was. An older one
that keeps state says "wait" instead of "yours", drains first, and closes the connection when it has let go of
its directory. One that ends by itself meanwhile says the same. Linux only.

Whoever asks is the same user's, and may still be stuck, or mean harm. So asking keeps nobody else from it:
several may have the sockets, of which the first one that is ready takes the place, and the others are told
so. Each may take its time, and there are few of them: one for each process, and whoever has asked first makes
room.
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

# What the two say to each other. It has to stay as it is for processes of different versions.
_READY: Final = b"ready"
_YOURS: Final = b"yours"
_WAIT: Final = b"wait "  # and so many seconds at most
_TOO_SLOW: Final = b"it took too long to start"
_TAKEN: Final = b"it is being replaced already"
_DISPLACED: Final = b"others have asked since"
_PACKET_BYTES: Final = 64 * 1024
_MOST_SOCKETS: Final = 32
# How long the older one may take to answer: its event loop turns, or it is not well.
_ANSWER_SECONDS: Final = 10.0
# How long the newer one may take to start, before the older one no longer counts on it. It keeps nobody else
# from starting meanwhile.
_START_SECONDS: Final = 120.0
# How many may be starting at the same time.
_MOST_ASKING: Final = 8
# Where the older one cannot accept, for want of descriptors say, it tries again after this; and the newer one
# where its place in the queue is taken.
_PAUSE_SECONDS: Final = 0.1
# A drain may take long; no time without an end is believed.
_LONGEST_WAIT_SECONDS: Final = 24 * 3600.0
_OURS_ALONE: Final = 0o600


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with the sockets: of each, in their order, whom it is for and the address that it was asked
    for by. ``refused`` says why there are none."""

    version: str
    sockets: list[tuple[Role, str]] = []
    refused: str | None = None


def place(directory: Path, listen: Address) -> Path:
    """Where a process that is to listen there waits for its successor. A directory serves several."""
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
        """Ask whoever waits there for its sockets; None if nobody does, or it is about to end.

        Raises:
            CannotStart: somebody does, but hands nothing over.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            try:
                await _connect(connection, path)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                return None  # nothing is there, or what a process left behind that was killed
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
        """Those that it has for this purpose at this address, which the caller closes; None without any."""
        wanted = (role, str(address))
        found = tuple(given for *what, given in self._sockets if tuple(what) == wanted)
        if not found:
            return None
        self._sockets = [each for each in self._sockets if each[:2] != wanted]
        return Bound(Address(address.host or "0.0.0.0", found[0].getsockname()[1]), found)

    async def replace(self) -> None:
        """Have it accept nobody any more. From then on all that it gave is ours alone, and the directory of
        its state is free.

        Raises:
            CannotStart: it has changed its mind, and goes on; or it does not come to its end.
        """
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(_READY)
        verdict = await self._hear(_ANSWER_SECONDS)
        if verdict.startswith(_WAIT):
            verdict = await self._hear(_seconds(verdict.removeprefix(_WAIT)))
        # Nothing is what the system says of a process that has ended: it accepts nobody, either.
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
        """Let go of it, and of what nobody has asked for. If it was not replaced, it goes on. Idempotent."""
        self._connection.close()
        for _, _, given in self._sockets:
            given.close()


async def _connect(connection: socket.socket, path: Path) -> None:
    """Connect. Where too many wait to be accepted, the system has nobody wait for a place (unix(7)).

    Raises:
        CannotStart: there was none in time.
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
    """A time that the older one has named; none where it is no time."""
    try:
        return min(max(0.0, float(text)), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0


async def _receive(connection: socket.socket, pid: int) -> list[tuple[Role, str, socket.socket]] | None:
    """What it hands over; None if it is ending by itself, and listens no more.

    Raises:
        CannotStart: it does not hand anything over, or nothing that can be used.
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
    """Lets a newer process of the same user have the ``sockets``, each list by its role and address.

    ``cease`` is awaited when it is ready: nobody may be accepted any more after that. ``replaced`` is called
    once it has been told so. ``wait_seconds`` is how long this process may take to let go of the directory of
    its state after that; None if it keeps none, so that the newer one need not wait.
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
        # Who has the sockets and is not ready, by its process, in the order in which they asked.
        self._asking: dict[int, socket.socket] = {}
        # Who takes the place: from then on the sockets are its own.
        self._successor: socket.socket | None = None

    def open(self) -> None:
        """Wait for a successor at the path. Whatever socket is there is replaced in one step.

        Raises:
            OSError: that cannot be done.
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
        """Wait no longer. Nobody may be accepted here any more: a newer process that was starting goes on."""
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
                # Who has asked last most likely means it. For two of them the sockets would be too many.
                *others, (_, self._successor) = self._asking.items()
                for _, connection in others:
                    self._dismiss(connection, _TAKEN)
                self._promise(self._successor)
        self._tasks.cancel()

    def leave(self) -> None:
        """Everything is let go of. ``close`` comes before."""
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
            return  # who came has gone again
        except OSError:
            # Who has come stays in the queue, so this would be called again at once, and without end.
            loop.remove_reader(self._waiting)
            self._pause = loop.call_later(_PAUSE_SECONDS, self._listen)
            return
        connection.setblocking(False)
        self._tasks.spawn(self._answer(connection), "successor")

    async def _answer(self, connection: socket.socket) -> None:
        """Hand everything over to one who asks, if that is the right one and nobody else was ready before."""
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
            # If this process ends by itself, its successor hears when it has let go of everything.
            if connection is not self._successor:
                connection.close()
        if problem is not None:
            self._observe(events.ReplacementFailed(pid=pid, problem=problem))

    async def _hand_over(self, connection: socket.socket, pid: int) -> str | None:
        """Gives what went wrong; None if nothing did."""
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
        """A process asks once, and there are few of them: who has asked first makes room."""
        before = self._asking.pop(pid, None)
        if before is None and len(self._asking) >= _MOST_ASKING:
            before = self._asking.pop(next(iter(self._asking)))
        if before is not None:
            self._dismiss(before, _DISPLACED)

    def _dismiss(self, connection: socket.socket, reason: bytes) -> None:
        """Tell one who has asked to go; what answers it finds that it has gone."""
        with contextlib.suppress(OSError):
            connection.send(reason)
            connection.shutdown(socket.SHUT_RD)

    def _promise(self, successor: socket.socket) -> None:
        """Nobody is accepted here any more: tell the newer process, or let it wait until all is let go of."""
        seconds = self._wait_seconds()
        with contextlib.suppress(OSError):  # if it has gone now, it is too late: it may have begun
            successor.send(_YOURS if seconds is None else _WAIT + str(seconds).encode())

    async def _wait_until_ready(self, connection: socket.socket) -> str | None:
        """What is wrong with the newer process; None if it is ready."""
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
