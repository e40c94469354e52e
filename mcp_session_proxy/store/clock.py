"""Clocks that nobody can set, and that go on while the machine is suspended."""

import time
from functools import partial
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Seconds since the machine was started, by which leases are measured: they run out while it is suspended,
# too. Each request looks at this clock, so it is the function of the standard library itself.
since_boot: Final = partial(time.clock_gettime, _CLOCK)

_BEGAN: Final = time.time() - since_boot()


def steady() -> float:
    """Seconds since 1970. Setting the machine's clock after this process began changes nothing here."""
    return _BEGAN + since_boot()
