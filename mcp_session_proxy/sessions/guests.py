"""Which client sessions find an upstream session when they come back."""

from collections.abc import Iterator, Mapping

from ..upstream.session import UpstreamSession
from .directory import ClientSession


class Guests:
    """The client sessions of each upstream session, in the order in which they came."""

    def __init__(self) -> None:
        self._guests: dict[UpstreamSession, dict[ClientSession, None]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[UpstreamSession]:
        """The sessions that have any."""
        return iter(self._guests)

    def of(self, session: UpstreamSession) -> Mapping[ClientSession, None]:
        """The client sessions of this one."""
        return self._guests.get(session, {})

    def welcome(self, session: UpstreamSession, client: ClientSession) -> None:
        """The client session finds this session from now on; one that nobody can come back to finds none."""
        if not client.forgotten:
            self._guests.setdefault(session, {})[client] = None

    def remove(self, session: UpstreamSession, client: ClientSession) -> None:
        """It does no longer."""
        guests = self._guests.get(session)
        if guests is not None:
            guests.pop(client, None)
            if not guests:
                del self._guests[session]

    def remove_everywhere(self, client: ClientSession) -> None:
        """The client session finds nothing any more."""
        for session in [session for session, guests in self._guests.items() if client in guests]:
            self.remove(session, client)

    def forget_closed(self) -> None:
        """Let go of sessions that are over."""
        for session in [session for session in self._guests if session.closed]:
            del self._guests[session]
