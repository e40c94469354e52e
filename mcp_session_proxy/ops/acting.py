"""What an operator may have done, to one proxy or to all on a store, and what came of it. Pure."""

from enum import StrEnum

import msgspec


class Action(StrEnum):
    """What may be done to one proxy, or to all on a store."""

    PAUSE = "pause"
    RESUME = "resume"
    RECONNECT = "reconnect"
    KILL = "kill"


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: whether requests are held back now, how many upstream sessions are replaced, or
    whether the session was here that was to be closed.
    """

    paused: bool | None = None
    sessions: int | None = None
    closed: bool | None = None


class MemberActed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it at one proxy: ``acted``, or the ``problem`` that kept it from that.

    ``member`` is null where no others share a store with this one; ``here`` is the one that was asked.
    """

    member: str | None
    here: bool
    acted: Acted | None
    problem: str | None = None
