"""Every metric, once: its name, its help text, its labels, its buckets, and the event that moves it.

Counters and histograms are moved by events; gauges are read from the proxy when somebody
scrapes. Labels never carry a user, and no label can grow without bound.
"""

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import __version__, events
from ..protocol.tasks import TaskStatus
from ..sessions.acceptance import TokenOutcome
from ..upstream.fleet import Condition
from .introspection import Gauges, Phase
from .tally import Distribution, RequestTally
from .traffic import REQUEST_BUCKETS, TrafficMeter

PREFIX: Final = "mcp_session_proxy_"

# The library would add a gauge with its birth time to every counter; nobody asks for those.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Most label values are words of our own, but a few come from outside (dialects, a server's statuses).
MAX_CHILDREN: Final = 500
OTHER: Final = "other"

# Handshakes take from 2 ms to over a second (servers that start a process for each session).
_OPEN_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# From a write to a file that is in memory to one that waits for a busy disk.
_STORE_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)
# From a session that served one call to one that lives for a week.
_AGE_BUCKETS: Final = (10, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 604800)

EventT = TypeVar("EventT", bound=events.Event)
MetricT = TypeVar("MetricT", Counter, Histogram)


class Family(Generic[MetricT]):
    """A metric's children by label values, found without the library's locked look-up.

    Beyond ``MAX_CHILDREN`` children, new label values share one child called ``other``.
    """

    def __init__(self, metric: MetricT) -> None:
        self._metric: MetricT = metric
        self._children: dict[tuple[str, ...], MetricT] = {}

    def child(self, *values: str) -> MetricT:
        """The child with these label values, in the order of the metric's labels."""
        found = self._children.get(values)
        return self._add(values) if found is None else found

    def _add(self, values: tuple[str, ...]) -> MetricT:
        if len(self._children) >= MAX_CHILDREN:
            return self._metric.labels(*[OTHER] * len(values))
        child = self._children[values] = self._metric.labels(*values)
        return child


class Metrics:
    """The observer that counts. ``registry`` is what an exporter shows; ``watch`` adds the gauges.

    ``traffic`` tells the last minute of what is counted; it wants to be sampled now and then.

    ``labels`` has the names of each counter's and histogram's labels, which the library tells nobody.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        self._handlers: dict[type[events.Event], Callable[[events.Event], None]] = {}
        ProcessCollector(registry=self.registry)
        Info(f"{PREFIX}build", "Version of the proxy and of its Python.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._follow_clients()
        self._follow_upstream_sessions()
        self._follow_children()
        self._follow_store()
        self._follow_cluster()
        self._follow_leases()
        self._follow_requests()
        self._follow_reloads()

    def listener(self, kind: type[events.Event], /) -> Callable[[events.Event], None] | None:
        """What counts events of this kind."""
        return self._handlers.get(kind)

    def watch(self, gauges: Callable[[], Gauges]) -> None:
        """Read the gauges at every scrape from now on."""
        self.registry.register(GaugeCollector(gauges))

    def _follow_clients(self) -> None:
        created = self._counter(
            "client_sessions_created", "Client sessions begun, with our id or the client's own."
        )
        absorbed = self._counter(
            "deletes_absorbed",
            "DELETEs of clients that were answered here and did not end an upstream session.",
        )
        judged = Family(
            self._counter(
                "tokens_judged",
                "New tokens that claim to speak for somebody: accepted, refused, or not-believed, where the "
                "server checks none of their issuer's.",
                "outcome",
            )
        )
        # All are there from the start: where nobody has tokens, a chart says none instead of nothing.
        for outcome in TokenOutcome:
            judged.child(outcome)
        self._on(events.TokenJudged, lambda event: judged.child(event.outcome).inc())
        self._on(events.ClientSessionCreated, lambda _: created.inc())
        self._on(events.DeleteAbsorbed, lambda _: absorbed.inc())

    def _follow_upstream_sessions(self) -> None:
        opened = Family(
            self._counter("upstream_sessions_opened", "Sessions opened at the server, by what for.", "reason")
        )
        open_seconds = self._histogram(
            "upstream_session_open_seconds", "Time that a handshake with the server took.", _OPEN_BUCKETS
        )
        failures = Family(
            self._counter(
                "upstream_session_open_failures",
                "Handshakes with the server that failed. One that refuses the caller is none.",
                "reason",
            )
        )
        closed = Family(
            self._counter("upstream_sessions_closed", "Sessions at the server given up, by why.", "reason")
        )
        lost = Family(
            self._counter(
                "upstream_sessions_lost", "Sessions that the server forgot, by how it showed.", "how"
            )
        )
        reused = self._counter(
            "upstream_sessions_reused", "Living sessions given to a client that asked for a new one."
        )

        def on_opened(event: events.SessionOpened) -> None:
            opened.child(event.why).inc()
            open_seconds.observe(event.seconds)

        self._on(events.SessionOpened, on_opened)
        self._on(events.SessionOpenFailed, lambda event: failures.child(event.error).inc())
        self._on(events.SessionClosed, lambda event: closed.child(event.reason).inc())
        self._on(events.SessionLost, lambda event: lost.child(event.how).inc())
        self._on(events.SessionReused, lambda _: reused.inc())

    def _follow_children(self) -> None:
        started = self._counter("children_started", "Children started, with --stdio: one for each session.")
        ended = Family(
            self._counter("children_ended", "Children that have ended, by how their goodbye went.", "how")
        )
        # All are there from the start, so that a chart says none instead of nothing.
        for how in ("exited", "left", "terminated", "killed"):
            ended.child(how)
        noise = self._counter(
            "children_noise_lines", "Lines that children wrote to standard output and that are no messages."
        )
        self._on(events.ChildStarted, lambda _: started.inc())
        self._on(events.ChildEnded, lambda event: ended.child(event.how).inc())
        self._on(events.ChildFailed, lambda event: ended.child(event.how).inc())
        self._on(events.ChildNoise, lambda _: noise.inc())

    def _follow_store(self) -> None:
        seconds = Family(
            self._histogram(
                "store_seconds",
                "Time that the store (--state-dir, --store) took, by verb.",
                _STORE_BUCKETS,
                "verb",
            )
        )
        restored = Family(
            self._counter(
                "restored_sessions",
                "Sessions from before a restart, by what became of them once their callers came, or why not.",
                "outcome",
            )
        )
        # All are there from the start, so that a chart says none instead of nothing.
        for verb in ("beat", "claim", "write", "load"):
            seconds.child(verb)
        for outcome in ("resumed", "gone", "no-server", "no-room", "unreadable", "unowned"):
            restored.child(outcome)

        def on_restored(event: events.SessionRestored) -> None:
            # One that sleeps is counted when it wakes.
            if event.outcome != "asleep":
                restored.child(event.outcome).inc()

        self._on(events.StoreAsked, lambda event: seconds.child(event.verb).observe(event.seconds))
        self._on(events.SessionRestored, on_restored)
        self._on(events.SessionWoken, lambda event: restored.child(event.outcome).inc())

    def _follow_cluster(self) -> None:
        forwards = Family(
            self._counter(
                "forwards",
                "Requests sent to the proxy that serves their caller, by what came of it.",
                "outcome",
            )
        )
        moved = Family(
            self._counter(
                "shards_moved",
                "Callers that have come from another proxy on the same store (taken), or gone to one.",
                "how",
            )
        )
        # All are there from the start, so that a chart says none instead of nothing.
        for outcome in ("answered", "misdirected", "refused", "unreachable", "broke"):
            forwards.child(outcome)
        for how in ("taken", "released", "lost"):
            moved.child(how)
        forward_seconds = self._histogram(
            "forward_seconds",
            "Time of requests that another proxy has answered, until all was passed on; without streams of "
            "what may come.",
            REQUEST_BUCKETS,
        )

        def on_forwarded(event: events.Forwarded) -> None:
            forwards.child(event.outcome).inc()
            if event.seconds is not None:
                forward_seconds.observe(event.seconds)

        self._on(events.Forwarded, on_forwarded)
        self._on(events.ShardTaken, lambda _: moved.child("taken").inc())
        self._on(events.ShardReleased, lambda _: moved.child("released").inc())
        self._on(events.ShardLost, lambda _: moved.child("lost").inc())

    def _follow_leases(self) -> None:
        failures = Family(
            self._counter(
                "lease_failures",
                "Requests that got no upstream session, by why. One that the server refuses is none of them.",
                "reason",
            )
        )
        self._on(events.LeaseFailed, lambda event: failures.child(event.reason).inc())

    def _follow_requests(self) -> None:
        tally = RequestTally(PREFIX)
        self.traffic = TrafficMeter(tally.by_era, time.monotonic)
        self.registry.register(tally)
        self.labels.update({PREFIX + name: labels for name, labels in tally.LABELS.items()})
        retries = Family(self._counter("retries", "Requests sent again, safely, by why.", "reason"))
        refused = self._counter(
            "replays_refused", "Requests not sent again because the server may have executed them."
        )
        parked = Family(
            self._counter(
                "parked", "Modern calls that waited for their client's answer, by outcome.", "outcome"
            )
        )
        tasks = Family(
            self._counter(
                "tasks_ended",
                "Tasks that clients have handles of and that have ended, by how: expired is one that took "
                "longer than --task-ttl.",
                "status",
            )
        )
        # All are there from the start, so that a chart says none instead of nothing.
        for status in ("completed", "failed", "cancelled", "expired"):
            tasks.child(status)
        bugs = self._counter("bugs", "Exceptions that nobody expected; the log has them. Please report.")

        self._on(events.RequestFinished, tally.count)
        self._on(events.Retried, lambda event: retries.child(event.reason).inc())
        self._on(events.ReplayRefused, lambda _: refused.inc())
        self._on(events.Parked, lambda event: parked.child(event.outcome).inc())
        self._on(events.TaskEnded, lambda event: tasks.child(event.status).inc())
        self._on(events.Crashed, lambda _: bugs.inc())

    def _follow_reloads(self) -> None:
        reloads = Family(
            self._counter("config_reloads", "Times that the configuration was read again.", "outcome")
        )
        successful = Gauge(
            PREFIX + "config_last_reload_successful",
            "1 unless the configuration could not be read again, and the one before it is in force.",
            registry=self.registry,
        )
        successful.set(1)

        def on_reload(outcome: str, success: int) -> None:
            reloads.child(outcome).inc()
            successful.set(success)

        self._on(events.Reloaded, lambda _: on_reload("applied", 1))
        self._on(events.ReloadFailed, lambda _: on_reload("failed", 0))

    def _on(self, kind: type[EventT], handle: Callable[[EventT], None]) -> None:
        # The dictionary pairs every type with a handler of that type, which no annotation can say.
        self._handlers[kind] = handle  # type: ignore[assignment]

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.labels[PREFIX + name] = labels
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self.labels[PREFIX + name] = labels
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


class GaugeCollector(Collector):
    """The numbers that go up and down, taken in one step when somebody scrapes."""

    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The metric families of one scrape."""
        gauges = self._gauges()
        yield _labelled(
            "phase",
            "1 for what the proxy does now.",
            "phase",
            {str(phase): phase is gauges.phase for phase in Phase},
        )
        conditions = {str(each): gauges.upstreams.get(each, 0) for each in Condition}
        yield _labelled("upstreams", "Servers behind the proxy, by condition.", "condition", conditions)
        yield _labelled(
            "limit", "The configured limit of the gauge that the label names.", "gauge", gauges.limits
        )
        yield GaugeMetricFamily(
            PREFIX + "client_sessions", "Client sessions remembered.", value=gauges.client_sessions
        )
        yield GaugeMetricFamily(
            PREFIX + "waiters", "Requests waiting for an upstream session.", value=gauges.waiters
        )
        yield GaugeMetricFamily(
            PREFIX + "exchanges_parked",
            "Modern calls that wait for their client's answer.",
            value=gauges.exchanges_parked,
        )
        standing = {status.value: gauges.tasks.get(status.value, 0) for status in TaskStatus}
        yield _labelled("tasks", "Tasks that clients have handles of, by how they stand.", "status", standing)
        yield _labelled(
            "upstream_sessions", "Sessions held at the server, by state.", "state", gauges.upstream_sessions
        )
        yield GaugeMetricFamily(
            PREFIX + "children", "Children, those that are leaving among them.", value=gauges.children
        )
        yield GaugeMetricFamily(
            PREFIX + "store_up",
            "1 unless what is to be kept (--state-dir, --store) cannot be written; 1 without it, too.",
            value=gauges.state.up,
        )
        yield GaugeMetricFamily(
            PREFIX + "store_pending_records",
            "Records that are to be written to the store (--state-dir, --store).",
            value=gauges.state.pending_records,
        )
        yield GaugeMetricFamily(
            PREFIX + "store_pending_streams",
            "Clients' streams with events that are to be written to the event store (--events).",
            value=gauges.state.pending_streams,
        )
        cluster = gauges.cluster
        draining = sum(member.draining for member in cluster.members)
        states = {"serving": len(cluster.members) - draining, "draining": draining}
        yield _labelled(
            "cluster_members", "Proxies on the same store, by state; none without a store.", "state", states
        )
        yield GaugeMetricFamily(
            PREFIX + "cluster_shards", "Callers that this proxy serves, of a store.", value=cluster.shards
        )
        yield GaugeMetricFamily(
            PREFIX + "cluster_sure",
            "1 unless another proxy could serve the same callers by now; 1 without a store, too.",
            value=cluster.sure,
        )
        yield GaugeMetricFamily(
            PREFIX + "cluster_provisional_shards",
            "Callers that are served because the store cannot be reached.",
            value=cluster.provisional,
        )
        yield GaugeMetricFamily(
            PREFIX + "cluster_fenced_writes",
            "Writes that were refused since the start because another proxy serves the caller.",
            value=cluster.fenced,
        )
        yield _labelled("streams", "Open event streams, by kind.", "kind", gauges.streams)
        yield _labelled(
            "memory_bytes",
            "What callers and servers sent and is kept now, by kind; Python's own memory comes on top.",
            "kind",
            gauges.memory_bytes,
        )
        yield _labelled(
            "memory_limit_bytes",
            "The part of --memory-budget that each kind may take.",
            "kind",
            gauges.memory_limit_bytes,
        )
        ages = HistogramMetricFamily(
            PREFIX + "upstream_session_age_seconds", "Ages of the sessions held at the server now."
        )
        distribution = Distribution(_AGE_BUCKETS)
        for age_seconds in gauges.upstream_session_age_seconds:
            distribution.observe(age_seconds)
        distribution.add_to(ages)
        yield ages


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A family of gauges that differ in one label."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
