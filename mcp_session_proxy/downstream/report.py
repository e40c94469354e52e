"""What is told about one request when it is over."""

from collections.abc import Mapping
from typing import Final

from .. import events
from ..errors import Fault, ProxyError
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Request
from ..protocol.revisions import Era
from ..sessions.binding import Visit
from ..tracing import TRACEPARENT, RequestTrace, Tracer, read_trace_id
from .request import Call

_TARGETS: Final = {revisions.TOOLS_CALL: "gen_ai.tool.name", revisions.PROMPTS_GET: "gen_ai.prompt.name"}
_MAX_NAME_CHARS: Final = 100


class Report:
    """Gathers what the events about one request say."""

    __slots__ = (
        "era",
        "fault",
        "method",
        "outcome",
        "principal",
        "request_id",
        "session",
        "sessionless",
        "trace",
        "upstream_seconds",
        "waited_seconds",
    )

    def __init__(self, request: Request, era: Era, request_id: str, principal: str) -> None:
        self.era = era
        self.method = revisions.method_label(request.method)
        self.outcome = "ok"
        self.fault: Fault | None = None
        self.principal = principal
        self.request_id = request_id
        self.session: str | None = None
        self.sessionless = False
        self.trace: RequestTrace | None = None
        self.waited_seconds: float | None = None
        self.upstream_seconds: float | None = None

    def visits(self, visit: Visit) -> None:
        """Note the upstream session that the request came to."""
        self.session = visit.session.tag
        self.waited_seconds = visit.waited_seconds
        if self.trace is not None:
            self.trace.leased(visit.session.tag, waited=visit.waited_seconds is not None)

    def failed(self, error: ProxyError, trace_id: str | None) -> events.RequestFailed:
        """Note an error, and give its event. ``trace_id`` is the client's, for want of a trace here."""
        self.outcome = error.reason
        self.fault = error.fault
        kind = events.RequestRefused if error.fault is Fault.CLIENT else events.RequestFailed
        return kind(
            method=self.method,
            reason=error.reason,
            detail=error.message,
            request_id=self.request_id,
            principal=self.principal,
            fault=error.fault,
            trace_id=trace_id if self.trace is None else self.trace.id,
        )

    def finished(self, seconds: float) -> events.RequestFinished:
        """The event of its end."""
        return events.RequestFinished(
            era=self.era,
            method=self.method,
            outcome=self.outcome,
            sessionless=self.sessionless,
            seconds=seconds,
            waited_seconds=self.waited_seconds,
            upstream_seconds=self.upstream_seconds,
            request_id=self.request_id,
            principal=self.principal,
            session=self.session,
            fault=self.fault,
            trace_id=None if self.trace is None else self.trace.id,
            sampled=None if self.trace is None else self.trace.sampled,
        )


def begin_trace(
    tracer: Tracer, call: Call, request: Request, meta: Mapping[str, bytes], report: Report
) -> RequestTrace:
    """Of what the client says, the trace is told versions that exist and names of tools and prompts."""
    facts = {
        "mcp_session_proxy.request": report.request_id,
        "mcp_session_proxy.era": report.era,
        "mcp_session_proxy.principal": report.principal,
        "mcp.protocol.version": call.version if call.version in revisions.SERVED_VERSIONS else None,
        "mcp.session.id": None if call.client is None else call.client.tag,
    }
    if (attribute := _TARGETS.get(request.method)) is not None:
        name = jsonrpc.read_string(jsonrpc.read_object(request.params).get("name"))
        facts[attribute] = None if name is None else name[:_MAX_NAME_CHARS]
    return tracer.begin(report.method, call.headers, meta, facts)


def client_trace_id(call: Call, meta: Mapping[str, bytes]) -> str | None:
    """The id of the trace that the client says its request is part of."""
    in_meta = read_trace_id(jsonrpc.read_string(meta.get(TRACEPARENT)))
    return in_meta or read_trace_id(call.headers.get(TRACEPARENT))
