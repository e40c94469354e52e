"""The other members: their cards, and whether they are known to be gone."""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from .. import events
from ..bounds import PEER_SENDERS
from ..events import Observer
from ..store.engine import StoredMember, StoreFailure
from ..store.membership import Membership
from .card import Card, read_card

# How old the list of members may be when one of them is chosen to take over a shard.
_FRESH_SECONDS: Final = 1.0
# How old it may be as long as the store says that there is nothing new.
_STALE_SECONDS: Final = 10.0


async def bury_gone(
    membership: Membership, is_gone: Callable[[StoredMember], bool]
) -> tuple[list[StoredMember], list[StoredMember]]:
    """End the leases of members whose processes are gone. Gives the members that are left, and those.

    Raises:
        StoreFailure: it is not known who there is.
    """
    living, buried = [], []
    for other in await membership.others():
        if is_gone(other):
            await membership.bury(other)
            buried.append(other)
        else:
            living.append(other)
    return living, buried


class Members:
    """The other members that are alive by the store, and their cards.

    ``is_gone`` tells whether the process of a member has ended. That can be known of members on this machine
    only; the leases of all others have to run out. ``on_buried`` is called with each member whose lease was
    ended because it is gone. ``digest`` is that of this member's card.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        is_gone: Callable[[StoredMember], bool] = lambda _: False,
        on_buried: Callable[[str], None] = lambda _: None,
        digest: str = "",
        observe: Observer,
    ) -> None:
        self._membership = membership
        # Called with all other members when one has come or gone.
        self.on_change: list[Callable[[Collection[str]], None]] = []
        self._is_gone = is_gone
        self._on_buried = on_buried
        self._digest = digest
        self._observe = observe
        self._cards: dict[str, Card] = {}
        self._looked_at = float("-inf")
        self._news: int | None = None
        self._told_of: set[str] = set()
        self._former: dict[str, None] = {}  # members that have gone, the last one at the end; bounded
        self._keeps_unlisted = False  # whether there are some whom the store may have forgotten

    def __len__(self) -> int:
        return len(self._cards)

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards.values())

    async def look_for_news(self) -> None:
        """Read the list of members, if the store has news of them or the list is old. Raises StoreFailure."""
        news = await self._membership.news()
        is_stale = self._membership.now() - self._looked_at > _STALE_SECONDS
        if news != self._news or is_stale or self._keeps_unlisted:
            await self.look()
        self._news = news

    async def look(self, gone: Collection[str] = ()) -> None:
        """Read the list of members. Those that are known to be ``gone`` are dropped. Raises StoreFailure."""
        others = await self._membership.others()
        self._looked_at = self._membership.now()
        cards = {}
        for other in others:
            card = read_card(other.card)
            if card is not None and card.member == other.member:
                cards[other.member] = card
        listed = len(cards)
        if self._membership.doubts_store:
            # A member that the store may have forgotten counts as alive until its lease would have ended.
            kept = {member: card for member, card in self._cards.items() if member not in gone}
            cards = kept | cards
        self._keeps_unlisted = len(cards) > listed
        for member in cards.keys() - self._cards.keys():
            self._observe(events.MemberJoined(member=member, pid=cards[member].pid))
            self._compare(cards[member])
        for member in self._cards.keys() - cards.keys():
            self._observe(events.MemberLeft(member=member))
            self._told_of.discard(member)
            self._former.pop(member, None)
            self._former[member] = None
            if len(self._former) > PEER_SENDERS:
                del self._former[next(iter(self._former))]
        changed = cards.keys() != self._cards.keys()
        self._cards = cards
        if changed:
            for told in self.on_change:
                told(cards.keys())

    def _compare(self, card: Card) -> None:
        if self._digest and card.digest and card.digest != self._digest and card.member not in self._told_of:
            self._told_of.add(card.member)
            self._observe(events.MembersDiffer(member=card.member, version=card.version))

    async def knows(self, member: str) -> bool:
        """Whether there is a member of this name, or was one not long ago.

        A member whose lease has run out may only have lost its way to the store. Requests go on coming to it,
        and it sends them on.
        """
        if member in self._former:
            return True
        try:
            return await self.card(member) is not None
        except StoreFailure:
            return True  # its requests are signed with the cluster's key

    async def card(self, member: str) -> Card | None:
        """The card of a member; None if it is not alive. Raises StoreFailure."""
        card = self._cards.get(member)
        # A member beats before it has addresses, and may have got them since.
        if card is None or not card.addresses:
            await self.look()
        return self._cards.get(member)

    async def dismiss(self, member: str) -> None:
        """Drop a member that the store does not list, and at whose addresses nobody listens.

        So it has gone, and was not forgotten by the store.

        Raises:
            StoreFailure: the list could not be read, and the member stays in it.
        """
        if member in self._cards:
            await self.look(gone=[member])

    async def bury_the_gone(self, member: str | None = None) -> bool:
        """End the leases of members whose processes are gone, so that nobody waits for their ends.

        With ``member``, only of that one. Gives whether any lease was ended.

        Raises:
            StoreFailure: the leases go on.
        """
        _, buried = await bury_gone(
            self._membership, lambda other: member in (None, other.member) and self._is_gone(other)
        )
        for gone in buried:
            self._on_buried(gone.member)
            self._observe(events.MemberBuried(member=gone.member))
        if buried:
            await self.look(gone=[gone.member for gone in buried])
        return bool(buried)

    async def anyone(self) -> Card | None:
        """The member with the fewest shards that takes further ones; None if there is none.

        Raises:
            StoreFailure: it is not known who there is.
        """
        if self._membership.now() - self._looked_at > _FRESH_SECONDS:
            await self.look()
        willing = [card for card in self._cards.values() if card.addresses and not card.draining]
        return min(willing, key=lambda card: card.shards, default=None)
