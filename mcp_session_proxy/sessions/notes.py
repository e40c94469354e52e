"""What is to be written to a store, and how soon: for each record its newest state and no more. Pure.

Most of it is *soon* to be written: nobody waits for it, but who was told of it counts on it. Some can wait,
because without it a later process only believes for longer in what is over. What can wait becomes urgent
with the next urgent word about the same record, and a word that can wait goes along with an urgent one that
was not written yet: so each record is written once for both.

What is being written is *in hand*, until ``settle``: then what is left of it is to be written soon, for it
has waited already, and what was noted of it meanwhile is newer.
"""

from typing import Generic, TypeVar

from ..store.engine import RecordPlace

S = TypeVar("S")

# By shard and place, the subjects of the records.
Batch = dict[str, dict[RecordPlace, S]]


class RecordNotes(Generic[S]):
    """By shard and place, what each record is about; whoever writes it knows how."""

    def __init__(self) -> None:
        self._soon: Batch[S] = {}
        self._later: Batch[S] = {}
        self._in_hand: Batch[S] = {}

    @property
    def pending(self) -> int:
        """How many records are to be written."""
        batches = (self._soon, self._later, self._in_hand)
        return len({(shard, place) for batch in batches for shard in batch for place in batch[shard]})

    def has(self, shard: str) -> bool:
        """Whether something of a shard is to be written, beside what is in hand."""
        return shard in self._soon or shard in self._later

    def __bool__(self) -> bool:
        """Whether there is anything, beside what is in hand."""
        return bool(self._soon or self._later)

    def note_soon(self, shard: str, place: RecordPlace, subject: S) -> None:
        """A record is to be written soon."""
        if self._later:
            self._drop_later(shard, place)
        self._soon.setdefault(shard, {})[place] = subject

    def note_later(self, shard: str, place: RecordPlace, subject: S) -> None:
        """A record is to be written, which can wait."""
        soon = self._soon.get(shard)
        if soon is not None and place in soon:
            soon[place] = subject
        else:
            self._later.setdefault(shard, {})[place] = subject

    def _drop_later(self, shard: str, place: RecordPlace) -> None:
        places = self._later.get(shard, {})
        if place in places:
            del places[place]
            if not places:
                del self._later[shard]

    def take_soon(self) -> Batch[S]:
        """What cannot wait: it is in hand from now on. Whoever writes it takes out what is written."""
        self._in_hand, self._soon = self._soon, {}
        return self._in_hand

    def take_all(self) -> Batch[S]:
        """The same with what can wait."""
        for shard, places in self._later.items():
            self._soon.setdefault(shard, {}).update(places)
        self._later = {}
        return self.take_soon()

    def settle(self) -> None:
        """Nothing is written any more: what is left in hand is to be written soon."""
        left, self._in_hand = self._in_hand, {}
        for shard, places in left.items():
            newer = self._soon.get(shard, {})
            for place in self._later.get(shard, {}).keys() & places.keys():
                newer[place] = self._later[shard][place]
                self._drop_later(shard, place)
            if places:
                self._soon[shard] = places | newer

    def let_go(self, shard: str) -> None:
        """Forget all of a shard: it is for somebody else to write, also what is in hand."""
        for batch in (self._soon, self._later, self._in_hand):
            batch.pop(shard, None)
