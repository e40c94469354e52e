"""A client's request, judged: what it can take, which era it speaks, and the front-door checks."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.errors import (
    HeaderMismatch,
    InvalidParams,
    MethodGone,
    ProxyError,
    UnsupportedVersion,
)
from mcp_session_proxy.protocol import jsonrpc, revisions
from mcp_session_proxy.protocol.inbound import (
    ModernRequest,
    era_of,
    is_modern_version,
    read_accept,
    read_modern,
)
from mcp_session_proxy.protocol.jsonrpc import Request
from mcp_session_proxy.protocol.revisions import Era

MODERN = revisions.FIRST_MODERN
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
LOG_KEY = "io.modelcontextprotocol/logLevel"

# -- Accept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "json_", "stream"),
    [
        (["application/json, text/event-stream"], True, True),
        (["text/event-stream, application/json"], True, True),
        (["application/json", "text/event-stream"], True, True),
        (["APPLICATION/JSON;charset=utf-8 , Text/Event-Stream;q=0.5"], True, True),
        (["text/event-stream, */*"], True, True),
        (["text/event-stream, application/*"], True, True),
        (["text/event-stream"], False, True),
        (["text/event-stream, text/plain"], False, True),
        (["application/json"], True, False),
        (["*/*"], True, False),
        (["text/*"], True, False),
        (["text/html"], True, False),
        ([""], True, False),
        ([", ,"], True, False),
        ([], True, False),
    ],
)
def test_what_a_client_takes(values: list[str], json_: bool, stream: bool) -> None:
    """Only those that name event streams get one; everyone else gets JSON, whatever they say."""
    assert read_accept(values)[:2] == (json_, stream)


@pytest.mark.parametrize(
    ("text", "prefers"),
    [
        ("application/json, text/event-stream", True),
        ("application/json,text/event-stream", True),
        ("text/event-stream, application/json", False),
        ("text/event-stream;q=0.5, application/json", True),
        ("application/json;q=0.8, text/event-stream", False),
        ("application/json;q=0.8, text/event-stream;q=0.8", True),
        ("text/event-stream; q=0.8, application/json ; Q=0.9", True),
        ("application/json; charset=utf-8; q=0.1, text/event-stream; q=0.2", False),
        ("*/*, text/event-stream", True),
        ("text/event-stream, */*", False),
        ("*/*;q=0.1, text/event-stream", False),
        ("application/json;q=x, text/event-stream;q=1.0", True),
        ("application/json;q=9, text/event-stream;q=0.9", True),
        ("application/json;q=-1, text/event-stream;q=0.9", True),
        ("text/event-stream", False),
        ("application/json", True),
        ("", True),
    ],
)
def test_what_a_client_prefers(text: str, prefers: bool) -> None:
    """What it gives the higher quality, or names first with the same; nonsense counts as 1."""
    assert read_accept([text]).prefers_json is prefers
    assert read_accept(text.split(",")).prefers_json is prefers


@pytest.mark.parametrize("quality", ["0", "0.0", "0.000"])
def test_what_a_client_does_not_take(quality: str) -> None:
    """A quality of 0 means that it is not acceptable (RFC 9110, section 12.4.2)."""
    assert read_accept([f"application/json, text/event-stream;q={quality}"])[:2] == (True, False)
    assert read_accept([f"application/json;q={quality}, text/event-stream"])[:2] == (False, True)


@given(st.lists(st.text(max_size=50), max_size=3))
def test_every_client_takes_something(values: list[str]) -> None:
    """Nonsense in Accept never leaves a client without an answer."""
    assert any(read_accept(values)[:2])


# -- the era ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "modern"),
    [
        (None, False),
        ("", False),
        ("2024-11-05", False),
        ("2025-11-25", False),
        (MODERN, True),
        ("2027-01-01", True),
        ("9999", True),
        ("DRAFT-2026-v1", False),
        ("latest", False),
        ("\udcff", False),
    ],
)
def test_modern_versions(version: str | None, modern: bool) -> None:
    """A version from the first modern one on is modern, also when nobody serves it yet."""
    assert is_modern_version(version) is modern


@pytest.mark.parametrize(
    ("method", "header", "meta", "era"),
    [
        ("tools/list", None, {}, Era.LEGACY),
        ("tools/list", "2025-11-25", {}, Era.LEGACY),
        ("tools/list", MODERN, {}, Era.MODERN),
        ("tools/list", None, {VERSION_KEY: MODERN}, Era.MODERN),
        ("tools/list", "2025-11-25", {VERSION_KEY: 7}, Era.MODERN),
        ("tools/list", None, {"progressToken": 1}, Era.LEGACY),
        ("initialize", None, {}, Era.LEGACY),
        ("initialize", MODERN, {}, Era.MODERN),
        ("server/discover", None, {}, Era.MODERN),
        ("server/discover", "2025-06-18", {}, Era.MODERN),
    ],
)
def test_era(method: str, header: str | None, meta: dict[str, Any], era: Era) -> None:
    """Modern is what names a modern version, or exists in no other era."""
    raw = {key: json.dumps(value).encode() for key, value in meta.items()}
    assert era_of(Request(b"1", method), header, raw) is era


# -- the checks ------------------------------------------------------------------------------------


def meta(**more: Any) -> dict[str, Any]:
    return {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}, **more}


def read(
    method: str = "tools/list",
    params: dict[str, Any] | None = None,
    headers: dict[str, Sequence[str]] | None = None,
) -> ModernRequest:
    """Read a request that is right but for what is given."""
    params = {"_meta": meta(), **(params or {})}
    name = params.get("name") or params.get("uri")
    right: dict[str, Sequence[str]] = {
        "mcp-protocol-version": [MODERN],
        "mcp-method": [method],
        "mcp-name": [] if name is None else [name],
    }
    given = {**right, **(headers or {})}
    raw = json.dumps(params).encode()
    request = Request(b"1", method, raw)
    return read_modern(request, jsonrpc.read_meta(raw), lambda header: given.get(header.lower(), ()))


def test_a_good_request() -> None:
    """What passes comes out typed, with its payloads raw."""
    client = {"name": "c", "version": "1"}
    more = {
        "io.modelcontextprotocol/clientInfo": client,
        CAPABILITIES_KEY: {"sampling": {"x": 1}},
        LOG_KEY: "debug",
        "progressToken": "p-1",
    }
    params = {"name": "add", "arguments": {"a": 1}, "_meta": meta(**more)}
    modern = read("tools/call", params)
    assert modern.capabilities == {"sampling": b'{"x": 1}'}
    assert json.loads(modern.client_info or b"") == client
    assert modern.log_level == "debug"
    assert modern.progress_token == b'"p-1"'
    assert modern.params["arguments"] == b'{"a": 1}'


def test_a_bare_request() -> None:
    """What is optional may be missing."""
    modern = read()
    assert (modern.client_info, modern.log_level, modern.progress_token) == (None, None, None)


@pytest.mark.parametrize("version", ["2025-11-25", "2027-01-01", "", "x" * 10_000])
def test_a_version_that_is_not_served(version: str) -> None:
    """The error names the versions that would do, and comes before all other complaints."""
    wrong = {"_meta": {VERSION_KEY: version}}
    with pytest.raises(UnsupportedVersion) as caught:
        read("no/such", wrong, {"mcp-protocol-version": [version], "mcp-method": []})
    assert caught.value.http_status == 400
    assert caught.value.code == -32022
    assert MODERN in caught.value.data["supported"]  # type: ignore[operator]
    assert caught.value.data["requested"] == version


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "no/such", "x" * 10_000, ""])
def test_methods_that_are_gone(method: str) -> None:
    """What the modern era does not have is not found."""
    with pytest.raises(MethodGone) as caught:
        read(method)
    assert caught.value.http_status == 404
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({"mcp-protocol-version": []}, {}),
        ({"mcp-protocol-version": [MODERN, MODERN]}, {}),
        ({"mcp-protocol-version": ["2025-11-25"]}, {}),
        ({"mcp-method": []}, {}),
        ({"mcp-method": ["tools/call"]}, {}),
        ({"mcp-method": ["tools/list", "tools/list"]}, {}),
        ({}, {"_meta": meta(**{VERSION_KEY: "2027-01-01"})}),
    ],
)
def test_headers_that_do_not_match(headers: dict[str, Sequence[str]], params: dict[str, Any]) -> None:
    """Headers must be there, once, and say what the body says."""
    with pytest.raises(HeaderMismatch):
        read("tools/list", params, headers)


@pytest.mark.parametrize(
    ("method", "member", "name"), [("tools/call", "name", "a"), ("resources/read", "uri", "x:1")]
)
def test_name_header(method: str, member: str, name: str) -> None:
    """Calls and reads name their object in the header as well."""
    assert read(method, {member: name}).params[member] == json.dumps(name).encode()
    for wrong in ([], ["other"], [name, name]):
        with pytest.raises(HeaderMismatch):
            read(method, {member: name}, {"mcp-name": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {VERSION_KEY: None},
        {VERSION_KEY: 7},
        {VERSION_KEY: {}},
        {CAPABILITIES_KEY: None},
        {CAPABILITIES_KEY: []},
        {CAPABILITIES_KEY: "{}"},
        {LOG_KEY: "loud"},
        {LOG_KEY: 3},
        {LOG_KEY: None},
    ],
)
def test_malformed_meta(wrong: dict[str, Any]) -> None:
    """What must be in the request's metadata must have its form."""
    with pytest.raises(InvalidParams) as caught:
        read("tools/list", {"_meta": meta(**wrong)})
    assert caught.value.code == -32602


def test_missing_meta() -> None:
    """A modern header without the metadata is an error of the client's, not a crash."""
    with pytest.raises(ProxyError):
        read_modern(Request(b"1", "tools/list"), {}, lambda name: [MODERN] if "Version" in name else [])


def test_padding_around_a_version_is_nothing() -> None:
    """White space around a header's value does not count."""
    assert read("tools/list", {}, {"mcp-protocol-version": [f" {MODERN} "]}).meta
