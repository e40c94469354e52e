"""Lines out of a stream of bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.protocol.lines import LineSplitter, LineTooLong


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """A text in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(st.binary(max_size=40).map(lambda line: b"x" + line.replace(b"\n", b"") + b"x")), st.data())
def test_wherever_the_pieces_end(lines: list[bytes], data: st.DataObject) -> None:
    """The lines are the same."""
    text = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter(1000)
    found = []
    for piece in cut(text, data.draw(st.lists(st.integers(0, 10_000), max_size=10))):
        found += splitter.feed(piece)
    assert found == lines
    assert splitter.pending_bytes == 0


@pytest.mark.parametrize(
    "text", [b"one\r\n\r\ntwo\r\n", b"\n\n one \n \t\n\xef\xbb\xbftwo\n", b"one\ntwo\nthr"]
)
def test_what_means_nothing(text: bytes) -> None:
    """Carriage returns, blank lines and a mark at the beginning are no part of any line."""
    assert LineSplitter(1000).feed(text) == [b"one", b"two"]


def test_nothing_else_ends_a_line() -> None:
    """Neither what Unicode counts as the end of one, nor a form feed."""
    line = "a\u2028b\u0085c\x0cd".encode()
    assert LineSplitter(1000).feed(line + b"\n") == [line]


def test_a_line_without_an_end() -> None:
    """It has a bound, and may be taken as it is then."""
    splitter = LineSplitter(10)
    assert splitter.feed(b"0123456789") == []
    with pytest.raises(LineTooLong):
        splitter.feed(b"x")
    assert splitter.take_pending() == b"0123456789x"
    assert splitter.feed(b"y\n") == [b"y"]


def test_a_long_line_costs_no_more_than_its_bytes() -> None:
    """Each piece is looked at once, however many come before the end."""
    splitter = LineSplitter(64 * 1024 * 1024)
    for _ in range(20_000):
        assert splitter.feed(b"x" * 100) == []
    [line] = splitter.feed(b"\n")
    assert len(line) == 2_000_000
