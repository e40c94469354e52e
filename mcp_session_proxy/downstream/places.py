"""How many connections there may be, and who makes room for one more.

Anybody can open a connection and say nothing, or begin something and never finish it, or ask for something
and stay. So a place is taken before anything is read, also before a TLS handshake, and at the limit those who
need theirs least make room: who could have asked for something by now, else those of whom there are most.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final

from ..bounds import TIME_TO_SPEAK_SECONDS

# Who has just come is let off for strangers who stay, even if those are fewer, as long as they are a part
# (1 of this many): many come at once where the loop is busy.
_PATIENCE: Final = 4
# Looking for somebody who makes room costs a look at every connection, so many (1 of this many) are found
# at once.
_PART_AT_ONCE: Final = 64
# A caller that the server has accepted keeps so many (1 of this many) whoever else comes.
_FEW: Final = 32


class Place:
    """One connection's place, from its beginning to its end.

    ``since`` is when it was taken. Whoever has it says what it is: ``end`` ends the connection at once. Of
    those that have made a request (``has_asked``), ``owner`` tells whose it is, or None of all strangers
    together, and ``can_go`` whether nothing is lost with it.
    """

    __slots__ = ("_deadline", "can_go", "end", "has_asked", "owner", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.end: Callable[[], object] = _do_nothing
        self.owner: Callable[[], str | None] = _do_nothing
        self.can_go: Callable[[], bool] = bool
        self.has_asked = False
        self._deadline: asyncio.TimerHandle | None = None

    def wait(self, seconds: float, then: "Callable[[Place], None]") -> None:
        """Its first request has so many seconds."""
        self._deadline = asyncio.get_running_loop().call_later(seconds, then, self)

    def stop_waiting(self) -> None:
        """Its first request has come, or never will."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Places:
    """Everybody's places. ``max_connections`` may be changed at any time."""

    def __init__(self, *, max_connections: int, first_request_seconds: float) -> None:
        self.max_connections = max_connections
        self._first_request_seconds = first_request_seconds
        # Each in the order in which they came.
        self._silent: dict[Place, None] = {}
        self._begun: dict[Place, None] = {}
        self._asked: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._begun) + len(self._asked)

    @property
    def waiting(self) -> int:
        """How many have not made a request yet."""
        return len(self._silent) + len(self._begun)

    def take(self) -> Place | None:
        """A place for a new connection; None if nobody makes room for it.

        The connection is ended if its first request has not begun in time.
        """
        if len(self) >= self.max_connections and not self.make_room():
            return None
        place = Place(asyncio.get_running_loop().time())
        place.wait(self._first_request_seconds, self._end)
        self._silent[place] = None
        return place

    def begin(self, place: Place) -> None:
        """Something was heard from this connection, but no request yet."""
        # The values are None, so this asks whether it was there.
        if self._silent.pop(place, place) is None:
            self._begun[place] = None

    def ask(self, place: Place) -> None:
        """It has made its first request."""
        if self._silent.pop(place, place) is None or self._begun.pop(place, place) is None:
            place.stop_waiting()
            place.has_asked = True
            self._asked[place] = None

    def leave(self, place: Place) -> None:
        """The connection is over, or was ended to make room."""
        place.stop_waiting()
        for places in (self._silent, self._begun, self._asked):
            places.pop(place, None)

    def make_room(self) -> bool:
        """End those who need their places least; whether there was anybody who can go."""
        leaving = self._too_slow() or self._of_the_most()
        for place in leaving:
            self._end(place)
        return bool(leaving)

    def _too_slow(self) -> list[Place]:
        """Who came first, if it could have asked for something by now."""
        too_early = asyncio.get_running_loop().time() - TIME_TO_SPEAK_SECONDS
        first = [next(iter(places)) for places in (self._silent, self._begun) if places]
        return [place for place in first if place.since < too_early]

    def _of_the_most(self) -> list[Place]:
        """Who came first of those of whom there are most: the silent, those who have begun, one owner's."""
        # Those who wait are a group like one owner's connections. Whoever has asked for something makes room
        # only where its group is larger than theirs; strangers do so earlier (``_PATIENCE``).
        waiting = max(self._silent, self._begun, key=len)
        if len(waiting) < _PATIENCE * len(self._asked):
            own: dict[str | None, list[Place]] = {}
            for place in self._asked:
                own.setdefault(place.owner(), []).append(place)
            enough = max(1, self.max_connections // _PART_AT_ONCE)
            few = max(1, self.max_connections // _FEW)
            for owner, places in sorted(own.items(), key=lambda item: len(item[1]), reverse=True):
                if owner is None:
                    if _PATIENCE * len(places) <= len(waiting):
                        continue
                elif len(places) <= max(few, len(waiting)):
                    continue
                if idle := [place for place in places if place.can_go()]:
                    return idle[:enough]
        return list(islice(waiting, 1))

    def _end(self, place: Place) -> None:
        self.leave(place)
        place.end()


def _do_nothing() -> None:
    return None
