"""Traces of requests: the whole proxy between a client and a small server, and the spans that it makes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from modern_bench import Modern, modern
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from proxy_bench import Bench, until

from mcp_session_proxy.ops import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = f"00-{OTHER_TRACE}-00f067aa0ba902b7-01"
QUESTION = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "elicitation/create",
    "params": {"message": "Name?", "requestedSchema": {"type": "object", "properties": {}}},
}


class Spans:
    """What ended, newest last."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()

    def open_tracer(self) -> tracing.OpenTelemetry:
        return tracing.OpenTelemetry(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def find(self, name: str, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.all if (span.name, span.kind) == (name, kind)]

    def one(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> ReadableSpan:
        [span] = self.find(name, kind)
        return span

    def server(self, method: str = "tools/call") -> ReadableSpan:
        return self.one(method, SpanKind.SERVER)

    def client(self, method: str = "tools/call") -> ReadableSpan:
        return self.one(method, SpanKind.CLIENT)


def name_of(span: ReadableSpan) -> str:
    """A span as a `traceparent` names it."""
    context = span.get_span_context()
    assert context is not None
    flags = int(context.trace_flags)
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags:02x}"


def parent_of(span: ReadableSpan) -> str | None:
    """The id of a span's parent."""
    return None if span.parent is None else format_span_id(span.parent.span_id)


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    context = parent.get_span_context()
    assert context is not None
    return parent_of(span) == format_span_id(context.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The spans of proxies that trace."""
    spans = Spans()
    monkeypatch.setattr(tracing, "open_tracer", spans.open_tracer)
    return spans


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Modern]:
    """A modern client and a server; the proxy between them is started by the test."""
    async with Modern(server) as bench:
        yield bench


def watch(bench: Bench) -> list[Any]:
    """What is told of clients and their requests from now on."""
    told: list[Any] = []
    bench.watch(lambda event: told.append(event) if event.name.startswith(("request.", "client.")) else None)
    return told


# -- who is whose parent ---------------------------------------------------------------------------


async def test_a_call(bench: Modern, spans: Spans) -> None:
    """The client's trace goes on through us: a SERVER span with the lease and the CLIENT span in it."""
    await bench.start(tracing=True)
    headers = {"traceparent": PARENT, "tracestate": "rojo=1"}
    await bench.post(call(name="count"), headers=headers)
    server, client, lease = spans.server(), spans.client(), spans.one("lease")
    assert parent_of(server) == "b7ad6b7169203331"
    assert is_child(client, server)
    assert is_child(lease, server)
    [(request, _)] = bench.server.posts("tools/call")
    assert request.headers.getall("traceparent") == [name_of(client)]
    assert request.headers.getall("tracestate") == ["rojo=1"]


async def test_without_a_context_a_trace_begins(bench: Modern, spans: Spans) -> None:
    """A client that does not trace gets a trace of its own, which the server is told of."""
    await bench.start(tracing=True)
    await bench.post(call(name="count"))
    assert spans.server().parent is None
    [(request, message)] = bench.server.posts("tools/call")
    assert request.headers["traceparent"] == name_of(spans.client())
    assert "_meta" not in message["params"]


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"ff{PARENT[2:]}", f"00-{'0' * 32}-{'1' * 16}-01"])
async def test_nonsense_is_no_context(bench: Modern, spans: Spans, traceparent: str) -> None:
    """What is not a traceparent is ignored, and does not reach the server."""
    await bench.start(tracing=True)
    await bench.post(call(name="count", _meta={"traceparent": 7}), headers={"traceparent": traceparent})
    assert spans.server().parent is None
    [(request, _)] = bench.server.posts("tools/call")
    assert request.headers.getall("traceparent") == [name_of(spans.client())]


async def test_meta_before_headers(bench: Modern, spans: Spans) -> None:
    """The context in `_meta` is the parent, the header's is linked; the server gets ours in both places."""
    await bench.start(tracing=True)
    meta = {"traceparent": OTHER, "tracestate": "gone=1", "mine": 1}
    await bench.post(call(name="count", _meta=meta), headers={"traceparent": PARENT})
    server = spans.server()
    assert server.parent is not None
    assert format_trace_id(server.parent.trace_id) == OTHER_TRACE
    assert [format_trace_id(link.context.trace_id) for link in server.links] == [TRACE]
    [(request, message)] = bench.server.posts("tools/call")
    ours = name_of(spans.client())
    assert request.headers["traceparent"] == ours
    assert message["params"]["_meta"] == {"traceparent": ours, "tracestate": "gone=1", "mine": 1}


async def test_the_same_context_twice_is_no_link(bench: Modern, spans: Spans) -> None:
    """A client that names its span in both places is not linked to itself."""
    await bench.start(tracing=True)
    await bench.post(call(name="count", _meta={"traceparent": PARENT}), headers={"traceparent": PARENT})
    assert (parent_of(spans.server()), list(spans.server().links)) == ("b7ad6b7169203331", [])


async def test_a_modern_call(bench: Modern, spans: Spans) -> None:
    """A modern client's context in ``_meta`` is joined as well, and handed on."""
    await bench.start(tracing=True)
    await bench.ask(modern(meta={"traceparent": PARENT}))
    server, client = spans.server(), spans.client()
    assert parent_of(server) == "b7ad6b7169203331"
    assert is_child(client, server)
    assert is_child(spans.one("lease"), server)
    assert attributes(server)["mcp.protocol.version"] == "2026-07-28"
    [(request, message)] = bench.server.posts("tools/call")
    assert request.headers["traceparent"] == message["params"]["_meta"]["traceparent"] == name_of(client)


async def test_a_batch(bench: Modern, spans: Spans) -> None:
    """Every request of a batch has spans of its own."""
    await bench.start(tracing=True)
    await bench.post([call(1, name="count"), call(2, "tools/list")], headers={"traceparent": PARENT})
    assert [parent_of(spans.server(m)) for m in ("tools/call", "tools/list")] == ["b7ad6b7169203331"] * 2


async def test_what_is_ours_is_nobodys(bench: Modern, spans: Spans) -> None:
    """Handshakes, streams and goodbyes are no part of a client's trace."""
    await bench.start(tracing=True)
    await bench.post(call(name="count"), headers={"traceparent": PARENT})
    await bench.proxy.drain()
    ours = [r for r, m in bench.server.seen if m is None or m["method"] != "tools/call"]
    assert {r.method for r in ours} == {"POST", "GET", "DELETE"}
    assert not any("traceparent" in r.headers for r in ours)


# -- what they say ---------------------------------------------------------------------------------


async def test_attributes(bench: Modern, spans: Spans) -> None:
    """Attributes have OpenTelemetry's names; sessions appear by the tags of the log."""
    await bench.start(tracing=True)
    told = watch(bench)
    session = await bench.initialize()
    version = {"MCP-Protocol-Version": "2025-11-25"}
    await bench.post(call(name="count", secret="x"), session=session, headers=version)
    [created] = [event for event in told if event.name == "client.created"]
    finished = told[-1]
    common = {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-11-25",
        "gen_ai.tool.name": "count",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "mcp_session_proxy.era": "legacy",
        "mcp_session_proxy.principal": finished.principal,
        "mcp_session_proxy.request": finished.request_id,
    }
    assert attributes(spans.server()) == {**common, "mcp.session.id": created.client}
    assert attributes(spans.client()) == {**common, "mcp.session.id": finished.session}
    assert spans.server().status.status_code is StatusCode.UNSET


async def test_nothing_secret(bench: Modern, spans: Spans) -> None:
    """No argument, result, header, error text or session id is in any span."""
    await bench.start(tracing=True)
    session = await bench.initialize(headers={"Authorization": "Bearer hunter2"})
    bench.fail("tools/call", -32000, "hunter2", {"hunter2": "hunter2"})
    body = call("hunter2", name="count", arguments={"hunter2": "hunter2"}, _meta={"hunter2": "hunter2"})
    headers = {"Authorization": "Bearer hunter2", "baggage": "k=hunter2"}
    await bench.post(body, session=session, headers=headers)
    headers["MCP-Protocol-Version"] = "hunter2"
    await bench.post(call("hunter2", "hunter2/method"), headers=headers)
    told = "".join(span.to_json() for span in spans.all)
    assert len(spans.all) > 4
    assert "hunter2" not in told
    assert session not in told
    assert "upstream-1" not in told


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"error": {"code": -32601, "message": "no"}}, "-32601"),
        ({"result": {"content": [], "isError": True}}, "tool_error"),
        ({"result": {"content": [], "isError": False}}, None),
    ],
)
async def test_errors_of_the_server(
    bench: Modern, spans: Spans, reply: dict[str, Any], kind: str | None
) -> None:
    """An error has its code as its type; a tool that failed is an error too. Neither has a description."""

    async def tool(_: web.Request, message: Any) -> web.StreamResponse:
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], **reply})

    bench.server.on["tools/call"] = tool
    await bench.start(tracing=True)
    await bench.post(call(name="count"))
    for span in (spans.server(), spans.client()):
        assert attributes(span).get("error.type") == kind
        assert (span.status.status_code is StatusCode.ERROR) == (kind is not None)
        assert span.status.description is None


async def test_errors_of_ours(bench: Modern, spans: Spans) -> None:
    """An error of ours has its reason as its type, on every span that ended for it."""

    async def refuse(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(status=500)

    bench.server.on["initialize"] = refuse
    await bench.start(tracing=True)
    answer = await bench.post(call(name="count"))
    assert spans.find("tools/call", SpanKind.CLIENT) == []
    for span in (spans.server(), spans.one("lease")):
        assert attributes(span)["error.type"] == answer.error[2]
        assert span.status.status_code is StatusCode.ERROR


async def test_a_request_that_is_refused_waits_for_nothing(bench: Modern, spans: Spans) -> None:
    """What does not pass the front-door checks has a span, and no lease."""
    await bench.start(tracing=True)
    await bench.post(call(name="count"), headers={"MCP-Protocol-Version": "1999-01-01"})
    assert attributes(spans.server())["error.type"] == "unsupported-version"
    assert [span.name for span in spans.all] == ["tools/call"]


async def test_a_session_at_hand_is_no_lease(bench: Modern, spans: Spans) -> None:
    """A client session that has its upstream session waits for none."""
    await bench.start(tracing=True)
    session = await bench.initialize()
    await bench.post(call(name="count"), session=session)
    assert [attributes(span)["mcp.session.id"] for span in spans.find("lease", SpanKind.INTERNAL)] == [
        attributes(spans.client())["mcp.session.id"]
    ]
    assert is_child(spans.one("lease"), spans.server("initialize"))


async def test_sent_again(bench: Modern, spans: Spans) -> None:
    """A request that is sent again has one span, which tells of it; both attempts are part of it."""
    await bench.start(tracing=True)
    await bench.post(call(name="count"))
    bench.server.sessions.clear()
    told = watch(bench)
    await bench.post(call(2, name="count"))
    _, client = spans.find("tools/call", SpanKind.CLIENT)
    assert [(event.name, dict(event.attributes or {})) for event in client.events] == [
        ("retry", {"reason": "session-lost"})
    ]
    sent = [request.headers["traceparent"] for request, _ in bench.server.posts("tools/call")]
    assert sent[1:] == [name_of(client)] * 2
    assert [event.name for event in told] == ["request.retried", "request.finished"]
    assert told[0].trace_id == told[1].trace_id is not None


# -- parked calls ----------------------------------------------------------------------------------


async def test_a_parked_call(bench: Modern, spans: Spans) -> None:
    """The request that resumes a call is linked to its wait; the call upstream is one span throughout."""
    bench.ask_client(QUESTION, {"content": []})
    await bench.start(tracing=True)
    asked = (await bench.ask(modern(meta={"traceparent": PARENT}))).json["result"]
    assert [span.name for span in spans.all] == ["lease", "tools/call"]
    [key] = asked["inputRequests"]
    answers = {key: {"action": "accept", "content": {}}}
    retry = modern(
        identifier=2,
        meta={"traceparent": OTHER},
        inputResponses=answers,
        requestState=asked["requestState"],
    )
    assert "error" not in (await bench.ask(retry)).json
    first, second = spans.find("tools/call", SpanKind.SERVER)
    park = spans.one("park")
    assert is_child(park, first)
    assert attributes(park) == {"mcp_session_proxy.outcome": "resumed"}
    assert is_child(spans.client(), first)
    assert second.parent is not None
    assert format_trace_id(second.parent.trace_id) == OTHER_TRACE
    assert [link.context for link in second.links] == [park.get_span_context()]


async def test_a_call_that_nobody_resumes(bench: Modern, spans: Spans) -> None:
    """The wait ends with the call."""
    bench.ask_client(QUESTION, {"content": []})
    await bench.start(tracing=True, park_timeout="10ms")
    await bench.ask(modern())
    await until(lambda: spans.find("park", SpanKind.INTERNAL) and spans.find("tools/call", SpanKind.CLIENT))
    assert attributes(spans.one("park")) == {"mcp_session_proxy.outcome": "abandoned"}


async def test_a_client_that_leaves(bench: Modern, spans: Spans) -> None:
    """A cancelled request ends its spans as such."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def tool(_: web.Request, __: Any) -> web.StreamResponse:
        reached.set()
        await never.wait()
        raise AssertionError

    bench.server.on["tools/call"] = tool
    await bench.start(tracing=True)
    asking = asyncio.create_task(bench.ask(modern()))
    await reached.wait()
    asking.cancel()
    await until(lambda: len(spans.all) == 3)
    assert attributes(spans.server())["error.type"] == attributes(spans.client())["error.type"] == "cancelled"


# -- sampling, logs, metrics -----------------------------------------------------------------------


async def test_not_sampled(bench: Modern, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sampler does not want is not kept, and the server is told so."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    await bench.start(tracing=True)
    told = watch(bench)
    await bench.post(call(name="count"), headers={"traceparent": PARENT})
    assert spans.all == ()
    [(request, _)] = bench.server.posts("tools/call")
    assert request.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert request.headers["traceparent"].endswith("-00")
    [finished] = told
    assert (finished.trace_id, finished.sampled) == (TRACE, False)


async def test_disabled_by_a_variable(bench: Modern, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED: no spans, and the client's own context goes on to the server."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    await bench.start(tracing=True)
    told = watch(bench)
    await bench.post(call(name="count"), headers={"traceparent": PARENT})
    await bench.post(call(name="count"))
    sent = [request.headers.get("traceparent") for request, _ in bench.server.posts("tools/call")]
    assert (sent, spans.all) == ([PARENT, None], ())
    assert [event.trace_id for event in told] == [TRACE, None]


async def test_logs_name_the_trace(bench: Modern, spans: Spans) -> None:
    """What is told of a request carries its trace id."""
    await bench.start(tracing=True)
    told = watch(bench)
    await bench.post(call(name="count"), headers={"traceparent": PARENT})
    await bench.post(call(name="count"), headers={"traceparent": PARENT, "MCP-Protocol-Version": "1"})
    assert [(event.name, event.trace_id) for event in told] == [
        ("request.finished", TRACE),
        ("request.failed", TRACE),
        ("request.finished", TRACE),
    ]
    assert told[0].sampled is True


async def test_without_tracing_nothing_changes(bench: Modern, spans: Spans) -> None:
    """The client's context reaches the server as it is; of what fails, the log names the client's trace."""
    await bench.start()
    told = watch(bench)
    headers = {"traceparent": PARENT, "tracestate": "rojo=1"}
    meta = {"traceparent": OTHER, "tracestate": "congo=2"}
    await bench.post(call(name="count", _meta=meta), headers=headers)
    [(request, message)] = bench.server.posts("tools/call")
    assert {name: request.headers[name] for name in headers} == headers
    assert message["params"]["_meta"] == meta
    await bench.post(call(_meta=meta), headers={"MCP-Protocol-Version": "1"})
    await bench.post(call(), headers={"MCP-Protocol-Version": "1", "traceparent": PARENT})
    assert [(event.name, event.trace_id) for event in told] == [
        ("request.finished", None),
        ("request.failed", OTHER_TRACE),
        ("request.finished", None),
        ("request.failed", TRACE),
        ("request.finished", None),
    ]
    assert spans.all == ()
