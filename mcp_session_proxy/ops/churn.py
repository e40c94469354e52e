"""Session churn per minute for the last hour: what clients begin and end, what the server sees of it. Pure.

An observer for ``events``; it counts few kinds, none of which comes with every request.
"""

from collections.abc import Callable, Mapping
from typing import Final

from .. import events

MINUTES: Final = 60
# What is counted, and the events that count as it.
SERIES: Final[Mapping[str, tuple[type[events.Event], ...]]] = {
    "clients_began": (events.ClientSessionCreated,),
    "clients_ended": (events.DeleteAbsorbed,),
    "upstream_opened": (events.SessionOpened,),
    "upstream_closed": (events.SessionClosed,),
    "upstream_lost": (events.SessionLost,),
    "failures": (events.RequestFailed, events.SessionOpenFailed, events.Crashed),
}


class Churn:
    """Counts by minute. ``clock`` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minute = self._now()
        self._counts = {name: [0] * MINUTES for name in SERIES}
        self._handlers = {kind: self._counts[name] for name, kinds in SERIES.items() for kind in kinds}

    def listener(self, kind: type[events.Event], /) -> Callable[[events.Event], None] | None:
        """What counts events of this kind."""
        return None if kind not in self._handlers else self._count

    def _count(self, event: events.Event) -> None:
        self._turn()
        self._handlers[type(event)][self._minute % MINUTES] += 1

    def series(self) -> Mapping[str, list[int]]:
        """The counts of the last hour by what is counted, minute by minute, the running minute last."""
        self._turn()
        first = (self._minute + 1) % MINUTES
        return {name: counts[first:] + counts[:first] for name, counts in self._counts.items()}

    def _now(self) -> int:
        return int(self._clock() // 60)

    def _turn(self) -> None:
        """Forget the minutes that the clock has passed since the last look."""
        now = self._now()
        for minute in range(max(self._minute + 1, now - MINUTES + 1), now + 1):
            for counts in self._counts.values():
                counts[minute % MINUTES] = 0
        self._minute = max(self._minute, now)
