"""What members ask each other when the store does not answer, or may have forgotten something. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a member knows of another one, and of a shard.

    ``store``: the member that answers has reached the store for this. ``left_seconds`` is what is left of the
    lease then; None if there is no lease, or if a shard was asked about. ``owns``: the member that answers
    serves the shard. ``fence`` is the one under which it does, or last did; 0 if that is not known.
    ``owner`` is the member that owns the shard by the store, which may be so only since it was asked; None if
    that is not known.
    """

    store: bool
    left_seconds: float | None = None
    owns: bool = False
    fence: int = 0
    owner: str | None = None


class Served(NamedTuple):
    """Who serves a shard, if anybody does, and the fence that it has, or had last."""

    owner: str | None
    fence: int


def served_by(answers: Iterable[tuple[str, LeaseAnswer]]) -> Served:
    """Who serves the shard that all were asked about, as each of them says of itself.

    If two serve it, it is the one with the higher fence, which has claimed it later.
    """
    answers = list(answers)
    serving = [(said.fence, member) for member, said in answers if said.owns]
    if serving:
        fence, member = max(serving)
        return Served(member, fence)
    return Served(None, max((said.fence for _, said in answers), default=0))


def left_by(answers: Iterable[tuple[str, LeaseAnswer]]) -> float | None:
    """How many seconds are left of the asking member's lease, as those say that reach the store.

    0 if the lease has run out; None if nobody reaches the store.
    """
    return min((said.left_seconds or 0.0 for _, said in answers if said.store), default=None)


def owner_by(answers: Iterable[tuple[str, LeaseAnswer]], asker: str) -> str | None:
    """Which member but the ``asker`` has the shard that all were asked about; None if none is known to.

    What the store says counts only if nobody serves the shard, because the store may have forgotten its
    owner.
    """
    answers = list(answers)
    served = served_by(answers)
    if served.owner is not None:
        return served.owner
    return next((said.owner for _, said in answers if said.owner not in (None, asker)), None)
