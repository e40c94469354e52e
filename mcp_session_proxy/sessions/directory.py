"""The ids that clients hold, and what is behind each: bounded in number and in age.

A client session is found by principal and id together, so an id is worthless to anyone but the
principal that it was given to, and looking one up tells nothing about others.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from .client import ClientSession, Farewell
from .holdings import Holdings
from .identity import Principal, Profile

_SCAN: Final = 64


class Departure(NamedTuple):
    """A client session that is no more, and why: for whoever kept something for it."""

    client: ClientSession
    reason: str


class DirectoryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many client sessions are remembered, of all and of one principal, and for how long without use."""

    max_sessions: int
    max_sessions_per_principal: int
    timeout_seconds: float


class Directory:
    """All client sessions, least recently used first.

    It says who has to go, and knows nothing of what goes with them: whoever calls sees to that. ``rules``
    may be replaced at any time.
    """

    def __init__(self, rules: DirectoryRules) -> None:
        self.rules = rules
        self._sessions: dict[tuple[str, str], ClientSession] = {}
        self._principals: dict[str, dict[ClientSession, None]] = {}
        self._holdings = Holdings()
        self._arrivals: dict[ClientSession, None] = {}  # in the order in which they came
        self._newest: dict[str, ClientSession] = {}  # by id alone

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[ClientSession]:
        return iter(self._sessions.values())

    def newest_first(self) -> Iterator[ClientSession]:
        """All client sessions, the one that came last first."""
        return reversed(self._arrivals)

    def newest_used_first(self) -> Iterator[ClientSession]:
        """All client sessions, the one that was used last first."""
        return reversed(self._sessions.values())

    def of(self, principal: str) -> list[ClientSession]:
        """The client sessions of one principal, by its digest; the least recently used first."""
        return list(self._principals.get(principal, ()))

    def count_of(self, principal: str) -> int:
        """How many client sessions a principal has."""
        return len(self._principals.get(principal, ()))

    def find(self, principal: Principal, identifier: str, now: float) -> ClientSession | None:
        """The client session under this id of this principal, which counts as used now."""
        client = self._sessions.get((principal.digest, identifier))
        if client is not None:
            self.touch(client, now)
        return client

    def look_up(self, principal: Principal, identifier: str) -> ClientSession | None:
        """As ``find``, and it does not count as used."""
        return self._sessions.get((principal.digest, identifier))

    def knows(self, client: ClientSession) -> bool:
        """Whether this client session is known: it has begun, and is not over."""
        return client in self._arrivals

    def find_profile(self, identifier: str) -> Profile | None:
        """The profile of whichever principal's client session is known by this id."""
        client = self._newest.get(identifier)
        return None if client is None else client.profile

    def touch(self, client: ClientSession, now: float) -> None:
        """The client session is used now."""
        record = client.record
        record.last_used = now
        if client not in self._arrivals:
            return  # it is not known yet, or not any more
        place = (record.principal.digest, record.id)
        sessions, own = self._sessions, self._principals[place[0]]
        # Dictionaries keep the order in which keys came: what is taken out and put in again is last.
        del sessions[place]
        sessions[place] = client
        del own[client]
        own[client] = None

    def add(self, client: ClientSession) -> list[Departure]:
        """Remember a new client session; one under the same id, or the least used one, goes for it.

        Gives those that have gone: more than one only after a limit was lowered.
        """
        gone: list[Departure] = []
        place = (client.principal.digest, client.id)
        if (former := self._sessions.get(place)) is not None:
            gone += self.remove(former, "replaced")
        own = self._principals.setdefault(client.principal.digest, {})
        while len(own) >= self.rules.max_sessions_per_principal:
            gone += self._make_room(iter(own))
        while len(self._sessions) >= self.rules.max_sessions:
            # Who has the most pays first, so that nobody's many push out another's few.
            heaviest = self._holdings.heaviest()
            payers = self._sessions.values() if heaviest is None else self._principals[heaviest]
            gone += self._make_room(iter(payers))
        self._sessions[place] = client
        # Looked up anew: the last one that went for it may have taken ``own`` along.
        self._principals.setdefault(client.principal.digest, {})[client] = None
        self._holdings.add(client.principal.digest)
        self._arrivals[client] = None
        self._newest[client.id] = client
        return gone

    def _make_room(self, oldest_first: Iterator[ClientSession]) -> list[Departure]:
        """Forget the least recently used one that is not busy, or the oldest if all of them are."""
        # Only so many are looked at: there may be thousands of open streams at each ``initialize``.
        first: ClientSession | None = None
        for client, _ in zip(oldest_first, range(_SCAN), strict=False):
            first = first or client
            if not client.busy:
                first = client
                break
        return [] if first is None else self.remove(first, "room")

    def remove(self, client: ClientSession, reason: str) -> list[Departure]:
        """Drop a client session, if it is known; its id means nothing from now on."""
        place = (client.principal.digest, client.id)
        if self._sessions.get(place) is not client:
            return []
        del self._sessions[place]
        del self._arrivals[client]
        if self._newest.get(client.id) is client:
            del self._newest[client.id]
        client.farewell = Farewell.FORGOTTEN
        self._holdings.remove(client.principal.digest)
        own = self._principals[client.principal.digest]
        own.pop(client, None)
        if not own:
            del self._principals[client.principal.digest]
        return [Departure(client, reason)]

    def expire(self, now: float) -> list[Departure]:
        """Drop those that were not used for the timeout. Called regularly.

        They stand in the order of their use, so the first that is young enough ends the search: a round in
        which nobody is too old looks at one. A client session that is busy is in use whatever its last word
        was: a stream that is open for a day counts as used now, and so it goes to the end of the line instead
        of standing at its beginning in every round to come.
        """
        gone: list[Departure] = []
        while (client := next(iter(self._sessions.values()), None)) is not None:
            if now - client.record.last_used < self.rules.timeout_seconds:
                break
            if client.busy:
                self.touch(client, now)
            else:
                gone += self.remove(client, "age")
        return gone
