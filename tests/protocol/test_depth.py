"""How deep JSON is nested, measured without recursion."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_session_proxy.protocol.depth import is_deeper, peek_members

TEXTS = st.text(st.sampled_from('[]{}"\\\\n\u2603x,:')) | st.text()
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=40,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 30), st.booleans())
@example(['"[', "\\", '\\"]', "\\\\"], 3, False)
@pytest.mark.slow
def test_depth(value: object, wrapped: int, ascii_only: bool) -> None:
    """Exactly the depth of the value, whatever is in its strings and however it is written."""
    for _ in range(wrapped):
        value = [value, {}]
    depth = depth_of(value)
    for indent in (None, 1):
        data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
        for limit in {max(depth - 1, 1), max(depth, 1), depth + 1}:
            assert is_deeper(data, limit) is (depth > limit)


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 512])
def test_limit(limit: int) -> None:
    """One more level is too much, in objects, in arrays, and in both."""
    for left, right in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")):
        for depth in (limit, limit + 1):
            levels = left.count(b"[") + left.count(b"{")
            data = left * (depth // levels) + b"[" * (depth % levels) + b'"]"'
            data += b"]" * (depth % levels) + right * (depth // levels)
            assert is_deeper(data, limit) is (depth > limit)


@pytest.mark.parametrize("opening", ["[", '{"":'])
@pytest.mark.parametrize("depth", [1, 60, 70, 600])
@pytest.mark.parametrize("text", ["", "x" * 20_000, "[{" * 20_000])
def test_long_texts(opening: str, depth: int, text: str) -> None:
    """A long text in a few brackets, or in many, or of brackets, counts for nothing."""
    closing = "]" if opening == "[" else "}"
    data = (opening * depth + json.dumps(text) + closing * depth).encode()
    assert not is_deeper(data, depth)
    assert is_deeper(data, depth - 1)


def test_what_is_no_json() -> None:
    """What never closes is as deep as it opens."""
    assert is_deeper(b"[" * 5000, 512)
    assert is_deeper(b'{"a":' * 5000, 512)
    assert not is_deeper(b"]" * 5000, 512)
    assert not is_deeper(b'"' + b"[" * 5000, 512)


def test_peek_members() -> None:
    """What can be told of an object without reading what is deep in it."""
    deep = b"[" * 3000 + b'{"id":1}' + b"]" * 3000
    data = b'{"id" : "a\\"b" , "params":' + deep + b', "x":"id","n":-1.5e3,"t":true,"o":{"id":2}, "id":9}'
    assert peek_members(data) == {
        b'"id"': b'"a\\"b"',
        b'"params"': b"",
        b'"n"': b"-1.5e3",
        b'"t"': b"true",
        b'"o"': b"",
    } | {b'"x"': b'"id"'}
    assert peek_members(deep) == {}
    assert b'"id"' not in peek_members(b'{"a":' + b"[]" * 100_000 + b',"id":1}')
