"""The GET stream of an upstream session: held for life, opened again whenever it ends or breaks.

MCP 2025-11-25, basic/transports, "Listening for Messages from the Server" and "Resumability".
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from ..errors import ProxyError, UpstreamUnreachable
from ..protocol.jsonrpc import Message
from .transport import ConnectionLost, Reply

_GRACE_SECONDS: Final = 0.5
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 30.0
# A stream that lasted this long, or brought something, was a good one: the next one is opened at once.
_GOOD_STREAM_SECONDS: Final = 5.0
# Refusals that pass: the server has not noticed yet that the old stream is gone, or is busy.
_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_REFUSALS: Final = 10


class GetStream:
    """The stream of one incarnation of a session. ``is_open`` tells whether it stands now.

    ``connect`` opens it, resumed after an event id if one is given. ``take`` gets each message.
    ``unreachable`` is told that the server takes no connections, and gives whether to stop trying.
    """

    def __init__(
        self,
        *,
        connect: Callable[[str | None], AbstractAsyncContextManager[Reply]],
        take: Callable[[Message], None],
        unreachable: Callable[[], bool],
    ) -> None:
        self.is_open = False
        self._connect = connect
        self._take = take
        self._unreachable = unreachable
        self._tried = asyncio.Event()
        self._last_event_id: str | None = None
        self._retry_seconds = 0.0
        self._refusals = 0  # passing ones, in a row
        self._heard = False

    async def tried(self) -> None:
        """Wait until it stands or has failed, but a moment only."""
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._tried.wait()
        except TimeoutError:
            return  # some servers send no header before the first event

    async def hold(self) -> int | None:
        """Hold it for life; what ends or breaks is opened again, after a while that grows.

        Gives the status that refused it for good, or None when it is to be tried no more.
        """
        loop = asyncio.get_running_loop()
        delay = _FIRST_RETRY_SECONDS
        while True:
            started, self._heard = loop.time(), False
            try:
                async with self._connect(self._last_event_id) as reply:
                    self._tried.set()
                    if reply.status == 200 and reply.is_stream:
                        await self._follow(reply)
                    elif reply.status in _PASSING_STATUSES and self._refusals < _MAX_REFUSALS:
                        self._refusals += 1
                    else:
                        return reply.status
            except UpstreamUnreachable:
                if self._unreachable():
                    return None
            except (ProxyError, ConnectionLost):
                pass
            finally:
                self._tried.set()
                self.is_open = False
            if self._heard or (self._refusals == 0 and loop.time() - started >= _GOOD_STREAM_SECONDS):
                delay = _FIRST_RETRY_SECONDS
            await asyncio.sleep(min(max(delay, self._retry_seconds), _LAST_RETRY_SECONDS))
            delay = min(delay * 2, _LAST_RETRY_SECONDS)

    async def _follow(self, reply: Reply) -> None:
        self.is_open = True
        self._refusals = 0
        try:
            while (messages := await reply.read()) is not None:
                for message in messages:
                    self._heard = True
                    self._take(message)
        finally:
            self._last_event_id = reply.last_event_id or self._last_event_id
            self._retry_seconds = reply.retry_seconds or 0.0
