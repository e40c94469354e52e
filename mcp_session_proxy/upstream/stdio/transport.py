"""Servers that speak over their standard input and output (MCP 2025-11-25, basic/transports, "stdio").

Each session has a child of its own: the state that a server keeps is then one caller's, what it asks and
tells needs no address, and so a child may be given its caller's credentials. What a session says and hears on
its two pipes is ``duplex``'s; here are the child's beginning and its end, in the words of ``transport``:

=============================================  ===========================================================
the command cannot be started                  ``ServerNotStarted``
the child ends before it has answered          the same, with how it ended
it says nothing for too long at its start      ``UpstreamTimeout``, and it is dismissed
it ends later                                  the session's link is over (``duplex``)
it reads nothing of what it is told            the same, and ``UpstreamTimeout`` for who noticed
=============================================  ===========================================================
"""

import asyncio
from collections.abc import Generator
from enum import Enum
from typing import Final

import msgspec

from ... import events
from ...aio import in_pieces
from ...bounds import NOISE_CHARS, SMALL_BYTES
from ...errors import NoRoomForAnswer, ProxyError, ServerNotStarted, SessionLost, UpstreamTimeout
from ...events import Observer
from ...memory import UNBOUNDED, Share
from ...protocol import jsonrpc, large
from ...protocol.depth import DEFAULT_MAX_DEPTH
from ..duplex import DuplexSession
from ..inbox import Sweeper
from ..transport import Caller, Refused
from .children import Children, Program, Starts
from .environment import hide
from .leftovers import Ledger

# So many lines at once are taken at once; noise comes by the ten thousands.
_FEW_LINES: Final = 32


class StdioRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose for children.

    The first one may take ``first_start_seconds`` to answer its handshake, since some commands fetch the
    server first, and later ones ``start_seconds``; ``spawns`` may be at it at once.
    ``request_timeout_seconds`` bounds the silence about one request. ``max_children`` may take their time to
    leave.
    """

    first_start_seconds: float
    start_seconds: float
    spawns: int
    request_timeout_seconds: float
    max_children: int
    max_json_depth: int = DEFAULT_MAX_DEPTH


class Stdio:
    """The transport to a server that is a command. Implements ``transport.Transport``.

    ``rules`` may be replaced at any time. ``answers`` is the memory for large answers on their way.
    """

    sessions_only = True

    def __init__(
        self,
        program: Program,
        *,
        rules: StdioRules,
        ledger: Ledger,
        observe: Observer,
        answers: Share = UNBOUNDED,
    ) -> None:
        self.answers = answers
        self.sweeper = Sweeper(rules.request_timeout_seconds)
        self.starts = Starts(lambda: self._rules.spawns)
        self.rules = rules
        self.observe = observe
        self.children = Children(
            program,
            ledger=ledger,
            observe=observe,
            max_leaving=lambda: self.rules.max_children,
            room=answers,
        )
        self.has_started = False  # some child has answered

    @property
    def rules(self) -> StdioRules:
        """What the operator chose."""
        return self._rules

    @rules.setter
    def rules(self, rules: StdioRules) -> None:
        self._rules = rules
        self.sweeper.silence_seconds = rules.request_timeout_seconds
        self.starts.look_again()

    @property
    def start_seconds(self) -> float:
        """How long the next child may take to answer its handshake."""
        return self._rules.start_seconds if self.has_started else self._rules.first_start_seconds

    def connect(self) -> DuplexSession:
        """A channel for a session that is to be opened: its child is started then."""
        return DuplexSession(self._open_link, self.sweeper)

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> DuplexSession:  # noqa: ARG002
        """Sessions end with their children, and those with their proxy."""
        raise SessionLost("The MCP server that the session lived in has ended.")

    async def reconsider(self, refused: Refused, caller: Caller) -> None:
        """There is no other way."""

    async def _open_link(self, session: DuplexSession, caller: Caller) -> "ChildLink":
        """Start a child for a session of this caller's; see ``DuplexSession``."""
        variables = self.children.program.environment.of(caller)
        await self.starts.take()
        link = ChildLink(self, session, self.children.program.environment.secrets(variables))
        link.child.carries = session
        try:
            await self.children.start(link.child, variables)
            link.begin()
        except BaseException:
            self.starts.give_back()
            raise
        return link

    async def close(self) -> None:
        """Say goodbye to all children that are left."""
        await self.children.close()


class _Hold(Enum):
    """Why a child is read no further for now."""

    SLOW_READER = "somebody is slow to take what has come"
    LONG_WORK = "what has come takes long to read"


class ChildLink:
    """What carries the messages of one session: a child's pipes. Implements ``duplex.Link``."""

    def __init__(self, transport: Stdio, session: DuplexSession, secrets: tuple[str, ...]) -> None:
        self._transport = transport
        self._session = session
        self._secrets = secrets
        self._starting: asyncio.TimerHandle | None = None
        self._failure: ProxyError | None = None
        self._unread: list[bytes] = []
        self._reading: asyncio.Task[None] | None = None
        self._why_over: str | None = None
        self._holds: set[_Hold] = set()
        self.child = transport.children.prepare(heard=self.heard, over=self.over)

    # -- the beginning -------------------------------------------------------------------------------

    def begin(self) -> None:
        """The child was started: it is to answer the handshake in time, and holds a place until then.

        Raises:
            ServerNotStarted: it has ended already.
        """
        if self._failure is not None:
            raise self._failure
        seconds = self._transport.start_seconds
        loop = asyncio.get_running_loop()
        self._starting = loop.call_later(seconds, self._too_slow, seconds)

    def _too_slow(self, seconds: float) -> None:
        option = "--handshake-timeout" if self._transport.has_started else "--stdio-start-timeout"
        self._end(
            "it did not answer the handshake in time",
            UpstreamTimeout(
                f"The MCP server's command ({self._transport.children.program.name}) did not answer the "
                f"handshake within {seconds:g} s, which is what {option} allows."
            ),
        )

    def _started(self) -> None:
        """It has answered, or never will."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
            self._transport.starts.give_back()

    # -- duplex.Link -----------------------------------------------------------------------------------

    def send(self, body: bytes, _: Caller) -> None:
        """Write one message; see ``duplex.Link.send``."""
        self.child.stdin.write(body)

    def pause(self) -> None:
        """Read no more for now."""
        self._hold(_Hold.SLOW_READER)

    def resume(self) -> None:
        """Read on."""
        self._let_go(_Hold.SLOW_READER)

    async def close(self, _: Caller) -> None:
        """Dismiss the child, and wait until it has left."""
        self._started()
        self._stop_reading()
        await self._transport.children.dismiss(self.child).wait()

    def drop(self) -> None:
        """Dismiss it, and let it leave by itself."""
        self._started()
        self._stop_reading()
        self._transport.children.dismiss(self.child)

    # -- what the child does -----------------------------------------------------------------------------

    def heard(self, lines: list[bytes]) -> None:
        """It has written lines to its standard output.

        What takes long is read in pieces, and the child no further meanwhile.
        """
        if self._reading is None and len(lines) <= _FEW_LINES and sum(map(len, lines)) <= SMALL_BYTES:
            depth, session = self._transport.rules.max_json_depth, self._session
            for line in lines:
                messages = jsonrpc.parse_upstream_body(line, max_depth=depth)
                for message in messages:
                    session.take(message)
                if not messages:
                    self._note_noise(line)
            self._look_whether_started()
            return
        # They wait here for a moment only, but are there: counted, and not asked for.
        self._unread += lines
        self._transport.answers.hold(sum(map(len, lines)))
        if self._reading is None:
            self._hold(_Hold.LONG_WORK)
            self._reading = asyncio.get_running_loop().create_task(self._read(), name="lines of a child")

    async def _read(self) -> None:
        """Take all that waits, in order."""
        depth = self._transport.rules.max_json_depth
        while self._unread:
            lines, self._unread = self._unread, []
            try:
                await in_pieces(self._take_all(lines, depth))
            finally:
                self._transport.answers.give_back(sum(map(len, lines)))
        self._reading = None
        self._let_go(_Hold.LONG_WORK)
        if self._why_over is not None:
            self.over(self._why_over)

    def _take_all(self, lines: list[bytes], depth: int) -> Generator[None, None, None]:
        for line in lines:
            messages = yield from large.read_body(line, max_depth=depth)
            for message in messages:
                self._session.take(message)
            if not messages:
                self._note_noise(line)
            self._look_whether_started()
            yield

    def _note_noise(self, line: bytes) -> None:
        text = line[:NOISE_CHARS].decode("utf-8", "replace")
        self._transport.observe(events.ChildNoise(pid=self.child.pid, text=hide(text, self._secrets)))

    def _look_whether_started(self) -> None:
        if self._starting is not None and not self._session.opening:
            self._transport.has_started = self.child.answered = True
            self._started()

    def _stop_reading(self) -> None:
        """What waits is of no use any more."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._transport.answers.give_back(sum(map(len, self._unread)))
        self._unread.clear()

    def _hold(self, why: _Hold) -> None:
        if not self._holds:
            self.child.pause()
        self._holds.add(why)

    def _let_go(self, why: _Hold) -> None:
        self._holds.discard(why)
        if not self._holds:
            self.child.resume()

    def over(self, why: str) -> None:
        """It is of no use any more, once all that it has said was taken."""
        if self._reading is not None:
            self._why_over = why
            return
        error: ProxyError | None = None
        if self.child.found_no_room:
            error = NoRoomForAnswer(
                "The MCP server's answer is too large for the memory that is left (--memory-budget). "
                "The request may have been executed."
            )
        elif self._session.opening:
            name = self._transport.children.program.name
            error = self._failure = ServerNotStarted(
                f"The MCP server's command ({name}) gave no answer to the handshake: {why}. What it has "
                "written to standard error is in the proxy's log (--stdio-stderr)."
            )
        self._end(why, error)

    def _end(self, why: str, error: ProxyError | None) -> None:
        # Of a handshake, ``error`` says more than that it was not written.
        unwritten_bytes = 0 if self._session.opening else self.child.stdin.unwritten_bytes
        self._session.end(why, unwritten_bytes=unwritten_bytes, error=error)
        self.drop()
