"""The recent events, for people who look: the newest of each kind. Pure.

An observer for ``events`` of level info and above. Each kind has room of its own, so a flood of one (clients
that come and go, requests that fail) does not wash away what explains it (a server that went down).
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import count, islice
from operator import attrgetter

import msgspec

from ..bounds import SHOWN_EVENT_CHARS, SHOWN_EVENTS_OF_A_KIND
from ..events import Event, Level
from .runbook import path_of
from .troubles import Trouble, Troubles


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Ids count up from 1; ``fields`` are the event's own, without those that say nothing.

    ``runbook`` is the path of what to do about it, on the admin listener; null where there is nothing to do.
    """

    id: int
    time: datetime
    level: Level
    event: str
    fields: dict[str, str | int | float | bool]
    runbook: str | None = None


class Recent:
    """Keeps the newest events of each kind. ``clock`` gives the time of day, with its zone."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._ids = count(1)
        self.newest = 0
        self._rooms: dict[type[Event], deque[Entry]] = {}
        self._troubles = Troubles()

    def listener(self, kind: type[Event], /) -> Callable[[Event], None] | None:
        """What keeps events of this kind, if they are worth it."""
        if kind.level is Level.DEBUG:
            return None
        self._rooms.setdefault(kind, deque(maxlen=SHOWN_EVENTS_OF_A_KIND))
        return self._keep

    def _keep(self, event: Event) -> None:
        self.newest = next(self._ids)
        now = self._clock()
        self._troubles.count(event, now)
        self._rooms[type(event)].append(
            Entry(
                id=self.newest,
                time=now,
                level=event.level,
                event=event.name,
                fields=_read_fields(event),
                runbook=path_of(event),
            )
        )

    def troubles(self) -> Sequence[Trouble]:
        """What went wrong in the last hour."""
        return self._troubles.now(self._clock())

    def after(self, identifier: int, limit: int) -> list[Entry]:
        """The newest entries with a higher id, oldest first."""
        fresh = [entry for room in self._rooms.values() for entry in room if entry.id > identifier]
        fresh.sort(key=attrgetter("id"), reverse=True)
        return list(islice(fresh, limit))[::-1]


def _read_fields(event: Event) -> dict[str, str | int | float | bool]:
    """What the event says. Names from outside may be of any length, and are kept for long."""
    found: dict[str, str | int | float | bool] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, str):
            found[name] = value if len(value) <= SHOWN_EVENT_CHARS else f"{value[:SHOWN_EVENT_CHARS]}..."
        elif isinstance(value, float):
            found[name] = round(value, 6)
        elif isinstance(value, tuple):
            found[name] = ", ".join(map(str, value))
        elif value is not None:
            found[name] = value
    return found
