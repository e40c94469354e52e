"""The life of an upstream session: its states and the one table of transitions. Pure.

Nothing else changes a state. The pool has a table of its own (``sessions.state``): there it is about who may
have a session, here about what there is at the server.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

# The reason to close a session that another process goes on with: the server is told nothing.
ELSEWHERE: Final = "elsewhere"


class Life(StrEnum):
    """What there is of an upstream session."""

    NEW = "new"  # nothing at the server yet
    OPENING = "opening"  # the first handshake is under way
    OPEN = "open"  # an incarnation of it stands
    ASLEEP = "asleep"  # one stood before this process began, and nothing was said on it since
    REVIVING = "reviving"  # the server has lost it; the handshake of its next incarnation is under way
    LOST = "lost"  # that has failed; whoever needs the session tries again
    CLOSED = "closed"  # the proxy is done with it; what is left is the goodbye


class Turn(StrEnum):
    """What can happen to an upstream session."""

    BEGUN = "begun"  # a first handshake
    OPENED = "opened"  # a handshake succeeded, or none was needed: the session is known from elsewhere
    LAID_DOWN = "laid down"  # none was needed, and the session is to sleep until its caller comes
    WOKEN = "woken"  # its caller has come, and the server knows it still
    FAILED = "failed"  # the handshake that was under way
    LOST = "lost"
    CLOSED = "closed"


class IllegalTransition(Exception):
    """A bug: the event cannot happen in that state."""


TRANSITIONS: Final[Mapping[Life, Mapping[Turn, Life]]] = {
    Life.NEW: {Turn.BEGUN: Life.OPENING, Turn.CLOSED: Life.CLOSED},
    Life.OPENING: {
        Turn.OPENED: Life.OPEN,
        Turn.LAID_DOWN: Life.ASLEEP,
        Turn.FAILED: Life.NEW,
        Turn.CLOSED: Life.CLOSED,
    },
    Life.OPEN: {Turn.LOST: Life.REVIVING, Turn.CLOSED: Life.CLOSED},
    Life.ASLEEP: {Turn.WOKEN: Life.OPEN, Turn.LOST: Life.REVIVING, Turn.CLOSED: Life.CLOSED},
    Life.REVIVING: {Turn.OPENED: Life.OPEN, Turn.FAILED: Life.LOST, Turn.CLOSED: Life.CLOSED},
    Life.LOST: {Turn.LOST: Life.REVIVING, Turn.CLOSED: Life.CLOSED},
    # A handshake that is under way when its session is closed still comes to an end, which changes nothing.
    Life.CLOSED: {Turn.OPENED: Life.CLOSED, Turn.FAILED: Life.CLOSED, Turn.CLOSED: Life.CLOSED},
}


def advance(life: Life, turn: Turn) -> Life:
    """The state after ``turn``.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    try:
        return TRANSITIONS[life][turn]
    except KeyError:
        raise IllegalTransition(f"{turn} cannot happen to an upstream session that is {life}") from None
