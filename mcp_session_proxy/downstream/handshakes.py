"""Whose TLS handshake comes next: each network in turn, and a few in each turn of the event loop.

A handshake costs a millisecond or more, most of it at its beginning, and whoever begins one need not go on.
So those who have said something wait here until it is their turn: a network (``places.network_of``) from
which hundreds come has one of them begin for each one of another, and of very many the last comes first.
Between two turns everybody else has theirs, and only so many are under way: more make room for each other.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from .places import Place

_T = TypeVar("_T")
# So many of one network wait for a moment only, and are served in order.
_IN_ORDER: Final = 64
# In each turn of the event loop. One more costs those who are connected a millisecond.
BEGUN_AT_ONCE: Final = 2


class Handshakes:
    """The handshakes of a listener. ``max_under_way`` says how many there may be, and ``end`` ends one.

    Whoever wants to shake hands awaits ``begin``, and says when it is ``over``.
    """

    def __init__(self, *, max_under_way: Callable[[], int], end: Callable[[Place], None]) -> None:
        self._max_under_way = max_under_way
        self._end = end
        self._waiting: dict[str, dict[Place, asyncio.Future[None]]] = {}
        self._under_way: dict[str, dict[Place, None]] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None

    @property
    def under_way(self) -> int:
        """How many have begun and not ended."""
        return self._count

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return sum(map(len, self._waiting.values()))

    async def begin(self, place: Place) -> None:
        """Wait for this connection's turn. If that ends in an error, it is over."""
        turn = self._loop.create_future()
        self._waiting.setdefault(place.network, {})[place] = turn
        self._look_again()
        try:
            await turn
        except BaseException:
            _remove(self._waiting, place)
            self.over(place)  # its turn may just have come
            raise

    def over(self, place: Place) -> None:
        """It has shaken hands, or never will."""
        if place in self._under_way.get(place.network, ()):
            _remove(self._under_way, place)
            self._count -= 1

    def _look_again(self) -> None:
        if self._next is None and self._waiting:
            self._next = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Let the next ones begin."""
        self._next = None
        for _ in range(BEGUN_AT_ONCE):
            if not self._waiting:
                return
            if self._count >= self._max_under_way():
                self._make_room()
            network = next(iter(self._waiting))
            own = self._waiting.pop(network)
            # Where more come than can be served, those who came last are still there and have time left;
            # in order, everybody would be served too late.
            place = next(iter(own) if len(own) <= _IN_ORDER else reversed(own))
            turn = own.pop(place)
            if own:
                self._waiting[network] = own
            if not turn.done():  # it may have been given up in this very step
                self._under_way.setdefault(network, {})[place] = None
                self._count += 1
                turn.set_result(None)
        self._look_again()

    def _make_room(self) -> None:
        """End the one that began first, where most are under way."""
        most = max(self._under_way.values(), key=len)
        place = next(iter(most))
        self.over(place)
        self._end(place)


def _remove(those: dict[str, dict[Place, _T]], place: Place) -> None:
    own = those.get(place.network, {})
    own.pop(place, None)
    if not own:
        those.pop(place.network, None)
