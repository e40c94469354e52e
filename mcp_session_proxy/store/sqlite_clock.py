"""The clock by which times in the file are told. Setting the machine's clock does not change it.

While the machine runs, the file's clock goes on with the time since the machine's start, in all processes
that use the file. After the machine is started anew, the clock goes on from where it was, plus the time that
has passed by the wall clock; if that was set back meanwhile, no time has passed.
"""

import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .clock import since_boot

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# How far the time that was written to the file may be behind its clock.
_NOTED_SECONDS: Final = 60.0
# By how much the wall clock may differ from this one before both are written again.
_DRIFT_SECONDS: Final = 1.0


class FileClock:
    """Gives seconds since 1970 when it is called. ``begin`` comes before that.

    ``since_start`` gives the seconds since the machine was started; ``wall`` is the clock that people can
    set. ``boot`` identifies this start of the machine.
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
        """Go on with the clock of this file; gives whether the machine was started anew since then.

        To be called in a transaction.
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
        """Write to the file what time it is by its clock and by the wall clock.

        To be called in a transaction.
        """
        own, shown = self(), self._wall()
        if self._noted is not None:
            passed, passed_on_the_wall = own - self._noted[0], shown - self._noted[1]
            if passed < _NOTED_SECONDS and abs(passed - passed_on_the_wall) < _DRIFT_SECONDS:
                return
        self._noted = own, shown
        db.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (f"{own!r} {shown!r}",))


def boot_id() -> str:
    """An identifier of this start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(round(time.time() - since_boot(), -2))


def _numbers(text: object, count: int) -> tuple[float, ...]:
    """The finite numbers in a text, if there are ``count`` of them; none otherwise."""
    try:
        found = tuple(map(float, str(text).split()))
    except ValueError:
        return ()
    return found if len(found) == count and all(map(math.isfinite, found)) else ()
