"""Results that are passed on as they come: the envelope before them, and their text."""

import json
import random

import pytest

from mcp_session_proxy.protocol.arriving import ResultText, read_opening, write_opening

DEPTH = 20


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{',
        b'{"id":7,"jsonrpc":"2.0","result":{',
        b' {\r\n  "jsonrpc" : "2.0",\n\t"id": 7 , "result" :  {"x":1}}',
    ],
)
def test_an_envelope_that_says_whose_it_is(text: bytes) -> None:
    """In either order and spacing; the result begins where it does."""
    opening = read_opening(text)
    assert opening is not None
    assert opening.id == b"7"
    assert text[opening.end - 1 : opening.end + 1].strip(b": ") == b"{"
    assert write_opening(b'"a"') == b'{"jsonrpc":"2.0","id":"a","result":'


@pytest.mark.parametrize(
    "text",
    [
        b'{"result":{"x":1},"jsonrpc":"2.0","id":7}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":1}}',
        b'{"jsonrpc":"2.0","result":{"x":1},"id":7}',
        b'{"id":7,"result":{"x":1},"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":7,"result":[1]}',
        b'{"jsonrpc":"2.0","id":7,"method":"x","params":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'[{"jsonrpc":"2.0","id":7,"result":{}}]',
        b'{"jsonrpc":"2.0","id":7',
        b"",
    ],
)
def test_others_have_to_be_whole(text: bytes) -> None:
    """Errors, batches, and envelopes that say behind the result whose it is, or that it is a response."""
    assert read_opening(text) is None


def pass_on(text: bytes, cuts: list[int]) -> tuple[bytes, ResultText]:
    """What is passed on of a text that comes in these pieces."""
    result = ResultText(DEPTH)
    passed: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        work = result.take(text[start:end])
        while True:
            try:
                next(work)
            except StopIteration as stop:
                passed.append(stop.value)
                break
    passed.append(result.end())
    return b"".join(passed), result


def test_any_pieces_come_to_the_same() -> None:
    """Wherever a text is cut, it is mended alike, as long as before, and its end is found."""
    random_ = random.Random(7)
    parts = [
        rb"\ud83d", rb"\ud83d\ude00", rb"\udE00", rb"\\", rb"\"", rb"\\ud83d", b"[{", b"}]", b"x" * 40,
        "é€😀".encode(), b"\xff", b"\xe2\x82", b"\n", b"\\n",
    ]  # fmt: skip
    for _ in range(300):
        inside = b"".join(random_.choice(parts) for _ in range(random_.randrange(12)))
        text = b'{"content":[{"text":"' + inside + b'"}]}}'
        whole, _ = pass_on(text, [])
        assert len(whole) == len(text)
        json.loads(b'{"result":' + whole, strict=False)
        cuts = sorted(random_.randrange(len(text) + 1) for _ in range(random_.randrange(8)))
        again, result = pass_on(text, cuts)
        assert again == whole
        assert result.is_whole
        assert not result.too_deep


def test_surrogates_and_bytes_that_no_reader_takes() -> None:
    """As in texts that are read whole, but for bytes that are no UTF-8: nothing may change the length."""
    whole, _ = pass_on(rb'{"x":"\ud83d \ude00\ud83d\ude00"}}', [])
    assert whole == rb'{"x":"\ufffd \ufffd\ud83d\ude00"}}'
    whole, _ = pass_on(b'{"x":"\xff\xe2\x82"}}', [])
    assert whole == b'{"x":"???"}}'


@pytest.mark.parametrize("text", [b'{"x":[1', b'{"x":"}}', b'{"x":1}', b'{"x":1}}}', b'{"x":"\\"}}'])
def test_an_end_that_is_none(text: bytes) -> None:
    """What is open at its end, or closes too much, is not whole."""
    assert not pass_on(text, [3])[1].is_whole


def test_depth() -> None:
    """The envelope counts, as it does for those that are read."""
    for depth, too_deep in ((DEPTH - 2, False), (DEPTH - 1, True)):
        text = b'{"x":' + b"[" * depth + b"]" * depth + b"}}"
        assert pass_on(text, [len(text) // 2])[1].too_deep is too_deep
