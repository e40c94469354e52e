import timeit

import msgspec
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from mcp_session_proxy import __version__, events
from mcp_session_proxy.ops.introspection import Gauges, Phase
from mcp_session_proxy.ops.metrics import MAX_CHILDREN, Metrics
from mcp_session_proxy.ops.observers import Tee

FINISHED = events.RequestFinished(
    era="legacy",
    method="tools/call",
    outcome="ok",
    sessionless=True,
    seconds=0.02,
    waited_seconds=0.0,
    upstream_seconds=0.01,
    request_id="r1",
    principal="p1",
    session="s1",
)
SESSION = {"session": "s1", "principal": "p1"}
REQUEST = {"method": "tools/call", "session": "s1"}


class View:
    """Gauges that do not change."""

    def gauges(self):
        return Gauges(
            phase=Phase.READY,
            upstreams={"up": 2, "breaker-open": 1},
            limits={"waiters": 10},
            client_sessions=7,
            upstream_sessions={"idle": 2, "leased": 1},
            upstream_session_age_seconds=[1.0, 10.0, 61.0, 1e9],
            waiters=3,
            exchanges_parked=0,
            streams={"client": 4, "upstream": 5},
            memory_bytes={"events": 6},
            memory_limit_bytes={"events": 60},
        )


@pytest.fixture
def metrics():
    return Metrics()


def read(metrics, name, **labels):
    """One sample's value; None when there is none."""
    return metrics.registry.get_sample_value(f"mcp_session_proxy_{name}", labels)


@pytest.mark.parametrize(
    ("event", "name", "labels"),
    [
        (
            events.ClientSessionCreated(client="c", origin="minted", client_name="n", **SESSION),
            "client_sessions_created_total",
            {},
        ),
        (events.DeleteAbsorbed(client="c", principal="p"), "deletes_absorbed_total", {}),
        (
            events.SessionOpened(why="demand", seconds=0.1, **SESSION),
            "upstream_sessions_opened_total",
            {"reason": "demand"},
        ),
        (
            events.SessionOpened(why="demand", seconds=0.1, **SESSION),
            "upstream_session_open_seconds_count",
            {},
        ),
        (
            events.SessionOpenFailed(principal="p", why="demand", error="upstream-unreachable", detail="d"),
            "upstream_session_open_failures_total",
            {"reason": "upstream-unreachable"},
        ),
        (
            events.SessionClosed(reason="idle", age_seconds=1, requests=1, **SESSION),
            "upstream_sessions_closed_total",
            {"reason": "idle"},
        ),
        (events.SessionLost(how="rejected", **SESSION), "upstream_sessions_lost_total", {"how": "rejected"}),
        (events.SessionReused(**SESSION), "upstream_sessions_reused_total", {}),
        (
            events.LeaseFailed(principal="p", reason="acquire-timeout", waited_seconds=1),
            "lease_failures_total",
            {"reason": "acquire-timeout"},
        ),
        (FINISHED, "requests_total", {"era": "legacy", "method": "tools/call", "outcome": "ok"}),
        (FINISHED, "request_seconds_count", {"era": "legacy", "method": "tools/call"}),
        (FINISHED, "upstream_request_seconds_count", {}),
        (FINISHED, "sessionless_requests_total", {"era": "legacy"}),
        (FINISHED, "lease_wait_seconds_count", {}),
        (events.Retried(reason="session-lost", **REQUEST), "retries_total", {"reason": "session-lost"}),
        (events.ReplayRefused(**REQUEST), "replays_refused_total", {}),
        (events.Crashed(where="endpoint", error="KeyError"), "bugs_total", {}),
        (events.Reloaded(changed=None, needs_restart=None), "config_reloads_total", {"outcome": "applied"}),
        (events.ReloadFailed(problem="p"), "config_reloads_total", {"outcome": "failed"}),
    ],
)
def test_counts(metrics, event, name, labels):
    """Each event moves its metric by one."""
    before = read(metrics, name, **labels) or 0
    Tee(metrics)(event)
    assert read(metrics, name, **labels) == before + 1


def test_other_events_count_nothing(metrics):
    """An event without a metric is no error."""
    before = generate_latest(metrics.registry).count(b"\n")
    Tee(metrics)(events.Stopped(cut_off=0))
    assert generate_latest(metrics.registry).count(b"\n") == before


def test_a_request_that_never_went_upstream_has_no_upstream_time(metrics):
    """Refused requests do not make the server look fast."""
    Tee(metrics)(msgspec.structs.replace(FINISHED, upstream_seconds=None))
    assert read(metrics, "upstream_request_seconds_count") == 0


def test_whose_fault_it_was(metrics):
    """An outcome of one name is counted apart by culprit; what is nobody's fault has no such label."""
    refused = msgspec.structs.replace(FINISHED, outcome="upstream-rejected", fault="client")
    for event in (refused, refused, msgspec.structs.replace(refused, fault="upstream"), FINISHED):
        Tee(metrics)(event)
    labels = {"era": "legacy", "method": "tools/call"}
    rejected = {**labels, "outcome": "upstream-rejected"}
    assert read(metrics, "requests_total", **rejected, fault="client") == 2
    assert read(metrics, "requests_total", **rejected, fault="upstream") == 1
    assert read(metrics, "requests_total", **labels, outcome="ok") == 1


def test_exemplars(metrics):
    """A slow bucket names the newest recorded trace that fell into it; other formats know no exemplars."""
    for seconds, trace_id, sampled in (
        (0.02, "a" * 32, True),
        (0.023, "b" * 32, True),
        (0.3, "c" * 32, False),
    ):
        told = msgspec.structs.replace(FINISHED, seconds=seconds, trace_id=trace_id, sampled=sampled)
        Tee(metrics)(told)
    text = generate_openmetrics(metrics.registry).decode()
    [shown] = [line for line in text.splitlines() if " # " in line]
    assert 'request_seconds_bucket{era="legacy",le="0.025",method="tools/call"} 2.0 # ' in shown
    assert f'{{trace_id="{"b" * 32}"}} 0.023 ' in shown
    assert b"trace_id" not in generate_latest(metrics.registry)


def test_tells_whether_the_last_reload_worked(metrics):
    """One until a reload fails, and again from the next one that works."""
    seen = [read(metrics, "config_last_reload_successful")]
    for event in (events.ReloadFailed(problem="p"), events.Reloaded(changed=None, needs_restart=None)):
        Tee(metrics)(event)
        seen.append(read(metrics, "config_last_reload_successful"))
    assert seen == [1, 0, 1]


class TestGauges:
    def test_are_read_when_somebody_scrapes(self, metrics):
        """Numbers that go up and down come from the running proxy."""
        metrics.watch(View().gauges)
        assert read(metrics, "client_sessions") == 7
        assert read(metrics, "waiters") == 3
        assert read(metrics, "upstream_sessions", state="idle") == 2
        assert read(metrics, "streams", kind="upstream") == 5
        assert read(metrics, "upstreams", condition="breaker-open") == 1
        assert read(metrics, "limit", gauge="waiters") == 10

    def test_name_every_phase_and_condition(self, metrics):
        """A query for one that is not the case finds 0, not nothing."""
        metrics.watch(View().gauges)
        assert (read(metrics, "phase", phase="ready"), read(metrics, "phase", phase="draining")) == (1, 0)
        assert read(metrics, "upstreams", condition="down") == 0

    def test_ages_are_a_histogram_of_the_living(self, metrics):
        """Bounds belong to their bucket, and the buckets add up."""
        metrics.watch(View().gauges)
        found = [
            read(metrics, "upstream_session_age_seconds_bucket", le=bound)
            for bound in ("10.0", "60.0", "300.0", "604800.0", "+Inf")
        ]
        assert found == [2, 2, 3, 3, 4]
        assert read(metrics, "upstream_session_age_seconds_count") == 4


class TestLabels:
    def test_unknown_methods_share_one(self, metrics):
        """A client cannot invent labels by inventing methods."""
        Tee(metrics)(msgspec.structs.replace(FINISHED, method="x/y"))
        assert read(metrics, "request_seconds_count", era="legacy", method="other") == 1

    def test_are_bounded(self, metrics):
        """Values from outside share `other` once there are too many."""
        for number in range(MAX_CHILDREN + 10):
            Tee(metrics)(events.SessionLost(how=f"dialect {number}", **SESSION))
        assert read(metrics, "upstream_sessions_lost_total", how="other") == 10

    def test_never_carry_a_user(self, metrics):
        """Neither principals nor session tags appear in a scrape."""
        Tee(metrics)(FINISHED)
        text = generate_latest(metrics.registry)
        assert b"p1" not in text
        assert b"s1" not in text


class TestExposition:
    def test_has_build_and_process(self, metrics):
        """A scrape says which version runs and what it costs."""
        text = generate_latest(metrics.registry).decode()
        assert f'version="{__version__}"' in text
        assert "process_resident_memory_bytes" in text

    def test_every_metric_has_a_help_text(self, metrics):
        """In both formats; OpenMetrics is the stricter one."""
        metrics.watch(View().gauges)
        for family in metrics.registry.collect():
            assert family.documentation, family.name
        assert generate_openmetrics(metrics.registry).endswith(b"# EOF\n")

    def test_has_no_birth_times(self, metrics):
        """The library's `_created` series would double the scrape."""
        Tee(metrics)(FINISHED)
        assert b"requests_created" not in generate_latest(metrics.registry)


def test_counting_a_request_is_cheap(metrics):
    """Under 30 microseconds on the slowest machine; under 2 were measured."""
    assert min(timeit.repeat(lambda: Tee(metrics)(FINISHED), number=1000, repeat=5)) < 0.030


def test_memory_by_kind(metrics):
    """What is kept and what may be, under the same label: one divided by the other is how full it is."""
    metrics.watch(View().gauges)
    assert read(metrics, "memory_bytes", kind="events") == 6
    assert read(metrics, "memory_limit_bytes", kind="events") == 60
