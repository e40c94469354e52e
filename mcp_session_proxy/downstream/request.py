"""One request of a client, from the front door to the report of its end.

It is made as soon as its message is read, and is the one thing that whoever works on it is given.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from .. import events
from ..errors import Fault, ProxyError
from ..exchange.call import ModernCall
from ..exchange.exchange import Exchange
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Request
from ..protocol.revisions import Era
from ..sessions.binding import Visit
from ..sessions.client import ClientSession
from ..sessions.identity import Principal
from ..tracing import TRACEPARENT, UNTRACED, Facts, RequestTrace, read_trace_id
from ..upstream.transport import Caller
from .head import Head
from .streams import Responder

_TARGETS: Final = {revisions.TOOLS_CALL: "gen_ai.tool.name", revisions.PROMPTS_GET: "gen_ai.prompt.name"}
_MAX_NAME_CHARS: Final = 100


class ClientRequest(msgspec.Struct, eq=False):
    """What a client asks, who asks it, where the answer goes, and what became of it.

    ``message`` is the JSON-RPC request and ``meta`` its ``_meta``, as raw members. ``http`` is the POST that
    brought it, and ``responder`` writes the answer to that; those of a batch share them. ``caller`` travels
    upstream, ``client`` is the client session that is named, or was begun by this request.

    From the dispatcher: ``id``, which names it in logs; ``affinity``, the conversation that it belongs to;
    and its ``trace``.

    What became of it: ``exchange`` is its way upstream as long as it is there; ``session`` is the tag of the
    upstream session that it came to, and ``waited_seconds`` how long it waited for that, if it had to;
    ``sessionless``: it has used no client session. ``outcome`` is ``ok``, ``error`` for an error of the
    server's own, or the reason of ours, whose ``fault`` is named then.
    """

    http: web.BaseRequest
    head: Head
    message: Request
    meta: Mapping[str, bytes]
    era: Era
    responder: Responder
    principal: Principal
    caller: Caller
    client: ClientSession | None = None

    id: str = ""
    affinity: str | None = None
    trace: RequestTrace = UNTRACED

    exchange: Exchange | ModernCall | None = None
    session: str | None = None
    sessionless: bool = False
    waited_seconds: float | None = None
    upstream_seconds: float | None = None
    outcome: str = "ok"
    fault: Fault | None = None

    def __repr__(self) -> str:
        return f"<ClientRequest {self.id} {self.label}>"

    @property
    def label(self) -> str:
        """Its method, as metrics and logs name it."""
        return revisions.method_label(self.message.method)

    @property
    def client_trace_id(self) -> str | None:
        """The id of the trace that the client says it is part of."""
        in_meta = read_trace_id(jsonrpc.read_string(self.meta.get(TRACEPARENT)))
        return in_meta or read_trace_id(self.http.headers.get(TRACEPARENT))

    def trace_facts(self) -> Facts:
        """What a trace is told. What the client says is told if it is a known version, a tool or a prompt."""
        version = self.head.version
        attributes = {
            "mcp_session_proxy.request": self.id,
            "mcp_session_proxy.era": self.era,
            "mcp_session_proxy.principal": self.principal.tag,
            "mcp.protocol.version": version if version in revisions.SERVED_VERSIONS else None,
            "mcp.session.id": None if self.client is None else self.client.tag,
        }
        if (attribute := _TARGETS.get(self.message.method)) is not None:
            name = jsonrpc.read_string(jsonrpc.read_object(self.message.params).get("name"))
            attributes[attribute] = None if name is None else name[:_MAX_NAME_CHARS]
        return Facts(self.label, self.http.headers, self.meta, attributes)

    def visits(self, visit: Visit) -> None:
        """It has come to an upstream session."""
        self.session = tag = visit.session.tag
        self.waited_seconds = waited = visit.waited_seconds
        self.trace.leased(tag, waited=waited is not None)

    def failed(self, error: ProxyError) -> events.RequestFailed:
        """It is answered with this error, which this event tells."""
        self.outcome = error.reason
        self.fault = error.fault
        kind = events.RequestRefused if error.fault is Fault.CLIENT else events.RequestFailed
        return kind(
            method=self.label,
            reason=error.reason,
            detail=error.message,
            request_id=self.id,
            principal=self.principal.tag,
            fault=error.fault,
            trace_id=self.trace.id or self.client_trace_id,
        )

    def finished(self, seconds: float) -> events.RequestFinished:
        """It is over after so long, which this event tells."""
        return events.RequestFinished(
            era=self.era,
            method=self.label,
            outcome=self.outcome,
            sessionless=self.sessionless,
            seconds=seconds,
            waited_seconds=self.waited_seconds,
            upstream_seconds=self.upstream_seconds,
            request_id=self.id,
            principal=self.principal.tag,
            session=self.session,
            fault=self.fault,
            trace_id=self.trace.id,
            sampled=self.trace.sampled,
        )
