"""What reading a hostile body costs, in steps of the interpreter: no more for each byte than for honest ones.

Time would tell more about the machine than about the code. Whatever is done in Python for each member, escape
or bracket shows here; what libraries do in C is linear.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from mcp_session_proxy.errors import InvalidParams, ProxyError
from mcp_session_proxy.exchange import parking
from mcp_session_proxy.protocol import inbound, jsonrpc, lowering, mirroring
from mcp_session_proxy.protocol.depth import is_deeper
from mcp_session_proxy.protocol.jsonrpc import Request

SIZE = 128 * 1024
VERSION = b'"io.modelcontextprotocol/protocolVersion":"2026-07-28"'
CAPABILITIES = b'"io.modelcontextprotocol/clientCapabilities":{}'
HEADERS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "x"}
MARKS = mirroring.read_marks(
    {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "x-mcp-header": f"P{n}"} for n in range(50)},
    }
)
MEMBERS = b",".join(b'"k%d":1' % number for number in range(SIZE // 10))


def call(*, params: bytes = b"", meta: bytes = b"", arguments: bytes = b"{}") -> bytes:
    """A modern call with more members here or there."""
    return b"".join(
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{',
            VERSION,
            b",",
            CAPABILITIES,
            meta,
            b'},"arguments":',
            arguments,
            params,
            b"}}",
        )
    )


def many(item: bytes) -> bytes:
    return b'{"a":[' + b",".join([item] * (SIZE // (len(item) + 1))) + b"]}"


def text(part: bytes) -> bytes:
    return b'{"a":"' + part * (SIZE // len(part)) + b'"}'


def front_door(body: bytes) -> None:
    """All that is done with a body: for a modern client, a parked call, and a tool with marked parameters."""
    try:
        messages, _ = jsonrpc.parse_body(body)
    except ProxyError:
        jsonrpc.peek_id(body)
        return
    for message in messages:
        if not isinstance(message, Request):
            continue
        meta = jsonrpc.read_meta(message.params)
        modern = inbound.read_modern(message, meta, lambda name: [HEADERS[name.lower()]])
        lowering.lower_params(modern)
        parking._digest(modern)
        mirroring.check_params(MARKS, modern.params.get("arguments"), {})


def steps(function: Callable[[], object]) -> int:
    """How many bytecodes it takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(former)
    return count


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(call(meta=b"," + MEMBERS), id="members of _meta"),
        pytest.param(call(params=b"," + MEMBERS), id="members of params"),
        pytest.param(call(arguments=b"{" + MEMBERS + b"}"), id="members of arguments"),
        pytest.param(call(params=b"," + b'"k":1,' * (SIZE // 6) + b'"k":1'), id="one member, often"),
        pytest.param(call(params=b"," + MEMBERS + b',"\\ud800":1'), id="members that cannot be read"),
        pytest.param(call(arguments=many(b"1")), id="numbers"),
        pytest.param(call(arguments=many(b"{}")), id="objects"),
        pytest.param(call(arguments=many(b"[" * 20 + b"]" * 20)), id="arrays in arrays"),
        pytest.param(call(arguments=text(b"\\u0041")), id="escapes"),
        pytest.param(call(arguments=text(b'\\"')), id="escaped quotes"),
        pytest.param(b'"' + b"\\" * SIZE, id="backslashes and no JSON"),
        pytest.param(
            b'"\\ud800' + b"\\\\" * (SIZE // 2) + b"x" * 9 + b"\\", id="backslashes behind a surrogate"
        ),
        pytest.param(call(arguments=b"[" * SIZE), id="depth"),
        pytest.param(call(arguments=b"[" * 600 + b"[]," * (SIZE // 3)), id="depth and breadth"),
        pytest.param(b"[" + b",".join([b"1"] * (SIZE // 2)) + b"]", id="a batch"),
    ],
)
def test_bodies_are_cheap_to_read(body: bytes) -> None:
    """A constant, and a step for each byte at most: arrays in arrays are looked at one by one."""
    assert steps(lambda: front_door(body)) < 30_000 + len(body)


@pytest.mark.parametrize("part", [b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\n", b"\\\\"])
def test_surrogates_are_repaired_all_at_once(part: bytes) -> None:
    """However many have no partner, and whatever stands around them."""
    assert steps(lambda: jsonrpc.replace_lone_surrogates(text(part + b"\\ud800"))) < 1000


@pytest.mark.parametrize("deep", [1, 5, 9, 10, 12])
def test_arrays_in_arrays_are_looked_at_all_at_once(deep: int) -> None:
    """Up to a depth that is nothing special; what is deeper has fewer turns for its size."""
    assert steps(lambda: is_deeper(many(b"[" * deep + b"]" * deep), 512)) < 1000


@pytest.mark.parametrize("place", ["params", "meta"])
def test_members_are_bounded(place: str) -> None:
    """A thousand may be; more are refused as parameters that are no good."""
    fits = b"".join(b',"k%d":1' % number for number in range(990))
    jsonrpc.parse_body(call(**{place: fits}))
    more = b"".join(b',"k%d":1' % number for number in range(1001))
    with pytest.raises(InvalidParams):
        jsonrpc.parse_body(call(**{place: more}))


def test_members_of_arguments_are_not() -> None:
    """What is in the arguments is the server's; so is what a value of ``_meta`` holds."""
    body = call(arguments=b"{" + MEMBERS + b"}", meta=b',"x":{' + MEMBERS + b"}")
    assert len(jsonrpc.parse_body(body)[0]) == 1
