"""What is counted for every single request.

These are the counters of the hot path: plain numbers, which only the event loop touches, instead of the
library's objects with a lock each. A scrape makes metric families of them.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from ..errors import Fault
from ..events import RequestFinished
from ..protocol.revisions import LISTEN, method_label
from .traffic import REQUEST_BUCKETS, EraCounts

# Nearly every lease is granted at once; the first bucket counts those.
_WAIT_BUCKETS: Final = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30)


class Distribution:
    """A histogram of seconds. A value on a bound belongs to the bucket below it.

    Each bucket may show one exemplar, the newest: a value and the trace that it comes from.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: dict[int, Exemplar] = {}
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value, in the bucket whose bound is the first that is not below it."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def show(self, seconds: float, trace_id: str) -> None:
        """Make a value that was counted an exemplar."""
        place = bisect_left(self._bounds, seconds)
        self._exemplars[place] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def counts(self) -> tuple[int, ...]:
        """How many values are in each bucket, the last one being for what is over all bounds."""
        return tuple(self._counts)

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Write it down, cumulatively, as the exposition format wants it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for place, bucket in enumerate(zip(names, accumulate(self._counts), strict=True)):
            exemplar = self._exemplars.get(place)
            buckets.append(bucket if exemplar is None else (*bucket, exemplar))
        family.add_metric(labels, buckets, self._sum)


class _Counts:
    """The requests of one era and method."""

    __slots__ = ("outcomes", "seconds", "sessionless")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str | None], int] = {}
        self.seconds = Distribution(REQUEST_BUCKETS)
        self.sessionless = 0


class RequestTally(Collector):
    """Counts requests that are over. ``prefix`` begins every metric's name."""

    LABELS: Final[Mapping[str, tuple[str, ...]]] = {
        "requests": ("era", "method", "outcome", "fault"),
        "request_seconds": ("era", "method"),
        "sessionless_requests": ("era",),
        "lease_wait_seconds": (),
        "upstream_request_seconds": (),
    }

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rows: dict[tuple[str, str], _Counts] = {}
        self._waited = Distribution(_WAIT_BUCKETS)
        self._upstream = Distribution(REQUEST_BUCKETS)

    def count(self, event: RequestFinished) -> None:
        """Count one request, by everything but its principal: labels are bounded."""
        row = self._rows.get((event.era, event.method)) or self._row(event.era, event.method)
        outcome = event.outcome, event.fault
        row.outcomes[outcome] = row.outcomes.get(outcome, 0) + 1
        row.seconds.observe(event.seconds)
        if event.sampled and event.trace_id is not None:
            row.seconds.show(event.seconds, event.trace_id)
        if event.sessionless:
            row.sessionless += 1
        if event.waited_seconds is not None:
            self._waited.observe(event.waited_seconds)
        if event.upstream_seconds is not None:
            self._upstream.observe(event.upstream_seconds)

    def _row(self, era: str, method: str) -> _Counts:
        """Methods that no revision knows share one, so that clients cannot invent labels."""
        return self._rows.setdefault((era, method_label(method)), _Counts())

    def by_era(self) -> Mapping[str, EraCounts]:
        """All requests so far; how long listeners' streams lasted says nothing of anybody's waiting."""
        found: dict[str, EraCounts] = {}
        for (era, method), row in self._rows.items():
            outcomes = row.outcomes.items()
            counts = EraCounts(
                requests=sum(row.outcomes.values()),
                failed=sum(count for (_, fault), count in outcomes if fault not in (None, Fault.CLIENT)),
                buckets=EraCounts.none().buckets if method == LISTEN else row.seconds.counts(),
            )
            found[era] = found.get(era, EraCounts.none()) + counts
        return found

    def collect(self) -> Iterable[Metric]:
        """The metric families of one scrape."""
        requests = CounterMetricFamily(
            *self._name(
                "requests",
                "Requests of clients that were answered: ok, error (the server's), or the reason of ours and "
                "whose fault it is.",
            ),
            labels=self.LABELS["requests"],
        )
        seconds = HistogramMetricFamily(
            *self._name("request_seconds", "Time from a request's arrival to its answer."),
            labels=self.LABELS["request_seconds"],
        )
        sessionless: dict[str, int] = {}
        for (era, method), row in self._rows.items():
            for (outcome, fault), count in row.outcomes.items():
                blamed = () if fault is None else (fault,)
                requests.add_metric((era, method, outcome, *blamed), count)
            row.seconds.add_to(seconds, (era, method))
            sessionless[era] = sessionless.get(era, 0) + row.sessionless
        yield requests
        yield seconds
        without_session = CounterMetricFamily(
            *self._name("sessionless_requests", "Requests that came without a session id."),
            labels=self.LABELS["sessionless_requests"],
        )
        for era, count in sessionless.items():
            without_session.add_metric((era,), count)
        yield without_session
        waited = HistogramMetricFamily(
            *self._name("lease_wait_seconds", "Time that a request waited for an upstream session.")
        )
        self._waited.add_to(waited)
        yield waited
        upstream = HistogramMetricFamily(
            *self._name("upstream_request_seconds", "Time that the server took to answer a request.")
        )
        self._upstream.add_to(upstream)
        yield upstream

    def _name(self, name: str, text: str) -> tuple[str, str]:
        return self._prefix + name, text
