"""What went through in the last minute: how many requests, how fast, by era. Pure.

Nothing is counted here: the differences of the counters that there are, looked at every now and then, tell
it. So a request costs nothing more.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import add, sub
from typing import Final, Self

import msgspec

# A tool call may take a millisecond or, with a person in the loop, minutes.
REQUEST_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    120,
    600,
)
WINDOW_SECONDS: Final = 60.0
_EVERY_SECONDS: Final = 5.0


class EraCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one era's requests, so far or in between: ``buckets`` as in ``request_seconds``."""

    requests: int
    failed: int  # by the server's or the proxy's fault
    buckets: tuple[int, ...]

    @classmethod
    def none(cls) -> Self:
        """Where counting begins: a sum, and what an era had before its first request."""
        return cls(requests=0, failed=0, buckets=(0,) * (len(REQUEST_BUCKETS) + 1))

    def __add__(self, other: "EraCounts") -> "EraCounts":
        """Both together."""
        return EraCounts(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            buckets=tuple(map(add, self.buckets, other.buckets)),
        )

    def since(self, earlier: "EraCounts") -> "EraCounts":
        """What came after an earlier count."""
        return EraCounts(
            requests=self.requests - earlier.requests,
            failed=self.failed - earlier.failed,
            buckets=tuple(map(sub, self.buckets, earlier.buckets)),
        )

    def quantile(self, part: float) -> float | None:
        """The time in seconds that this part of the requests did not exceed, as Prometheus reckons it."""
        wanted, below, lower = part * sum(self.buckets), 0, 0.0
        if not wanted:
            return None
        for upper, count in zip(REQUEST_BUCKETS, self.buckets, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below, lower = below + count, upper
        return lower  # at least that


class EraTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one era in the last minute, or of all (``era`` is null then).

    ``failed`` are those that failed by the server's or the proxy's fault. Half of the requests took no longer
    than ``p50_seconds``, 19 of 20 no longer than ``p95_seconds``, as far as the buckets of
    ``request_seconds`` tell; null where there were none. Streams of change notifications are requests, but
    not slow ones.
    """

    era: str | None
    requests: int
    per_second: float
    failed: int
    p50_seconds: float | None
    p95_seconds: float | None


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The last ``seconds``, which are a minute or so, and less after the start."""

    seconds: float
    total: EraTraffic
    eras: Sequence[EraTraffic]


class TrafficMeter:
    """Tells the traffic of the last minute. ``count`` gives all requests so far, by era.

    ``clock`` gives seconds and never goes back.
    """

    def __init__(self, count: Callable[[], Mapping[str, EraCounts]], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._samples = deque([(clock(), count())])

    def sample(self) -> None:
        """Remember how the counters stand; called every second or so."""
        now = self._clock()
        if now - self._samples[-1][0] < _EVERY_SECONDS:
            return
        self._samples.append((now, self._count()))
        while now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()

    def read(self) -> Traffic:
        """What came since the oldest sample, which is about ``WINDOW_SECONDS`` old; less after the start."""
        then, before = self._samples[0]
        seconds = max(self._clock() - then, 1.0)
        nothing = EraCounts.none()
        grown = {era: counts.since(before.get(era, nothing)) for era, counts in self._count().items()}
        total = sum(grown.values(), nothing)
        return Traffic(
            seconds=seconds,
            total=self._describe(None, total, seconds),
            eras=[self._describe(era, grown[era], seconds) for era in sorted(grown)],
        )

    def _describe(self, era: str | None, counts: EraCounts, seconds: float) -> EraTraffic:
        return EraTraffic(
            era=era,
            requests=counts.requests,
            per_second=counts.requests / seconds,
            failed=counts.failed,
            p50_seconds=counts.quantile(0.5),
            p95_seconds=counts.quantile(0.95),
        )
