"""What members ask each other when one of them does not reach the store. Pure."""

from collections.abc import Iterable

import msgspec


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a member knows of another one, and of a shard.

    ``store``: it reached the store to find out. ``left_seconds`` is what is left of the lease then; None if
    there is none. ``owns``: the shard that was asked about is served by it, under ``fence``. ``owner`` is who
    has that shard by the store, from now on if nobody had it; None if that is not known.
    """

    store: bool
    left_seconds: float | None = None
    owns: bool = False
    fence: int = 0
    owner: str | None = None


def owner_by(answers: Iterable[tuple[str, LeaseAnswer]], asker: str) -> str | None:
    """Which other member has the shard that all were asked about; None if nobody, as far as is known.

    Of two that serve it, the one with the higher fence has had it later. What the store says counts only
    where nobody serves it: it may have forgotten somebody.
    """
    answers = list(answers)
    serving = [(said.fence, member) for member, said in answers if said.owns]
    if serving:
        return max(serving)[1]
    return next((said.owner for _, said in answers if said.owner not in (None, asker)), None)
