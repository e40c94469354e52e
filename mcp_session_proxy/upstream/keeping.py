"""What another process needs to go on with an upstream session, and whether it could."""

from ..errors import SessionLost
from .life import Life
from .record import KnownSession
from .session import UpstreamSession

# Only of these something is certain to stand at the server.
_STANDS = frozenset({Life.OPEN, Life.ASLEEP})


def describe(session: UpstreamSession) -> KnownSession | None:
    """What is known of a session; None where nobody could go on with it.

    That is so of one that is lost, or not open yet, and of any that lives no longer than what carries it.
    """
    if session.life not in _STANDS:
        return None
    incarnation = session.incarnation
    channel, replica = incarnation.channel, incarnation.residence.replica
    try:
        replica.transport.reconnect(channel.session_id)
    except SessionLost:
        return None
    return KnownSession(
        server=replica.name,
        session_id=channel.session_id,
        route=channel.route,
        version=channel.version,
        initialize_result=incarnation.initialize_result,
        told=tuple(session.record.journal.requests()),
        told_lists=session.told_lists,
        last_event_id=incarnation.last_event_id,
        asked_for_roots=session.record.roots.wanted,
        asked=incarnation.calls.unanswered(),
        tag=session.tag,
    )
