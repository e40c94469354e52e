"""The verbs of an engine, and what it answers.

An engine decides in one transaction who owns a shard, and takes writes from nobody else. It knows names,
numbers and bytes, and nothing of sessions or callers.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol


class StoreFailure(Exception):
    """The store has not done what it was asked to, and nothing was changed. The text is for the operator."""


class StoreRefused(StoreFailure):
    """The store does not let this process in. Asking again would change nothing."""


class ClaimOutcome(Enum):
    """What became of a claim."""

    NO_LEASE = "no-lease"  # the member that claims has no lease, as far as the store knows
    OWNED = "owned"  # another member that is alive owns it
    MINE = "mine"  # the member owned it already
    TAKEN = "taken"  # the member owns it from now on


class Claimed(NamedTuple):
    """What became of a claim: the ``owner`` now and its ``fence``.

    ``left_seconds`` is how long the lease of another owner still lasts. A shard that was taken comes with its
    ``records``.
    """

    outcome: ClaimOutcome
    owner: str | None
    fence: int
    left_seconds: float = 0.0
    records: Mapping["RecordPlace", bytes] = MappingProxyType({})


class Fenced(NamedTuple):
    """Whether something was done that only the owner may do, and who owns the shard now."""

    done: bool
    owner: str | None
    fence: int


class RecordPlace(NamedTuple):
    """The place of one record in its shard."""

    kind: str
    name: str


class StoredMember(NamedTuple):
    """A member that is alive, its card as bytes, and how many seconds its lease still lasts."""

    member: str
    card: bytes
    left_seconds: float


class StoredShard(NamedTuple):
    """A shard that has an owner or records. ``owner`` is None if no member that is alive owns it."""

    shard: str
    owner: str | None
    fence: int


class Engine(Protocol):
    """The eleven verbs. Each is done whole or not at all.

    Times are in seconds. ``member`` is always the one that asks. All verbs raise ``StoreFailure`` if the
    store cannot be reached, read or written.
    """

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        """Renew the member's lease, with this card and so many sessions reserved; gives whether it had one.

        A member that had none may have lost what it owned to others. False is also the answer if the store
        has lost something that it had acknowledged to the member.
        """
        ...

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        """Own a shard, if no other member that is alive does.

        Its new fence is higher than ``min_fence`` and than all that it had before. While nobody owns it, it
        is forgotten with its records ``ttl_seconds`` after its last claim or write.
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
        """Store records, and drop those that are None.

        Only the owner can, under the shard's present fence.
        """
        ...

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        """Own a shard no longer. From then on ``to`` owns it, or nobody if that is None.

        If ``to`` is not alive, nothing is done.
        """
        ...

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        """Reserve up to ``wanted`` sessions for this member, so that all members have ``most`` at most.

        Gives how many were reserved. They replace what was reserved for it before.
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
        """A number that changes when a member comes or goes, or has another card.

        So nobody has to read all cards in order to see that there is nothing new.
        """
        ...

    async def bury(self, member: str, card: bytes) -> bool:
        """End the lease of a member that is known to be gone, if its card is still this one.

        Gives whether it was ended.
        """
        ...

    async def leave(self, member: str) -> None:
        """End the member's own lease. Nobody owns its shards from then on."""
        ...
