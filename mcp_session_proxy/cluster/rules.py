"""What the operator chose for a cluster. Pure."""

from enum import StrEnum

import msgspec


class StoreOutage(StrEnum):
    """What is done while nobody reaches the store."""

    SERVE = "serve"  # callers go on with owners that are alive, and new callers are served
    REFUSE = "refuse"  # requests are refused, so that no caller can have two owners


class ClusterRules(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choices about several proxies on one store.

    A request may wait ``patience_seconds`` for the end of a lease, and ``max_waiters`` requests may do so at
    a time. ``outage`` is what is done while nobody reaches the store. Records that nobody comes for are kept
    for ``ttl_seconds``.
    """

    patience_seconds: float = 10.0
    max_waiters: int = 1000
    outage: StoreOutage = StoreOutage.SERVE
    ttl_seconds: float = 3600.0
