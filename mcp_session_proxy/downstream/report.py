"""What is told about one request when it is over."""

from .. import events
from ..protocol import revisions
from ..protocol.jsonrpc import Request
from ..protocol.revisions import Era


class Report:
    """Gathers what the events about one request say."""

    __slots__ = ("era", "method", "outcome", "principal", "request_id", "session", "upstream_seconds")

    def __init__(self, request: Request, era: Era, request_id: str, principal: str) -> None:
        self.era = era
        self.method = revisions.method_label(request.method)
        self.outcome = "ok"
        self.principal = principal
        self.request_id = request_id
        self.session: str | None = None
        self.upstream_seconds: float | None = None

    def failed(self, reason: str, detail: str) -> events.RequestFailed:
        """The event of an error of ours."""
        return events.RequestFailed(
            method=self.method,
            reason=reason,
            detail=detail,
            request_id=self.request_id,
            principal=self.principal,
        )

    def finished(self, seconds: float) -> events.RequestFinished:
        """The event of its end."""
        return events.RequestFinished(
            era=self.era,
            method=self.method,
            outcome=self.outcome,
            seconds=seconds,
            upstream_seconds=self.upstream_seconds,
            request_id=self.request_id,
            principal=self.principal,
            session=self.session,
        )
