"""Who finds an upstream session when coming back, and so hears what its server says meanwhile.

That is written on both: on the upstream session, for whoever has something to tell its clients, and on the
client session, so that one that is forgotten leaves them all without a search. Its own side is weak: a client
may ask on many conversations' sessions, and must not keep those that are long closed.
"""

from collections.abc import Mapping
from typing import cast

from ..upstream.session import UpstreamSession
from .client import ClientSession


def audience_of(session: UpstreamSession) -> Mapping[ClientSession, None]:
    """The client sessions of an upstream session, in the order in which they came."""
    # Nothing but ``join`` puts anybody there; the floor below knows no client sessions.
    return cast("Mapping[ClientSession, None]", session.audience)


def join(session: UpstreamSession, client: ClientSession) -> None:
    """The client session finds this one from now on; one that nobody can come back to finds none."""
    if not client.forgotten:
        session.audience[client] = None
        client.hears.add(session)


def leave(session: UpstreamSession, client: ClientSession) -> None:
    """It does no longer."""
    session.audience.pop(client, None)
    client.hears.discard(session)


def leave_all(client: ClientSession) -> None:
    """The client session finds nothing any more."""
    for session in list(client.hears):
        leave(session, client)
