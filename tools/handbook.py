"""The pages ``docs/events.md`` and ``docs/metrics.md``, made of the code that they describe.

Events, errors and metrics say themselves what they are; here is only what is about all of them.
``python -m tools.handbook events`` (or ``metrics``) writes a page.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client.core import Metric

from mcp_session_proxy import events
from mcp_session_proxy.errors import ClientError, OverloadError, ProxyError, UpstreamError
from mcp_session_proxy.events import Event, SessionOpened
from mcp_session_proxy.ops.introspection import Gauges, Phase
from mcp_session_proxy.ops.logs import render_json
from mcp_session_proxy.ops.metrics import Metrics
from mcp_session_proxy.protocol.tasks import TaskStatus
from mcp_session_proxy.sessions.state import SessionState

_ADVICE: Final = "What to do:"

_EVENTS: Final = """\
# Log events

The proxy writes its log to standard error: one line for each event, JSON where nobody watches
(`--log-format json`), words on a terminal. `--log-level` says how much; `debug` tells of every request. This
page is made of the code (`make docs`), so it knows every event that this version has.

```json
{example}
```

Names and fields are meant for programs and stay as they are within a major version; new ones may come.
Fields that say nothing are left out. No line holds a secret: callers and sessions appear as short tags, the
same in all lines and in `/sessions`.

## All events
"""

_LIBRARIES: Final = """\
## Lines that are no events

Libraries are heard from `warning` on. Such a line has a `logger`, its text is the `event`, and a traceback is
in `exception`. The proxy itself writes this kind of line in two places, both for bugs:

| logger | when |
|---|---|
| `mcp_session_proxy.ops.observers` | an event could not be written or counted; the request went on |
| `mcp_session_proxy.ops.admin` | a page of the admin listener failed |
"""

_FIELDS: Final = {
    "action": "what was done",
    "admin": 'the origin of the admin listener, or "off"',
    "advice": "what to change",
    "after": "how the server calls itself now: name and version",
    "age_seconds": "how long the session lived",
    "before": "how the server called itself",
    "changed": "options with new values, by their names in the file",
    "client": "tag of the client session",
    "clients": "how many client sessions",
    "client_name": "how the client calls itself",
    "cut_off": "requests that did not finish in time",
    "deadline_seconds": "how long they may take",
    "detail": "a sentence for people",
    "era": "`modern` (2026-07-28 and later) or `legacy`",
    "error": "a reason word, or what a library said",
    "exchanges": "requests in flight",
    "fault": "whose fault an error is: `client`, `upstream` (the server's) or `proxy`",
    "fence": "how often the caller has changed hands",
    "file": "where something is on the disk",
    "header": "the name of a request header",
    "kind": "whose a task is: `server`, or `call` for a call that goes on as one",
    "count": "how many",
    "how": "how a loss showed, or how a child ended",
    "issuer": "who a token says has issued it, cut after 200 characters",
    "last_words": "lines, newest last, without the values of variables that sound secret",
    "listen": "the origin of the listener",
    "lost": "how many could not be gone on with",
    "member": "another process on the same store, by its number",
    "method": "the MCP method",
    "modern": "whether the server speaks revision 2026-07-28",
    "modern_requests": "`passed` as they are, or `translated` onto sessions",
    "needs_restart": "options with new values that only a restart applies",
    "origin": "`minted` (the id is ours) or `adopted` (the client brought it)",
    "outcome": "how it ended",
    "peer": "the address that the request came from",
    "pid": "the number of the child's process, or of the other one with `--replace`",
    "principal": "tag of the caller: equal tags, equal credentials",
    "problem": "what is wrong, as the command line would say it",
    "program": "the command's name, without its arguments",
    "reason": "one word: why",
    "records": "how many",
    "request_id": "number of the request, the same in all lines about it",
    "requests": "how many it served",
    "sampled": "whether the trace is recorded (with `--tracing`)",
    "seconds": "how long it took, or how long a child lived",
    "signal": "the signal that ended it",
    "status": "the HTTP status of the server's answer, the exit status of a child, or how a task has ended",
    "session": "tag of the upstream session",
    "sessions": "how many upstream sessions",
    "sessionless": "whether the request came without a session id",
    "shards": "how many callers",
    "sharing": "the value of `--sharing`",
    "stateful": "whether it gives session ids to clients of earlier revisions",
    "text": "what it wrote, cut",
    "transport": "`streamable-http` or `http+sse`",
    "trace_id": "the trace that the request is part of, see [tracing](tracing.md)",
    "untold": "lines that were not logged",
    "upstream": "the server's URL, without its query; of one that is a command, `stdio` and its name",
    "upstream_seconds": "how much of it the server took; left out if it was not asked",
    "uses": "how many requests",
    "verb": "what the store was asked to do",
    "version": "that of the other process",
    "waited_seconds": "how long the request waited for a session",
    "what": "what is different, in words",
    "where": "in which part of the program",
    "times": "how often it has happened since it was told last",
    "why": "what the session was needed for",
}

_REASONS: Final = """\
## Reasons

The words for what went wrong: `reason` and `outcome` in the log and in metrics, `error.data.reason` in
answers to clients. Where it helps to come again, a header `Retry-After` says when.

| reason | whose fault | HTTP status | JSON-RPC code | meaning |
|---|---|---|---|---|
"""
_BRANCHES: Final = (ProxyError, ClientError, UpstreamError, OverloadError)

_METRICS: Final = """\
# Metrics

`GET /metrics` on the admin listener has them, for Prometheus in its text format or as OpenMetrics. This page
is made of the code (`make docs`), so it knows every metric that this version has.

No label names a caller or a session, and none can grow without bound: from the 500th combination of values
on, new ones share the value `other`. Counters begin at 0 when the process does.

## All metrics

All names begin with `mcp_session_proxy_`, but for the usual `process_...` ones at the end.
"""

_LABELS: Final = {
    "condition": "`unknown`, `up`, `down` (takes no connections) or `breaker-open` (handshakes fail)",
    "era": "`modern` (2026-07-28 and later) or `legacy`",
    "fault": "of a request that got an error of ours: `client`, `upstream` or `proxy`; none for others",
    "gauge": "the gauge, among those above, that the limit is of",
    "how": "an HTTP status or a word; see [`session.lost`](events.md#sessionlost) and "
    "[`child.ended`](events.md#childended)",
    "kind": "`client` (clients' streams), `listen` (`subscriptions/listen`) or `upstream` (the server's)",
    "method": "the MCP method; unknown ones share `other`",
    "outcome": "of a request: `ok`, `error` (the server's own), or a [reason](events.md#reasons); "
    "of a parked call: see [`call.parked`](events.md#callparked); of a reload: `applied` or `failed`; "
    "of a restored session: see [`session.restored`](events.md#sessionrestored) and "
    "[`session.woken`](events.md#sessionwoken)",
    "phase": ", ".join(f"`{phase}`" for phase in Phase),
    "python": "version of Python",
    "reason": "a [reason](events.md#reasons), or what the event of that name tells: "
    "[`session.opened`](events.md#sessionopened) (its `why`), [`session.closed`](events.md#sessionclosed), "
    "[`request.retried`](events.md#requestretried)",
    "state": ", ".join(f"`{state}`" for state in SessionState),
    "status": "how a task stands, or has ended: "
    + ", ".join(f"`{status}`" for status in TaskStatus)
    + ", or `expired` (`--task-ttl`)",
    "verb": "what the store was asked to do: `beat`, `claim`, `write`, `load` and others at the start",
    "version": "version of the proxy",
}

_QUERIES: Final = """\
## Questions and queries

The reason to have the proxy: sessions begun by clients and their DELETEs, per second, against sessions opened
at the server.

```promql
sum(rate(mcp_session_proxy_requests_total{method="initialize"}[5m]))
  + sum(rate(mcp_session_proxy_deletes_absorbed_total[5m]))

sum(rate(mcp_session_proxy_upstream_sessions_opened_total[5m]))
```

How many requests fail, and why? The server's own errors (`error`) are answers like any other.

```promql
sum by (outcome, fault) (rate(mcp_session_proxy_requests_total{outcome!~"ok|error"}[5m]))
  / on() group_left() sum(rate(mcp_session_proxy_requests_total[5m]))
```

How long do requests take, from the clients' side and from the server's? The difference is the proxy's, and
the wait for a session.

```promql
histogram_quantile(0.95, sum by (le) (rate(mcp_session_proxy_request_seconds_bucket[5m])))
histogram_quantile(0.95, sum by (le) (rate(mcp_session_proxy_upstream_request_seconds_bucket[5m])))
```

Are there enough sessions? Somebody waits, or was sent away, when there are not.

```promql
mcp_session_proxy_waiters
histogram_quantile(0.95, sum by (le) (rate(mcp_session_proxy_lease_wait_seconds_bucket[5m])))
sum by (reason) (rate(mcp_session_proxy_lease_failures_total[5m]))
sum(mcp_session_proxy_upstream_sessions) / sum(mcp_session_proxy_limit{gauge="upstream_sessions"})
```

Does the server lose sessions, and did that cost anything? Only what may have been executed is not repeated.

```promql
sum by (how) (rate(mcp_session_proxy_upstream_sessions_lost_total[1h]))
increase(mcp_session_proxy_replays_refused_total[1h])
```

What should wake somebody?

```promql
mcp_session_proxy_phase{phase="upstream-down"} == 1
mcp_session_proxy_config_last_reload_successful == 0
increase(mcp_session_proxy_bugs_total[1h]) > 0
```
"""


def _gauges_of_nothing() -> Gauges:
    """Those of a proxy in which nothing happens, with one value for every label."""
    return Gauges(
        phase=Phase.READY,
        upstreams={},
        limits={"": 0},
        client_sessions=0,
        upstream_sessions={"": 0},
        upstream_session_age_seconds=[],
        waiters=0,
        exchanges_parked=0,
        tasks={"": 0},
        streams={"": 0},
        memory_bytes={"": 0},
        memory_limit_bytes={"": 0},
    )


# -- events ----------------------------------------------------------------------------------------


def render_events() -> str:
    """The page ``docs/events.md``."""
    kinds = event_kinds()
    parts = [_EVENTS.replace("{example}", _example()), _overview(kinds)]
    parts += [_section(kind) for kind in kinds]
    parts += [_field_table(kinds), _LIBRARIES, _REASONS + "".join(map(_reason_row, _reasons(ProxyError)))]
    return "\n".join(parts)


def event_kinds() -> list[type[Event]]:
    """Every event that there is, in the order of ``events``."""
    # Not Event.__subclasses__(), which has each one twice: @dataclass(slots=True) replaces the class.
    found = (item for item in vars(events).values() if isinstance(item, type) and issubclass(item, Event))
    return [kind for kind in found if "name" in vars(kind)]


def _example() -> str:
    event = SessionOpened(session="u4f1c2d3e", principal="p9a8b7c6d", why="demand", seconds=0.004321)
    head = {"timestamp": "2026-01-31T09:30:00.123456Z", "level": str(event.level), "event": event.name}
    return render_json(None, "", {**head, **msgspec.structs.asdict(event)})


def _overview(kinds: Sequence[type[Event]]) -> str:
    rows = [
        f"| [`{kind.name}`](#{_anchor(kind.name)}) | {kind.level} | {_first_sentence(_meaning(kind))} |\n"
        for kind in kinds
    ]
    return "| event | level | meaning |\n|---|---|---|\n" + "".join(rows)


def _section(kind: type[Event]) -> str:
    fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
    return f"### {kind.name}\n\n{kind.level} · {fields}\n\n{_meaning(kind)}\n"


def _meaning(kind: type) -> str:
    """A docstring for the page: one line for each paragraph, code as Markdown writes it."""
    text = (inspect.getdoc(kind) or "").replace("``", "`")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join(paragraphs).replace(_ADVICE, f"**{_ADVICE}**")


def _first_sentence(text: str) -> str:
    return text.split("\n")[0].split(". ")[0].rstrip(".")


def _anchor(name: str) -> str:
    """The fragment under which Markdown's usual readers know a heading."""
    return "".join(char for char in name.lower() if char.isalnum() or char in "_-")


def _field_table(kinds: Sequence[type[Event]]) -> str:
    names = sorted({name for kind in kinds for name in kind.__struct_fields__})
    rows = "".join(f"| `{name}` | {_FIELDS[name]} |\n" for name in names)
    return f"## Fields\n\n| field | meaning |\n|---|---|\n{rows}"


def _reasons(kind: type[ProxyError]) -> Iterator[type[ProxyError]]:
    """The errors that are more than a branch of the tree, in the tree's order."""
    if kind not in _BRANCHES:
        yield kind
    for twig in kind.__subclasses__():
        yield from _reasons(twig)


def _reason_row(kind: type[ProxyError]) -> str:
    fault = str(kind.culprit) if "fault" not in vars(kind) else "client or upstream"
    is_passed_on = "raw_error" in inspect.signature(kind).parameters
    status = kind.status if "http_status" not in vars(kind) else "the server's"
    code = "the server's" if is_passed_on else kind.code
    meaning = _meaning(kind).split("\n")[0]
    return f"| `{kind.reason}` | {fault} | {status} | {code} | {meaning} |\n"


# -- metrics ---------------------------------------------------------------------------------------


def render_metrics() -> str:
    """The page ``docs/metrics.md``."""
    metrics = Metrics()
    metrics.watch(_gauges_of_nothing)
    families = sorted(metrics.registry.collect(), key=lambda family: family.name.startswith("process_"))
    labels = {family.name: _labels(family, metrics) for family in families}
    rows = [_metric_row(family, labels[family.name]) for family in families]
    used = sorted({label for names in labels.values() for label in names})
    parts = [
        _METRICS,
        "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(rows),
        "## Labels\n\n| label | values |\n|---|---|\n"
        + "".join(f"| `{name}` | {_LABELS[name]} |\n" for name in used),
        _QUERIES,
    ]
    return "\n".join(parts)


def _labels(family: Metric, metrics: Metrics) -> Sequence[str]:
    declared = metrics.labels.get(family.name)
    if declared is not None:
        return declared
    found = {name for sample in family.samples for name in sample.labels} - {"le"}
    return sorted(found)


def _metric_row(family: Metric, labels: Sequence[str]) -> str:
    kind = "gauge" if family.type == "info" else family.type
    name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |\n"


_PAGES: Final[dict[str, Callable[[], str]]] = {"events": render_events, "metrics": render_metrics}

if __name__ == "__main__":
    sys.stdout.write(_PAGES[sys.argv[1]]())
