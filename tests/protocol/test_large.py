"""Large bodies, looked at in pieces: nothing is refused or mended that would not be in one piece."""

import json
from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import call
from selection import examples

from mcp_session_proxy.errors import BadJson, BadRequest, InvalidParams, ProxyError, TooDeep
from mcp_session_proxy.protocol import jsonrpc, large
from mcp_session_proxy.protocol.depth import is_deeper

T = TypeVar("T")
values = st.recursive(
    st.none() | st.integers() | st.text('a\\"[]{},:\U0001f600', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('k"[,', max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)
halves = st.lists(
    st.sampled_from([r"\ud83d", r"\ude00", r"\uD83D", r"\\", r"\"", r"\u0041", "x"]), max_size=30
)


def drive(work: Generator[None, None, T]) -> tuple[T, int]:
    """What comes of it, and in how many pieces."""
    pieces = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, pieces
        pieces += 1


def examine(body: bytes, max_depth: int = 512) -> bytes:
    return drive(large.examine(body, max_depth=max_depth))[0]


@pytest.fixture(params=[20, 33, 16 * 1024])
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How long a piece is; a real one would hold all that is tried here."""
    monkeypatch.setattr(large, "_PIECE_BYTES", request.param)
    return int(request.param)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@pytest.mark.parametrize("piece", [1, 3, 7, 16 * 1024])
@settings(max_examples=150, deadline=None)
@given(value=values, ascii_only=st.booleans())
@pytest.mark.slow
def test_depth_and_commas(piece: int, value: Any, ascii_only: bool) -> None:
    """Both are exact, whatever strings hold and wherever a piece ends."""
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "_PIECE_BYTES", piece)
        depth = depth_of(value)
        for limit in range(max(0, depth - 2), depth + 2):
            shape, _ = drive(large.survey(data, limit, 1000))
            assert shape.too_deep == (depth > limit) == is_deeper(data, limit)
        commas = max(0, len(value) - 1) if isinstance(value, dict | list) else 0
        assert drive(large.survey(data, 1000, 1000))[0].commas == commas


@pytest.mark.parametrize("piece", [18, 20, 23, 37, 16 * 1024])
@settings(max_examples=examples(150), deadline=None)
@given(parts=halves)
def test_mending(piece: int, parts: list[str]) -> None:
    """In pieces it is the same as at once."""
    data = ('"' + "".join(parts) + '"').encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "_PIECE_BYTES", piece)
        mended, _ = drive(large.mend(data))
    assert mended == jsonrpc.replace_lone_surrogates(data)
    assert len(mended) == len(data)


MANY = {f"k{number}": 1 for number in range(1001)}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (json.dumps([call(number) for number in range(101)]), BadRequest),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "a", "params": MANY}), InvalidParams),
        (json.dumps(call(1, "a", _meta=MANY)), InvalidParams),
        (json.dumps([1, call(1, "a", _meta=MANY)]), InvalidParams),
        ("[" * 600 + "]" * 600, TooDeep),
        ('{"a":' * 600 + "1" + "}" * 600, TooDeep),
        ("[1,2", BadJson),
        ('{"a":"\\ud800",}', BadJson),
        ("[" * 300, BadJson),
    ],
)
def test_refused(body: str, error: type[ProxyError], piece_bytes: int) -> None:
    """What would be refused, or would take long to read, is refused."""
    with pytest.raises(error):
        examine(body.encode())


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([call(number) for number in range(100)]),
        json.dumps(call(1, "tools/call", arguments=MANY)),
        json.dumps(call(1, "a", _meta={"x": MANY})),
        json.dumps(call(1, "a", text="\U0001f600" * 20 + '"[{,' * 20)),
        json.dumps(call(1, "a", text="\U0001f600\\" * 20), ensure_ascii=False),
        "[" * 512 + "]" * 512,
        "[]",
        "7",
        '"text"',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":[1,2]}',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":7}}',
    ],
)
def test_passed(body: str, piece_bytes: int) -> None:
    """All else is left as it is, for others to judge."""
    assert examine(body.encode()) == body.encode()


ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"a": ["\U0001f600", {"b": '[{"\\'}]}}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(ANSWER),
        json.dumps(ANSWER, ensure_ascii=False),
        json.dumps([ANSWER, {"jsonrpc": "2.0", "method": "a"}, 7]),
        json.dumps([ANSWER] * 1000),
        json.dumps([ANSWER] * 1001),
        '{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}',
        '[{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}]',
        '{"jsonrpc":"2.0","id":1,"result":' + "[" * 600 + "]" * 600 + "}",
        '[{"jsonrpc":"2.0","id":1,"result":' + "[" * 600 + "]" * 600 + "}]",
        '{"jsonrpc":"2.0","method":"a","params":{"a":' + "[" * 600 + "]" * 600 + "}}",
        "[1,2",
        "{",
        '"text"',
    ],
)
def test_answers_of_servers(body: str, piece_bytes: int) -> None:
    """They are read as small ones are."""
    data = body.encode()
    in_pieces, _ = drive(large.read_answer(data, max_depth=512))
    assert in_pieces == jsonrpc.parse_upstream_body(data, max_depth=512)
    # What is no UTF-8, too.
    broken = data.replace(b'"a"', b'"a\xff"')
    in_pieces, _ = drive(large.read_answer(broken, max_depth=512))
    assert in_pieces == jsonrpc.parse_upstream_body(broken, max_depth=512)


def test_halves_of_characters_are_mended() -> None:
    """As in a small body."""
    body = '{"jsonrpc":"2.0","id":1,"method":"a","params":{"t":"\\ud83d\\ude00\\ud83d"}}'
    assert examine(body.encode()) == body.replace('\\ud83d"', '\\ufffd"').encode()


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b"\\ud800" * 100_000 + b'"',
        b"[" + b"[]," * 200_000 + b"1]",
    ],
)
def test_large_ones_are_looked_at_in_pieces(text: bytes) -> None:
    """Between them others have their turn; only a decoder's one pass goes over the whole."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":[%b]}}' % text
    _, pieces = drive(large.examine(body, max_depth=310))
    assert pieces >= len(body) // (16 * 1024)
