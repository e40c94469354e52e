"""Going on while the store cannot be asked: for how long this member may count on what it owns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..aio import Tasks
from ..bounds import PEER_ANSWER_SECONDS
from ..store.membership import Membership

# How long a member goes on without the store before it asks the others again. They may take a second to
# answer.
_ASSUMED_SECONDS: Final = 2 * PEER_ANSWER_SECONDS
# The least time between two questions.
_PAUSE_SECONDS: Final = 0.1


class Outlasting:
    """Keeps a member sure of its lease while the store does not answer it, by asking the other members.

    ``lease_left`` asks them how many seconds the lease of this ``membership`` lasts by the store: 0 if it has
    run out, None if none of them reaches the store.
    """

    def __init__(self, membership: Membership, lease_left: Callable[[], Awaitable[float | None]]) -> None:
        self._membership = membership
        self._lease_left = lease_left
        self._asking: asyncio.Task[bool] | None = None
        self._staying: asyncio.Task[None] | None = None
        self._is_late = False  # a beat is under way that is not answered in time
        self._tasks = Tasks()

    async def is_alive(self) -> bool:
        """Whether the lease goes on, as far as any member knows. All who ask at once share one question.

        If it does, the member is sure for another moment, but no longer than the lease lasts.
        """
        if self._asking is None or self._asking.done():
            self._asking = self._tasks.spawn(self._ask(), "ask peers")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        asked = self._membership.now()
        left = await self._lease_left()
        if left == 0.0:
            return False
        self._assume_until(asked + (_ASSUMED_SECONDS if left is None else min(left, _ASSUMED_SECONDS)))
        return True

    def assume(self) -> None:
        """Let the member be sure for a moment, whatever the others say."""
        self._assume_until(self._membership.now() + _ASSUMED_SECONDS)

    def _assume_until(self, when: float) -> None:
        # After a lease has run out, only the store can say which shards are still this member's.
        if when > self._membership.sure_until and self._membership.is_verified:
            self._membership.assume(when - self._membership.now())

    def begin(self) -> None:
        """Keep the member sure until the store answers again. To be called when it has failed.

        The others are asked before the member is no longer sure, so that no request waits for their answers.
        """
        if self._staying is None or self._staying.done():
            self._staying = self._tasks.spawn(self._stay_sure(), "outlast the store")

    async def beat(self) -> bool:
        """Beat. One that is not answered by the time of the next counts as one that has failed: a short lease
        would be over soon after the store was given up. Raises StoreFailure.
        """
        late = asyncio.get_running_loop().call_later(self._membership.beat_seconds, self._begin_late)
        try:
            return await self._membership.beat()
        finally:
            late.cancel()
            self._is_late = False

    def _begin_late(self) -> None:
        self._is_late = True
        self.begin()

    async def _stay_sure(self) -> None:
        membership = self._membership
        while self._is_late or not membership.up:
            early = membership.sure_until - membership.now() - PEER_ANSWER_SECONDS
            await asyncio.sleep(max(_PAUSE_SECONDS, early))
            # Then the next request of each shard finds out where that is.
            if not await self.is_alive():
                return

    def close(self) -> None:
        """Stop asking."""
        self._tasks.cancel()
