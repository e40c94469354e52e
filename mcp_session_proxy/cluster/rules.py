"""What the operator chose for a cluster. Pure."""

from enum import StrEnum

import msgspec


class StoreOutage(StrEnum):
    """What is done while nobody reaches the store."""

    SERVE = "serve"  # callers of living owners notice nothing, and new ones are served
    REFUSE = "refuse"  # for those who would rather stop than risk two owners


class ClusterRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request may wait for the end of a lease, how many may, and what an outage means.

    ``ttl_seconds`` is how long records are kept that nobody comes for.
    """

    patience_seconds: float = 10.0
    max_waiters: int = 1000
    outage: StoreOutage = StoreOutage.SERVE
    ttl_seconds: float = 3600.0
