"""How much work input makes, counted and not timed: used by the Hypothesis tests and by ``make fuzz``.

What is counted are the lines and the calls of Python that are executed: the same on every machine, and nearly
so on every version. Work inside of C functions is not in it; what runs there is linear.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from mcp_session_proxy.errors import ProxyError, UpstreamProtocolError
from mcp_session_proxy.protocol import inbound, jsonrpc, large, lowering, revisions
from mcp_session_proxy.protocol.jsonrpc import Request
from mcp_session_proxy.protocol.sse import SseParser

# The most lines and calls for each byte, and for each piece that bytes arrive in.
_SSE_PER_BYTE = 9
_SSE_PER_PIECE = 35
_JSON_PER_BYTE = 8
_AT_LEAST = 1000
_JSON_BYTES = 16 * 1024


def count_steps(work: Callable[[], object]) -> int:
    """How many lines and calls this takes. What it raises is raised."""
    count = 0

    def follow(_: FrameType, event: str, __: object) -> Any:
        nonlocal count
        count += event in ("line", "call")
        return follow

    former = sys.gettrace()
    sys.settrace(follow)
    try:
        work()
    finally:
        sys.settrace(former)
    return count


def check_sse_effort(stream: bytes, cuts: Sequence[int]) -> None:
    """A stream costs no more than so much for each byte, however it is split."""
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    def parse() -> None:
        parser = SseParser()
        try:
            for piece in pieces:
                parser.feed(piece)
        except UpstreamProtocolError:
            pass

    steps = count_steps(parse)
    assert steps <= _AT_LEAST + _SSE_PER_BYTE * len(stream) + _SSE_PER_PIECE * len(pieces), steps


# Places where a client may put something over and over: what stands before it, between, and behind.
_PLACES = (
    (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":[', b",", b"]}}"),
    (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{', b",", b"}}}"),
    (b"[", b",", b"]"),
    (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{', b",", b"}}"),
    (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"'
        + revisions.META_VERSION.encode()
        + b'":"2026-07-28","'
        + revisions.META_CAPABILITIES.encode()
        + b'":{},',
        b",",
        b"}}}",
    ),
    (b"", b"", b""),
)
PLACES = len(_PLACES)


def repeat(place: int, fragment: bytes) -> bytes:
    """A body of some size that holds a fragment again and again; each ``#`` in it becomes a number."""
    before, between, behind = _PLACES[place % PLACES]
    pieces: list[bytes] = []
    size = 0
    while size < _JSON_BYTES:
        piece = fragment.replace(b"#", b"%d" % len(pieces))
        pieces.append(piece)
        size += len(piece) + len(between) + 1
    return before + between.join(pieces) + behind


def check_json_effort(body: bytes) -> None:
    """A body costs no more than so much for each byte, from its arrival to what the server is sent of it."""
    steps = count_steps(lambda: _read(body))
    assert steps <= _AT_LEAST + _JSON_PER_BYTE * len(body), steps
    # What goes before for large ones takes few steps, and all of them in small pieces.
    steps = count_steps(lambda: _examine(body))
    assert steps <= _AT_LEAST + _JSON_PER_BYTE * len(body) // 8, steps


def _examine(body: bytes) -> None:
    with contextlib.suppress(ProxyError):
        for _ in large.examine(body, max_depth=512):
            pass


def _read(body: bytes) -> None:
    try:
        messages, _ = jsonrpc.parse_body(body)
        for message in messages:
            if isinstance(message, Request):
                meta = jsonrpc.read_meta(message.params)
                values = {
                    revisions.VERSION_HEADER: ["2026-07-28"],
                    revisions.METHOD_HEADER: [message.method],
                    revisions.NAME_HEADER: ["a"],
                }
                lowering.lower_params(
                    inbound.read_modern(message, meta, lambda name: values.get(name, []))  # noqa: B023
                )
    except ProxyError:
        jsonrpc.peek_id(body)
