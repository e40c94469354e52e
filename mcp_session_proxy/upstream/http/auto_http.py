"""Which of its two transports an HTTP server speaks, found out by the first handshake and remembered.

MCP 2025-11-25, basic/transports, "Backwards Compatibility": a client that does not know POSTs ``initialize``,
and only if that is refused with 400, 404 or 405, it opens a GET; a server that speaks HTTP+SSE names its
endpoint there. So a server that speaks Streamable HTTP meets nothing new, but for one GET where it refuses
its very first handshake in one of these ways.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final

from ...errors import ProxyError
from ..transport import Caller, Channel, ConnectionLost, Refused
from .http1 import HttpAnswer
from .http_sse import ENDPOINT_SECONDS, HttpSse, OpenedStream
from .redirects import speaks_mcp
from .streamable_http import HttpChannel, HttpRules, StreamableHttp

# Refusals that may mean that no message can be POSTed there at all; 404 and 405 mean so of any server.
_MAY_SPEAK_SSE: Final = (400, 404, 405)
_TAKES_NO_POST: Final = (404, 405)
# A server that has named no endpoint is not asked for one again by every handshake that it refuses.
_BELIEVED_SECONDS: Final = 60.0


class Speaks(Enum):
    """What a server speaks, as far as it has shown."""

    UNKNOWN = "unknown"
    STREAMABLE = "streamable-http"  # it has answered a POST
    SSE = "http+sse"  # it has named an endpoint


class AutoHttp:
    """The transport to one server. Implements ``transport.Transport``.

    ``rules`` may be replaced at any time. ``tell`` is called with what the server turns out to speak.
    """

    def __init__(self, http: StreamableHttp, sse: HttpSse, tell: Callable[[Speaks], None]) -> None:
        self._http = http
        self._sse = sse
        self._tell = tell
        self._speaks = self._told = Speaks.UNKNOWN
        self._looking = asyncio.Lock()
        self._look_again_at = 0.0

    @property
    def rules(self) -> HttpRules:
        """The timeouts, and how deep JSON may be."""
        return self._http.rules

    @rules.setter
    def rules(self, rules: HttpRules) -> None:
        self._sse.rules = rules

    @property
    def sessions_only(self) -> bool:
        """Whether no request can go to the server but on a session."""
        return self._speaks is Speaks.SSE

    def connect(self) -> Channel:
        """A channel for a session that is to be opened."""
        if self._speaks is Speaks.SSE:
            return self._sse.connect()
        return self._http.connect() if self._speaks is Speaks.STREAMABLE else _FirstChannel(self, self._http)

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> Channel:
        """A channel for a session that stands already. One without an id may have been one over HTTP+SSE."""
        if session_id is None and self._speaks is not Speaks.STREAMABLE:
            return self._sse.reconnect(None)
        return self._http.reconnect(session_id, route)

    async def reconsider(self, refused: Refused, caller: Caller) -> Channel | None:
        """Look whether the server speaks the other transport; see ``transport.Transport.reconsider``."""
        if refused.how not in _MAY_SPEAK_SSE:
            return None
        if self._speaks is Speaks.SSE:
            # What comes back from a deployment may speak Streamable HTTP.
            self._speaks = Speaks.UNKNOWN
            return self.connect()
        if self._speaks is Speaks.STREAMABLE and refused.how not in _TAKES_NO_POST:
            return None
        # One looks for all whose handshakes were refused meanwhile.
        async with self._looking:
            return await self._look(caller)

    async def _look(self, caller: Caller) -> Channel | None:
        if self.sessions_only:
            return self._sse.connect()
        now = asyncio.get_running_loop().time()
        if now < self._look_again_at:
            return None
        opened = await self._open_stream(caller)
        if opened is None:
            return None
        self.found(Speaks.SSE)
        return self._sse.connect_over(opened)

    async def _open_stream(self, caller: Caller) -> OpenedStream | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ENDPOINT_SECONDS):
                return await self._sse.open(caller)
        except Refused as refused:
            # What it has against this caller, or at this moment, does not say what it speaks.
            if refused.how not in _MAY_SPEAK_SSE:
                return None
        except (ProxyError, ConnectionLost, TimeoutError):
            pass
        self._look_again_at = loop.time() + _BELIEVED_SECONDS
        return None

    def found(self, speaks: Speaks) -> None:
        """The server has shown what it speaks. That it is what nearly all do is no news."""
        self._speaks = speaks
        if speaks is not self._told and Speaks.SSE in (speaks, self._told):
            self._told = speaks
            self._tell(speaks)

    def close(self) -> None:
        """Cut what is about to end."""
        self._http.close()


class _FirstChannel(HttpChannel):
    """A channel over Streamable HTTP, whose opening shows whether the server speaks it."""

    __slots__ = ("_finder",)

    def __init__(self, finder: AutoHttp, transport: StreamableHttp) -> None:
        super().__init__(transport)
        self._finder = finder

    def note_session(self, answer: HttpAnswer) -> None:
        """A POST was answered."""
        super().note_session(answer)
        if speaks_mcp(answer):
            self._finder.found(Speaks.STREAMABLE)
