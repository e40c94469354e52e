"""The ids that clients hold, and what is behind each: bounded in number and in age.

A client session is found by principal and id together, so an id is worthless to anyone but the
principal that it was given to, and looking one up tells nothing about others.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Final
from weakref import WeakSet

from ..upstream.journal import Journal
from ..upstream.session import UpstreamSession
from .books import Slot, Usage
from .holdings import Holdings
from .identity import Principal, Profile, SessionKey
from .pool import Lease

_SCAN: Final = 64


class ClientSession:
    """What a client holds: an id, and the upstream session that is behind it.

    ``home`` is the upstream session it used last and finds again when it comes back; ``lease`` is
    held while the client session is attached.
    """

    __slots__ = (
        "adopted",
        "attaching",
        "claimed",
        "connections",
        "created",
        "deleted",
        "forgotten",
        "had_stream",
        "hears",
        "home",
        "id",
        "in_flight",
        "keeps_connections",
        "key",
        "last_used",
        "lease",
        "principal",
        "profile",
        "queue",
        "requests",
        "streams",
        "tag",
        "took_leave",
        "usage",
        "version",
        "wishes",
    )

    def __init__(
        self,
        *,
        identifier: str,
        principal: Principal,
        key: SessionKey,
        profile: Profile,
        usage: Usage,
        adopted: bool,
        now: float,
    ) -> None:
        self.id = identifier
        self.tag = "c" + secrets.token_hex(4)
        self.principal = principal
        self.key = key
        self.profile = profile
        self.usage = usage
        self.adopted = adopted
        self.created = now
        self.last_used = now
        self.claimed = adopted  # the client has shown that it keeps its id
        self.deleted = False
        self.forgotten = False  # its id means nothing any more, so nobody will come back
        self.had_stream = False
        # When a connection was closed as by somebody who leaves, if nothing came since.
        self.took_leave: float | None = None
        self.connections = 0  # open ones that have carried this client session
        self.keeps_connections = False  # for more than one request
        self.queue: dict[ClientSession, None] | None = None  # of those whose return is waited for
        self.wishes: Journal | None = None  # what it asked the server to tell it of
        self.streams = 0
        self.in_flight = 0
        self.requests = 0
        self.version: str | None = None  # what its handshake agreed on, if there was one here
        self.home: Slot[UpstreamSession] | None = None
        self.hears: WeakSet[UpstreamSession] = WeakSet()  # see ``audience``
        self.lease: Lease | None = None
        self.attaching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ClientSession {self.tag} in_flight={self.in_flight} attached={self.lease is not None}>"

    @property
    def busy(self) -> bool:
        """Whether a request or a stream of this client is open now."""
        return self.in_flight > 0 or self.streams > 0 or self.attaching is not None


class Directory:
    """All client sessions, least recently used first. ``on_forget`` is told of each that goes.

    The limits may be changed at any time.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        max_sessions_per_principal: int,
        timeout_seconds: float,
        on_forget: Callable[[ClientSession, str], None],
    ) -> None:
        self.max_sessions = max_sessions
        self.max_sessions_per_principal = max_sessions_per_principal
        self.timeout_seconds = timeout_seconds
        self._on_forget = on_forget
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

    def find(self, principal: Principal, identifier: str, now: float) -> ClientSession | None:
        """The client session under this id of this principal, which counts as used now."""
        place = (principal.digest, identifier)
        client = self._sessions.get(place)
        if client is not None:
            self._use(client, place, now)
        return client

    def find_profile(self, identifier: str) -> Profile | None:
        """The profile of whichever principal's client session is known by this id."""
        client = self._newest.get(identifier)
        return None if client is None else client.profile

    def touch(self, client: ClientSession, now: float) -> None:
        """The client session is used now."""
        place = (client.principal.digest, client.id)
        if self._sessions.get(place) is client:
            self._use(client, place, now)
        else:
            client.last_used = now  # not known yet, or not any more

    def _use(self, client: ClientSession, place: tuple[str, str], now: float) -> None:
        client.last_used = now
        sessions, own = self._sessions, self._principals[place[0]]
        del sessions[place]
        sessions[place] = client
        del own[client]
        own[client] = None

    def add(self, client: ClientSession) -> None:
        """Remember a new client session; one under the same id, or the least used one, goes."""
        place = (client.principal.digest, client.id)
        if (former := self._sessions.get(place)) is not None:
            self.forget(former, "replaced")
        own = self._principals.setdefault(client.principal.digest, {})
        # More than one goes only after a limit was lowered.
        while len(own) >= self.max_sessions_per_principal:
            self._make_room(iter(own))
        while len(self._sessions) >= self.max_sessions:
            # Who has the most pays first, so that nobody's many push out another's few.
            heaviest = self._holdings.heaviest()
            self._make_room(iter(self._sessions.values() if heaviest is None else self._principals[heaviest]))
        self._sessions[place] = client
        self._principals.setdefault(client.principal.digest, {})[client] = None
        self._holdings.add(client.principal.digest)
        self._arrivals[client] = None
        self._newest[client.id] = client

    def _make_room(self, oldest_first: Iterator[ClientSession]) -> None:
        """Forget the least recently used one that is not busy, or the oldest if all of them are."""
        first: ClientSession | None = None
        for client, _ in zip(oldest_first, range(_SCAN), strict=False):
            first = first or client
            if not client.busy:
                first = client
                break
        if first is not None:
            self.forget(first, "room")

    def forget(self, client: ClientSession, reason: str) -> None:
        """Drop a client session; its id means nothing from now on."""
        place = (client.principal.digest, client.id)
        if self._sessions.get(place) is not client:
            return
        del self._sessions[place]
        del self._arrivals[client]
        if self._newest.get(client.id) is client:
            del self._newest[client.id]
        client.forgotten = True
        self._holdings.remove(client.principal.digest)
        own = self._principals[client.principal.digest]
        own.pop(client, None)
        if not own:
            del self._principals[client.principal.digest]
        self._on_forget(client, reason)

    def expire(self, now: float) -> None:
        """Forget those that were not used for the timeout. Called regularly."""
        while (client := next(iter(self._sessions.values()), None)) is not None:
            if now - client.last_used < self.timeout_seconds:
                return
            if client.busy:
                self.touch(client, now)  # a stream that is open for a day is in use
            else:
                self.forget(client, "age")
