"""Whether the client of an attached client session is still there: what says that it has left, and the clock.

A client that leaves properly says DELETE; most do not. What is left to go by are its silence, and how it
closes its connections. A stream that was cut is no goodbye: proxies on the way cut them every few minutes,
and the client opens another one a moment later.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .directory import ClientSession

# A client that keeps its id sends it back within moments ("notifications/initialized"). One that
# does not never will, so what it was given need not be held for it.
_CLAIM_SECONDS: Final = 5.0
# A client that leaves closes its connections when it has its last answer. One that closes an idle one later
# than this may only be tidying up: HTTP clients do that after 4 s (undici), 5 s (httpx) or 15 s (aiohttp).
_FAREWELL_SECONDS: Final = 3.0

# Attached clients without anything open, the longest silent first.
Queue = dict[ClientSession, None]


class Patience(NamedTuple):
    """How long a client may be silent before it counts as gone, in seconds."""

    reconnect_seconds: float  # one whose GET stream has closed
    detach_seconds: float  # one that never had any

    @property
    def claim_seconds(self) -> float:
        """The same for one that never sent its id back."""
        return min(_CLAIM_SECONDS, self.detach_seconds)


class Presence:
    """The attached client sessions that have nothing open: their clients may come back, or have left.

    Queues of their own for each kind of patience keep each one in the order of its silence.
    """

    def __init__(self) -> None:
        self._unclaimed: Queue = {}
        self._cut_off: Queue = {}
        self._quiet: Queue = {}

    def __iter__(self) -> Iterator[ClientSession]:
        """All who are waited for."""
        for queue in (self._unclaimed, self._cut_off, self._quiet):
            yield from queue

    def wait_for(self, client: ClientSession) -> None:
        """The client's silence begins now."""
        former = client.queue
        if former is not None:
            del former[client]
        queue = self._unclaimed if not client.claimed else self._cut_off if client.had_stream else self._quiet
        queue[client] = None
        client.queue = queue

    @staticmethod
    def stop_waiting(client: ClientSession) -> None:
        """The client is there, or is waited for no longer."""
        queue = client.queue
        if queue is not None:
            del queue[client]
            client.queue = None

    def overdue(self, now: float, patience: Patience) -> Iterator[ClientSession]:
        """Those that were silent for too long. Stop waiting for each before you ask for the next one."""
        for queue, seconds in (
            (self._unclaimed, patience.claim_seconds),
            (self._cut_off, patience.reconnect_seconds),
            (self._quiet, patience.detach_seconds),
        ):
            while (client := next(iter(queue), None)) is not None and now - client.last_used >= seconds:
                yield client


def has_left(client: ClientSession, now: Callable[[], float]) -> bool:
    """Whether the client of a session with nothing open will not be waited for at all."""
    if client.deleted or client.forgotten:
        return True
    if client.took_leave is None or client.connections or not client.claimed:
        return False
    return now() - client.took_leave < _FAREWELL_SECONDS  # later, it is another connection that was cut


def takes_leave(client: ClientSession, now: float) -> bool:
    """Whether a connection that the client has just closed, between two requests, may be its goodbye.

    It is one when all the others are closed just then, too. Who makes a connection for each request says
    nothing by closing it.
    """
    return client.keeps_connections and not client.in_flight and now - client.last_used < _FAREWELL_SECONDS
