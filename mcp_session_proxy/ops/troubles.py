"""What went wrong in the last hour: how often, why, and when last. Pure.

A flood of one trouble makes one entry with a large number, so it hides no other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from .. import events
from ..bounds import SHOWN_TROUBLES
from ..events import Event, Level
from .runbook import path_of

MINUTES: Final = 60
OTHER: Final = "other"

# What counts, and where it says why. A request that got no session is told by its own failure already.
_WHY: Final[Mapping[type[Event], str]] = {
    events.RequestFailed: "reason",
    events.RequestRefused: "reason",
    events.SessionOpenFailed: "error",
    events.SessionLost: "how",
    events.UpstreamDown: "error",
    events.Crashed: "where",
    events.ReloadFailed: "problem",
    events.TokensNotChecked: "issuer",
    events.KeysMissing: "problem",
}
_MAX_CHARS: Final = 100


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of trouble: ``count`` times in the last hour, ``last`` at a time of day.

    ``event`` is the name of what tells it in the log, ``reason`` why. At level info it is the callers' own
    fault. ``runbook`` is the path of what to do, on the admin listener.
    """

    event: str
    reason: str
    level: Level
    count: int
    last: datetime
    runbook: str | None


class _Counter:
    """How often one trouble came, by minute."""

    __slots__ = ("event", "last", "minutes")

    def __init__(self, event: Event, last: datetime) -> None:
        self.event = event
        self.last = last
        self.minutes: dict[int, int] = {}

    def count(self, event: Event, now: datetime) -> None:
        """Count it in its minute; the last ``MINUTES`` in which there was one are kept."""
        self.event, self.last = event, now
        minute = _minute(now)
        self.minutes[minute] = self.minutes.get(minute, 0) + 1
        if len(self.minutes) > MINUTES:
            del self.minutes[min(self.minutes)]

    def recent(self, now: datetime) -> int:
        """How often in the ``MINUTES`` until now."""
        first = _minute(now) - MINUTES
        return sum(count for minute, count in self.minutes.items() if minute > first)


class Troubles:
    """Counts events that tell of trouble."""

    def __init__(self) -> None:
        self._counters: dict[tuple[type[Event], str], _Counter] = {}

    def count(self, event: Event, now: datetime) -> None:
        """Count an event, if it is one of trouble."""
        attribute = _WHY.get(type(event))
        if attribute is None:
            return
        key = type(event), str(getattr(event, attribute))[:_MAX_CHARS]
        if key not in self._counters and len(self._counters) >= SHOWN_TROUBLES:
            self._forget_old(now)
            if len(self._counters) >= SHOWN_TROUBLES:
                key = type(event), OTHER
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(event, now)
        counter.count(event, now)

    def now(self, now: datetime) -> Sequence[Trouble]:
        """The troubles of the last hour: those that are not the callers' own first, then the newest."""
        self._forget_old(now)
        found = [
            Trouble(
                event=kind.name,
                reason=reason,
                level=kind.level,
                count=counter.recent(now),
                last=counter.last,
                runbook=path_of(counter.event),
            )
            for (kind, reason), counter in self._counters.items()
        ]
        return sorted(
            found, key=lambda trouble: (trouble.level is not Level.INFO, trouble.last), reverse=True
        )

    def _forget_old(self, now: datetime) -> None:
        for key in [key for key, counter in self._counters.items() if not counter.recent(now)]:
            del self._counters[key]


def _minute(time: datetime) -> int:
    return int(time.timestamp() // 60)
