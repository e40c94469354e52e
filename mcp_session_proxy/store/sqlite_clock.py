"""The clock of a file in which times are kept: nobody can set it, however often the machine's is set.

While the machine runs, the file's clock goes on with the time since its start, for all processes that have
the file. After another start of the machine it goes on from where it was, by as much as the clock on the wall
shows that has passed; one that was set back meanwhile shows nothing.
"""

import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .clock import since_boot

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# How far what the file says of its own time may be behind it.
_NOTED_SECONDS: Final = 60.0
# By how much the clock on the wall may run differently before that is noted.
_DRIFT_SECONDS: Final = 1.0


class FileClock:
    """Gives seconds since 1970, once it has begun.

    ``since_start`` never goes back as long as the machine runs, ``wall`` is the clock that people set, and
    ``boot`` tells one start of the machine from another.
    """

    def __init__(self, since_start: Callable[[], float], wall: Callable[[], float], boot: str | None) -> None:
        self._since_start = since_start
        self._wall = wall
        self._boot = boot_id() if boot is None else boot
        self._ahead = 0.0  # of the time since the machine's start
        self._noted: tuple[float, float] | None = None

    def __call__(self) -> float:
        """The time now."""
        return self._since_start() + self._ahead

    def begin(self, db: sqlite3.Connection) -> bool:
        """Go on with the clock of this file; gives whether the machine was started anew since it was open.

        Called in a transaction, as ``note`` is.
        """
        said = dict(db.execute("SELECT name, value FROM meta"))
        is_anew = said.get("boot") != self._boot
        ahead = () if is_anew else _numbers(said.get("ahead"), 1)
        if ahead:
            [self._ahead] = ahead
        else:
            self._ahead = self._go_on(_numbers(said.get("clock"), 2)) - self._since_start()
            db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?,?)",
                [("boot", self._boot), ("ahead", repr(self._ahead))],
            )
        self._noted = None
        return is_anew

    def _go_on(self, noted: tuple[float, ...]) -> float:
        wall = self._wall()
        if not noted:
            return wall
        own, shown = noted
        return own + max(0.0, wall - shown)

    def note(self, db: sqlite3.Connection) -> None:
        """Have the file say what time it is, and what the clock on the wall shows."""
        own, shown = self(), self._wall()
        if self._noted is not None:
            passed, passed_on_the_wall = own - self._noted[0], shown - self._noted[1]
            if passed < _NOTED_SECONDS and abs(passed - passed_on_the_wall) < _DRIFT_SECONDS:
                return
        self._noted = own, shown
        db.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (f"{own!r} {shown!r}",))


def boot_id() -> str:
    """What tells this start of the machine from any other."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(round(time.time() - since_boot(), -2))


def _numbers(text: object, count: int) -> tuple[float, ...]:
    """The numbers that were written so; none if it is anything else."""
    try:
        found = tuple(map(float, str(text).split()))
    except ValueError:
        return ()
    return found if len(found) == count and all(map(math.isfinite, found)) else ()
