"""What has come for somebody who reads, and seeing to it that nobody waits for too long.

For transports on which all messages of a session come on one way; see ``duplex``.
"""

import asyncio
import math
from collections.abc import Callable

import msgspec

from ..protocol.jsonrpc import Message, Notification, Request

# What a message costs in memory beside its bytes, so that many small ones count as what they are.
_MESSAGE_BYTES = 200


class Inbox(msgspec.Struct, eq=False, kw_only=True):
    """What has come for one reader; one future wakes who waits. Implements ``transport.Reply``.

    ``unread_bytes`` is how much of it was not read, the last message apart. Whatever is wished by
    ``gives_arriving`` and ``gives_runs``: here messages come whole, and each by itself.
    """

    gives_arriving: bool = False
    gives_runs: bool = False
    unread_bytes: int = 0
    _arrived: list[Message] = []  # msgspec makes a new one for each inbox
    _error: BaseException | None = None
    _over: bool = False
    _waiter: "asyncio.Future[None] | None" = None

    last_event_id = None
    retry_seconds = None

    @property
    def unread(self) -> int:
        """How many messages have come and were not read."""
        return len(self._arrived)

    def put(self, message: Request | Notification) -> None:
        """One more. None comes behind the last."""
        if not self._over:
            self._arrived.append(message)
            self.unread_bytes += _MESSAGE_BYTES + len(message.params or b"")
            self.wake()

    def end(self, error: BaseException | None = None, last: Message | None = None) -> None:
        """Nothing more will come behind this ``last`` message, if there is one.

        ``error`` is raised for whoever has read what there is. Does nothing once it has ended.
        """
        if not self._over:
            self._over = True
            self._error = error
            if last is not None:
                self._arrived.append(last)
            self.wake()

    async def read(self) -> list[Message] | None:
        """The messages that arrived next; None at the end. Raises as ``transport.Reply.read``."""
        # Who waits may be woken over nothing.
        while not self._arrived:
            if self._over:
                if self._error is not None:
                    raise self._error
                return None
            await self._hear()
        return self.take_unread()

    def take_unread(self) -> list[Message]:
        """What has come so far."""
        arrived, self._arrived = self._arrived, []
        if self.unread_bytes:
            self.unread_bytes = 0
            self._was_read()
        return arrived

    def _was_read(self) -> None:
        """There is room for more than the last message."""

    def _hear(self) -> "asyncio.Future[None]":
        """What is done when something has happened."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    def wake(self, _: object = None) -> None:
        """Something has happened: whoever waits looks what. May be what a future calls when it is done."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Sweeper:
    """One timer for all calls that wait for an answer, of all sessions of a transport.

    It stands at the moment in which the first of them has waited too long, which is ``looks_at``; whoever
    begins to wait and is due before that says so by ``look_at``. Nearly every call is over before it is due,
    so a call costs no timer: when it goes off, those that are left say when they want to be looked at.

    ``watched`` are the sessions: each is a function that is given the time, gives up what has waited for too
    long by then, and gives when something is due next, or ``math.inf``. ``silence_seconds`` is how long a
    server may usually say nothing about a call. It may be replaced at any time, for calls from then on.
    """

    __slots__ = ("_timer", "looks_at", "silence_seconds", "watched")

    def __init__(self, silence_seconds: float) -> None:
        self.silence_seconds = silence_seconds
        self.watched: set[Callable[[float], float]] = set()
        self.looks_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, due: float) -> None:
        """Look at what waits no later than at this time of the event loop's."""
        if due < self.looks_at:
            if self._timer is not None:
                self._timer.cancel()
            self.looks_at = due
            self._timer = asyncio.get_running_loop().call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._timer, self.looks_at = None, math.inf
        now = asyncio.get_running_loop().time()
        self.look_at(min([give_up(now) for give_up in tuple(self.watched)], default=math.inf))
