"""What a member answers another one that does not reach the store, or does not believe it."""

import asyncio
from typing import Final

from ..bounds import PEER_ANSWER_SECONDS
from ..store.engine import StoreFailure
from .lease import LeaseAnswer
from .shards import HeldShard, Shards

# What this member serves, whoever asks has to hear also where the store keeps everybody waiting.
_LOOK_SECONDS: Final = PEER_ANSWER_SECONDS / 2


async def answer(shards: Shards, member: str | None, shard: str | None) -> LeaseAnswer:
    """What the member of these ``shards`` knows of ``member``, and of a shard that somebody wants there.

    Who names no member wants to know only whether the shard is served here: nothing is claimed, and nobody
    asked, so that those who doubt the store do not ask each other in a circle.
    """
    if member is None:
        return _told_by(shards, shard)
    membership = shards.membership
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            left = await membership.lease_of(member)
            owner = None if shard is None else await _find_owner(shards, shard)
    except (StoreFailure, TimeoutError):
        return _told_by(shards, shard)
    # One that may have forgotten whoever asks does not say that its lease has run out.
    reached = left is not None or not membership.doubts_store
    return _told_by(shards, shard, reached=reached, left_seconds=left, owner=owner)


def _told_by(
    shards: Shards,
    shard: str | None,
    *,
    reached: bool = False,
    left_seconds: float | None = None,
    owner: str | None = None,
) -> LeaseAnswer:
    held, fence = None, 0
    if shard is not None:
        held, fence = shards.held.get(shard), shards.membership.fences.last(shard)
    return LeaseAnswer(
        store=reached, left_seconds=left_seconds, owns=held is not None, fence=fence, owner=owner
    )


async def _find_owner(shards: Shards, shard: str) -> str | None:
    """Who has a shard by the store; this member, if nobody has.

    Else its caller would begin anew where the store is not reached, beside what the store has of it.
    Raises StoreFailure.
    """
    if shards.draining:
        return None
    place = await shards.find(shard)
    return shards.membership.member if isinstance(place, HeldShard) else place
