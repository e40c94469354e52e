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
    known = known_of(shards, member, shard)
    if known is not None:
        return known
    assert member is not None
    membership = shards.membership
    left: float | None = None
    owner: str | None = None
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            if shard is None:
                left = await membership.lease_of(member)
            else:
                owner = await _find_owner(shards, shard)
    except (StoreFailure, TimeoutError):
        return _told_by(shards, shard)
    # One that may have forgotten whoever asks does not say that its lease has run out.
    reached = left is not None or not membership.doubts_store
    return _told_by(shards, shard, reached=reached, left_seconds=left, owner=owner)


def known_of(shards: Shards, member: str | None, shard: str | None) -> LeaseAnswer | None:
    """The same without the store, if it can be told: nothing of it is wanted; or this member did not reach
    it, either, when it was asked last, which is a beat ago at most.

    When nobody reaches the store, each member asks all others for each caller whom it does not know. If each
    of them tried it once more for that, they would be busy with nothing else.
    """
    membership = shards.membership
    serves = shard in shards.held and membership.is_sure and not membership.doubts_store
    if member is None or serves or not membership.up:
        return _told_by(shards, shard)
    return None


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
