"""One child: a process in a group of its own, its three pipes, and how it ends.

It leads a process group because shells and ``npx`` pass no signals on: whoever signals the child signals what
it has started, too. What it says comes line by line and is given on at once; what it is told is written at
once, or kept up to a bound.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from ...bounds import CHILD_UNREAD_BYTES, SERVER_EVENT_BYTES, SMALL_BYTES
from ...errors import OverBudget, UpstreamTimeout
from ...memory import UNBOUNDED, Share
from ...protocol.lines import LineSplitter, LineTooLong
from ..duplex import DuplexSession

_STDIN, _STDOUT = 0, 1
# Its exit and the end of its pipes are heard of one after the other: how long for the one after the other.
_LAST_WORD_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.02


class Ending(NamedTuple):
    """How a process ended: by itself, with a status, or by a signal. Neither: it has not."""

    status: int | None = None
    signal: str | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return "goes on" if self.status is None else f"ended with exit status {self.status}"


class StandardInput:
    """What a child is told, in lines.

    ``pipe`` gives the way to it, or None once there is none. ``unread`` is told why the child is of no use
    any more if it reads nothing. Once this ``is_closed``, nothing is written.
    """

    __slots__ = ("_dropped_bytes", "_pipe", "_unread", "_unsent", "_unwritten_before", "is_closed")

    def __init__(self, pipe: Callable[[], Any], unread: Callable[[str], None]) -> None:
        self.is_closed = False
        self._pipe = pipe
        self._unread = unread
        self._unsent = bytearray()  # in this turn of the event loop
        self._unwritten_before = 0  # when this turn began
        self._dropped_bytes = 0

    def write(self, line: bytes) -> None:
        """Write a line, which has no end yet.

        Raises:
            UpstreamTimeout: the child reads nothing, and has too much to read already.
        """
        # Why it was closed is told in a moment; until then, this counts as not written.
        if self.is_closed:
            self._dropped_bytes += len(line) + 1
            return
        # Calls come in together: what they say in one turn of the event loop is one write, and one wake-up.
        unsent = self._unsent
        if not unsent:
            self._unwritten_before = self._waiting_bytes
            asyncio.get_running_loop().call_soon(self._flush)
        waiting = self._unwritten_before + len(unsent)
        # One line alone may be larger than that: how large, the limit of clients' bodies says.
        if waiting and waiting + len(line) > CHILD_UNREAD_BYTES:
            self._unread("it reads nothing of what it is told")
            raise UpstreamTimeout("The MCP server reads nothing of what it is told.")
        # Between its tokens, JSON may have ends of lines, and within them none.
        if b"\n" in line:
            line = line.replace(b"\n", b" ")
        unsent += line
        unsent += b"\n"

    def _flush(self) -> None:
        """Write what was kept for the end of this turn; where it was closed since, that is never written."""
        lines, self._unsent = self._unsent, bytearray()
        if self.is_closed:
            self._dropped_bytes += len(lines)
        elif lines:
            self._pipe().write(lines)

    def close(self) -> None:
        """Write what was kept, and say that there is nothing more."""
        self._flush()
        self.is_closed = True
        if (pipe := self._pipe()) is not None:
            pipe.close()

    @property
    def unwritten_bytes(self) -> int:
        """How much of what was to be written last certainly was not."""
        return self._dropped_bytes + len(self._unsent) + self._waiting_bytes

    @property
    def _waiting_bytes(self) -> int:
        """How much there is that the pipe does not take yet."""
        pipe = self._pipe()
        return 0 if pipe is None or pipe.is_closing() else int(pipe.get_write_buffer_size())


class Child(asyncio.SubprocessProtocol):
    """A process that was started, until nothing of its group is left.

    What has come of a large line that has not ended counts against ``room``.

    ``heard`` is given the lines that it writes to standard output, as they come, ``said`` what it writes to
    standard error, in pieces. ``over`` is told once, why it can be of no use any more, when all that it had
    written has been heard. None of them may block or raise.
    """

    def __init__(
        self,
        *,
        heard: Callable[[list[bytes]], None],
        said: Callable[[bytes], None],
        over: Callable[[str], None],
        room: Share = UNBOUNDED,
    ) -> None:
        # Whoever talks to it says so: whether it has answered, and the session whose messages its lines are.
        self.answered = False
        self.carries: DuplexSession | None = None
        self.is_over = False
        self._heard = heard
        self._said = said
        self._on_over = over
        self._room = room
        self._taken_bytes = 0
        self.found_no_room = False
        self._lines = LineSplitter(SERVER_EVENT_BYTES)
        self._process: asyncio.SubprocessTransport
        self.pid = 0  # and the number of its group
        self._exited = asyncio.get_running_loop().create_future()
        self._heard_all = False
        self._paused = False
        self.stdin = StandardInput(lambda: self._pipe(_STDIN), self._begin_end)
        self._end: asyncio.TimerHandle | None = None
        self._why = ""

    def __repr__(self) -> str:
        return f"<Child {self.pid} {self.ending}>"

    @property
    def ending(self) -> Ending:
        """How the process ended, if it has."""
        code = self._process.get_returncode()
        if code is None:
            return Ending()
        if code >= 0:
            return Ending(status=code)
        try:
            return Ending(signal=signal.Signals(-code).name)
        except ValueError:  # a real-time signal has no name
            return Ending(signal=f"signal {-code}")

    @property
    def has_exited(self) -> bool:
        """Whether the process itself has ended; others in its group may go on."""
        return self._exited.done()

    # -- its pipes -----------------------------------------------------------------------------------

    def _pipe(self, fd: int) -> Any:
        return self._process.get_pipe_transport(fd)

    def pause(self) -> None:
        """Let it wait with what it writes."""
        if not self._heard_all:
            self._paused = True
            self._pipe(_STDOUT).pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if not self._heard_all:
            self._pipe(_STDOUT).resume_reading()

    # -- what asyncio tells --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It was started."""
        self._process = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._process.get_pid() or 0

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It has written something."""
        if fd == _STDOUT:
            if self.found_no_room:
                return
            try:
                lines = self._lines.feed(data)
            except LineTooLong:
                self._begin_end(f"it wrote a line of more than {SERVER_EVENT_BYTES} bytes")
                return
            if lines:
                self._heard(lines)
            # Nearly all lines are small, and gone as soon as they are whole.
            if self._lines.pending_bytes > SMALL_BYTES or self._taken_bytes:
                self._account(self._lines.pending_bytes)
        else:
            self._said(data)

    def _account(self, size_bytes: int) -> None:
        """So much is in memory of a line that has not ended."""
        more_bytes = size_bytes - self._taken_bytes
        try:
            if more_bytes > 0:
                self._room.take(more_bytes, large=True)
            else:
                self._room.give_back(-more_bytes)
        except OverBudget:
            self.found_no_room = True
            self._begin_end("it writes more than there is memory for (--memory-budget)")
            return
        self._taken_bytes = size_bytes

    def pipe_connection_lost(self, fd: int, _: Exception | None) -> None:
        """One of its pipes is closed, at its end or at ours."""
        if fd == _STDOUT:
            self._heard_all = True
            self._hear_last_line()
            self._begin_end("it closed its standard output")
        elif fd == _STDIN:
            self._begin_end("it closed its standard input")

    def _hear_last_line(self) -> None:
        """Take a message whose line has not ended, and never will. Half of one is nobody's."""
        if self.found_no_room or self._lines.pending_bytes > SERVER_EVENT_BYTES:
            return
        last = self._lines.take_pending().strip()
        self._account(0)
        if last[:1] in (b"{", b"[") and last[-1:] in (b"}", b"]"):
            self._heard([last])

    def process_exited(self) -> None:
        """The process itself has ended; others in its group may go on."""
        if not self._exited.done():
            self._exited.set_result(None)
        self._begin_end("its process has ended")

    def _begin_end(self, why: str) -> None:
        """Something shows that it is of no use any more. What that is, the next moment says more of."""
        if self.is_over:
            return
        self.stdin.is_closed = True
        if self._end is None:
            self._why = why
            self._end = asyncio.get_running_loop().call_later(_LAST_WORD_SECONDS, self._tell_end)
        if self._exited.done() and self._heard_all:
            self._tell_end()

    def _tell_end(self) -> None:
        if self.is_over:
            return
        # What it wrote before it ended is still in its pipe while nobody reads that.
        if self._paused and self._exited.done() and not self._heard_all:
            self._end = asyncio.get_running_loop().call_later(_LAST_WORD_SECONDS, self._tell_end)
            return
        # Somebody whom it has started may hold its pipe open.
        if self._exited.done():
            self._hear_last_line()
        self.is_over = True
        if self._end is not None:
            self._end.cancel()
        self._on_over(f"its process {self.ending}" if self._exited.done() else self._why)

    # -- the end -------------------------------------------------------------------------------------

    def close_stdin(self) -> None:
        """Tell it that there is nothing more: a server that behaves leaves then."""
        self.is_over = True
        if self._end is not None:
            self._end.cancel()
        self.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group."""
        # Nobody is left, or nobody who is ours.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def left(self, seconds: float) -> bool:
        """Whether nothing of its group is left; waits for that, up to so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        await asyncio.wait([self._exited], timeout=seconds)
        while True:
            # A group's end is told by nobody. Its number is nobody else's for as long as anybody is in it.
            if self._exited.done() and not _is_alive(self.pid):
                return True
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close what is left of its pipes: somebody who has left the group may still hold the other ends."""
        self._account(0)
        self._process.close()


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
