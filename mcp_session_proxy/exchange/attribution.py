"""Which modern call a message of the upstream GET stream belongs to.

Servers may ask on the session's GET stream, where a request names no call. If one call is running on
the session, it is meant. A session on which that was seen once runs its calls one at a time from then
on; a call whose client was asked and has not come back yet does not count as running, so it holds up
nobody.
"""

import asyncio
from collections import OrderedDict
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Notification, Request
from ..upstream.session import UpstreamSession

_MAX_COMPLETIONS: Final = 100


class RunningCall(Protocol):
    """What is needed of a call."""

    session: UpstreamSession

    @property
    def is_parkable(self) -> bool:
        """Whether the server may ask in its course."""
        ...

    def deliver(self, request: Request) -> None:
        """Take a question."""
        ...

    async def notify(self, message: Notification) -> None:
        """Take a notification."""
        ...


class _Lane:
    """The calls of one session."""

    __slots__ = ("completed", "completing", "one_at_a_time", "running", "turn")

    def __init__(self) -> None:
        self.running: dict[RunningCall, None] = {}
        self.one_at_a_time = False
        self.turn = asyncio.Lock()
        self.completed: OrderedDict[str, None] = OrderedDict()
        self.completing: dict[str, asyncio.Future[None]] = {}


class Attribution:
    """The running modern calls of every session."""

    def __init__(self) -> None:
        self._lanes: WeakKeyDictionary[UpstreamSession, _Lane] = WeakKeyDictionary()
        self._turns: dict[RunningCall, asyncio.Lock] = {}

    async def enter(self, call: RunningCall) -> None:
        """The call is running from now on; waits for its turn where calls take turns."""
        lane = self._lane(call.session)
        if lane.one_at_a_time and call.is_parkable:
            await lane.turn.acquire()
            self._turns[call] = lane.turn
        lane.running[call] = None

    def leave(self, call: RunningCall) -> None:
        """The call has ended or is parked. Does nothing for one that is not running."""
        lane = self._lanes.get(call.session)
        if lane is not None:
            lane.running.pop(call, None)
        turn = self._turns.pop(call, None)
        if turn is not None:
            turn.release()

    def _lane(self, session: UpstreamSession) -> _Lane:
        lane = self._lanes.get(session)
        if lane is None:
            lane = self._lanes[session] = _Lane()
        return lane

    def take_request(self, session: UpstreamSession, request: Request) -> bool:
        """Give a server's request to the call that it belongs to; False if no call is running."""
        lane = self._lanes.get(session)
        if lane is None:
            return False
        candidates = [call for call in lane.running if call.is_parkable]
        if not candidates:
            return False
        lane.one_at_a_time = True
        candidates[0].deliver(request)
        return True

    def take_notification(self, session: UpstreamSession, message: Notification) -> None:
        """Note that a URL was visited; pass a log message to the only call that is running."""
        if message.method == revisions.ELICITATION_COMPLETE:
            self._complete(session, message)
            return
        lane = self._lanes.get(session)
        if message.method == revisions.LOG_MESSAGE and lane is not None and len(lane.running) == 1:
            call = next(iter(lane.running))
            session.spawn(call.notify(message), "log message")

    # -- URLs visited (2025-11-25, client/elicitation, "Completion Notifications") -------------------

    def _complete(self, session: UpstreamSession, message: Notification) -> None:
        identifier = jsonrpc.read_string(jsonrpc.read_object(message.params).get("elicitationId"))
        if identifier is None:
            return
        lane = self._lane(session)
        waiting = lane.completing.get(identifier)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        lane.completed[identifier] = None
        if len(lane.completed) > _MAX_COMPLETIONS:
            lane.completed.popitem(last=False)

    async def completion(self, session: UpstreamSession, identifier: str, patience_seconds: float) -> None:
        """Wait until the server says that this elicitation is complete, but not for ever."""
        lane = self._lane(session)
        if identifier in lane.completed:
            return
        future = lane.completing.setdefault(identifier, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(patience_seconds):
                await asyncio.shield(future)
        except TimeoutError:
            return
        finally:
            lane.completing.pop(identifier, None)
