"""What a member answers another one that does not reach the store."""

import asyncio
from typing import Final

from ..bounds import PEER_ANSWER_SECONDS
from ..store.engine import StoreFailure
from .lease import LeaseAnswer
from .shards import HeldShard, Shards

# What this member serves, whoever asks has to hear also where the store keeps everybody waiting.
_LOOK_SECONDS: Final = PEER_ANSWER_SECONDS / 2


async def answer(shards: Shards, member: str, shard: str | None) -> LeaseAnswer:
    """What the member of these ``shards`` knows of ``member``, and of a shard that somebody wants there."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            left = await shards.membership.lease_of(member)
            owner = None if shard is None else await _find_owner(shards, shard)
    except (StoreFailure, TimeoutError):
        reached, left, owner = False, None, None
    else:
        reached = True
    held = None if shard is None else shards.held.get(shard)
    return LeaseAnswer(
        store=reached,
        left_seconds=left,
        owns=held is not None,
        fence=0 if held is None else held.fence,
        owner=owner,
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
