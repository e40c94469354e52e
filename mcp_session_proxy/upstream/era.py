"""Whether the server behind us speaks the modern protocol itself, so that modern requests need no help.

Asked once, with the specification's own question (MCP 2026-07-28, server/discover), when the first
modern request comes; asked again after the server was away, and now and then while the answer is yes.
"""

import asyncio
import contextlib
from typing import Final

from ..errors import ProxyError, UpstreamTimeout
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Response
from .cookies import SessionCookies
from .transport import Caller, ConnectionLost, Reply, SessionRef, Transport

_PROBE_SECONDS: Final = 10.0
_BELIEVED_SECONDS: Final = 300.0
# A server that does not answer at all is not asked for every request: each would wait as long.
_SILENT_SECONDS: Final = 60.0
_QUESTION: Final = jsonrpc.write_request(
    b'"era"',
    revisions.DISCOVER,
    jsonrpc.write_object(
        {
            "_meta": jsonrpc.write_object(
                {
                    revisions.META_VERSION: jsonrpc.quote(revisions.FIRST_MODERN),
                    revisions.META_CAPABILITIES: b"{}",
                }
            )
        }
    ),
)


class EraProbe:
    """Remembers the answer for one server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._modern: bool | None = None
        self._asked_at = 0.0
        self._silent_until = 0.0
        self._asking: asyncio.Lock = asyncio.Lock()

    @property
    def modern(self) -> bool | None:
        """The answer, as far as it is known."""
        return self._modern

    def forget(self) -> None:
        """The server was away: what comes back may be another one."""
        self._modern = None
        self._silent_until = 0.0

    async def is_modern(self, caller: Caller) -> bool:
        """Whether modern requests can be passed through as they are; asks with the caller's credentials."""
        if self._is_known():
            return self._modern is True
        async with self._asking:
            if not self._is_known():
                self._modern = await self._ask(caller.credentials)
                self._asked_at = asyncio.get_running_loop().time()
        return self._modern is True

    def _is_known(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._modern is None:
            return now < self._silent_until
        return not self._modern or now - self._asked_at < _BELIEVED_SECONDS

    async def _ask(self, caller: Caller) -> bool | None:
        """The server's answer; None when there was none, so that the next request asks again."""
        routed = Caller(
            headers=(*caller.headers, (revisions.METHOD_HEADER, revisions.DISCOVER)), query=caller.query
        )
        cookies = SessionCookies()
        session = SessionRef(None, revisions.FIRST_MODERN, cookies)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                async with self._transport.post(_QUESTION, session, routed) as reply:
                    answer = await _read_answer(reply)
                    stray = reply.stray_session_id
                if stray is not None:
                    # Some legacy servers open a session even for what they refuse.
                    with contextlib.suppress(ProxyError, ConnectionLost, TimeoutError):
                        await self._transport.delete(SessionRef(stray, None, cookies), caller)
        except (TimeoutError, UpstreamTimeout):
            self._silent_until = asyncio.get_running_loop().time() + _SILENT_SECONDS
            return None
        except (ProxyError, ConnectionLost):
            return None
        return answer


async def _read_answer(reply: Reply) -> bool | None:
    if reply.status in (401, 403, 429) or reply.status >= 500:
        return None  # says nothing about the era
    while (messages := await reply.read()) is not None:
        for message in messages:
            if isinstance(message, Response):
                versions = jsonrpc.read_object(message.result).get("supportedVersions", b"")
                named = {jsonrpc.read_string(item) for item in jsonrpc.read_array(versions)}
                return bool(named & set(revisions.MODERN_VERSIONS))
    return False
