"""Reading and translating input that nobody chose with care (see ``fuzz/properties.py``)."""

import json
from typing import Any

import pytest
from fuzz import effort, head_properties, properties
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_session_proxy.protocol import revisions

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = """
    id method params result error code message data _meta progressToken name uri arguments tools inputSchema
    properties type x-mcp-header capabilities serverInfo elicitations mode requestedSchema title resultType
    inputResponses requestState notifications resourceSubscriptions toolsListChanged action content role model
    roots listChanged ttlMs cacheScope level subscribe openai/session
"""
META = (
    revisions.META_VERSION,
    revisions.META_CAPABILITIES,
    revisions.META_CLIENT_INFO,
    revisions.META_LOG_LEVEL,
)
names = st.sampled_from([*NAMES.split(), *META]) | st.text(max_size=5)
values = st.recursive(
    leaves
    | st.sampled_from(
        ["2026-07-28", "2025-11-25", "object", "string", "integer", "form", "url", "accept", "Region", -32042]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=20,
)
objects = st.dictionaries(names, values, max_size=6)
METHODS = st.sampled_from(sorted(revisions.MODERN_METHODS | revisions.KNOWN_METHODS)) | st.text(max_size=10)


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _modern(method: str, params: dict[str, Any], capabilities: object) -> dict[str, Any]:
    meta = {revisions.META_VERSION: "2026-07-28", revisions.META_CAPABILITIES: capabilities}
    own = params.get("_meta")
    merged = {**params, "_meta": {**(own if isinstance(own, dict) else {}), **meta}}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": merged}


requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS}, optional={"id": values, "params": objects}
) | st.builds(_modern, METHODS, objects, objects)
bodies = st.one_of(
    requests.map(_dump),
    st.lists(requests | values, max_size=3).map(_dump),
    values.map(_dump),
    st.binary(max_size=200),
)
schemas = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "string", "boolean", "number"])},
        optional={"x-mcp-header": st.sampled_from(["A", "B"]) | values},
    ),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)}
    ),
    max_leaves=6,
)
tool_lists = st.lists(st.fixed_dictionaries({"inputSchema": schemas | values}), max_size=2).map(
    lambda tools: {"tools": tools}
)
replies = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": leaves,
        "params": values,
        "result": st.one_of(objects, tool_lists.map(lambda r: r)),
        "error": values,
    },
) | st.fixed_dictionaries({"method": METHODS}, optional={"id": leaves, "params": values})
arguments = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
).map(_dump) | st.sampled_from(
    [b'{"a":1e999}', b'{"a":"\\ud800"}', b'{"a":' + b"9" * 5000 + b"}", b"[" * 5000]
)


@settings(max_examples=300, deadline=None)
@given(bodies)
@example(b'{"jsonrpc":"2.0","id":"\xff","method":"ping"}')
@pytest.mark.slow
def test_bodies_of_clients(body):
    """Whatever a client posts is read, judged and lowered, or refused with an error of ours."""
    properties.check_inbound(body)


@pytest.mark.parametrize("depth", [10, 500, 990, 1010, 5_000, 100_000])
@pytest.mark.parametrize("place", ["whole", "params", "meta", "id", "result"])
def test_deep_bodies_of_clients(depth, place):
    """Depth alone never breaks anything: what is too deep is refused as bad JSON."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    body = {
        "whole": b"[" * depth + b"]" * depth,
        "params": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % deep,
        "meta": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":%b}}' % deep,
        "id": b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % deep,
        "result": b'{"jsonrpc":"2.0","id":1,"result":%b}' % deep,
    }[place]
    properties.check_inbound(body)
    properties.check_lifting(body, deep)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"data:",
                b"data: {}",
                b"id: 7",
                b"id:\x00",
                b"retry: 5",
                b"event: message",
                b":",
                b"\n",
                b"\r",
                b"\r\n",
                b"\xef\xbb\xbf",
                b"\n\n",
                b"\x85",
                b"\xe2\x80\xa8",
                b"x" * 3000,
            ]
        )
        | st.binary(max_size=8),
        max_size=30,
    ).map(b"".join),
    st.lists(st.integers(0, 200), max_size=6),
)
@example(data=b"data: 1\r\n\r\n", positions=[8])
@pytest.mark.slow
def test_event_streams(data, positions):
    """However a stream's bytes are split, the events are the same, and none is over the limit."""
    properties.check_sse(data, sorted(min(position, len(data)) for position in positions))


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        replies.map(_dump),
        st.lists(replies, max_size=2).map(_dump),
        values.map(_dump),
        st.binary(max_size=200),
    ),
    arguments,
)
@example(b'{"id":1,"error":{"code":1,"message":"m","d\xd4ta":1}}', b"{}")
@example(b'{"id":1,"result":{"tools":[{"inputSchema":{"a\x9f":{}}}]}}', b"{}")
@example(b'{"id":1,"result":{"tools":[{"inputSchema":{}}]}}', b'{"a":1e999}')
@pytest.mark.slow
def test_bodies_of_servers(body, values):
    """Whatever a server answers can be lifted, and compared with what a client's headers repeat."""
    properties.check_lifting(body, values)


# -- heads of requests -----------------------------------------------------------------------------------

HEADER_NAMES = """
    Accept Authorization Connection Cookie DPoP Forwarded Host Mcp-Method Mcp-Name Mcp-Param-User
    Mcp-Session-Id MCP-Protocol-Version Origin Via X-Conversation X-Forwarded-For X-Forwarded-User
    X-MCP-Readonly X-Tenant Access-Control-Request-Headers Content-Token
"""
head_names = st.sampled_from(HEADER_NAMES.split()).map(str.encode) | st.from_regex(rb"\A[!-9A-z|~]{1,8}\Z")
head_values = st.binary(max_size=20) | st.sampled_from(
    [b"Bearer a", b"Bearer", b"null", b"close, X-Tenant", b"text/event-stream;q=0.1", b"a.example:80", b"*/*"]
)
head_lines = st.tuples(head_names, head_values).map(b": ".join)
targets = st.sampled_from([b"/mcp", b"/%6Dcp/", b"/x/..;/mcp", b"/MCP%20?a=b", b"/token"]) | st.binary(
    max_size=20
)


@given(targets, st.lists(head_lines, max_size=8))
@pytest.mark.slow
def test_heads(target: bytes, lines: list[bytes]) -> None:
    """A head tells apart, passes on and refuses the same whatever it is spelt like, at a bounded cost."""
    head_properties.check_head(b"\n".join([target.replace(b"\n", b""), *lines]))


# -- what it costs ---------------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from([b"a\n\n", b"id\n\n", b"data\n", b"\r", b"\n", b"x", b"retry:1\n"]), max_size=300
    )
)
def test_cost_of_event_streams(parts: list[bytes]) -> None:
    """The longest way for each byte, as one piece and byte by byte."""
    stream = b"".join(parts)
    effort.check_sse_effort(stream, [])
    effort.check_sse_effort(stream, range(1, len(stream)))


@pytest.mark.parametrize("place", range(effort.PLACES))
@pytest.mark.parametrize(
    "fragment",
    [b"1", b'"k#":1', b"[]", b"[[[[]]]", b'"\\\\"', b"][", b'{"jsonrpc":"2.0","id":#,"method":"a"}'],
)
def test_cost_of_json(place: int, fragment: bytes) -> None:
    """Whatever a body repeats, it costs so much for each byte, and no more for many than for few."""
    effort.check_json_effort(effort.repeat(place, fragment))
