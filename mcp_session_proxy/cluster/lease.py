"""What members ask each other when the store does not say it, or is not to be believed. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a member knows of another one, and of a shard.

    ``store``: it reached the store to find out. ``left_seconds`` is what is left of the lease then; None if
    there is none, or a shard was asked about. ``owns``: the shard that was asked about is served by it.
    ``fence`` is the one under which it does, or has done so last; 0 if that is not known. ``owner`` is who
    has that shard by the store, from now on if nobody had it; None if that is not known.
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
    """Who serves the shard that all were asked about, by their own word.

    Of two that serve it, the one with the higher fence has had it later.
    """
    answers = list(answers)
    serving = [(said.fence, member) for member, said in answers if said.owns]
    if serving:
        fence, member = max(serving)
        return Served(member, fence)
    return Served(None, max((said.fence for _, said in answers), default=0))


def left_by(answers: Iterable[tuple[str, LeaseAnswer]]) -> float | None:
    """How many seconds are left of the lease of who has asked, by those who reach the store: 0 if it has run
    out; None if nobody reaches it.
    """
    return min((said.left_seconds or 0.0 for _, said in answers if said.store), default=None)


def owner_by(answers: Iterable[tuple[str, LeaseAnswer]], asker: str) -> str | None:
    """Which other member has the shard that all were asked about; None if nobody, as far as is known.

    What the store says counts only where nobody serves it: it may have forgotten somebody.
    """
    answers = list(answers)
    served = served_by(answers)
    if served.owner is not None:
        return served.owner
    return next((said.owner for _, said in answers if said.owner not in (None, asker)), None)
