"""Has the C library give memory back to the system: glibc's ``malloc`` keeps most of what it is given.

Somebody sends some large bodies, and what the process has grown by stays with it for good: blocks that
were given back lie between others that are in use, and what is free between those goes to nobody else. So
large blocks are mapped by themselves, which the system gets back at once; and where the process has grown,
the pages of what is free are returned every now and then (``malloc_trim``), which takes milliseconds.

With other C libraries nothing happens here: musl returns by itself, and elsewhere there is no such function.
"""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Parameters of mallopt(3).
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_ARENA_MAX: Final = -8

# From this size on a block is mapped by itself. Without a number, the first block of some megabytes that is
# given back raises it to that size. Smaller ones are read from sockets all the time, and to map each of them
# would cost.
_MAPPED_BYTES: Final = 1024 * 1024
# So much may stay free at the heap's end, so that it does not shrink and grow with each request.
_FREE_AT_END_BYTES: Final = 4 * 1024 * 1024
# Arenas for threads: there are a few, which do little, and each arena keeps what is free for itself.
_ARENAS: Final = 2

# Growth over the least that there ever was, from which on it is worth it.
_GROWN_BYTES: Final = 8 * 1024 * 1024
_PAUSE_SECONDS: Final = 10.0
# It looks at every free block, while everything else waits: a longer pause follows where that took long.
_PAUSES: Final = 200

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

Trim = Callable[[int], object]


def resident_bytes() -> int:
    """How much memory the system has given this process (Linux: proc(5))."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES


def tune() -> Trim | None:
    """Set what has to be set at the start; gives ``malloc_trim``, or None where there is no such thing."""
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
        resident_bytes()
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    for option, value in (
        (_MMAP_THRESHOLD, _MAPPED_BYTES),
        (_TRIM_THRESHOLD, _FREE_AT_END_BYTES),
        (_ARENA_MAX, _ARENAS),
    ):
        set_option(option, value)
    trim.argtypes = [ctypes.c_size_t]
    return trim


class Heap:
    """Looks every now and then whether there is something to give back, and does so.

    ``trim`` is ``malloc_trim``; with None nothing happens.
    """

    def __init__(
        self,
        trim: Trim | None,
        *,
        resident: Callable[[], int] = resident_bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trim = trim
        self._resident = resident
        self._now = now
        self._least_bytes: int | None = None
        self._not_before = 0.0

    def look(self) -> None:
        """Give back what is free, if the process has grown, and if it is time for that."""
        begun = self._now()
        if self._trim is None or begun < self._not_before:
            return
        size = self._resident()
        if self._least_bytes is None or size < self._least_bytes:
            self._least_bytes = size
        if size < self._least_bytes + _GROWN_BYTES:
            return
        self._trim(0)
        took = self._now() - begun
        self._not_before = begun + max(_PAUSE_SECONDS, _PAUSES * took)
