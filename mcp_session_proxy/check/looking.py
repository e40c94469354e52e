"""A few sessions at a server whose transport knows nothing but sessions: a command, or HTTP+SSE.

Nothing is called but lists.
"""

import asyncio
import itertools
import json
from typing import Final, NamedTuple

from .. import __version__
from ..aio import all_of
from ..protocol import jsonrpc, revisions
from ..upstream.handshake import Handshake, Versions
from ..upstream.transport import Caller, Channel, Transport, first_response
from .old_transport import Look

_PARAMS: Final = json.dumps(
    {"capabilities": {}, "clientInfo": {"name": "mcp-session-proxy-check", "version": __version__}}
).encode()
_LISTS: Final = {"tools": "tools/list", "prompts": "prompts/list", "resources": "resources/list"}


class _Opened(NamedTuple):
    channel: Channel
    result: bytes
    seconds: float


class Looker:
    """Opens sessions as a client does who waits for each answer no longer than ``timeout_seconds``."""

    def __init__(self, transport: Transport, caller: Caller, timeout_seconds: float) -> None:
        self._transport = transport
        self._caller = caller
        self._timeout_seconds = timeout_seconds
        self._ids = itertools.count(1)
        self._open: list[Channel] = []

    async def look(self) -> Look:
        """Open one session, and two at once after it; all have ended afterwards.

        Raises:
            ProxyError, ConnectionLost, Refused: no session can be opened, or not beside another one.
        """
        try:
            opened = await self._begin()
            counts = {what: await self._count(opened.channel, what) for what in _LISTS}
            await self._end_all()
            later, _ = await all_of([self._begin(), self._begin()])
        finally:
            await self._end_all()
        told = {what: count for what, count in counts.items() if count is not None}
        return Look(opened.result, opened.channel.version, told, opened.seconds, later.seconds)

    async def _begin(self) -> _Opened:
        stands: list[Channel] = []
        began = asyncio.get_running_loop().time()
        handshake = Handshake(
            self._transport,
            self._caller,
            allocate=lambda: next(self._ids),
            take=lambda _: None,
            stands=lambda channel: stands.clear() if channel is None else stands.append(channel),
            silence_seconds=self._timeout_seconds,
        )
        try:
            result = await handshake.initialize_in(Versions(), _PARAMS)
        finally:
            self._open += stands
        seconds = asyncio.get_running_loop().time() - began
        body = jsonrpc.write_notification(revisions.INITIALIZED, None)
        async with stands[0].send(body, self._caller):
            pass
        return _Opened(stands[0], result, seconds)

    async def _end_all(self) -> None:
        ending, self._open = self._open, []
        await asyncio.gather(*(channel.close(self._caller) for channel in ending))

    async def _count(self, channel: Channel, what: str) -> int | None:
        """How many of something it has; None if it does not tell."""
        identifier = b"%d" % next(self._ids)
        request = jsonrpc.write_request(identifier, _LISTS[what], None)
        async with channel.send(request, self._caller, identifier) as reply:
            answer = await first_response(reply)
        if answer is None or answer.result is None:
            return None
        items = jsonrpc.view_object(answer.result).get(what)
        return 0 if items is None else len(jsonrpc.read_array(bytes(items)))
