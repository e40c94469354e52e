"""What a member answers another one that does not reach the store, or doubts it."""

import asyncio
from typing import Final

from ..bounds import PEER_ANSWER_SECONDS
from ..store.engine import StoreFailure
from .lease import LeaseAnswer
from .shards import HeldShard, Shards

# Shorter than the one who asks waits: it has to hear what this member serves, even if the store is slow.
_LOOK_SECONDS: Final = PEER_ANSWER_SECONDS / 2


async def answer(shards: Shards, member: str | None, shard: str | None) -> LeaseAnswer:
    """What the member that has these ``shards`` knows of ``member``, which asks, and of a shard.

    Without a ``member``, the question is only whether the shard is served here. Then nothing is claimed and
    nobody else is asked, so that members that doubt the store do not ask each other in a circle.
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
    # That the store has no lease of ``member`` means nothing if it may have forgotten it.
    reached = left is not None or not membership.doubts_store
    return _told_by(shards, shard, reached=reached, left_seconds=left, owner=owner)


def known_of(shards: Shards, member: str | None, shard: str | None) -> LeaseAnswer | None:
    """The answer, if it can be given without asking the store; None if it cannot.

    It can if no more is wanted than what this member serves, or if this member did not reach the store,
    either, when it tried last. That was a beat ago at most. When nobody reaches the store, each member asks
    all others for each caller that it does not know; if each of those tried the store again, they would do
    nothing else.
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
    """Who owns a shard by the store; this member, which claims it, if nobody does.

    If nobody owned it, the member that asks would begin anew with its caller, though the store has records.

    Raises:
        StoreFailure: it is not known.
    """
    if shards.draining:
        return None
    place = await shards.find(shard)
    return shards.membership.member if isinstance(place, HeldShard) else place
