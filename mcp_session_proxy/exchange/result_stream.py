"""``tasks/result``: on its stream servers of 2025-11-25 ask while a task goes on, and give what it comes to.

It is under way for as long as a user takes to answer, which may be longer than the process lives that sent
it. Whoever goes on with the task asks for the rest of its stream first, for what the server has said there it
will not say again; where that cannot be had, the former request is cancelled and sent anew. Both at once must
not be: a server gives each question to one of them, and one has nobody who listens
(MCP 2025-11-25, basic/utilities/tasks, "Input Required Status"; basic/transports, "Resumability").
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from ..errors import ProxyError
from ..events import Observer
from ..protocol import jsonrpc
from ..protocol.jsonrpc import Request, Response
from ..sessions.binding import Visit
from ..upstream.incarnation import Incarnation
from ..upstream.transport import ConnectionLost, Reply, StreamRefused
from .exchange import Exchange
from .outlet import Outlet

_TAKEN_BACK: Final = b'{"reason":"It is sent anew by another process."}'
_LAST_WORDS_SECONDS: Final = 0.3
# One that was taken back is sent again if no other process goes on with the task after all.
_PAUSE_SECONDS: Final = 5.0


class ResultPlace(NamedTuple):
    """Where such a request is: its id at the server, and its stream's newest event, to go on behind that."""

    number: int
    after: str | None


class ResultExchange(Exchange):
    """One such request; ``former`` is one that another process has sent in the same session."""

    _reply: Reply | None = None

    def __init__(
        self,
        request: Request,
        visit: Visit,
        outlet: Outlet,
        observe: Observer,
        former: ResultPlace | None = None,
    ) -> None:
        super().__init__(request, None, visit, outlet, observe)
        self._former = former

    @property
    def place(self) -> ResultPlace | None:
        """Where another process could go on with it."""
        if self._reply is None:
            return self._former
        return ResultPlace(self.upstream_id, self._reply.last_event_id)

    def leave_to_others(self) -> None:
        """Another process goes on with it: that this one gives it up is not for the server."""
        self._cancelled = True

    async def take_back(self) -> None:
        """Have the server keep what it would say on it for the next such request."""
        await self.cancel(_TAKEN_BACK, self.caller)
        # What was said before is on its way. Some servers answer with an error, others say nothing more.
        if self._cutoff.open:
            self._cutoff.at(asyncio.get_running_loop().time() + _LAST_WORDS_SECONDS)

    async def _attempt(self, incarnation: Incarnation) -> Response:
        former = self._former
        if former is not None and incarnation is self._incarnation:
            response = await self._go_on(former, incarnation)
            if response is not None:
                return response
            await incarnation.tell(self._cancellation(jsonrpc.read_object(_TAKEN_BACK)), self.caller)
        self._former = None
        return await super()._attempt(incarnation)

    async def _go_on(self, former: ResultPlace, incarnation: Incarnation) -> Response | None:
        """The result, if the stream of the former request can be gone on with and brings one.

        An error there need not be the task's: the former process may have been heard to leave.
        """
        self.upstream_id, after = former.number, former.after
        incarnation.calls.in_flight[former.number] = self
        try:
            while after is not None:
                reply: Reply | None = None
                try:
                    async with incarnation.channel.resume(self._outgoing, after) as reply:
                        response = await self._read(reply)
                        if response is not None:
                            return response if response.result is not None else None
                except (StreamRefused, ConnectionLost, ProxyError):
                    pass
                # As long as each brings something new: one that brings nothing may do so for ever.
                place = None if reply is None else reply.last_event_id
                after = None if place == after else place
            return None
        finally:
            incarnation.calls.in_flight.pop(former.number, None)

    async def _read(self, reply: Reply) -> Response | None:
        self._reply = reply
        # From here on somebody else could go on with it, be it by sending it anew.
        await self._outlet.begin()
        return await super()._read(reply)


class Reading:
    """``tasks/result`` of one task before its end: not begun, under way, or over.

    ``former`` is where a process before this one had got to with it. ``may_begin``: the server has not
    refused it as the task stands.
    """

    def __init__(self, former: ResultPlace | None = None) -> None:
        self.may_begin = True
        self._former = former
        self._exchange: ResultExchange | None = None
        self._task: asyncio.Task[Response | None] | None = None
        self._paused_until = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether it was taken back for another process."""
        return asyncio.get_running_loop().time() < self._paused_until

    @property
    def is_under_way(self) -> bool:
        """Whether it was begun, and its response was not taken yet."""
        return self._task is not None

    @property
    def is_over(self) -> bool:
        """Whether there is a response to be taken, or that there is none."""
        return self._task is not None and self._task.done()

    def is_wanted(self, *, asks: bool) -> bool:
        """Whether to begin it now; ``asks``: the task needs input.

        Where a process before this one had begun it, that comes first however the task stands: what the
        server asks next, it would ask there.
        """
        if self._task is not None or self.is_paused:
            return False
        return self._former is not None or (asks and self.may_begin)

    @property
    def place(self) -> ResultPlace | None:
        """Where another process could go on with it; None where it is not under way."""
        if self._task is None or self._exchange is None:
            return self._former
        return None if self.is_paused else self._exchange.place

    def take_former(self) -> ResultPlace | None:
        """Where to go on, once."""
        former, self._former = self._former, None
        return former

    def is_at(self, exchange: ResultExchange) -> None:
        """This is the request."""
        self._exchange = exchange

    def begin(self, work: Coroutine[Any, Any, Response | None], on_end: Callable[[object], None]) -> None:
        """Send it; ``on_end`` is called when it is over."""
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(on_end)

    async def take(self) -> Response | None:
        """Its response, as soon as there is one; None if there is none."""
        assert self._task is not None
        task = self._task
        try:
            return await task
        finally:
            self._task = None

    async def pause(self) -> None:
        """Another process is about to go on with the task: leave nothing to the server that nobody hears.

        What it asks between the two would be lost on a stream that cannot be gone on with.
        """
        place = self.place
        if place is not None and place.after is not None:
            return
        self._paused_until = asyncio.get_running_loop().time() + _PAUSE_SECONDS
        if self._task is not None and self._exchange is not None and not self._task.done():
            await self._exchange.take_back()
            await asyncio.wait([self._task])

    def leave_to_others(self) -> None:
        """Another process goes on with it."""
        if self._exchange is not None:
            self._exchange.leave_to_others()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()
