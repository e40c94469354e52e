"""All children of one command: they are started here, a few at a time, and here they are seen off.

Whoever is done with one dismisses it and need not wait; the goodbye goes on until nothing of the child's
group is left, and is never longer than its bound. So there are as many children as sessions, and those that
are leaving; where too many are, the next ones are hurried.
"""

import asyncio
import secrets
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ... import events
from ...aio import Signal, Tasks
from ...bounds import (
    CHILD_LEAVES_SECONDS,
    CHILD_TERMINATES_SECONDS,
    STDERR_LINE_CHARS,
    STDERR_LINES_A_SECOND,
)
from ...errors import ServerNotStarted
from ...events import Observer
from ...memory import UNBOUNDED, Share
from ...protocol.lines import LineSplitter, LineTooLong
from .child import Child
from .environment import PRIVATE, Environment, Stderr, hide
from .leftovers import Ledger

# What each step of a goodbye may take where too many are under way.
_HURRIED_SECONDS: Final = 0.2
# After SIGKILL, only the kernel can hold a process back.
_DIES_SECONDS: Final = 2.0
_LAST_LINES: Final = 10
_LAST_BYTES: Final = 4096
_STDERR: Final = {
    Stderr.LOG: asyncio.subprocess.PIPE,
    Stderr.INHERIT: None,
    Stderr.DISCARD: asyncio.subprocess.DEVNULL,
}


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What is started, and with what. The arguments may hold secrets, so only the ``name`` is shown."""

    words: tuple[str, ...]
    environment: Environment
    cwd: Path | None = None
    stderr: Stderr = Stderr.LOG

    @property
    def name(self) -> str:
        """The program, without its arguments and its directory."""
        return Path(self.words[0]).name


class Starts:
    """How many may be started at the same time: ``limit`` may change at any time."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0
        self._freed = Signal()

    async def take(self) -> None:
        """Wait for a place. Whoever was given one has to ``give_back``."""
        while self._taken >= self._limit():
            await self._freed.wait()
        self._taken += 1

    def give_back(self) -> None:
        """Somebody has started."""
        self._taken -= 1
        self._freed.give()

    def look_again(self) -> None:
        """There may be room now."""
        self._freed.give()


class ChildNow(NamedTuple):
    """One child as it is now. ``said`` are the last lines that it has written to standard error, without
    secrets.
    """

    child: Child
    age_seconds: float
    leaving: bool
    said: Sequence[str]


class Children:
    """The children of one program. ``max_leaving`` of them at most are given time to leave.

    Large lines on their way from them count against ``room``.
    """

    def __init__(
        self,
        program: Program,
        *,
        ledger: Ledger,
        observe: Observer,
        max_leaving: Callable[[], int],
        room: Share = UNBOUNDED,
    ) -> None:
        self.program = program
        self._room = room
        self._ledger = ledger
        self._observe = observe
        self._max_leaving = max_leaving
        self._now = asyncio.get_running_loop().time
        self._alive: dict[Child, float] = {}  # and since when
        self._words: dict[Child, _Words] = {}
        self._homes: dict[Child, Path] = {}
        self._leaving: dict[Child, asyncio.Event] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        """How many there are, those that are leaving among them."""
        return len(self._alive)

    def __contains__(self, pid: object) -> bool:
        """Whether this process is one of them, or may be."""
        return any(child.pid == pid for child in self._words)

    def newest_first(self, limit: int | None = None) -> list[ChildNow]:
        """The newest children, the newest first; all of them without a limit."""
        now = self._now()
        return [
            ChildNow(child, now - since, child in self._leaving, self._words[child].last)
            for child, since in islice(reversed(self._alive.items()), limit)
        ]

    # -- the beginning ---------------------------------------------------------------------------------

    def prepare(self, *, heard: Callable[[list[bytes]], None], over: Callable[[str], None]) -> Child:
        """A child that is to be started; what is told is as for any ``Child``."""
        words = _Words(self._observe, self._now)
        child = Child(heard=heard, said=words.take, over=over, room=self._room)
        self._words[child] = words
        return child

    async def start(self, child: Child, variables: Mapping[str, str]) -> None:
        """Start a child with these variables. Whoever does sees to it that it is dismissed.

        Cancelled or failed, this leaves nothing behind.

        Raises:
            ServerNotStarted: the system does not start it.
        """
        # In a task of its own: cut short amid it, a process may be there that nobody knows of.
        starting = self._tasks.spawn(self._start(child, variables), f"start {self.program.name}")
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda task: task.exception() or self.dismiss(child))
            raise

    async def _start(self, child: Child, variables: Mapping[str, str]) -> None:
        program, words = self.program, self._words[child]
        words.secrets = program.environment.secrets(variables)
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: child,
                *program.words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=_STDERR[program.stderr],
                env=dict(variables),
                cwd=self._make_home(child),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # a NUL in a word is a ValueError
            why = getattr(error, "strerror", None) or str(error)
            raise ServerNotStarted(
                f"The MCP server's command ({program.name}) cannot be started: {why}."
            ) from error
        else:
            self._alive[child] = self._now()
            self._ledger.note(child.pid)
            self._observe(events.ChildStarted(pid=child.pid, program=program.name))
        finally:
            words.pid = child.pid
            if child not in self._alive:
                del self._words[child]
                await self._remove_home(child)
        # It may have ended before anybody could know of it here.
        if child.is_over:
            self.dismiss(child)

    # -- the end ---------------------------------------------------------------------------------------

    def dismiss(self, child: Child) -> asyncio.Event:
        """Say goodbye to a child, if nobody has done so yet; gives what is set when nothing is left of it."""
        gone = self._leaving.get(child)
        if gone is None:
            gone = asyncio.Event()
            if child in self._alive:
                self._leaving[child] = gone
                self._tasks.spawn(self._see_off(child, gone), f"goodbye {child.pid}")
            else:
                gone.set()
        return gone

    async def _see_off(self, child: Child, gone: asyncio.Event) -> None:
        """Close its standard input; SIGTERM; SIGKILL. Then its group is empty, and its pipes are closed."""
        by_itself = child.has_exited
        how = "exited" if by_itself else "left"
        hurried = len(self._leaving) > self._max_leaving()
        child.close_stdin()
        try:
            # Also of one whose process has ended: what that has started may be there still.
            if not await child.left(_HURRIED_SECONDS if hurried else CHILD_LEAVES_SECONDS):
                how = how if by_itself else "terminated"
                child.signal(signal.SIGTERM)
                if not await child.left(_HURRIED_SECONDS if hurried else CHILD_TERMINATES_SECONDS):
                    how = how if by_itself else "killed"
                    child.signal(signal.SIGKILL)
                    await child.left(_DIES_SECONDS)
        finally:
            child.close()
            self._forget(child, how)
            await self._remove_home(child)
            gone.set()

    def _forget(self, child: Child, how: str) -> None:
        """Nothing is left of it, or nothing that can be helped."""
        self._ledger.strike(child.pid)
        words, ending, began = self._words.pop(child), child.ending, self._alive.pop(child)
        del self._leaving[child]
        kind = events.ChildEnded if child.answered or how != "exited" else events.ChildFailed
        self._observe(
            kind(
                pid=child.pid,
                how=how,
                status=ending.status,
                signal=ending.signal,
                seconds=self._now() - began,
                last_words=None if child.answered else "\n".join(words.last) or None,
            )
        )

    async def close(self) -> None:
        """Say goodbye to all, and wait until they have left."""
        for child in tuple(self._alive):
            self.dismiss(child)
        await self._tasks.ended()

    # -- working directories ---------------------------------------------------------------------------

    def _make_home(self, child: Child) -> Path | None:
        """The child's working directory, which is made where it is the child's own."""
        cwd = self.program.cwd
        if cwd is None or PRIVATE not in str(cwd):
            return cwd
        name = f"session-{secrets.token_hex(8)}"
        home = Path(*(part.replace(PRIVATE, name) for part in cwd.parts))
        first = next(index for index, part in enumerate(cwd.parts) if PRIVATE in part)
        # What is the child's own begins with the first part that names it, and is removed with the child.
        own = self._homes[child] = Path(*home.parts[: first + 1])
        try:
            own.mkdir(mode=0o700, parents=True)
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServerNotStarted(
                f"The MCP server's working directory (--stdio-cwd) cannot be made: {error.strerror}."
            ) from error
        return home

    async def _remove_home(self, child: Child) -> None:
        home = self._homes.pop(child, None)
        if home is not None:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


class _Words:
    """What one child writes to standard error, on its way to the log: without secrets, and only so much.

    What a second has no room for is not even cut into lines, or a child that writes without end would have
    others wait.
    """

    def __init__(self, observe: Observer, now: Callable[[], float]) -> None:
        self.pid = 0
        self.secrets: tuple[str, ...] = ()
        self._observe = observe
        self._now = now
        self._lines = LineSplitter(STDERR_LINE_CHARS)
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._passed_over = b""  # the end of it, until lines are told again
        self._second = 0
        self._told = 0
        self._untold = 0

    @property
    def last(self) -> list[str]:
        """The last lines."""
        # The first of these is cut.
        lines = filter(None, self._passed_over.split(b"\n")[1:])
        return [*self._last, *map(self._text, lines)][-_LAST_LINES:]

    def take(self, piece: bytes) -> None:
        """Tell of lines as many as this second has room for; the others are counted."""
        second = int(self._now())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= STDERR_LINES_A_SECOND:
            self._pass_over(piece)
            return
        if self._passed_over:
            # Of a line that was begun unheard, the rest might be half of a secret.
            if not self._passed_over.endswith(b"\n"):
                _, end, piece = piece.partition(b"\n")
                if not end:
                    return
            self._passed_over = b""
        self._tell(self._split(piece))

    def _pass_over(self, piece: bytes) -> None:
        self._untold += piece.count(b"\n")
        self._passed_over = piece[-_LAST_BYTES:]
        self._lines.take_pending()

    def _split(self, piece: bytes) -> list[bytes]:
        try:
            return self._lines.feed(piece)
        except LineTooLong:
            # What there is of it is a line, and the rest is the next one.
            return self._lines.take_pending().split(b"\n")[:STDERR_LINES_A_SECOND]

    def _tell(self, lines: list[bytes]) -> None:
        told = lines[: STDERR_LINES_A_SECOND - self._told]
        self._told += len(told)
        for line in told:
            self._observe(events.ServerSaid(pid=self.pid, text=self._text(line), untold=self._untold or None))
            self._untold = 0
        self._untold += len(lines) - len(told)
        self._last.extend(map(self._text, lines[-_LAST_LINES:]))

    def _text(self, line: bytes) -> str:
        return hide(line[:STDERR_LINE_CHARS].decode("utf-8", "replace"), self.secrets)
