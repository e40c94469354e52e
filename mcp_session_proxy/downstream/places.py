"""How many connections there may be, and who makes room for one more.

Anybody can open a connection and say nothing, or begin something and never finish it, or ask for something
and stay. So a place is taken before anything is read, also before a TLS handshake, and at the limit those who
need theirs least make room: who could have asked for something by now, else those of whom there are most.
Where most of those who wait come from one network, none from elsewhere makes room for them.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ..bounds import TIME_TO_SPEAK_SECONDS
from ..errors import TooManyConnections

# Who has just come is let off for strangers who stay, even if those are fewer, as long as they are a part
# (1 of this many): many come at once where the loop is busy.
_PATIENCE: Final = 4
# Looking for somebody who makes room costs a look at every connection, so many (1 of this many) are found
# at once. One caller's own are looked at in turn, so many for each that it has too many.
_PART_AT_ONCE: Final = 64
# Where nobody was found, nobody is looked for again for so long, for each that was looked at: some ten times
# of what the look has cost.
_REST_SECONDS: Final = 1e-5
# A caller that the server has accepted keeps so many (1 of this many) whoever else comes.
_FEW: Final = 32
# No caller gets this part (1 of this many): others must be able to come in and say who they are.
_FOR_OTHERS: Final = 4
_NETWORK_BITS: Final = 64


class Place:
    """One connection's place, from its beginning to its end.

    ``since`` is when it was taken, and ``network`` where its client is. Whoever has it says what it is:
    ``end`` ends the connection at once. Of those that have made a request (``has_asked``), ``owner`` tells
    whose it is, or None of all strangers together, ``can_go`` whether nothing is lost with it, and
    ``follows`` whether it carries a stream of what may come, which its client opens again. ``principal`` is
    who has sent its newest request, accepted or not.
    """

    __slots__ = (
        "_deadline",
        "can_go",
        "end",
        "follows",
        "has_asked",
        "network",
        "owner",
        "principal",
        "since",
    )

    def __init__(self, since: float, network: str = "") -> None:
        self.since = since
        self.network = network
        self.principal: str | None = None
        self.end: Callable[[], object] = _do_nothing
        self.owner: Callable[[], str | None] = _do_nothing
        self.can_go: Callable[[], bool] = bool
        self.follows: Callable[[], bool] = bool
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


class Waiting:
    """Places whose connections have asked for nothing yet, in the order in which they came."""

    def __init__(self) -> None:
        self._all: dict[Place, None] = {}
        self._of: dict[str, dict[Place, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, place: Place) -> None:
        """It is the last one now."""
        self._all[place] = None
        self._of.setdefault(place.network, {})[place] = None

    def remove(self, place: Place) -> bool:
        """Whether it was there."""
        # The values are None.
        if self._all.pop(place, place) is not None:
            return False
        own = self._of[place.network]
        del own[place]
        if not own:
            del self._of[place.network]
        return True

    def first(self, network: str | None = None) -> Iterable[Place]:
        """Who came first, or first from one network, if there is anybody."""
        return islice(self._all if network is None else self._of.get(network, ()), 1)

    def count(self, network: str) -> int:
        """How many of them come from there."""
        return len(self._of.get(network, ()))

    @property
    def largest(self) -> str | None:
        """The network from which most of them come."""
        return max(self._of, key=self.count, default=None)


class Places:
    """Everybody's places. ``max_connections`` may be changed at any time."""

    def __init__(self, *, max_connections: int, first_request_seconds: float) -> None:
        self.max_connections = max_connections
        self._first_request_seconds = first_request_seconds
        self._silent = Waiting()
        self._begun = Waiting()
        # In the order in which they came; those of each principal in the order in which they became its.
        self._asked: dict[Place, None] = {}
        self._own: dict[str, dict[Place, None]] = {}
        self._networks: dict[Place, str] = {}
        self._of_network: dict[str, int] = {}
        self._nobody_until = 0.0  # until then, all that have asked are known to be in use

    def __len__(self) -> int:
        return len(self._silent) + len(self._begun) + len(self._asked)

    @property
    def from_several_networks(self) -> bool:
        """Whether they come from more than one."""
        return len(self._of_network) > 1

    @property
    def waiting(self) -> int:
        """How many have not made a request yet."""
        return len(self._silent) + len(self._begun)

    def take(self, peer: object = None) -> Place | None:
        """A place for a new connection from this address; None if nobody makes room for it.

        The connection is ended if its first request has not begun in time.
        """
        if len(self) >= self.max_connections and not self.make_room():
            return None
        place = Place(asyncio.get_running_loop().time(), network_of(peer))
        self._networks[place] = place.network
        self._of_network[place.network] = self._of_network.get(place.network, 0) + 1
        place.wait(self._first_request_seconds, self.dismiss)
        self._silent.add(place)
        return place

    def begin(self, place: Place) -> None:
        """Something was heard from this connection, but no request yet."""
        if self._silent.remove(place):
            self._begun.add(place)

    def ask(self, place: Place) -> None:
        """It has made its first request."""
        if self._silent.remove(place) or self._begun.remove(place):
            place.stop_waiting()
            place.has_asked = True
            self._asked[place] = None

    def belong(self, place: Place, principal: str) -> None:
        """Its newest request is this caller's, one of whose other connections makes room if it has too many.

        Raises:
            TooManyConnections: all of them are in use.
        """
        if place.principal == principal:
            return
        self._disown(place)
        own = self._own.setdefault(principal, {})
        if len(own) >= self.max_connections - self.max_connections // _FOR_OTHERS:
            looked_at = list(islice(own, _PART_AT_ONCE))
            if not (leaving := [other for other in looked_at if other.can_go()]):
                for other in looked_at:  # the next look is at others
                    own[other] = own.pop(other)
                raise TooManyConnections(
                    f"{len(own)} connections of this caller are in use already (--max-connections)."
                )
            self.dismiss(leaving[0])
            own = self._own.setdefault(principal, {})
        place.principal = principal
        own[place] = None

    def leave(self, place: Place) -> None:
        """The connection is over, or was ended to make room."""
        place.stop_waiting()
        if not (self._silent.remove(place) or self._begun.remove(place)):
            self._asked.pop(place, None)
        self._disown(place)
        if (network := self._networks.pop(place, None)) is not None:
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]

    def dismiss(self, place: Place) -> None:
        """End a connection."""
        self.leave(place)
        place.end()

    def make_room(self) -> bool:
        """End those who need their places least; whether there was anybody who can go."""
        leaving = self._too_slow() or self._of_the_most()
        for place in leaving:
            self.dismiss(place)
        return bool(leaving)

    def _too_slow(self) -> list[Place]:
        """Who came first, if it could have asked for something by now."""
        too_early = asyncio.get_running_loop().time() - TIME_TO_SPEAK_SECONDS
        crowd = self._crowd()
        first = (*self._silent.first(crowd), *self._begun.first(crowd))
        return [place for place in first if place.since < too_early]

    def _crowd(self) -> str | None:
        """The network from which more come who have asked for nothing yet than from all others together."""
        # It has more than half of one of the two groups, then.
        for network in (self._silent.largest, self._begun.largest):
            if network is not None:
                count = self._silent.count(network) + self._begun.count(network)
                if 2 * count > self.waiting:
                    return network
        return None

    def _of_the_most(self) -> list[Place]:
        """Who came first of those of whom there are most: the silent, those who have begun, one owner's."""
        # Those who wait are a group like one owner's connections. Whoever has asked for something makes room
        # only where its group is larger than theirs; strangers do so earlier (``_PATIENCE``).
        waiting = max(self._silent, self._begun, key=len)
        now = asyncio.get_running_loop().time()
        if len(waiting) < _PATIENCE * len(self._asked) and now >= self._nobody_until:
            if leaving := self._idle(len(waiting)) or self._streams(len(waiting)):
                return leaving[: max(1, self.max_connections // _PART_AT_ONCE)]
            self._nobody_until = now + _REST_SECONDS * len(self._asked)
        return list(waiting.first(waiting.largest))

    def _idle(self, waiting: int) -> list[Place]:
        """Those of one owner that can go: of who has most, and more than those many who wait."""
        owned = self._by_owner()
        few = max(1, self.max_connections // _FEW)
        for owner, places in sorted(owned.items(), key=lambda item: len(item[1]), reverse=True):
            enough = _PATIENCE * len(places) > waiting if owner is None else len(places) > max(few, waiting)
            if enough and (idle := [place for place in places if place.can_go()]):
                return idle if owner is not None else _of_the_most_from(idle)
        return []

    def _streams(self, waiting: int) -> list[Place]:
        """Streams of the one accepted caller that has most, beyond an equal share of all connections.

        One caller alone leaves room for others by itself (``belong``); several together would not.
        """
        owned = self._by_owner()
        owned.pop(None, None)
        if len(owned) < 2:
            return []
        share = max(1, self.max_connections // (len(owned) + 1))
        for places in sorted(owned.values(), key=len, reverse=True):
            if len(places) <= max(share, waiting):
                break
            if streams := [place for place in places if place.follows()]:
                return streams[: len(places) - share]
        return []

    def _by_owner(self) -> dict[str | None, list[Place]]:
        owned: dict[str | None, list[Place]] = {}
        for place in self._asked:
            owned.setdefault(place.owner(), []).append(place)
        return owned

    def _disown(self, place: Place) -> None:
        principal, place.principal = place.principal, None
        if principal is not None:
            own = self._own[principal]
            del own[place]
            if not own:
                del self._own[principal]


def network_of(peer: object) -> str:
    """Where a client is, by the address of its socket: of IPv6, whoever has one has billions beside it."""
    host = peer[0] if isinstance(peer, tuple) and peer else ""
    if not isinstance(host, str) or ":" not in host:
        return str(host)
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))


def _of_the_most_from(places: Iterable[Place]) -> list[Place]:
    """Those from where most of them come from."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.network, []).append(place)
    return max(found.values(), key=len)


def _do_nothing() -> None:
    return None
