from typing import Any

import pytest
from check_samples import (
    HEX,
    STREAM,
    UUID,
    answered,
    deleted_then,
    hello,
    proxied,
    refused,
    stateful,
    stateless,
    text,
    with_plays,
)

from mcp_session_proxy.check.families import FAMILIES, describe_id, find_family
from mcp_session_proxy.check.observations import Streams

NO_VALID = "Bad Request: No valid session ID provided"
NOT_INITIALIZED = "Bad Request: Server not initialized"
TS_PARSE = refused(400, "Parse error: Invalid JSON-RPC message", -32700)
TS_GONE = refused(404, "Session not found", -32001)
PYTHON_VALIDATION = "Validation error: 11 validation errors for union[JSONRPCRequest,JSONRPCNotification]"

# The answers of each server: an unknown id, no id, a GET without id, what is no message; and its ids.
WORDS = {
    "python-sdk-1": {},
    "python-sdk-1.25": {"unknown": text(400, NO_VALID)},
    "python-sdk-2": {
        "unknown": refused(404, "Session not found", -32600),
        "missing": refused(400, "Bad Request: Missing session ID", -32600),
        "nonsense": refused(400, PYTHON_VALIDATION, -32602),
    },
    "fastmcp": {"listed": answered({"tools": [{"name": "echo", "_meta": {"fastmcp": {"tags": []}}}]})},
    "typescript-sdk": {
        "hello": hello(UUID),
        "unknown": TS_GONE,
        "missing": refused(400, "Bad Request: Mcp-Session-Id header is required", -32000),
        "nonsense": TS_PARSE,
    },
    "typescript-example": {
        "hello": hello(UUID),
        "unknown": refused(400, NO_VALID, -32000),
        "missing": refused(400, NOT_INITIALIZED, -32000),
        "bare_get": refused(400, NO_VALID, -32000),
        "nonsense": TS_PARSE,
    },
    "fastmcp-typescript": {
        "hello": hello(UUID),
        "unknown": TS_GONE,
        "missing": refused(400, NO_VALID, -32000),
        "bare_get": text(400, "No sessionId"),
        "nonsense": refused(400, NO_VALID, -32000),
    },
    "supergateway": {
        "hello": hello(UUID),
        "unknown": TS_GONE,
        "missing": refused(400, NO_VALID, -32000),
        "bare_get": text(400, "Invalid or missing session ID", "text/html"),
        "nonsense": refused(400, "Bad Request: the request body is not a valid JSON-RPC message", -32600),
    },
    "playwright": {
        "hello": hello(UUID, "Playwright"),
        "unknown": text(404, "Session not found"),
        "missing": refused(400, NOT_INITIALIZED, -32000),
        "bare_get": text(400, "Invalid request"),
        "nonsense": TS_PARSE,
    },
    "go-sdk": {
        "hello": hello("RSLNS2YDY5QKJWBT2NPMFWIU5V"),
        "unknown": text(404, "session not found\n", "text/plain"),
        "missing": refused(200, 'method "tools/list" is invalid during session initialization', 0),
        "bare_get": text(400, "Bad Request: GET requires an Mcp-Session-Id header\n", "text/plain"),
        "nonsense": text(400, 'malformed payload: invalid message version tag ""', "text/plain"),
    },
    "mcp-go": {
        "hello": hello(f"mcp-session-{UUID}"),
        "unknown": text(404, "Invalid session ID", "text/plain"),
        "missing": text(404, "Invalid session ID", "text/plain"),
    },
    "rust-sdk": {
        "hello": hello(UUID),
        "unknown": text(404, "Not Found: Session not found"),
        "missing": text(422, "Unexpected message, expect initialize request"),
    },
    "rust-sdk-0.16": {
        "hello": hello(UUID),
        "unknown": text(401, "Unauthorized: Session not found"),
        "missing": text(422, "Unexpected message, expect initialize request"),
    },
    "java-sdk": {
        "hello": hello(UUID),
        "unknown": text(404, f'{{"message":"Session not found: {UUID}"}}', "application/json"),
        "missing": text(
            400, '{"message":"Session ID required in mcp-session-id header"}', "application/json"
        ),
    },
    "csharp-sdk": {
        "hello": hello("xOC4nZT3hUu6lh4L6Q8rUg"),
        "unknown": TS_GONE,
        "missing": refused(400, "A new session can only be created by an initialize request", -32000),
    },
    "php-sdk": {"unknown": refused(404, "Session not found or has expired.", -32600)},
    "php-mcp": {
        "unknown": refused(404, "Invalid or expired session. Please re-initialize the session.", -32600)
    },
}


def server(key):
    """The observations of a server of this family; what it is not known to say is left neutral."""
    neutral = {} if key.startswith(("python-sdk-1", "fastmcp")) and key != "fastmcp-typescript" else NEUTRAL
    return stateful(**{**neutral, **WORDS[key]})


SILENT = text(400, "no")
NEUTRAL: dict[str, Any] = {
    "missing": SILENT,
    "bare_get": SILENT,
    "nonsense": SILENT,
    "discover": SILENT,
    "streams": None,
    "plays": {},
}


def test_every_family_is_tested():
    """There is a sample of each."""
    assert {family.key for family in FAMILIES} == set(WORDS)


@pytest.mark.parametrize("key", WORDS)
def test_servers_are_told_by_their_words(key):
    """Each family's own words name it, and it is sure."""
    kinship = find_family(server(key))
    assert kinship is not None
    assert kinship.family.key == key
    assert kinship.is_sure
    assert kinship.seen


def test_one_shared_sign_is_not_enough_to_be_sure():
    """A server without sessions of the Python SDK shows the form of its errors only."""
    kinship = find_family(stateless())
    assert kinship is not None
    assert kinship.family.key.startswith("python-sdk-1")
    assert not kinship.is_sure


def test_a_server_like_no_other_has_no_family():
    """Without any sign nothing is claimed."""
    seen = stateful(**NEUTRAL, unknown=text(410, "gone fishing"))
    assert find_family(seen) is None


def test_a_deleted_session_counts_too():
    """Old Python servers answer a deleted id in their own way, even if a gateway rewrites the other."""
    terminated = refused(404, "Not Found: Session has been terminated", -32600, '"server-error"')
    seen = stateful(unknown=text(410, "no"))
    seen = with_plays(seen, openai=(deleted_then(terminated),))
    kinship = find_family(seen)
    assert kinship is not None
    assert kinship.family.key == "python-sdk-1.25"


def test_this_proxy_is_recognised():
    """By errors that name it as their source, whatever server is behind it."""
    kinship = find_family(proxied())
    assert kinship is not None
    assert kinship.family.key == "mcp-session-proxy"


def test_a_second_stream_that_replaces_is_no_sign():
    """An accepted second GET says nothing about the TypeScript SDK."""
    streams = Streams(first=STREAM, second=STREAM, first_ended=True)
    assert find_family(stateful(**{**NEUTRAL, "streams": streams}, unknown=text(410, "no"))) is None


@pytest.mark.parametrize(
    ("session_id", "shown"),
    [
        (None, "none issued"),
        (UUID, "issued (UUIDs)"),
        (HEX, "issued (32 hexadecimal digits)"),
        ("RSLNS2YDY5QKJWBT2NPMFWIU5V", "issued (26 characters)"),
    ],
)
def test_an_id_is_described_and_not_shown(session_id, shown):
    """Its form says enough; with the id itself somebody could use the session."""
    assert describe_id(session_id) == shown
