"""Whether the client of an attached client session is still there: what says that it has left, and the clock.

A client that leaves properly says DELETE; most do not. What is left to go by are its silence, and how it
closes its connections. A stream that was cut is no goodbye: proxies on the way cut them every few minutes,
and the client opens another one a moment later.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .attachment import AttachmentEvent
from .client import ClientSession, Farewell, Queue
from .record import Contact

# A client that keeps its id sends it back within moments ("notifications/initialized"). One that
# does not never will, so what it was given need not be held for it.
_CLAIM_SECONDS: Final = 5.0
# A client that leaves closes its connections when it has its last answer. One that closes an idle one later
# than this may only be tidying up: HTTP clients do that after 4 s (undici), 5 s (httpx) or 15 s (aiohttp).
_FAREWELL_SECONDS: Final = 3.0


class Patience(NamedTuple):
    """How long a client may be silent before it counts as gone, in seconds."""

    reconnect_seconds: float  # one whose GET stream has closed
    detach_seconds: float  # one that never had any, and sends its id

    def seconds_for(self, contact: Contact) -> float:
        """The same for one that has shown itself so."""
        if contact is Contact.STREAMED:
            return self.reconnect_seconds
        if contact is Contact.CLAIMED:
            return self.detach_seconds
        return min(_CLAIM_SECONDS, self.detach_seconds)


class Presence:
    """The attached client sessions that have nothing open: their clients may come back, or have left.

    How long each is waited for depends on how it has shown itself. A queue for each of these ways is in the
    order of its clients' silence without being sorted: whoever falls silent goes to its end, and a round
    looks at those that are due and the first that is not, however many wait.
    """

    def __init__(self) -> None:
        self._queues: dict[Contact, Queue] = {contact: {} for contact in Contact}

    def __iter__(self) -> Iterator[ClientSession]:
        """All who are waited for."""
        for queue in self._queues.values():
            yield from queue

    def queues(self) -> Iterator[Queue]:
        """The same by how long they are waited for, each the longest silent first."""
        yield from self._queues.values()

    def wait_for(self, client: ClientSession) -> None:
        """The client's silence begins now."""
        former = client.queue
        if former is not None:
            del former[client]
        queue = self._queues[client.record.contact]
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
        for contact, queue in self._queues.items():
            seconds = patience.seconds_for(contact)
            while (client := next(iter(queue), None)) is not None:
                if now - client.record.last_used < seconds:
                    break
                yield client


def judge(client: ClientSession, now: Callable[[], float], patience: Patience) -> AttachmentEvent:
    """What a client session's present condition means for its attachment: something is open, or its client is
    silent, or has left. The clock is asked only where it matters.
    """
    if client.in_flight or client.streams:
        return AttachmentEvent.OPEN
    if client.farewell is not Farewell.NONE and _is_gone(client, now):
        return AttachmentEvent.LEFT
    # Without a grace it has left in this step, and not at the next round of maintenance.
    if not patience.reconnect_seconds and client.had_stream:
        return AttachmentEvent.LEFT
    return AttachmentEvent.SILENT


def _is_gone(client: ClientSession, now: Callable[[], float]) -> bool:
    """Whether what it said or did as a goodbye is one."""
    if client.farewell is not Farewell.HUNG_UP:
        return True
    if client.connections or client.record.contact is Contact.UNCLAIMED:
        return False
    return now() - client.hung_up_at < _FAREWELL_SECONDS  # later, it is another connection that was cut


def note_hanging_up(client: ClientSession, now: float) -> None:
    """The client has closed a connection, between two requests: note it if that may be its goodbye.

    It is one when all the others are closed just then, too. Who makes a connection for each request says
    nothing by closing it, and who has said DELETE has said more than this.
    """
    recent = now - client.record.last_used < _FAREWELL_SECONDS
    may_leave = client.keeps_connections and not client.in_flight and recent
    if may_leave and client.farewell in (Farewell.NONE, Farewell.HUNG_UP):
        client.farewell, client.hung_up_at = Farewell.HUNG_UP, now
