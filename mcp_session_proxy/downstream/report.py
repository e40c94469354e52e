"""What is told about one request when it is over."""

from .. import events
from ..protocol import revisions
from ..protocol.jsonrpc import Request
from ..protocol.revisions import Era
from ..sessions.binding import Visit
from ..tracing import RequestTrace


class Report:
    """Gathers what the events about one request say."""

    __slots__ = (
        "era",
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

    def failed(self, reason: str, detail: str, trace_id: str | None) -> events.RequestFailed:
        """The event of an error of ours. ``trace_id`` is the client's, for want of a trace here."""
        return events.RequestFailed(
            method=self.method,
            reason=reason,
            detail=detail,
            request_id=self.request_id,
            principal=self.principal,
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
            trace_id=None if self.trace is None else self.trace.id,
            sampled=None if self.trace is None else self.trace.sampled,
        )
