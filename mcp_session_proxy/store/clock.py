"""Clocks that nobody can set, and that go on while the machine is suspended."""

import time
from functools import partial
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Seconds since the machine was started: what leases are told by, none of which outlives a suspension by
# standing still. It is looked at for each request, so nothing of ours is called on the way.
since_boot: Final = partial(time.clock_gettime, _CLOCK)

_BEGAN: Final = time.time() - since_boot()


def steady() -> float:
    """Seconds since 1970, by the clock on the wall as it went when this process began."""
    return _BEGAN + since_boot()
