"""Whether a store may have forgotten who owns what, as far as one member can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..aio import Signal


class Doubt:
    """Begins with a sign that the store has lost something, or is another one, and ends ``seconds`` after the
    last of them, by the clock ``now``: until then, whoever lives has beaten and claimed again.
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
        """It did not do what it was asked to: what answers next may be another one."""
        self._failing = True

    def store_answered(self) -> None:
        """It did."""
        if self._failing:
            self._failing = False
            self.begin()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """A beat is under way meanwhile, and will tell whether the store knew of this member."""
        self._beats_under_way += 1
        try:
            yield
        finally:
            self._beats_under_way -= 1
            self._beaten.give()

    async def hear_beats(self) -> None:
        """Wait for what beats tell that are under way: because of one of them the store may take the member
        for alive, though it has forgotten all else.
        """
        while self._beats_under_way:
            await self._beaten.wait()
