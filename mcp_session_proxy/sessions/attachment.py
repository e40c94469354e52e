"""How a client session holds its upstream session: the states and the one table of transitions. Pure.

``attaching`` carries out what a transition means: it takes sessions and gives them back, and waits for
clients that are silent. Nothing else changes a state.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from ..upstream.life import IllegalTransition


class Attachment(StrEnum):
    """Whether a client session is attached to an upstream session."""

    DETACHED = "detached"  # holds none; what is open, if anything, does without or runs on a borrowed one
    ATTACHING = "attaching"  # one is being taken for it, by a task that serves all who ask meanwhile
    IN_USE = "in use"  # holds one, and a request or a stream is open
    AWAITED = "awaited"  # holds one, and nothing is open: its client may come back


class AttachmentEvent(StrEnum):
    """What can happen to it."""

    NEEDED = "needed"  # a request or a stream needs a session, and none is held that could serve it
    TAKEN = "taken"  # a session was taken for it
    FAILED = "failed"  # none could be had
    OPEN = "open"  # a request or a stream is open
    SILENT = "silent"  # nothing is open, and the client may come back
    LEFT = "left"  # nothing is open, and the client is not waited for


# Note three things. A client session stays ATTACHING whatever its client does meanwhile: the upstream session
# that is on its way must find a holder, which decides what to do once it is there. A client session that
# loses its upstream session while it is IN_USE gets the event NEEDED: the way back is the same as the first
# way. And only a client session with nothing open can leave its upstream session; hand-over means that others
# get that in the very step of LEFT.
TRANSITIONS: Final[Mapping[Attachment, Mapping[AttachmentEvent, Attachment]]] = {
    Attachment.DETACHED: {
        AttachmentEvent.NEEDED: Attachment.ATTACHING,
        AttachmentEvent.TAKEN: Attachment.IN_USE,  # its own from before, at once
        AttachmentEvent.OPEN: Attachment.DETACHED,
        AttachmentEvent.SILENT: Attachment.DETACHED,
        AttachmentEvent.LEFT: Attachment.DETACHED,
    },
    Attachment.ATTACHING: {
        AttachmentEvent.TAKEN: Attachment.IN_USE,
        AttachmentEvent.FAILED: Attachment.DETACHED,
        AttachmentEvent.OPEN: Attachment.ATTACHING,
        AttachmentEvent.SILENT: Attachment.ATTACHING,
        AttachmentEvent.LEFT: Attachment.ATTACHING,
    },
    Attachment.IN_USE: {
        AttachmentEvent.NEEDED: Attachment.ATTACHING,
        AttachmentEvent.OPEN: Attachment.IN_USE,
        AttachmentEvent.SILENT: Attachment.AWAITED,
        AttachmentEvent.LEFT: Attachment.DETACHED,
    },
    Attachment.AWAITED: {
        AttachmentEvent.OPEN: Attachment.IN_USE,
        AttachmentEvent.SILENT: Attachment.AWAITED,  # a sign of life: its silence begins anew
        AttachmentEvent.LEFT: Attachment.DETACHED,
    },
}

# States in which a client session holds an upstream session.
ATTACHED: Final = frozenset({Attachment.IN_USE, Attachment.AWAITED})


def advance(state: Attachment, event: AttachmentEvent) -> Attachment:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a client session that is {state}") from None
