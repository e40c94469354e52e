"""How many of the sessions that all members may have together (``--max-sessions``) this member may open.

A member that is alone may open all of them. Of several, each reserves its part in the store, and more when it
needs more. What is reserved for one member, the store gives to no other. Sessions that are taken over from
another member come on top.
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

# What is reserved beyond what is needed, so that the next sessions need not wait: a sixteenth of all, or
# eight if that is more, but no more than half of a member's part.
_SPARE_PART: Final = 16
_SPARE: Final = 8
# So many times as often as it beats, a member asks for more as long as it lacks sessions.
_HURRY: Final = 5


class Reservation:
    """Keeps the pool within what is reserved. ``rules`` are the operator's limits for all members together;
    they may be replaced at any time.
    """

    def __init__(self, rules: Limits, *, pool: Pool, membership: Membership, members: Members) -> None:
        self._pool = pool
        self._membership = membership
        self._members = members
        self._rules = rules
        self._granted: int | None = None
        self._renewing = Tasks()
        # A member that was alone has reserved everything. One that joins should not wait for the next beat.
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
        """Reserve what is needed now. Raises StoreFailure, and the former reservation stands."""
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
        """Whether clients wait, or less than this member's part is reserved: others give it back first."""
        most, members = self._rules.max_sessions, len(self._members) + 1
        return bool(self._pool.queue) or (self._granted or 0) < most // members

    async def keep(self) -> None:
        """Reserve what is needed, until this is cancelled."""
        while True:
            beat_seconds = self._membership.beat_seconds
            await asyncio.sleep(beat_seconds / _HURRY if self._lacks else beat_seconds)
            await self._try_to_renew()


def wanted_of(most: int, members: int, needed: int) -> int:
    """How many of ``most`` sessions one of so many members should reserve, if it needs ``needed``."""
    if members == 1:
        return most
    part = most // members
    spare = min(max(_SPARE, most // _SPARE_PART), part // 2)
    return min(most, max(part, needed + spare))
