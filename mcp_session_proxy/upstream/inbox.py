"""What has come for somebody who reads, and seeing to it that nobody waits for too long.

For transports on which all messages of a session come on one way; see ``duplex``.
"""

import asyncio
from typing import Final

from ..errors import UpstreamTimeout
from ..protocol.jsonrpc import Message, Response

# What a message costs in memory beside its bytes, so that many small ones count as what they are.
_MESSAGE_BYTES: Final = 200


class Inbox:
    """What has come for one reader; one future wakes who waits. Implements ``transport.Reply``."""

    __slots__ = ("_arrived", "_error", "_over", "_waiter", "gives_arriving", "gives_runs", "unread_bytes")

    last_event_id = None
    retry_seconds = None

    def __init__(self) -> None:
        self.unread_bytes = 0
        # Whatever is wished: here messages come whole, and each by itself.
        self.gives_arriving = self.gives_runs = False
        self._arrived: list[Message] = []
        self._over = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def unread(self) -> int:
        """How many messages have come and were not read."""
        return len(self._arrived)

    def put(self, message: Message) -> None:
        """One more. None comes behind the last."""
        if not self._over:
            self._arrived.append(message)
            self.unread_bytes += size_of(message)
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come; ``error`` is raised for whoever has read what there is."""
        if not self._over:
            self._over = True
            self._error = error
            self._wake()

    async def read(self) -> list[Message] | None:
        """The messages that arrived next; None at the end. Raises as ``transport.Reply.read``."""
        # Who waits may be woken over nothing.
        while not self._arrived and not self._over:
            await self._wait()
        if self._arrived:
            return self.take_unread()
        if self._error is not None:
            raise self._error
        return None

    def take_unread(self) -> list[Message]:
        """What has come so far."""
        arrived, self._arrived = self._arrived, []
        self.unread_bytes = 0
        return arrived

    async def _wait(self) -> None:
        """Until something has happened."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TimedInbox(Inbox):
    """The same for somebody who waits no longer than ``silence_seconds`` for the next message.

    ``heard_at`` is when the last one came, or it began, by the event loop's clock.
    """

    __slots__ = ("heard_at", "silence_seconds")

    def __init__(self, silence_seconds: float) -> None:
        super().__init__()
        self.heard_at = 0.0
        self.silence_seconds = silence_seconds

    @property
    def due(self) -> float:
        """When it has waited for too long."""
        return self.heard_at + self.silence_seconds

    def is_due(self, now: float) -> bool:
        """That time has come. Gives whether it was too long: what has come and is not read was no silence."""
        if self._arrived:
            self.heard_at = now
            return False
        self.end(UpstreamTimeout("The MCP server accepted the request and then fell silent."))
        return True


class Sweeper:
    """One timer for all calls that wait for an answer, of all sessions of a transport.

    It stands at the moment in which the first of them has waited too long. Nearly every call is over before
    that, so a call costs no timer: when it goes off, those that are left say when they want to be looked at.

    ``silence_seconds`` is how long a server may usually say nothing about a call. It may be replaced at any
    time, for calls from then on.
    """

    __slots__ = ("_loop", "_timer", "_waiting", "silence_seconds")

    def __init__(self, silence_seconds: float) -> None:
        self.silence_seconds = silence_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[TimedInbox] = set()

    @property
    def now(self) -> float:
        """The event loop's time."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def watch(self, inbox: "TimedInbox") -> None:
        """See to it that an inbox waits no longer than it may, until it is ``forget``-ed."""
        self._waiting.add(inbox)
        # It is due no earlier than that, and nearly always the timer is.
        if self._timer is None or inbox.heard_at + inbox.silence_seconds < self._timer.when():
            self._look_at(inbox.due)

    def forget(self, inbox: "TimedInbox") -> None:
        """It is over."""
        self._waiting.discard(inbox)

    def _look_at(self, due: float) -> None:
        timer = self._timer
        if timer is None or due < timer.when():
            if timer is not None:
                timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self.now
        for inbox in tuple(self._waiting):
            if inbox.due <= now and inbox.is_due(now):
                self.forget(inbox)
        if self._waiting:
            self._look_at(min(inbox.due for inbox in self._waiting))


def size_of(message: Message) -> int:
    """What a message takes in memory, about."""
    if isinstance(message, Response):
        return _MESSAGE_BYTES + len(message.result or b"") + len(message.error or b"")
    return _MESSAGE_BYTES + len(message.params or b"")
