"""The clock that leases are told by: it goes on while the machine is suspended, and nobody can set it."""

import time


def since_boot() -> float:
    """Seconds since the machine was started. A lease does not outlive a suspension by standing still."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
