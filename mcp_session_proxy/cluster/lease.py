"""What members ask each other when one of them does not reach the store. Pure."""

import msgspec


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a member knows of another one, and of a shard.

    ``store``: it reached the store to find out. ``left_seconds`` is what is left of the lease then; None if
    there is none. ``owns``: the shard that was asked about is served here, under ``fence``.
    """

    store: bool
    left_seconds: float | None = None
    owns: bool = False
    fence: int = 0
