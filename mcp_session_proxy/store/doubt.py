"""Whether a store may have forgotten who owns what, as far as one member can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..aio import Signal


class Doubt:
    """Whether the store is doubted, by the clock ``now``.

    A doubt begins with a sign that the store has lost something or is another one. It ends ``seconds`` after
    the last such sign, when all members that are alive have beaten and claimed their shards again.
    """

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        self._now = now
        self._seconds = seconds
        self._until = float("-inf")
        self._failing = False  # the store has not answered since it failed
        self._beats_under_way = 0
        self._beaten = Signal()

    def __bool__(self) -> bool:
        return self._failing or self._now() < self._until

    def begin(self) -> None:
        """The store has lost something that it had acknowledged."""
        self._until = self._now() + self._seconds

    def store_failed(self) -> None:
        """The store has failed. When it answers again, it may be another one."""
        self._failing = True

    def store_answered(self) -> None:
        """The store has done what it was asked to."""
        if self._failing:
            self._failing = False
            self.begin()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """A block in which a beat is under way, which will show whether the store knew this member."""
        self._beats_under_way += 1
        try:
            yield
        finally:
            self._beats_under_way -= 1
            self._beaten.give()

    async def hear_beats(self) -> None:
        """Wait until no beat is under way.

        A beat makes the member known to the store again. Whether the store had forgotten everything, only the
        answer to that beat shows.
        """
        while self._beats_under_way:
            await self._beaten.wait()
