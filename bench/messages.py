"""What the load sends: whole HTTP requests of both eras. Also opens the sessions that some of them name."""

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
_META = "io.modelcontextprotocol/"
_TIMEOUT_SECONDS = 30.0
FIRST_ID = 1_000_000_001
"""Where the load's ids begin; it counts on from there. Servers lose answers when two calls have one id."""
SESSION_HEADER = "Mcp-Session-Id"
PROGRESS_EVENTS = 100
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request to an MCP endpoint."""

    headers: Mapping[str, str]
    body: str
    method: str = "POST"
    accept: Sequence[int] = (200,)
    """The right statuses, and"""
    expect: str = '"result"'
    """what the right body contains: looked at in a flow, where wrk sees every answer anyway."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One JSON-RPC request, to be written in either era, and what its answer must contain."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    expect: bytes
    times: int = 1


class WrongAnswer(Exception):
    """A contender did not answer what was asked; the message has its answer."""


ECHO = Work(
    method="tools/call", params={"name": "echo", "arguments": {"message": "hello"}}, expect=b"Echo: hello"
)
LIST = Work(method="tools/list", expect=b'"inputSchema"')
BIG = Work(
    method="tools/call", params={"name": "big", "arguments": {"size": MEBIBYTE}}, expect=b"x" * MEBIBYTE
)
PROGRESS = Work(
    method="tools/call",
    params={
        "name": "progress",
        "arguments": {"n": PROGRESS_EVENTS},
        "_meta": {"progressToken": "p"},
    },
    expect=b"notifications/progress",
    times=PROGRESS_EVENTS,
)


def _headers(version: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
    }


def _envelope(method: str, params: Mapping[str, Any], request_id: int | None = FIRST_ID) -> str:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    if request_id is None:
        del message["id"]
    return json.dumps(message, separators=(",", ":"))


def legacy(work: Work, session: str | None = None) -> Request:
    """A request of the legacy era; without a session it names none."""
    headers = _headers(LEGACY)
    if session is not None:
        headers[SESSION_HEADER] = session
    return Request(headers=headers, body=_envelope(work.method, work.params))


def modern(work: Work) -> Request:
    """The same as a modern client sends it."""
    headers = _headers(MODERN) | {"Mcp-Method": work.method}
    if "name" in work.params:
        headers["Mcp-Name"] = work.params["name"]
    meta = {
        **work.params.get("_meta", {}),
        f"{_META}protocolVersion": MODERN,
        f"{_META}clientInfo": {"name": "bench", "version": "1"},
        f"{_META}clientCapabilities": {"elicitation": {}},
    }
    return Request(headers=headers, body=_envelope(work.method, {**work.params, "_meta": meta}))


INITIALIZE = Request(
    headers={name: value for name, value in _headers(LEGACY).items() if name != "MCP-Protocol-Version"},
    body=_envelope(
        "initialize",
        {
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        },
    ),
)
INITIALIZED = Request(
    headers=_headers(LEGACY),
    body=_envelope("notifications/initialized", {}, request_id=None),
    accept=(202,),
    expect="",
)
# 405 is MCP's way to say that there is no need.
LEAVE = Request(
    method="DELETE", headers={"MCP-Protocol-Version": LEGACY}, body="", accept=(200, 204, 405), expect=""
)
FLOW: Sequence[Request] = (INITIALIZE, INITIALIZED, legacy(LIST), legacy(ECHO), LEAVE)
"""A whole client's life; all but the first name the session that the first was given."""
LISTEN = modern(
    Work(method="subscriptions/listen", params={"notifications": {"toolsListChanged": True}}, expect=b"")
)


class _InOnePiece(http.client.HTTPConnection):
    """Sends the head and the body of a request together, so that it arrives in the same way each time."""

    _held = b""

    def send(self, data: Any) -> None:
        """Hold it."""
        self._held += data

    def getresponse(self) -> http.client.HTTPResponse:
        """Send what is held, and read the answer."""
        held, self._held = self._held, b""
        super().send(held)
        return super().getresponse()


class Client:
    """A blocking HTTP client with one connection to an MCP endpoint, for everything that is not load."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._path = parts.path
        self._connection = _InOnePiece(parts.hostname, parts.port, timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """One request; gives status, headers (lower-case names) and the whole body. Raises OSError."""
        body = request.body.encode() if request.body else None
        try:
            self._connection.request(request.method, self._path, body=body, headers=dict(request.headers))
            response = self._connection.getresponse()
            read = response.read()
        except http.client.HTTPException as error:
            raise WrongAnswer(repr(error)) from error
        return response.status, {name.lower(): value for name, value in response.getheaders()}, read

    def live(self, flow: Sequence[Request]) -> str:
        """Send requests of which the first opens a session and the others name it; gives its id.

        Raises WrongAnswer.
        """
        session = ""
        for request in flow:
            named = {**request.headers, SESSION_HEADER: session} if session else request.headers
            status, headers, body = self.send(replace(request, headers=named))
            if status not in request.accept or request.expect.encode() not in body:
                raise WrongAnswer(f"{request.method} {request.body[:200]}: {status} {body[:500]!r}")
            session = session or headers.get(SESSION_HEADER.lower(), "")
            if not session:
                raise WrongAnswer("initialize: no session id")
        return session

    def open_session(self) -> str:
        """Initialise a session and give its id. Raises WrongAnswer."""
        return self.live((INITIALIZE, INITIALIZED))


def open_sessions(url: str, count: int) -> Sequence[str]:
    """Open that many sessions, one after the other on one connection. Raises WrongAnswer."""
    with Client(url) as client:
        return [client.open_session() for _ in range(count)]


def check_flow(url: str, flow: Sequence[Request]) -> None:
    """See that a whole client's life goes well. Raises WrongAnswer."""
    with Client(url) as client:
        client.live(flow)


def check_work(url: str, request: Request, work: Work) -> None:
    """Send a request and see that its answer is right. Raises WrongAnswer."""
    with Client(url) as client:
        status, _, body = client.send(request)
    if status != 200 or body.count(work.expect) < work.times or b'"result"' not in body:
        raise WrongAnswer(f"{request.body[:200]}: {status} {body[:500]!r}")
