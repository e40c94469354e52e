"""Stand-ins around a modern call: its visit, its client's response, requests that passed the front door."""

import json
from typing import Any

from fakes import FakeVisit

from mcp_session_proxy.protocol import jsonrpc, revisions
from mcp_session_proxy.protocol.inbound import ModernRequest
from mcp_session_proxy.protocol.jsonrpc import Request, Response
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import ArrivingResult

ALL: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
FORM = {"message": "Name?", "requestedSchema": {"type": "object", "title": "Name", "properties": {}}}
ASK_NAME = Request(b'"q-1"', revisions.ELICIT, json.dumps(FORM).encode())
ASK_ROOTS = Request(b'"q-2"', revisions.LIST_ROOTS)
ADA = b'{"action":"accept","content":{"name":"Ada"}}'


def modern(
    method: str = "tools/call",
    *,
    identifier: object = 1,
    capabilities: object = ALL,
    log_level: str | None = None,
    token: object = None,
    **params: object,
) -> ModernRequest:
    """A modern client's request."""
    meta = {} if token is None else {"progressToken": token}
    raw = json.dumps({**params, "_meta": meta}).encode()
    return ModernRequest(
        Request(json.dumps(identifier).encode(), method, raw),
        jsonrpc.read_object(raw),
        jsonrpc.read_meta(raw),
        json.dumps(capabilities).encode(),
        None,
        log_level,
    )


class Visit(FakeVisit):
    """One request's use of a session, which must end exactly once."""

    def __init__(self, session: UpstreamSession) -> None:
        super().__init__(session)
        self.ended = 0

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.ended += 1


class FakeChannel:
    """Implements ``relay.PostChannel``: keeps what the client would get, if it takes anything."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = self.takes_messages = takes
        self.sent: list[Any] = []

    async def begin(self) -> None:
        pass

    async def send(self, *messages: bytes) -> bool:
        if self.takes:
            self.sent += map(json.loads, messages)
        return self.takes

    async def pass_on(self, opening: bytes, coming: ArrivingResult) -> bool:
        return False


def value(response: object) -> Any:
    """The result or the error of a response, as JSON."""
    assert isinstance(response, Response), response
    return json.loads(response.result or response.error or b"null")
