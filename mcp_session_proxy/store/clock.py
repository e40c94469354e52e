"""The clock that leases are told by: it goes on while the machine is suspended, and nobody can set it."""

import time
from functools import partial
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Seconds since the machine was started. A lease does not outlive a suspension by standing still. It is looked
# at for each request, so nothing of ours is called on the way.
since_boot: Final = partial(time.clock_gettime, _CLOCK)
