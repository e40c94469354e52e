"""What is to be written to a store: for each record its newest state and no more. Pure.

What is being written is *in hand*, until ``settle``: what is left of it then is to be written again, and what
was noted of it meanwhile is newer.
"""

from typing import Generic, TypeVar

from ..store.engine import RecordPlace

S = TypeVar("S")

# By shard and place, the subjects of the records.
Batch = dict[str, dict[RecordPlace, S]]


class RecordNotes(Generic[S]):
    """By shard and place, what each record is about; whoever writes it knows how."""

    def __init__(self) -> None:
        self._noted: Batch[S] = {}
        self._in_hand: Batch[S] = {}

    @property
    def pending(self) -> int:
        """How many records are to be written."""
        batches = (self._noted, self._in_hand)
        return len({(shard, place) for batch in batches for shard in batch for place in batch[shard]})

    def has(self, shard: str) -> bool:
        """Whether something of a shard is to be written, beside what is in hand."""
        return shard in self._noted

    def __bool__(self) -> bool:
        """Whether there is anything, beside what is in hand."""
        return bool(self._noted)

    def note(self, shard: str, place: RecordPlace, subject: S) -> None:
        """A record is to be written."""
        self._noted.setdefault(shard, {})[place] = subject

    def take(self) -> Batch[S]:
        """All of it, which is in hand from now on. Whoever writes it takes out what is written."""
        self._in_hand, self._noted = self._noted, {}
        return self._in_hand

    def settle(self) -> None:
        """Nothing is written any more: what is left in hand is to be written again."""
        left, self._in_hand = self._in_hand, {}
        for shard, places in left.items():
            if places:
                self._noted[shard] = places | self._noted.get(shard, {})

    def let_go(self, shard: str) -> None:
        """Forget all of a shard: it is for somebody else to write, also what is in hand."""
        self._noted.pop(shard, None)
        self._in_hand.pop(shard, None)
