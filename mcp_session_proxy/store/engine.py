"""What an engine can do, and what it answers.

An engine decides in one transaction who owns a shard, and takes no write of anybody else. Which requests that
means is for whoever calls: here is nothing but names, numbers and bytes.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol


class StoreFailure(Exception):
    """The store did not do what it was asked to. The text is for the operator; nothing was changed."""


class StoreRefused(StoreFailure):
    """The store will not have us: asking again changes nothing."""


class ClaimOutcome(Enum):
    """What became of a claim."""

    NO_LEASE = "no-lease"  # whoever claims is not alive itself, as far as the store knows
    OWNED = "owned"  # by another member that is alive
    MINE = "mine"  # it was already
    TAKEN = "taken"  # it is from now on


class Claimed(NamedTuple):
    """The outcome, who owns the shard now, under which fence, and how long the owner's lease still lasts.

    With one that was taken come its ``records``, which whoever takes it needs next.
    """

    outcome: ClaimOutcome
    owner: str | None
    fence: int
    left_seconds: float = 0.0
    records: Mapping["RecordPlace", bytes] = MappingProxyType({})


class Fenced(NamedTuple):
    """Whether something was done that only the owner may do; and who owns the shard, under which fence."""

    done: bool
    owner: str | None
    fence: int


class RecordPlace(NamedTuple):
    """The place of one record in its shard."""

    kind: str
    name: str


class StoredMember(NamedTuple):
    """A member that is alive: its card, what it tells of itself, and how long its lease still lasts."""

    member: str
    card: bytes
    left_seconds: float


class StoredShard(NamedTuple):
    """A shard that has an owner or records. ``owner`` is None where no living member has it."""

    shard: str
    owner: str | None
    fence: int


class Engine(Protocol):
    """The eleven verbs. Each of them is done whole or not at all.

    Times are in seconds. ``member`` is always who asks. All verbs raise ``StoreFailure`` where the store
    cannot be reached, read or written.
    """

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        """Be alive for so long, with this card and so many sessions reserved; gives whether it was alive.

        One that was not has lost what it owned, if somebody wanted it meanwhile. The same holds, and is
        answered, where the store has lost what it had acknowledged to the member.
        """
        ...

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """Own a shard that no living member owns. Its new fence is over ``min_fence`` and over all before.

        A shard without records is forgotten ``ttl_seconds`` after nobody owns it any more, and so are records
        that nobody claims for so long.
        """
        ...

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        """Store records, and drop those that are None. Only its owner can, under its present fence."""
        ...

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """Own a shard no longer: ``to``, if it is alive, owns it from now on, or else nobody.

        If ``to`` is not alive, nothing is done.
        """
        ...

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        """How many of the ``wanted`` this member may have, beside the others, of ``most`` in all.

        That many are reserved for it, in place of what it had reserved before.
        """
        ...

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        """All records of a shard."""
        ...

    async def shards(self) -> Sequence[StoredShard]:
        """All shards that there are."""
        ...

    async def members(self) -> Sequence[StoredMember]:
        """All members that are alive."""
        ...

    async def news(self) -> int:
        """A number, which is another one when somebody has come or gone since, or has another card.

        So nobody need read all cards to see that there is nothing new.
        """
        ...

    async def bury(self, member: str, card: bytes) -> bool:
        """End the lease of a member that is known to be gone, if its card is still this one."""
        ...

    async def leave(self, member: str) -> None:
        """Be alive no longer. What the member owned belongs to nobody."""
        ...
