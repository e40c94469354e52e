"""The last minute's traffic, told by counters that there are anyway."""

import pytest

from mcp_session_proxy import events
from mcp_session_proxy.ops.tally import RequestTally
from mcp_session_proxy.ops.traffic import EraCounts, TrafficMeter


class Bench:
    """A meter with a clock of its own; it looks every second."""

    def __init__(self):
        self.now = 1000.0
        self.tally = RequestTally("x_")
        self.meter = TrafficMeter(self.tally.by_era, lambda: self.now)

    def wait(self, seconds):
        for _ in range(seconds):
            self.now += 1
            self.meter.sample()

    def request(self, seconds=0.004, *, era="legacy", method="tools/call", outcome="ok", fault=None):
        self.tally.count(
            events.RequestFinished(
                era=era,
                method=method,
                outcome=outcome,
                fault=fault,
                sessionless=False,
                seconds=seconds,
                waited_seconds=None,
                upstream_seconds=None,
                request_id="r1",
                principal="p1",
                session=None,
            )
        )


@pytest.fixture
def bench():
    return Bench()


def test_nothing(bench):
    """Before the first request there is no latency, and no division by nothing."""
    traffic = bench.meter.read()
    assert (traffic.total.requests, traffic.total.per_second, traffic.eras) == (0, 0.0, [])
    assert traffic.total.p50_seconds is traffic.total.p95_seconds is None


def test_rate_by_era(bench):
    """Requests per second of the last minute, both together and each."""
    bench.wait(60)
    for _ in range(120):
        bench.request()
    for _ in range(60):
        bench.request(era="modern")
    bench.wait(1)
    traffic = bench.meter.read()
    assert [(each.era, each.requests) for each in traffic.eras] == [("legacy", 120), ("modern", 60)]
    assert traffic.total.requests == 180
    assert 2.5 <= traffic.total.per_second <= 3.0


def test_the_minute_before_is_forgotten(bench):
    """What is over a minute old does not count, whether there is newer traffic or none."""
    for _ in range(100):
        bench.request(seconds=9.0)
    bench.wait(70)
    assert bench.meter.read().total.requests == 0
    bench.request(seconds=0.004)
    assert bench.meter.read().total.requests == 1
    assert bench.meter.read().total.p95_seconds < 0.01


def test_what_is_kept_has_a_bound(bench):
    """Days of looking cost as much as a minute."""
    bench.wait(100_000)
    assert len(bench.meter._samples) < 20


def test_latency(bench):
    """Half of the requests were as fast, 19 of 20 no slower, as far as the buckets tell."""
    for _ in range(90):
        bench.request(seconds=0.003)
    for _ in range(10):
        bench.request(seconds=0.4)
    total = bench.meter.read().total
    assert 0.0025 < total.p50_seconds <= 0.005
    assert 0.25 < total.p95_seconds <= 0.5


def test_latency_beyond_the_last_bucket(bench):
    """At least that."""
    bench.request(seconds=100_000.0)
    assert bench.meter.read().total.p50_seconds == 600


def test_listeners_are_not_slow(bench):
    """A stream of change notifications that lasted for an hour is a request, and nobody waited for it."""
    bench.request(seconds=3600.0, era="modern", method="subscriptions/listen")
    bench.request(seconds=0.003, era="modern")
    total = bench.meter.read().total
    assert (total.requests, total.p95_seconds <= 0.005) == (2, True)


def test_callers_faults_are_no_failures(bench):
    """Failed is what the server or the proxy failed."""
    bench.request(outcome="upstream-rejected", fault="client")
    bench.request(outcome="upstream-timeout", fault="upstream")
    bench.request(outcome="acquire-timeout", fault="proxy")
    bench.request(outcome="error")
    assert bench.meter.read().total.failed == 2


def test_counts_add_up():
    """Sums and differences are of everything."""
    one = EraCounts(requests=3, failed=1, buckets=(1,) * 17)
    assert one + EraCounts.none() == one
    assert (one + one).since(one) == one
