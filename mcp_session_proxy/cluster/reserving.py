"""How many sessions this member may have, of those that all members may have together (``--max-sessions``).

One that is alone may have them all. Among several, each reserves its part, and more as it needs more: what is
reserved for one of them, the store gives to no other. Those that are taken over from another member come on
top.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

import msgspec

from ..aio import Tasks
from ..sessions.policy import Limits
from ..sessions.pool import Pool
from ..store.engine import StoreFailure
from ..store.membership import Membership
from .members import Members

# What is reserved beyond what there is, so that the next ones need not wait for it: one of so many, or eight,
# but no more than half of a member's part.
_SPARE_PART: Final = 16
_SPARE: Final = 8
# How much sooner whoever lacks some asks again.
_HURRY: Final = 5


class Reservation:
    """Keeps the pool within what is reserved. ``rules`` are the operator's limits, and may be replaced."""

    def __init__(self, rules: Limits, *, pool: Pool, membership: Membership, members: Members) -> None:
        self._pool = pool
        self._membership = membership
        self._members = members
        self._rules = rules
        self._granted: int | None = None
        self._renewing = Tasks()
        # Who is alone has reserved everything: whoever joins would have to wait for the next beat.
        members.on_change.append(self._renew_soon)

    @property
    def rules(self) -> Limits:
        """The operator's limits, for all members together."""
        return self._rules

    @rules.setter
    def rules(self, rules: Limits) -> None:
        self._rules = rules
        self._apply()

    def _apply(self) -> None:
        self._pool.rules = msgspec.structs.replace(self._rules, reserved=self._granted)

    async def renew(self) -> None:
        """Reserve what is needed now. Raises StoreFailure: what was reserved stands."""
        most, members = self._rules.max_sessions, len(self._members) + 1
        needed = self._pool.books.counted + len(self._pool.queue)
        wanted = wanted_of(most, members, needed)
        self._granted = await self._membership.reserve(wanted, most)
        self._apply()
        self._pool.serve_everyone()

    def _renew_soon(self, _: Collection[str]) -> None:
        self._renewing.spawn(self._try_to_renew(), "renew reservation")

    async def _try_to_renew(self) -> None:
        with contextlib.suppress(StoreFailure):
            await self.renew()

    @property
    def _lacks(self) -> bool:
        """Whether it has less than its part, which others have to give back first, or has clients wait."""
        most, members = self._rules.max_sessions, len(self._members) + 1
        return bool(self._pool.queue) or (self._granted or 0) < most // members

    async def keep(self) -> None:
        """Reserve what is needed, until this is cancelled."""
        while True:
            beat_seconds = self._membership.beat_seconds
            await asyncio.sleep(beat_seconds / _HURRY if self._lacks else beat_seconds)
            await self._try_to_renew()


def wanted_of(most: int, members: int, needed: int) -> int:
    """How many sessions to reserve, of ``most`` among so many members, by one that needs this many."""
    if members == 1:
        return most
    part = most // members
    spare = min(max(_SPARE, most // _SPARE_PART), part // 2)
    return min(most, max(part, needed + spare))
