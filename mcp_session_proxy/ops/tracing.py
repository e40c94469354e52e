"""Traces as OpenTelemetry's spans, sent by OTLP over HTTP. Loaded for ``--tracing`` only: it needs an extra.

Span and attribute names follow OpenTelemetry's conventions for MCP where they have one. No span holds a
header, an argument, a result, an error's text or a session id: sessions appear by the tags that logs use.

The exporter works in a thread of its own behind a bounded queue. Where the collector is slow or away, spans
are lost; requests and the shutdown do not wait for it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..protocol import jsonrpc, revisions
from ..tracing import CONTEXT_KEYS, Facts

_NAME: Final = "mcp-session-proxy"
_FLUSH_SECONDS: Final = 2.0
_MAX_CONTEXT_CHARS: Final = 8192  # as much as a header may have
_NOTHING: Final = Context()
_propagator: Final = TraceContextTextMapPropagator()

METHOD: Final = "mcp.method.name"
SESSION: Final = "mcp.session.id"
ERROR: Final = "error.type"
CODE: Final = "rpc.response.status_code"
TOOL_ERROR: Final = "tool_error"


class OpenTelemetry:
    """Implements ``tracing.Tracer``. ``processor`` takes the spans that end."""

    def __init__(self, processor: SpanProcessor) -> None:
        # The sampler and the limits come from OTEL_... variables, which the SDK reads itself.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_NAME, __version__)

    def begin(self, facts: Callable[[], Facts]) -> "_RequestSpans":
        """A SERVER span. Its parent is named in ``_meta``, else in the headers; a second one is linked."""
        method, headers, meta, attributes = facts()
        in_meta = _extract({key: jsonrpc.read_string(meta.get(key)) for key in CONTEXT_KEYS})
        in_headers = _extract({key: headers.get(key) for key in CONTEXT_KEYS})
        parent, other = (in_meta, in_headers) if _span_of(in_meta).is_valid else (in_headers, in_meta)
        linked = _span_of(other)
        common = {METHOD: method, "network.transport": "tcp", "network.protocol.name": "http"}
        common |= {name: value for name, value in attributes.items() if value is not None}
        span = self._tracer.start_span(
            method,
            context=parent,
            kind=SpanKind.SERVER,
            attributes=common,
            links=[Link(linked)] if linked.is_valid and linked != _span_of(parent) else [],
        )
        return _RequestSpans(self._tracer, span, method, common)

    async def close(self) -> None:
        """Send what is left, and wait a moment for that. What is not sent by then is lost."""
        loop = asyncio.get_running_loop()
        sent = asyncio.Event()

        def shut_down() -> None:
            try:
                self._provider.shutdown()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(sent.set)

        # A thread that nobody waits for at the end of the process, unlike those of an executor.
        threading.Thread(target=shut_down, name="tracing shutdown", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await sent.wait()


def open_tracer() -> OpenTelemetry:
    """A tracer whose spans go where the OTEL_EXPORTER_OTLP_... variables say.

    Raises:
        ValueError, RuntimeError: one of them is wrong. Of some, the SDK complains when it is loaded.
    """
    # It warns of every attempt; what was lost in the end is enough.
    logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.ERROR)
    return OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()))


class _RequestSpans:
    """Implements ``tracing.RequestTrace``. ``common`` are attributes that its spans share."""

    def __init__(self, tracer: Tracer, span: Span, method: str, common: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._span = span
        self._method = method
        self._common = common
        self._context = set_span_in_context(span, _NOTHING)
        self._waiting_since: int | None = None
        self._park: Span | None = None
        context = span.get_span_context()
        self.id = _id_of(context)
        self.sampled = context.trace_flags.sampled

    def waits(self) -> None:
        self._waiting_since = time.time_ns()

    def leased(self, session: str, *, waited: bool) -> None:
        if waited:
            self._end_lease({SESSION: session})
        self._waiting_since = None

    def _end_lease(self, attributes: Mapping[str, str]) -> None:
        """The lease as a span: made at its end, when it is known whether there was one."""
        span = self._tracer.start_span(
            "lease", context=self._context, attributes=attributes, start_time=self._waiting_since
        )
        if (reason := attributes.get(ERROR)) is not None:
            _mark_failed(span, reason)
        span.end()

    def sends(self, session: str) -> "_Upstream":
        span = self._tracer.start_span(
            self._method,
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes={**self._common, SESSION: session},
        )
        return _Upstream(span, self._method)

    def parks(self) -> None:
        self._park = self._tracer.start_span("park", context=self._context)

    def unparks(self, outcome: str) -> None:
        if self._park is not None:
            self._park.set_attribute("mcp_session_proxy.outcome", outcome)
            self._park.end()
            self._park = None

    def resumes(self, former: object) -> None:
        if isinstance(former, _RequestSpans) and former._park is not None:
            self._span.add_link(former._park.get_span_context())
            former.unparks("resumed")

    def finished(self, outcome: str, body: bytes) -> None:
        if self._waiting_since is not None:
            self._end_lease({ERROR: outcome})
        if outcome not in ("ok", "error"):
            _mark_failed(self._span, outcome)
        elif self._span.is_recording():
            members = jsonrpc.read_object(body)
            _judge(self._span, self._method, members.get("result"), members.get("error"))
        self._span.end()


class _Upstream:
    """Implements ``tracing.UpstreamTrace``."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        self.id = _id_of(span.get_span_context())
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(span, _NOTHING))
        self.headers = tuple(carrier.items())

    def retried(self, reason: str) -> None:
        self._span.add_event("retry", {"reason": reason})

    def answered(self, result: bytes | None, error: bytes | None) -> None:
        if self._span.is_recording():
            _judge(self._span, self._method, result, error)
        self._span.end()

    def failed(self, reason: str) -> None:
        _mark_failed(self._span, reason)
        self._span.end()


def _judge(span: Span, method: str, result: bytes | None, error: bytes | None) -> None:
    """Mark a span as failed when the server's response says so, by code or as a failed tool."""
    if error is not None:
        code = str(jsonrpc.read_error(error).code)
        span.set_attribute(CODE, code)
        _mark_failed(span, code)
    elif method == revisions.TOOLS_CALL and result is not None and _is_tool_error(result):
        _mark_failed(span, TOOL_ERROR)


def _is_tool_error(result: bytes) -> bool:
    # A search is far cheaper than reading, and most results do not say.
    return b'"isError"' in result and jsonrpc.read_object(result).get("isError") == b"true"


def _mark_failed(span: Span, kind: str) -> None:
    span.set_attribute(ERROR, kind)
    span.set_status(Status(StatusCode.ERROR))


def _extract(carrier: Mapping[str, str | None]) -> Context:
    """The context that a client names; empty when it names none, or not as the W3C wants it."""
    fit = {key: text for key, text in carrier.items() if text is not None and len(text) <= _MAX_CONTEXT_CHARS}
    return _propagator.extract(fit, _NOTHING) if fit else _NOTHING


def _span_of(context: Context) -> SpanContext:
    return get_current_span(context).get_span_context()


def _id_of(context: SpanContext) -> str | None:
    return format_trace_id(context.trace_id) if context.is_valid else None


def _resource() -> Resource:
    """Who we are, as far as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES do not say otherwise."""
    named = dict(Resource.create().attributes)
    if str(named[SERVICE_NAME]).startswith("unknown_service"):
        del named[SERVICE_NAME]
    return Resource({SERVICE_NAME: _NAME, SERVICE_VERSION: __version__, **named})
