"""How much of one process lies in an event store. What earlier ones have left ends by itself."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..bounds import KEPT_STREAM_BYTES

# What a place costs beside its events, there and here.
_PLACE_BYTES: Final = 1024
# Places are looked through for those that have ended when there are so many, and then twice what was left.
_LOOKED_THROUGH: Final = 1000


class Fit(NamedTuple):
    """What is at a place after a write, as far as we know: the sizes of its events, the oldest first; and how
    many of its newest events there is room for.
    """

    sizes: tuple[int, ...]
    keep: int


class EventRoom:
    """What was written, by place, in the order in which it was written to last."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self._places: dict[str, tuple[tuple[int, ...], float]] = {}
        self._next_look = _LOOKED_THROUGH

    def __len__(self) -> int:
        return len(self._places)

    def fit(self, place: str, sizes: Sequence[int], most: int) -> Fit:
        """What is to be kept at a place to which events of these sizes come, of ``most``."""
        known = self._places.get(place)
        every = [*(() if known is None else known[0]), *sizes][-most:]
        left_bytes = KEPT_STREAM_BYTES
        for count, size in enumerate(reversed(every)):
            left_bytes -= size
            if left_bytes < 0 and count:
                return Fit(tuple(every[-count:]), count)
        # There may be some of an earlier process, which the store counts.
        return Fit(tuple(every), most)

    def put(self, place: str, fit: Fit, until: float) -> None:
        """It was written, and is kept until then."""
        self.remove(place)
        self._places[place] = (fit.sizes, until)
        self.used_bytes += sum(fit.sizes) + _PLACE_BYTES

    def remove(self, place: str) -> None:
        """Nothing is there any more."""
        known = self._places.pop(place, None)
        if known is not None:
            self.used_bytes -= sum(known[0]) + _PLACE_BYTES

    def make(self, now: float, most_bytes: int) -> list[str]:
        """The places that have to go so that no more is used: those that were written to longest ago."""
        if self.used_bytes > most_bytes or len(self._places) >= self._next_look:
            for place in [place for place, (_, until) in self._places.items() if until <= now]:
                self.remove(place)
            self._next_look = max(_LOOKED_THROUGH, 2 * len(self._places))
        gone = []
        while self.used_bytes > most_bytes and self._places:
            place = next(iter(self._places))
            self.remove(place)
            gone.append(place)
        return gone
