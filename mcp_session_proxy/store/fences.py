"""Under which fences one member owns its shards, and has owned those that it has lost."""

from ..bounds import LOST_FENCES


class Fences:
    """The fences of the shards that are owned, and of those that were lost last: what is under way has ids of
    them, so nobody may get one of them again.
    """

    def __init__(self) -> None:
        self.owned: dict[str, int] = {}
        self._lost: dict[str, int] = {}  # the newest last

    def own(self, shard: str, fence: int) -> None:
        """A shard was claimed."""
        self.owned[shard] = fence
        self._lost.pop(shard, None)

    def lose(self, shard: str) -> None:
        """A shard is owned no longer, and that was not this member's wish."""
        fence = self.owned.pop(shard, None)
        if fence is None:
            return
        self._lost.pop(shard, None)
        if len(self._lost) >= LOST_FENCES:
            del self._lost[next(iter(self._lost))]
        self._lost[shard] = fence

    def last(self, shard: str) -> int:
        """The highest one under which a shard was owned here that may be in use still; 0 if none is."""
        return self.owned.get(shard) or self._lost.get(shard, 0)
