"""The fences under which one member owns its shards, or owned those that it has lost."""

from ..bounds import LOST_FENCES


class Fences:
    """The fences of shards that are owned, and of those that were lost last.

    Requests that are under way have ids of these fences, so no owner may get one of them again.
    """

    def __init__(self) -> None:
        self.owned: dict[str, int] = {}
        self._lost: dict[str, int] = {}  # the newest last

    def own(self, shard: str, fence: int) -> None:
        """A shard was claimed."""
        self.owned[shard] = fence
        self._lost.pop(shard, None)

    def lose(self, shard: str) -> None:
        """A shard was lost: it is not owned any more, and this member has not let go of it."""
        fence = self.owned.pop(shard, None)
        if fence is None:
            return
        self._lost.pop(shard, None)
        if len(self._lost) >= LOST_FENCES:
            del self._lost[next(iter(self._lost))]
        self._lost[shard] = fence

    def last(self, shard: str) -> int:
        """The highest fence of a shard that may still be in use here; 0 if there is none."""
        return self.owned.get(shard) or self._lost.get(shard, 0)
