"""Whose server it is, told by how it refuses, and what is known of such servers. Pure.

Servers do not name their SDK. But each has words of its own for a session that it does not know, for a
request without one, for a stream out of nowhere, and its own form of session ids. A sign that only one
family has weighs two, a shared one weighs one.
"""

import re
from dataclasses import dataclass
from typing import Final

from ..protocol import jsonrpc
from ..protocol.lifting import read_server_facts
from .observations import Client, Observations, ServerAnswer
from .text import clean

_SURE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What such servers do that cannot be seen within seconds."""

    idle_expiry: str
    max_sessions: str = "not known"


@dataclass(frozen=True, slots=True)
class Sign:
    """A pattern in one kind of evidence, and its weight."""

    where: str
    pattern: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFamily:
    """Servers made with one SDK or framework. ``name`` is for people, ``key`` for programs.

    ``rough_name`` is for where the signs do not tell its versions apart.
    """

    key: str
    name: str
    rough_name: str | None = None
    signs: tuple[Sign, ...]
    known: Known | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinship:
    """The family that fits best. ``is_sure`` after a sign of its own, or several; ``seen`` says where."""

    family: ServerFamily
    is_sure: bool
    seen: tuple[str, ...]

    @property
    def known(self) -> Known | None:
        """What can be said of this server because of its family, as far as that is certain."""
        return self.family.known if self.is_sure else None

    def __str__(self) -> str:
        """Its name, and how sure that is."""
        return self.family.name if self.is_sure else f"perhaps {self.family.rough_name or self.family.name}"


_PYTHON: Final = Known(
    idle_expiry="30 min from 1.30 on, held off by an open stream or call; none before",
    max_sessions="10000 from 1.30 on",
)
_TYPESCRIPT: Final = Known(idle_expiry="none by the SDK itself", max_sessions="no limit by the SDK itself")

# Each text is what ``_describe`` makes of an answer: status, type, JSON-RPC id, code and words.
FAMILIES: Final = (
    ServerFamily(
        key="python-sdk-1",
        name="Python SDK (mcp) 1.26 or later",
        rough_name="Python SDK (mcp) 1",
        known=_PYTHON,
        signs=(
            Sign("unknown", r"^404 application/json \"server-error\" -32600 Session not found", 2),
            Sign("any", r" \"server-error\" "),
        ),
    ),
    ServerFamily(
        key="python-sdk-1.25",
        name="Python SDK (mcp) up to 1.25",
        rough_name="Python SDK (mcp) 1",
        known=Known(idle_expiry="none", max_sessions="no limit"),
        signs=(
            Sign("unknown", r"^400 - - - Bad Request: No valid session ID provided", 2),
            Sign(
                "deleted", r"^404 application/json \"server-error\" -32600 Not Found: Session has been term"
            ),
            Sign("any", r" \"server-error\" "),
        ),
    ),
    ServerFamily(
        key="python-sdk-2",
        name="Python SDK (mcp) 2",
        known=Known(
            idle_expiry="30 min from 2.2 on, held off by an open stream or call",
            max_sessions="10000 from 2.2 on, then 503",
        ),
        signs=(
            Sign("unknown", r"^404 application/json null -32600 Session not found$"),
            Sign("missing", r"^400 application/json null -32600 Bad Request: Missing session ID"),
            Sign("nonsense", r"^400 application/json null -32602 Validation error: .*JSONRPCRequest,", 2),
        ),
    ),
    ServerFamily(
        key="fastmcp",
        name="fastmcp (Python), on the Python SDK",
        known=Known(
            idle_expiry="30 min with the Python SDK from 1.30 or 2.2 on, held off by an open stream or call; "
            "none before",
            max_sessions="10000 with the Python SDK from 1.30 or 2.2 on",
        ),
        signs=(Sign("listed", r"\"_?fastmcp\"\s*:\s*\{", 5),),
    ),
    ServerFamily(
        key="typescript-sdk",
        name="TypeScript SDK",
        known=_TYPESCRIPT,
        signs=(
            Sign("nonsense", r"^400 application/json null -32700 Parse error: Invalid JSON-RPC message"),
            Sign("unknown", r"^404 application/json null -32001 Session not found"),
            Sign("missing", r"^400 application/json null -32000 Bad Request: (Mcp-Session|Server not init)"),
            Sign("second", r"^409 application/json null -32000 Conflict: Only one SSE stream"),
        ),
    ),
    ServerFamily(
        key="typescript-example",
        name="TypeScript SDK, after its example server",
        known=_TYPESCRIPT,
        signs=(
            Sign("nonsense", r"^400 application/json null -32700 Parse error: Invalid JSON-RPC message"),
            Sign("unknown", r"^400 application/json null -32000 Bad Request: No valid session ID", 2),
            Sign("bare_get", r"Invalid or missing session ID|No valid session ID provided"),
            Sign("second", r"^409 application/json null -32000 Conflict: Only one SSE stream"),
        ),
    ),
    ServerFamily(
        key="fastmcp-typescript",
        name="FastMCP or mcp-proxy (TypeScript)",
        known=Known(idle_expiry="30 min in recent versions, held off by an open stream"),
        signs=(
            Sign("bare_get", r"^400 \S+ - - No sessionId", 2),
            Sign("unknown", r"^404 application/json null -32001 Session not found"),
            Sign("missing", r"^40[01] application/json null -32000 .*No valid session ID provided"),
            Sign("discover", r"server_missing_modern|FastMCP|mcp-proxy"),
        ),
    ),
    ServerFamily(
        key="supergateway",
        name="supergateway 4 (a stdio server as HTTP)",  # 3 answers as the TypeScript SDK's example does
        known=Known(idle_expiry="30 min (--sessionTimeout), held off by an open stream or call"),
        signs=(
            Sign("bare_get", r"Invalid or missing session ID"),
            Sign("unknown", r"^404 application/json null -32001 Session not found"),
            Sign("missing", r"^400 application/json null -32000 .*No valid session ID provided"),
        ),
    ),
    ServerFamily(
        key="playwright",
        name="Playwright MCP",
        known=Known(idle_expiry="none; but a stream whose pings go unanswered ends the session within 5 s"),
        signs=(Sign("name", r"^Playwright$", 5),),
    ),
    ServerFamily(
        key="go-sdk",
        name="Go SDK (modelcontextprotocol/go-sdk)",
        known=Known(idle_expiry="off by default; where it is on, an open stream does not hold it off"),
        signs=(
            Sign("nonsense", r"^400 text/plain - - malformed payload: invalid message version tag", 2),
            Sign("missing", r"is invalid during session initialization", 2),
            Sign("bare_get", r"GET requires an Mcp-Session-Id header", 2),
            Sign("unknown", r"^404 text/plain - - session not found$"),
        ),
    ),
    ServerFamily(
        key="mcp-go",
        name="mcp-go (mark3labs)",
        signs=(
            Sign("unknown", r"^40[04] \S+ \S+ \S+ (Invalid session ID|Session terminated)", 2),
            Sign("missing", r"^404 \S+ \S+ \S+ Invalid session ID", 2),
            Sign("id", r"^mcp-session-", 2),
        ),
    ),
    ServerFamily(
        key="rust-sdk",
        name="Rust SDK (rmcp) 0.17 or later",
        known=Known(idle_expiry="5 min without messages; an open stream does not hold it off"),
        signs=(
            Sign("unknown", r"^404 \S+ - - Not Found: Session not found", 2),
            Sign("missing", r"expect initialize request"),
        ),
    ),
    ServerFamily(
        key="rust-sdk-0.16",
        name="Rust SDK (rmcp) up to 0.16",
        known=Known(idle_expiry="5 min without messages; an open stream does not hold it off"),
        signs=(
            Sign("unknown", r"^401 \S+ - - Unauthorized: Session not found", 2),
            Sign("missing", r"expect initialize request"),
        ),
    ),
    ServerFamily(
        key="java-sdk",
        name="Java SDK or Spring AI",
        known=Known(idle_expiry="off", max_sessions="no limit"),
        signs=(
            Sign("missing", r"Session ID (required in mcp-session-id header|missing)", 2),
            Sign("unknown", r"^404 .*Session not found: "),
        ),
    ),
    ServerFamily(
        key="csharp-sdk",
        name="C# SDK",
        known=Known(idle_expiry="2 h", max_sessions="10000 idle ones"),
        signs=(Sign("missing", r"A new session can only be created by an initialize request", 2),),
    ),
    ServerFamily(
        key="php-sdk",
        name="PHP SDK",
        known=Known(idle_expiry="1 h"),
        signs=(Sign("unknown", r"-32600 Session not found or has expired", 2),),
    ),
    ServerFamily(
        key="php-mcp",
        name="php-mcp",
        signs=(Sign("unknown", r"^404 .*Invalid or expired session\. Please re-initialize", 2),),
    ),
)

_THIS_PROXY: Final = ServerFamily(key="mcp-session-proxy", name="mcp-session-proxy, in front of it", signs=())


def find_family(seen: Observations) -> Kinship | None:
    """The family with the most signs, if any; of equals, the one that comes first."""
    if seen.is_proxied:
        return Kinship(family=_THIS_PROXY, is_sure=True, seen=("errors of its own",))
    evidence = _collect(seen)
    found = [
        (sum(sign.weight for sign in signs), -order, family, signs)
        for order, family in enumerate(FAMILIES)
        if (signs := [sign for sign in family.signs if _matches(sign, evidence)])
    ]
    if not found:
        return None
    score, _, family, signs = max(found)
    places = dict.fromkeys(sign.where for sign in signs)
    return Kinship(family=family, is_sure=score >= _SURE, seen=tuple(_PLACES[place] for place in places))


_PLACES: Final = {
    "unknown": "its answer to an unknown session id",
    "deleted": "its answer to a deleted session id",
    "missing": "its answer to a missing session id",
    "bare_get": "its answer to a GET without a session id",
    "second": "its answer to a second GET",
    "discover": "its answer to server/discover",
    "nonsense": "its answer to what is no message",
    "any": "the form of its errors",
    "id": "the form of its session ids",
    "name": "its name",
    "listed": "its lists",
}


def _matches(sign: Sign, evidence: dict[str, list[str]]) -> bool:
    return any(re.search(sign.pattern, text) for text in evidence.get(sign.where, ()))


def _collect(seen: Observations) -> dict[str, list[str]]:
    """The evidence, by where it comes from."""
    streams = seen.streams
    deleted = [play.steps[-1].answer for play in seen.plays.get(Client.OPENAI, ())]
    answers = {
        "unknown": [seen.unknown],
        "missing": [seen.missing],
        "bare_get": [seen.bare_get],
        "discover": [seen.discover],
        "nonsense": [seen.nonsense],
        "deleted": deleted,
        "second": [streams.second] if streams is not None and streams.second is not None else [],
    }
    evidence = {where: [_describe(answer) for answer in some] for where, some in answers.items()}
    evidence["any"] = [text for texts in evidence.values() for text in texts]
    evidence["id"] = [seen.hello.session_id] if seen.hello.session_id is not None else []
    info = jsonrpc.read_object(read_server_facts(seen.hello.result or b"").info)
    evidence["name"] = [jsonrpc.read_string(info.get("name")) or ""]
    if seen.listed is not None and seen.listed.result is not None:
        evidence["listed"] = [seen.listed.result.decode("utf-8", "replace")]
    return evidence


def _describe(answer: ServerAnswer) -> str:
    """Status, content type, JSON-RPC id, code and words, with a dash for what is not there."""
    code = "-" if answer.error is None else str(answer.error.code)
    identifier = "-" if answer.error_id is None else answer.error_id.decode("utf-8", "replace")
    words = answer.error.message if answer.error is not None else answer.body.decode("utf-8", "replace")
    return f"{answer.status} {answer.content_type or '-'} {identifier} {code} {clean(words, 4000)}"


def describe_id(session_id: str | None) -> str:
    """The form of a session id, without the id."""
    if session_id is None:
        return "none issued"
    if re.fullmatch(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", session_id, re.IGNORECASE):
        return "issued (UUIDs)"
    if re.fullmatch(r"[0-9a-f]+", session_id):
        return f"issued ({len(session_id)} hexadecimal digits)"
    return f"issued ({len(session_id)} characters)"
