"""How clients that take one stream from each other are slowed down. Pure.

Two tabs with one session id each open its GET stream as soon as it is closed, and the newest one wins: left
alone, they take it from each other several times in a second. Whoever loses is told to come back later, and
later still each time, until the stream has been left in peace for a while.
"""

import math
from typing import Final

from ..backoff import Backoff

_ABSENCES: Final = Backoff(1.0, 60.0)
_CALM_SECONDS: Final = 5.0


class Contention:
    """How often one stream was taken away lately."""

    __slots__ = ("_retry_seconds", "_taken_at")

    def __init__(self) -> None:
        self._retry_seconds = 0.0
        self._taken_at = -math.inf

    def taken(self, now: float) -> float:
        """The stream is taken from whoever has it: how many seconds the loser should stay away."""
        self._retry_seconds = _ABSENCES.after(0.0 if self._calm(now) else self._retry_seconds)
        self._taken_at = now
        return self._retry_seconds

    def settled(self, now: float) -> float | None:
        """The stream is opened, and nobody had it: the usual seconds, if others were told and it is calm."""
        if not self._retry_seconds or not self._calm(now):
            return None
        self._retry_seconds = 0.0
        return _ABSENCES.first_seconds

    def _calm(self, now: float) -> bool:
        """Whether the loser of the last time would have come back since, had it wanted to."""
        return now - self._taken_at > 2 * self._retry_seconds + _CALM_SECONDS
