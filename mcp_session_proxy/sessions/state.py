"""The life of an upstream session in the pool: its states and the one table of transitions.

Everything that decides by state asks here; nothing else changes a state.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from ..upstream.life import IllegalTransition


class SessionState(StrEnum):
    """Where an upstream session is in its life."""

    OPENING = "opening"  # the handshake is under way; counted, usable by nobody
    IDLE = "idle"  # alive and held by nobody
    LEASED = "leased"  # alive and held by at least one lease
    CLOSING = "closing"  # out of the pool; the goodbye is under way
    CLOSED = "closed"


class SessionEvent(StrEnum):
    """What can happen to an upstream session."""

    OPENED = "opened"
    OPEN_FAILED = "open_failed"
    TAKEN = "taken"
    RELEASED = "released"  # the last lease went back
    RETIRED = "retired"  # whatever the reason: age, room, loss, shutdown
    GONE = "gone"  # the goodbye is over


TRANSITIONS: Final[Mapping[SessionState, Mapping[SessionEvent, SessionState]]] = {
    SessionState.OPENING: {
        SessionEvent.OPENED: SessionState.IDLE,
        SessionEvent.OPEN_FAILED: SessionState.CLOSED,
        # Not closed at once: the server may have opened its side, so there is a goodbye to say.
        SessionEvent.RETIRED: SessionState.CLOSING,
    },
    SessionState.IDLE: {
        SessionEvent.TAKEN: SessionState.LEASED,
        SessionEvent.RETIRED: SessionState.CLOSING,
    },
    SessionState.LEASED: {
        SessionEvent.TAKEN: SessionState.LEASED,
        SessionEvent.RELEASED: SessionState.IDLE,
        SessionEvent.RETIRED: SessionState.CLOSING,
    },
    SessionState.CLOSING: {SessionEvent.GONE: SessionState.CLOSED},
    SessionState.CLOSED: {},
}

# States in which a session takes one of the places that --max-sessions allows.
COUNTED: Final = frozenset({SessionState.OPENING, SessionState.IDLE, SessionState.LEASED})
# States in which a session can serve requests.
USABLE: Final = frozenset({SessionState.IDLE, SessionState.LEASED})


def advance(state: SessionState, event: SessionEvent) -> SessionState:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a session that is {state}") from None
