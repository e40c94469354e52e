"""Server-Sent Events: the standard's rules, any split of the bytes, limits, and the way back."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.errors import UpstreamProtocolError
from mcp_session_proxy.protocol.sse import HEARTBEAT, SseEvent, SseParser, write_event


def parse(stream: bytes) -> list[SseEvent]:
    return SseParser().feed(stream)


def data_of(stream: bytes) -> list[bytes]:
    return [event.data for event in parse(stream)]


# -- the standard's rules (WHATWG HTML, 9.2.6) ---------------------------------------------------


def test_an_event() -> None:
    """A block of fields that ends in an empty line is one event."""
    assert parse(b"event: message\nid: 1\ndata: {}\n\n") == [SseEvent(b"{}")]


def test_several_lines_of_data_are_joined() -> None:
    """Each data line is a line of the data."""
    assert data_of(b"data: one\ndata: two\ndata\ndata: four\n\n") == [b"one\ntwo\n\nfour"]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"data:x", b"x"),
        (b"data: x", b"x"),
        (b"data:  x", b" x"),
        (b"data:x:y", b"x:y"),
        (b"data:\tx", b"\tx"),
    ],
)
def test_one_space_after_the_colon_is_not_data(line: bytes, data: bytes) -> None:
    """Only the first space after the first colon is left out."""
    assert data_of(line + b"\n\n") == [data]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_all_line_ends(end: bytes) -> None:
    """LF, CR and CRLF all end lines."""
    lines = [b"data: 1", b"", b": comment", b"data: 2", b"data: 3", b"", b""]
    assert data_of(end.join(lines)) == [b"1", b"2\n3"]


def test_an_event_does_not_wait_for_the_byte_after_a_carriage_return() -> None:
    """A stream with CR line ends is as quick as any other."""
    assert data_of(b"data: 1\r\r") == [b"1"]


def test_only_these_three_end_lines() -> None:
    """Other characters that some take for line ends are data."""
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g".encode()
    assert data_of(b"data: " + text + b"\n\n") == [text]


@pytest.mark.parametrize("comment", [b":\n", b": keep-alive\n", b":data: no\n", HEARTBEAT])
def test_comments_are_not_events(comment: bytes) -> None:
    """Comments, as servers send them for keep-alive, mean nothing."""
    assert data_of(comment + b"\n" + b"data: 1\n" + comment.removesuffix(b"\n\n") + b"\n\n") == [b"1"]


@pytest.mark.parametrize("field", [b"foo: bar\n", b"Data: x\n", b" data: x\n", b"foo\n", b"dat\n"])
def test_unknown_fields_are_ignored(field: bytes) -> None:
    """Fields that the standard does not name mean nothing."""
    assert data_of(field + b"data: 1\n" + field + b"\n") == [b"1"]


def test_a_byte_order_mark_is_left_out_once() -> None:
    """A mark before the first line is not part of it; a later one is."""
    assert data_of(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]
    assert data_of(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n") == [b"1", b"3"]


def test_types() -> None:
    """An event has the type it names, the last one if several, and none carries over."""
    stream = b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\nevent:\ndata: 3\n\n"
    assert [event.type for event in parse(stream)] == ["b", "message", "message"]


def test_an_unfinished_event_is_no_event() -> None:
    """What the stream's end cuts off is dropped."""
    assert data_of(b"data: 1\n\ndata: 2\n") == [b"1"]


# -- ids, retry, priming -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "last"),
    [
        (b"id: 7\ndata: x\n\n", "7"),
        (b"id: 7\ndata: x\n\ndata: y\n\n", "7"),
        (b"id: 7\ndata: x\n\nid: 8\ndata: y\n", "7"),
        (b"id: 7\nid: 8\ndata: x\n\n", "8"),
        (b"id: 7\n\nid\ndata: x\n\n", None),
        (b"id: 7\n\nid: 8\x009\ndata: x\n\n", "7"),
        ("id: ü\n\n".encode(), "ü"),
        (b"id: \xff\n\n", "\ufffd"),
        (b"data: x\n\n", None),
    ],
)
def test_last_event_id(stream: bytes, last: str | None) -> None:
    """The newest id of a finished event stays; an empty one resets it; one with a NUL does not count."""
    parser = SseParser()
    parser.feed(stream)
    assert parser.last_event_id == last


def test_priming() -> None:
    """An event without data gives its id and its retry time, but is not reported."""
    parser = SseParser()
    assert parser.feed(b"id: prime\nretry: 1500\ndata: \n\n") == []
    assert parser.last_event_id == "prime"
    assert parser.retry_milliseconds == 1500


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1s", b"9999999999", b"\xd9\xa1"])
def test_odd_retry_times_are_ignored(value: bytes) -> None:
    """A retry time that is not a reasonable number leaves the last one."""
    parser = SseParser()
    parser.feed(b"retry: 20\n\nretry: " + value + b"\n\n")
    assert parser.retry_milliseconds == 20


# -- any split of the bytes ----------------------------------------------------------------------

fragments = st.sampled_from(
    [b"data", b"data: ", b"event: ", b"id: ", b"retry: 5", b": c", b":", b" ", b"x", b"\xc3\xa9", b"\0"]
    + [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"] * 2
    + [b"\xef\xbb\xbf", b'{"a":1}', b"data: {}\n\n"]
)
streams = st.lists(fragments, max_size=40).map(b"".join)


def observe(chunks: list[bytes]) -> tuple[list[SseEvent], str | None, int | None]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.last_event_id, parser.retry_milliseconds


def simple_parse(stream: bytes) -> list[SseEvent]:
    """The standard's algorithm as plainly as possible, over a whole stream."""
    events: list[SseEvent] = []
    data: list[bytes] = []
    kind = b""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if line == b"":
            if any(data) or len(data) > 1:
                events.append(SseEvent(b"\n".join(data), kind.decode("utf-8", "replace") or "message"))
            data, kind = [], b""
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
    return events


@given(streams)
def test_agrees_with_the_standard(stream: bytes) -> None:
    """The parser gives what the standard's algorithm gives, over whole streams."""
    assert parse(stream) == simple_parse(stream)


@given(streams, st.lists(st.integers(0, 300), max_size=12))
def test_every_split_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    """Events, last id and retry time do not depend on how the bytes arrive, empty pieces included."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert observe(chunks) == observe([stream])


@given(streams)
def test_byte_by_byte(stream: bytes) -> None:
    """The finest split of all gives the same, too."""
    assert observe([stream[i : i + 1] for i in range(len(stream))]) == observe([stream])


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(stream: bytes) -> None:
    """No bytes a server may send break the parser."""
    parse(stream)


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 101],
        [b"data: " + b"x" * 101 + b"\n"],
        [b"data: ", *[b"x" * 10] * 10],
        [b"data: xxxxxxxxx\n"] * 3,
        [b"data:\n"] * 4,
        [b"x" * 101],
    ],
    ids=[
        "one line",
        "one whole line",
        "a line in pieces",
        "many lines",
        "many empty lines",
        "no field at all",
    ],
)
def test_an_event_that_is_too_large_is_an_error(chunks: list[bytes]) -> None:
    """Neither a long line nor many lines of one event can fill the memory."""
    parser = SseParser(max_event_bytes=100)
    for chunk in chunks[:-1]:
        parser.feed(chunk)
    with pytest.raises(UpstreamProtocolError, match="more than 100 bytes"):
        parser.feed(chunks[-1])


def test_lines_that_say_nothing_cost_no_event() -> None:
    """Blank lines and comments between events change nothing, however many there are."""
    parser = SseParser()
    noise = b"\n" * 1000 + b":\n" * 1000
    assert parser.feed(noise + b"data: 1\n\n" + noise) == [SseEvent(b"1")]
    assert parser.feed(noise * 500 + b"id: 7\n\n") == []
    assert parser.last_event_id == "7"


def test_many_small_events_are_not_too_large() -> None:
    """The limit is for one event, not for the stream, and not for what arrives at once."""
    parser = SseParser(max_event_bytes=100)
    assert len(parser.feed(b"data: xxxxxxxxxx\n\n" * 1000)) == 1000
    for _ in range(1000):
        assert parser.feed(b": comment that is rather long\ndata: 0123456789\n\n")


def test_many_lines_cost_no_more_than_their_length() -> None:
    """An event of many lines in many pieces is not looked at again and again."""
    parser = SseParser()
    for _ in range(20_000):
        parser.feed(b"data: x\n" * 10)
    assert len(parser.feed(b"\n")[0].data) == 400_000 - 1


# -- and back ------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([None, "7", "s/1-2"]), st.sampled_from([None, 1]), st.booleans())
def test_what_is_written_is_read(
    value: object, event_id: str | None, indent: int | None, ascii_only: bool
) -> None:
    """A JSON text comes back as the same value, with its id, even when it was pretty-printed."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    written = write_event(text.replace("\n", "\r\n").encode(), event_id=event_id)
    parser = SseParser()
    (event,) = parser.feed(written)
    assert json.loads(event.data) == value
    assert event.type == "message"
    assert parser.last_event_id == event_id


def test_compact_json_is_written_as_it_is() -> None:
    """A text without line ends is copied, not changed."""
    assert write_event(b'{"a": 1}', event_id="x") == b'event: message\nid: x\ndata: {"a": 1}\n\n'
    assert write_event(b"{}") == b"event: message\ndata: {}\n\n"
