"""Returns free memory to the system, which glibc's ``malloc`` does not do by itself.

After a few large bodies a process would stay large: free blocks lie between blocks that are in use, and no
other process gets that memory. So large blocks are mapped by themselves, and the system has them back as soon
as they are freed. And when the process has grown, the pages of all free blocks are returned now and then
(``malloc_trim``), which takes milliseconds.

With other C libraries nothing happens here: musl returns memory by itself, others have no such function.
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

# Blocks from this size on are mapped by themselves. If no size is set, malloc raises its own to that of the
# largest block that was freed. Mapping smaller blocks would cost much, as they are read from sockets all the
# time.
_MAPPED_BYTES: Final = 1024 * 1024
# As much may stay free at the end of the heap, so that it does not shrink and grow with each request.
_FREE_AT_END_BYTES: Final = 4 * 1024 * 1024
# How many arenas threads have. The few threads do little, and each arena keeps its own free blocks.
_ARENAS: Final = 2

# Memory is returned once the process is larger by this than at its smallest.
_GROWN_BYTES: Final = 8 * 1024 * 1024
_PAUSE_SECONDS: Final = 10.0
# malloc_trim looks at every free block while everything else waits. The pause after it is so many times as
# long as it took.
_PAUSES: Final = 200

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

Trim = Callable[[int], object]


def resident_bytes() -> int:
    """How much memory the system has given this process (Linux: proc(5))."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES


def tune() -> Trim | None:
    """Set malloc's parameters; gives ``malloc_trim``, or None if the C library has none."""
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
    """Returns free memory when the process has grown.

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
        """Return free memory if the process has grown and the pause is over. To be called now and then."""
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
