"""Every dialect of "that session is gone", one case per server and situation, as seen on the wire."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.protocol.jsonrpc import ErrorObject, Response, parse_upstream, read_error
from mcp_session_proxy.protocol.lost import Evidence, Verdict, confirms_loss, judge

ALIVE, SUSPECT, GONE = Verdict.ALIVE, Verdict.SUSPECT, Verdict.GONE


def reply_of(
    status: int, body: str = "", *, verb: str = "POST", sent: bool = True, sse: bool = False
) -> Evidence:
    """A reply as the transport would hand it over: its JSON-RPC error is parsed where there is one."""
    message = parse_upstream(body.encode())
    error = None
    if isinstance(message, Response) and message.error is not None:
        error = read_error(message.error)
    wire = f"event: message\ndata: {body}\n\n" if sse else body
    return Evidence(verb=verb, status=status, body=wire.encode(), error=error, sent_session_id=sent)


def rpc_error(code: int, message: str, *, identifier: str | None = "null") -> str:
    """A JSON-RPC error response; ``identifier`` is raw JSON, None leaves the member out."""
    member = "" if identifier is None else f'"id":{identifier},'
    return f'{{"jsonrpc":"2.0",{member}"error":{{"code":{code},"message":"{message}"}}}}'


@dataclass(frozen=True)
class Case:
    server: str
    status: int
    body: str
    expected: Verdict = GONE
    sent: bool = True
    verb: str = "POST"
    sse: bool = False

    def judge(self) -> Verdict:
        return judge(reply_of(self.status, self.body, verb=self.verb, sent=self.sent, sse=self.sse))


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=f"{case.server} {case.verb} {case.status}") for case in cases]


JAVA_EXCEPTION = (
    '{"cause":null,"stackTrace":[{"className":"io.modelcontextprotocol.Server","lineNumber":231}],'
    '"jsonRpcError":{"code":-32603,"message":"Session not found: 7b2f"},"suppressed":[]}'
)

UNKNOWN_ID = [
    Case("python <= 1.25", 400, "Bad Request: No valid session ID provided"),
    Case("python <= 1.25 after DELETE", 404, rpc_error(-32600, "Not Found: Session has been terminated")),
    Case("python 1.26 to 1.30", 404, rpc_error(-32600, "Session not found", identifier='"server-error"')),
    Case("fastmcp 2/3", 404, rpc_error(-32600, "Session not found", identifier='"server-error"')),
    Case("python 2.x, fastmcp 4", 404, rpc_error(-32600, "Session not found")),
    Case("TypeScript transport", 404, rpc_error(-32001, "Session not found")),
    Case(
        "TypeScript app pattern, server-everything",
        400,
        rpc_error(-32000, "Bad Request: No valid session ID provided", identifier=None),
    ),
    Case("FastMCP-TS, npm mcp-proxy", 404, rpc_error(-32001, "Session not found")),
    Case("FastMCP-TS with auth", 401, rpc_error(-32000, "Unauthorized: No valid session ID provided")),
    Case("supergateway", 404, rpc_error(-32001, "Session not found")),
    Case("Playwright MCP", 404, "Session not found"),
    Case("go-sdk", 404, "session not found\n"),
    Case("go-sdk while it closes", 404, "session is closing\n"),
    Case("mcp-go", 404, "Invalid session ID\n"),
    Case("mcp-go terminated", 404, "Session terminated\n"),
    Case("mcp-go, old", 400, "Invalid session ID\n"),
    Case("mcp-go terminated, old", 400, "Session terminated\n"),
    Case("rmcp >= 0.17", 404, "Not Found: Session not found"),
    Case("rmcp expects initialize", 422, "Unexpected message, expect initialize request"),
    Case("rmcp <= 0.16", 401, "Unauthorized: Session not found"),
    Case("Java, Spring", 404, JAVA_EXCEPTION),
    Case("C#", 404, rpc_error(-32001, "Session not found", identifier='""')),
    Case("php-sdk", 404, rpc_error(-32600, "Session not found or has expired.", identifier='""')),
    Case(
        "php-mcp",
        404,
        rpc_error(-32600, "Invalid or expired session. Please re-initialize the session."),
    ),
    Case("Ruby", 404, '{"error":"Session not found"}'),
    Case("Kotlin", 404, rpc_error(-32001, "Session not found")),
    Case("Swift", 404, rpc_error(-32600, "Not Found: Invalid or expired session ID")),
    Case("Swift after DELETE", 404, rpc_error(-32600, "Not Found: Session has been terminated")),
    Case("Swift restarted", 400, rpc_error(-32600, "Bad Request: Session not initialized")),
    Case("Cloudflare", 404, rpc_error(-32001, "Session not found")),
    Case(
        "in the wild: send initialize first",
        400,
        "Bad Request: No valid session. Send an initialize request first.",
    ),
    Case("in the wild: unknown session", 400, rpc_error(-32001, "Unknown session")),
    Case("python over HTTP+SSE", 404, "Could not find session"),
    Case("TypeScript over HTTP+SSE", 400, "No transport found for sessionId"),
    Case("in the wild: SSE", 400, rpc_error(-32000, "Server not initialized"), sse=True),
    Case("in the wild: gateway", 404, '{"error":"Not Found","message":"MCP session not found"}'),
    Case("in the wild: 200 JSON-RPC", 200, rpc_error(-32600, "missing or invalid Mcp-Session-Id"), SUSPECT),
    Case("in the wild: 200 SSE", 200, '{"error":"Session not found"}', SUSPECT, sse=True),
    Case("in the wild: 200 JSON", 200, '{"error":"Session not found"}', SUSPECT),
    Case("in the wild: 503", 503, "Session unavailable", SUSPECT),
    Case("in the wild: 410", 410, "Session not found", GONE),
    Case("in the wild: 410", 410, '{"error":"Gone","message":"MCP session expired"}', GONE),
    Case("in the wild: 404", 404, "No such session", GONE),
    Case("in the wild: 404", 404, rpc_error(-32001, "The session does not exist."), GONE),
]

MISSING_ID = [
    Case("python <= 1.25", 400, rpc_error(-32600, "Bad Request: Missing session ID")),
    Case("python 1.26 to 1.30", 400, rpc_error(-32600, "Bad Request: Missing session ID")),
    Case("python 2.x, fastmcp 4", 400, rpc_error(-32600, "Bad Request: Missing session ID")),
    Case("TypeScript transport", 400, rpc_error(-32000, "Bad Request: Mcp-Session-Id header is required")),
    Case("TypeScript transport, fresh", 400, rpc_error(-32000, "Bad Request: Server not initialized")),
    Case("TypeScript app pattern", 400, rpc_error(-32000, "Bad Request: Server not initialized")),
    Case("FastMCP-TS", 400, rpc_error(-32000, "Bad Request: No valid session ID provided")),
    Case("FastMCP-TS with auth", 401, rpc_error(-32000, "Unauthorized: No valid session ID provided")),
    Case("supergateway", 400, rpc_error(-32000, "Bad Request: No valid session ID provided")),
    Case("Playwright MCP", 400, rpc_error(-32000, "Bad Request: Server not initialized")),
    Case(
        "go-sdk",
        200,
        rpc_error(0, r"method \"tools/list\" is invalid during session initialization"),
        SUSPECT,
        sse=True,
    ),
    Case("mcp-go", 404, "Invalid session ID\n"),
    Case("rmcp >= 0.17", 422, "Unexpected message, expect initialize request"),
    Case("rmcp >= 0.17 bare", 400, "Bad Request: Session ID is required"),
    Case("rmcp <= 0.16", 401, "Unauthorized: Session not found"),
    Case("rmcp <= 0.16 expects initialize", 422, "Unexpected message, expect initialize request"),
    Case("Java", 400, '{"message":"Session ID required in mcp-session-id header"}'),
    Case("Spring", 400, '{"message":"Session ID missing"}'),
    Case(
        "C#",
        400,
        rpc_error(-32000, "Bad Request: A new session can only be created by an initialize request"),
    ),
    Case(
        "php-sdk",
        400,
        rpc_error(-32600, "A valid session id is REQUIRED for non-initialize requests."),
        SUSPECT,
    ),
    Case("php-mcp", 400, rpc_error(-32600, "Mcp-Session-Id header required for POST requests.")),
    Case("Ruby", 400, '{"error":"Missing session ID"}'),
    Case("Kotlin", 400, rpc_error(-32000, "Bad Request: No valid session ID provided")),
    Case("Swift", 400, rpc_error(-32600, "Bad Request: Missing Mcp-Session-Id header")),
    Case("Cloudflare", 400, rpc_error(-32000, "Bad Request: Mcp-Session-Id header is required")),
]

NEVER_LOSS = [
    Case("bad GET", 400, "Bad Request: Missing session ID", ALIVE, verb="GET"),
    Case(
        "second GET",
        409,
        rpc_error(-32000, "Conflict: Only one SSE stream is allowed per session"),
        ALIVE,
        verb="GET",
    ),
    Case("C# second GET", 400, "Bad Request: session already has a GET stream", ALIVE, verb="GET"),
    Case("go-sdk other user", 403, "session user mismatch", ALIVE),
    Case("C# other user", 403, rpc_error(-32001, "Session not found"), ALIVE),
    Case("403 on GET", 403, "Forbidden: session", ALIVE, verb="GET"),
    Case(
        "version", 400, rpc_error(-32000, "Bad Request: Unsupported protocol version: 1.0 (session)"), ALIVE
    ),
    Case("duplicate id", 400, rpc_error(-32600, "duplicate in-flight request ID in this session"), ALIVE),
    Case(
        "TypeScript second initialize",
        400,
        rpc_error(-32600, "Invalid Request: Server already initialized"),
        ALIVE,
    ),
    Case("python overload", 503, "Too many open sessions", ALIVE),
    Case(
        "Swift second initialize", 400, rpc_error(-32600, "Bad Request: Session already initialized"), ALIVE
    ),
    Case("Ruby overload", 503, "Service unavailable: maximum concurrent sessions (9) reached", ALIVE),
    Case("login", 403, "Session expired, please log in again", ALIVE),
    Case("login, JSON", 403, '{"error":"session expired","hint":"get a new token"}', ALIVE),
    Case("forbidden words", 403, "You may not use this session", ALIVE),
    Case("quoted", 403, "Rule 7: no such session for anybody", ALIVE),
    Case("token", 401, "Unauthorized", ALIVE),
    Case(
        "token, JSON", 401, '{"error":"invalid_token","error_description":"Authentication required"}', ALIVE
    ),
    Case("method", 404, rpc_error(-32601, "Method not found"), ALIVE),
    Case("bad params", 400, rpc_error(-32602, "Invalid params"), ALIVE),
    Case("overload", 503, "Service Unavailable", ALIVE),
    Case("crash", 500, "Internal Server Error: session not found", ALIVE),
    Case("crash", 500, "Session expired", ALIVE),
    Case("gateway", 502, "The session was terminated", ALIVE),
    Case("gateway", 504, "Session lost", ALIVE),
    Case("crash", 500, "The session no longer exists", ALIVE),
    Case("login", 419, "Session expired, please log in again", ALIVE),
    Case("GET", 500, "Session not found", ALIVE, verb="GET"),
    Case("redirect", 302, "Session not found", ALIVE),
    Case("rate limit", 429, "Too many requests in this session", ALIVE),
    Case("no GET", 405, "Session not found", ALIVE, verb="GET"),
    Case("accepted", 202, "", ALIVE),
    Case("C# DELETE of an unknown id", 200, "", ALIVE, verb="DELETE"),
]

SUSPICIONS = [
    Case("bare", 404, "", SUSPECT),
    Case("router", 404, "<html>Not Found</html>", SUSPECT),
    Case("other code", 404, rpc_error(-32602, "Invalid params"), SUSPECT),
    Case("unknown words", 400, "The SESSION went away", SUSPECT),
    Case("unknown words", 401, "your session has ended, log in again", SUSPECT),
    Case("unknown words", 422, "please initialize first", SUSPECT),
    Case("unknown words", 503, "backend of the session is gone", SUSPECT),
    Case("gone", 410, "", SUSPECT),
    Case("gone", 410, "<html>Gone</html>", SUSPECT),
    Case("gateway", 403, "No such session", SUSPECT),
    Case("gateway", 403, "Forbidden: session expired", SUSPECT),
    Case("gateway", 403, rpc_error(-32000, "Unknown session"), SUSPECT),
    Case("gateway", 403, '{"error":"Session 1f2e-33 does not exist"}', SUSPECT),
    Case("gateway", 503, "Service Unavailable: session expired", SUSPECT),
    Case("gateway", 503, "The session no longer exists", SUSPECT),
    Case("gateway", 503, "Invalid session ID", SUSPECT),
    Case("gateway", 503, "Could not find session 12ab", SUSPECT),
    Case("gateway", 403, "Your session has been closed", SUSPECT),
    Case("gateway", 403, '{"message":"The session is no longer valid"}', SUSPECT),
    Case("gateway", 503, "session 12ab-34 not found", SUSPECT),
    Case("crash", 500, "Session not found", SUSPECT),
    Case("crash", 500, '{"status":500,"message":"Session not found: 7b2f"}', SUSPECT),
    Case("crash", 500, rpc_error(-32603, "Unknown session"), SUSPECT),
    Case("gateway", 502, "No such session", SUSPECT),
    Case("conflict", 409, rpc_error(-32000, "Session does not exist"), SUSPECT),
    Case("precondition", 412, "The session no longer exists", SUSPECT),
    Case("delivery network", 530, "This session does not exist", SUSPECT),
    Case("IIS", 440, "Session expired", SUSPECT),
    Case("a tool's own error", 200, rpc_error(-32603, "Session not found"), SUSPECT),
    Case("Playwright", 404, "Session not found", SUSPECT, verb="GET"),
    Case("supergateway, html", 404, "<pre>Session not found</pre>", SUSPECT, verb="DELETE"),
    Case("Java, Spring, bare", 404, "", SUSPECT, verb="DELETE"),
    Case("rmcp <= 0.16", 401, "Unauthorized: Session not found", SUSPECT, verb="GET"),
]

QUOTATIONS = [
    Case(
        "python validation error",
        400,
        rpc_error(-32602, r"Validation error: input_value={'q': \"Session not found\"}"),
        SUSPECT,
    ),
    Case("quoted twice", 400, r'{"detail":"bad value \"Session not found\""}', SUSPECT),
    Case("in prose", 400, "The tool says: Session not found", SUSPECT),
]


@pytest.mark.parametrize("case", named(UNKNOWN_ID))
def test_answer_to_an_unknown_id(case: Case) -> None:
    """Each server's answer to an id that it does not know is recognised."""
    assert case.judge() is case.expected


@pytest.mark.parametrize("case", named(MISSING_ID))
def test_answer_to_a_missing_id(case: Case) -> None:
    """Each server's demand for an id, where it had issued none, is recognised."""
    without_id = Evidence(
        verb=case.verb,
        status=case.status,
        body=case.body.encode(),
        error=reply_of(case.status, case.body).error,
        sent_session_id=False,
    )
    assert judge(without_id) is case.expected


@pytest.mark.parametrize("case", named(NEVER_LOSS))
def test_never_loss(case: Case) -> None:
    """What merely sounds like a lost session never costs one."""
    assert case.judge() is ALIVE


@pytest.mark.parametrize("case", named(SUSPICIONS))
def test_suspicion(case: Case) -> None:
    """What may be a lost session asks for a ping."""
    assert case.judge() is SUSPECT


@pytest.mark.parametrize("case", named(QUOTATIONS))
def test_quoted_words_are_not_certain(case: Case) -> None:
    """A dialect's words count only where the server itself says them, not inside a quotation."""
    assert case.judge() is SUSPECT


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
@pytest.mark.parametrize("case", named(UNKNOWN_ID))
def test_only_a_post_is_certain(case: Case, verb: str) -> None:
    """The same words on GET or DELETE are never believed at once."""
    assert judge(reply_of(case.status, case.body, verb=verb)) is not GONE


def test_not_found_without_an_id_is_about_something_else() -> None:
    """A bare 404 means no session when the server never issued an id."""
    assert judge(reply_of(404, "Not Found", sent=False)) is ALIVE


def test_a_long_body_is_read_to_a_limit() -> None:
    """Words beyond the first 64 KiB are not looked for."""
    assert judge(reply_of(400, " " * 70_000 + "session")) is ALIVE


def test_a_body_that_is_not_utf8() -> None:
    """A body in no known encoding is judged by what can be read."""
    latin = Evidence(
        verb="POST", status=404, body=b"Session not found \xe9\xff", error=None, sent_session_id=True
    )
    assert judge(latin) is GONE


@pytest.mark.parametrize(
    ("status", "body", "confirmed"),
    [
        (404, "", True),
        (404, rpc_error(-32601, "Method not found"), False),
        (400, "Bad Request: No valid session ID provided", True),
        (200, rpc_error(-32600, "missing or invalid Mcp-Session-Id"), True),
        (200, '{"jsonrpc":"2.0","id":1,"result":{}}', False),
        (401, "your session has ended, log in again", False),
        (401, "Unauthorized: Session not found", True),
        (503, "no backend for this session", False),
        (503, "No such session", True),
        (503, "Session not found", True),
        (503, "Invalid session", True),
        (503, "Session timed out", True),
        (403, rpc_error(-32001, "Session not found"), False),
        (503, rpc_error(-32000, "Session has expired"), True),
        (403, "no such session", True),
        (403, "Forbidden", False),
        (403, "session user mismatch", False),
        (403, "Session expired. Log in first.", False),
        (410, "", True),
        (410, rpc_error(-32601, "Method not found"), False),
        (500, "", False),
        (500, "Session not found", True),
        (500, "Session expired", False),
        (409, "Session not found", True),
        (409, "Conflict", False),
    ],
)
def test_ping_confirms(status: int, body: str, confirmed: bool) -> None:
    """The reply to the ping settles a suspicion; refused credentials and overload do not."""
    assert confirms_loss(reply_of(status, body)) is confirmed


replies = st.builds(
    Evidence,
    verb=st.sampled_from(["POST", "GET", "DELETE"]),
    status=st.integers(100, 599),
    body=st.binary(max_size=200),
    error=st.none() | st.builds(ErrorObject, code=st.integers(), message=st.text(max_size=100)),
    sent_session_id=st.booleans(),
)


@given(replies)
@pytest.mark.slow
def test_judges_anything(reply: Evidence) -> None:
    """Whatever a server answers, the judgement is a verdict, not an exception."""
    assert judge(reply) in Verdict


@given(
    message=st.text().filter(lambda text: "session" not in text.lower() and "initialize" not in text.lower())
)
def test_tool_errors_are_not_losses(message: str) -> None:
    """A tool's error that does not use the words costs not even a ping."""
    error = ErrorObject(code=-32603, message=message)
    assert judge(Evidence(verb="POST", status=200, body=b"", error=error, sent_session_id=True)) is ALIVE


@given(replies)
def test_success_is_never_certain(reply: Evidence) -> None:
    """A 200 is never believed at once, because the words may be a tool's own."""
    success = Evidence(verb="POST", status=200, body=reply.body, error=reply.error, sent_session_id=True)
    assert judge(success) is not GONE
