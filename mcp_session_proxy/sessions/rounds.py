"""What is looked at for what has changed without anybody's telling: what was used since, and the rest in
turns, so that many who are idle cost little.
"""

from collections.abc import Callable, Iterator
from typing import Final

from ..upstream.session import UpstreamSession
from .books import Books, Slot
from .client import ClientSession
from .directory import Directory

# Of the sessions that were not used since, so large a part has its turn.
_PARTS: Final = 10
_CLIENTS_SECONDS: Final = 10.0


class Rounds:
    """Goes through the sessions in ``books`` and in the ``directory``. ``now`` is the event loop's clock."""

    def __init__(self, books: Books[UpstreamSession], directory: Directory, now: Callable[[], float]) -> None:
        self._books = books
        self._directory = directory
        self._now = now
        self._looked_at = now()
        self._rest: list[Slot[UpstreamSession]] = []
        self._clients_until = now()  # those that were used before this were looked at

    def slots(self) -> list[Slot[UpstreamSession]]:
        """The upstream sessions that were in use since the last time, and some others."""
        since, self._looked_at = self._looked_at, self._now()
        slots = list(self._books.slots())
        if not self._rest:
            self._rest = slots
        count = -(-len(slots) // _PARTS)
        turn, self._rest = self._rest[:count], self._rest[count:]
        return [slot for slot in slots if slot.leases or slot.idle_since >= since] + turn

    def clients(self) -> Iterator[ClientSession]:
        """The client sessions that were used since the last time, if that is long enough ago."""
        now = self._now()
        if now - self._clients_until >= _CLIENTS_SECONDS:
            for client in self._directory.newest_used_first():
                if client.record.last_used < self._clients_until:
                    break
                yield client
            self._clients_until = now
