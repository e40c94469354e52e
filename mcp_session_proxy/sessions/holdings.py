"""How much each holder has, and who has the most: at a limit for all, that one pays first. Pure."""

from collections.abc import Iterator


class Holdings:
    """Counts by holder. Finding the heaviest takes no search."""

    __slots__ = ("_by_count", "_counts", "_most")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._by_count: dict[int, dict[str, None]] = {}  # holders, those longest at this count first
        self._most = 0

    def __getitem__(self, holder: str) -> int:
        return self._counts.get(holder, 0)

    def add(self, holder: str) -> None:
        """The holder has one more."""
        self._move(holder, 1)

    def remove(self, holder: str) -> None:
        """It has one less."""
        self._move(holder, -1)

    def _move(self, holder: str, change: int) -> None:
        before = self._counts.pop(holder, 0)
        after = before + change
        if before:
            peers = self._by_count[before]
            del peers[holder]
            if not peers:
                del self._by_count[before]
        if after:
            self._counts[holder] = after
            self._by_count.setdefault(after, {})[holder] = None
        self._most = max(self._most, after)
        while self._most and self._most not in self._by_count:
            self._most -= 1  # by one at the most, for nobody's count changes by more

    def heaviest_first(self) -> Iterator[str]:
        """All holders, the ones with the most first."""
        # The counts, not the holders: of those there may be thousands, most of them with the same count.
        for count in sorted(self._by_count, reverse=True):
            yield from self._by_count[count]

    def heaviest(self) -> str | None:
        """Who has the most; None where nobody has more than others."""
        # Where all have the same, nobody is to blame for the limit, and whoever asks goes by age instead.
        if len(self._by_count) <= 1:
            return None
        return next(iter(self._by_count[self._most]))
