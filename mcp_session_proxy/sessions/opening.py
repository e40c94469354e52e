"""One new session on its way into the pool: a handshake, and how long it is tried.

The pool decides that a session is opened and what follows from its outcome; here is only the patience.
"""

import asyncio
from typing import Final

from ..backoff import Backoff
from ..errors import Draining, HandshakeRefused, ProxyError, UpstreamRejected, UpstreamUnreachable
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import sole
from .books import Books, Bucket, Slot
from .state import SessionState
from .waiting import Demand, Queue

_RETRIES: Final = Backoff(0.05, 1.0)


class Opening:
    """The opening of one slot, in the name of the ``caller`` who needs it."""

    __slots__ = ("bucket", "caller", "demand", "slot", "why")

    def __init__(
        self,
        slot: Slot[UpstreamSession],
        bucket: Bucket[UpstreamSession],
        demand: Demand,
        caller: Caller,
        why: str,
    ) -> None:
        self.slot = slot
        self.bucket = bucket
        self.demand = demand
        self.caller = caller
        self.why = why

    async def shake_hands(self, books: Books[UpstreamSession], queue: Queue) -> None:
        """Do the handshake; while the server refuses connections, try again as long as somebody waits.

        A server that is being started anew refuses connections for some seconds, and whoever waits would
        rather wait than be told so. But nobody would be helped beyond the last deadline of those who wait, so
        that ends it; and during the pauses no handshake is under way, so they count as such for nobody's time
        to wait.

        Raises:
            UpstreamError: the server could not be reached in time, or refused.
            Draining: nobody wants the session any more.
        """
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        while True:
            if queue.closed or self.slot.state is not SessionState.OPENING:
                raise Draining("The session was closed while it was being opened.")
            try:
                return await self.slot.session.open(self.caller)
            except (UpstreamUnreachable, UpstreamRejected, HandshakeRefused) as error:
                if not self._may_pass(error, books):
                    raise
                # Whoever has less time than the most patient is told why at its own deadline.
                self.demand.last_error = error
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() + pause_seconds >= queue.last_deadline(self.bucket):
                    raise
            queue.count_handshake(self.bucket, self.demand, -1)
            try:
                await asyncio.sleep(pause_seconds)
            finally:
                queue.count_handshake(self.bucket, self.demand, 1)

    def _may_pass(self, error: ProxyError, books: Books[UpstreamSession]) -> bool:
        """Whether what failed a handshake may be over in a moment."""
        if isinstance(error, UpstreamUnreachable):
            return True
        # It has no room for a second session, but the first is not open yet: then that may serve all.
        return sole.refuses_another(error) and any(
            other.state is SessionState.OPENING and other.key.principal == self.slot.key.principal
            for other in books.slots()
            if other is not self.slot
        )
