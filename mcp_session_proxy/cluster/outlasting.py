"""Going on while the store cannot be asked: for how long this member may count on what it owns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..aio import Tasks
from ..bounds import PEER_ANSWER_SECONDS
from ..store.membership import Membership

# How long it is gone on without the store before the others are asked again, who may need all of a second.
_ASSUMED_SECONDS: Final = 2 * PEER_ANSWER_SECONDS
# The least time between two questions.
_PAUSE_SECONDS: Final = 0.1


class Outlasting:
    """Has a member be sure of its lease by the word of the others, while the store does not answer.

    ``lease_left`` asks them how many seconds the lease of this ``membership`` lasts by the store: 0 if it has
    run out, None if none of them reaches it, either.
    """

    def __init__(self, membership: Membership, lease_left: Callable[[], Awaitable[float | None]]) -> None:
        self._membership = membership
        self._lease_left = lease_left
        self._asking: asyncio.Task[bool] | None = None
        self._staying: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    async def is_alive(self) -> bool:
        """Whether the lease has not run out, as far as anybody knows. Then the member goes on for a moment as
        if it were sure, but no longer than the lease lasts.
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
        """Go on for a moment as if it were sure."""
        self._assume_until(self._membership.now() + _ASSUMED_SECONDS)

    def _assume_until(self, when: float) -> None:
        # Nobody but the store can say what became of its own while its lease had run out.
        if when > self._membership.sure_until and self._membership.is_verified:
            self._membership.assume(when - self._membership.now())

    def begin(self) -> None:
        """The store has failed: ask the others before the member is no longer sure, so that no request has to
        wait for what they say.
        """
        if self._staying is None or self._staying.done():
            self._staying = self._tasks.spawn(self._stay_sure(), "outlast the store")

    async def _stay_sure(self) -> None:
        membership = self._membership
        while not membership.up:
            early = membership.sure_until - membership.now() - PEER_ANSWER_SECONDS
            await asyncio.sleep(max(_PAUSE_SECONDS, early))
            # Once it has run out, whoever comes for a shard finds out what became of it.
            if not await self.is_alive():
                return

    def close(self) -> None:
        """Ask nobody any more."""
        self._tasks.cancel()
