"""The HTTP client towards the server: its connections, and requests on them.

One origin, HTTP/1.1, and no more of it than MCP needs; nothing here knows of MCP. A request is written once,
on one connection, and never again: what its sender may make of an error stands in ``transport``.
"""

import asyncio
import math
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from yarl import URL

from ...bounds import KEPT_CONNECTIONS
from .dialing import OF_SERVERS, Dialer, Silence, UnixDialer
from .head import write_head
from .http1 import HttpAnswer, ServerConnection
from .trouble import Trouble, told

# Servers close idle connections after 5 seconds (uvicorn, Node). Letting go of ours earlier avoids
# sending a call into a connection that is just being closed, whose outcome nobody would know.
_KEEP_CONNECTION_SECONDS: Final = 3.0


class Timeouts(NamedTuple):
    """How long one request may take to connect, and between two signs of the server's."""

    connect_seconds: float
    silence_seconds: float


def patience(*, connect_seconds: float, silence_seconds: float | None) -> Timeouts:
    """The same, where no ``silence_seconds`` are without end."""
    return Timeouts(connect_seconds, math.inf if silence_seconds is None else silence_seconds)


class HttpClient:
    """Sends requests to the server of one URL, or of one unix socket. ``close`` cuts all of its connections.

    There is no limit on connections that are in use, so that it is not a second, hidden pool. One that is not
    in use is kept for ``keep_seconds``; ``silence`` says when one over TCP has ended though nobody tells.
    """

    def __init__(
        self,
        to: URL | Path,
        tls: ssl.SSLContext | None = None,
        *,
        keep_seconds: float = _KEEP_CONNECTION_SECONDS,
        silence: Silence = OF_SERVERS,
    ) -> None:
        self._dialer = Dialer(to, tls, silence=silence) if isinstance(to, URL) else UnixDialer(to)
        self._keep_seconds = keep_seconds
        self._connections: set[ServerConnection] = set()
        self._idle: dict[ServerConnection, None] = {}  # what was used last is at the end
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweeps_at = math.inf
        self._closed = False

    @property
    def in_use(self) -> int:
        """How many connections have something under way on them."""
        return len(self._connections) - len(self._idle)

    def __repr__(self) -> str:
        return f"<HttpClient connections={len(self._connections)} idle={len(self._idle)}>"

    async def request(
        self,
        verb: str,
        url: URL,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        patience: Timeouts,
        *,
        query: str = "",
    ) -> HttpAnswer:
        """Send one request; ``query`` goes behind the URL's own. Gives and raises as ``send``.

        Raises:
            UpstreamProtocolError: it cannot be written, too.
        """
        body = body or b""
        length_bytes = None if verb == "GET" else len(body)
        try:
            head = write_head(verb, url, headers, length_bytes, query)
        except ValueError as error:
            raise told(Trouble.UNSENDABLE) from error
        return await self.send(head, body, patience)

    async def send(self, head: bytes, body: bytes, patience: Timeouts) -> HttpAnswer:
        """Send one request; gives its answer from its status on, whatever that is. Redirects are answers.

        Raises:
            UpstreamUnreachable: no connection: nothing was sent.
            UpstreamProtocolError: no TLS, or what came back is not HTTP.
            UpstreamTimeout: no answer for too long.
            ConnectionLost: the connection broke after it was, or may have been, sent.
        """
        connection = self.take_idle() or await self.connect(patience.connect_seconds)
        answer = connection.ask(head, body, patience.silence_seconds)
        try:
            await answer.begin()
        except BaseException:
            # An answer that nobody waits for any more could still come on this connection, so it is cut.
            answer.close()
            raise
        return answer

    def close(self) -> None:
        """Cut all connections; no request can be sent any more."""
        self._closed = True
        for connection in list(self._connections):
            connection.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- connections ---------------------------------------------------------------------------------

    def take_idle(self) -> ServerConnection | None:
        """A connection for one request, if one is free: the one that was used last.

        Those that are not needed grow old and are let go.
        """
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_open and connection.deadline > asyncio.get_running_loop().time():
                return connection
            connection.cut()
        return None

    async def connect(self, seconds: float) -> ServerConnection:
        """A new connection for one request, within so many seconds.

        Raises:
            UpstreamUnreachable, UpstreamProtocolError: there is none; what the system says is the cause.
        """
        try:
            async with asyncio.timeout(seconds):
                connection = await self._dialer.dial(self._new_connection)
        except ssl.SSLError as error:
            raise told(Trouble.NO_TLS) from error
        except OSError as error:  # and TimeoutError, which is one
            raise told(Trouble.UNREACHABLE) from error
        except ValueError as error:
            raise told(Trouble.UNSENDABLE) from error
        # It may have ended before anything was sent on it. Who speaks unasked speaks no HTTP.
        if not connection.is_open:
            raise told(Trouble.BAD_HEAD if connection.spoke_unasked else Trouble.UNREACHABLE)
        if self._closed:
            connection.cut()
            raise told(Trouble.UNREACHABLE)
        self._connections.add(connection)
        return connection

    def _new_connection(self) -> ServerConnection:
        return ServerConnection(self._keep, self._forget, self._watch, asyncio.get_running_loop().time)

    def _keep(self, connection: ServerConnection) -> None:
        """It is free; it may be of use for a while."""
        if self._closed or len(self._idle) >= KEPT_CONNECTIONS:
            connection.cut()
            return
        connection.deadline = asyncio.get_running_loop().time() + self._keep_seconds
        self._idle[connection] = None
        self._watch(connection.deadline)

    def _forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    # -- one timer for all ---------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        """Look at that time, or earlier: requests and connections have deadlines, and no timers."""
        if deadline < self._sweeps_at:
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._sweeps_at = deadline
            self._sweeper = asyncio.get_running_loop().call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        """Give up what is overdue, and look again when the next is."""
        now = asyncio.get_running_loop().time()
        self._sweeper, self._sweeps_at = None, math.inf
        for connection in [each for each in self._connections if each.deadline <= now]:
            connection.give_up()
        self._watch(min((each.deadline for each in self._connections if each.is_open), default=math.inf))
