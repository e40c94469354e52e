"""One connection of the HTTP client: what comes of answers, however a server sends them. No sockets."""

import asyncio
import gzip
import itertools
import math
import random
import zlib
from collections.abc import Iterator

import pytest
from fuzz.answer_properties import Line, Scene, check_answer
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_session_proxy.bounds import SERVER_HEAD_BYTES
from mcp_session_proxy.errors import UpstreamProtocolError, UpstreamTimeout
from mcp_session_proxy.upstream.http.http1 import AnswerStage, HttpAnswer
from mcp_session_proxy.upstream.transport import ConnectionLost

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = OK + b"Content-Length: 2\r\n\r\n{}"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read_now(answer: HttpAnswer) -> bytes:
    """All that has come of a body."""
    pieces = []
    while piece := answer.take():
        pieces.append(piece)
    return b"".join(pieces)


async def read_to_the_end(answer: HttpAnswer) -> bytes:
    """The whole body."""
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


# -- whole answers -----------------------------------------------------------------------------------

# The bytes, the status, the body, and whether the connection serves again.
ANSWERS = {
    "with a length": (WHOLE, 200, b"{}", True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "in chunks": (IN_CHUNKS + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, b"{}", True),
    "with trailers": (
        IN_CHUNKS + b"2\r\n{}\r\n0\r\nX-Sum: 7\r\nContent-Type: text/html\r\n\r\n",
        200,
        b"{}",
        True,
    ),
    "with extensions": (IN_CHUNKS + b'2;a=b;c="d"\r\n{}\r\n0;last\r\n\r\n', 200, b"{}", True),
    "after Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, 200, b"{}", True),
    "after hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + WHOLE, 200, b"{}", True),
    "nothing but a head": (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, b"", True),
    "that closes": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "of HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
        200,
        b"{}",
        True,
    ),
    "without reason": (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", 404, b"no", True),
}
TO_THE_END = {
    "until the connection ends": (OK + b"\r\n{}", 200, b"{}"),
    "the same of HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", 200, b"{}"),
    "of another encoding": (OK + b"Transfer-Encoding: gzip\r\n\r\n{}", 200, b"{}"),
}


def pieces_of(data: bytes) -> Iterator[list[bytes]]:
    """Cut in two at every byte, and into single bytes."""
    for cut in range(len(data) + 1):
        yield [data[:cut], data[cut:]]
    yield [bytes([byte]) for byte in data]


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_split_anywhere(name: str) -> None:
    """Wherever the pieces of an answer end, it is the same, and so is what becomes of the connection."""
    data, status, body, stays = ANSWERS[name]
    for pieces in pieces_of(data):
        scene = Scene()
        answer = scene.ask()
        scene.hear(*pieces)
        assert (answer.status, read_now(answer), answer.at_end()) == (status, body, True)
        assert (scene.idle, scene.line.is_cut) == ((1, False) if stays else (0, True))


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("name", TO_THE_END)
def test_answers_that_end_with_the_connection(name: str, error: Exception | None) -> None:
    """A body without a length is whole when the connection ends, however it does: there is no other sign."""
    data, status, body = TO_THE_END[name]
    for pieces in pieces_of(data):
        scene = Scene()
        answer = scene.ask()
        scene.hear(*pieces)
        assert answer.stage is AnswerStage.BODY
        scene.lose(error)
        assert (answer.status, read_now(answer), answer.at_end()) == (status, body, True)
        assert (scene.idle, scene.lost) == (0, 1)


def test_one_answer_after_another() -> None:
    """What one answer has said, trailers included, is not said by the next."""
    scene = Scene()
    for data, status, body, stays in ANSWERS.values():
        if stays:
            answer = scene.ask()
            scene.hear(data)
            assert (answer.status, read_now(answer)) == (status, body)
            assert "X-Sum" not in answer.headers
            assert answer.content_type != "text/html"
    assert not scene.line.is_cut


def test_headers() -> None:
    """Names in any case, values without the blanks around them; of repeated ones, all are there."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(
        b"HTTP/1.1 200 OK\r\nCONTENT-type:  text/event-stream \t\r\nSet-Cookie: a=1\r\nset-cookie: b=\xff\r\n"
        b"content-type: text/html\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.content_type == answer.headers["Content-Type"] == "text/event-stream"
    assert answer.sets_cookies
    assert answer.headers.getall("Set-Cookie") == ["a=1", "b=\udcff"]


# -- what follows an answer --------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [WHOLE, b"x", b"HTTP", b"HTTP/1.1 200 OK\r\n", b"\0\xff", b"{}" * 40_000])
def test_more_than_was_asked_for(garbage: bytes) -> None:
    """It takes nothing from the answer, and what has said it serves no more: the next answer might be its."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(WHOLE + garbage)
    assert (answer.status, read_now(answer), answer.at_end()) == (200, b"{}", True)
    assert (scene.idle, scene.line.is_cut) == (0, True)


@pytest.mark.parametrize("garbage", [WHOLE, b"x", b"\r\n"])
def test_what_comes_when_nothing_was_asked(garbage: bytes) -> None:
    """The same, when it comes a moment later."""
    scene = Scene()
    scene.ask()
    scene.hear(WHOLE)
    assert scene.idle == 1
    scene.hear(garbage)
    assert scene.line.is_cut
    assert not scene.connection.is_open


# -- answers that break ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", OK, b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_closed_within_the_head(data: bytes) -> None:
    """Nobody knows what became of the request."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(data)
    scene.lose()
    with pytest.raises(ConnectionLost):
        await answer.begin()


@pytest.mark.parametrize(
    "head",
    [OK + b"Content-Length: 5\r\n\r\n", IN_CHUNKS, IN_CHUNKS + b"5\r\n{", IN_CHUNKS + b"1\r\n{\r\n0\r\n"],
)
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_closed_within_the_body(head: bytes, error: Exception | None) -> None:
    """There is a status; what has come of the body is given, and then that it broke off."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(head)
    scene.lose(error)
    await answer.begin()
    assert answer.status == 200
    with pytest.raises(ConnectionLost):
        await read_to_the_end(answer)
    assert await answer.read_beginning(10) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        OK + b"Bad\x00Name: 1\r\n\r\n",
        OK + b"Null: a\x00b\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        OK + b"".join(b"X-%d: 1\r\n" % n for n in range(600)) + b"\r\n",
    ],
)
async def test_heads_that_are_none(data: bytes) -> None:
    """They are called what they are, wherever they are split, and the connection ends."""
    for pieces in ([data], [bytes([byte]) for byte in data]):
        scene = Scene()
        answer = scene.ask()
        scene.hear(*pieces)
        with pytest.raises(UpstreamProtocolError, match="head"):
            await answer.begin()
        assert scene.line.is_cut


# -- bounds ------------------------------------------------------------------------------------------


def long_head(size_bytes: int, fields: int = 1) -> bytes:
    """A head of so many bytes, to its very end."""
    start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\n"
    room = size_bytes - len(start) - len(end) - fields * len(b"X-000: \r\n")
    each = [room // fields] * (fields - 1)
    lines = (b"X-%03d: %b\r\n" % (n, b"x" * size) for n, size in enumerate([*each, room - sum(each)]))
    return start + b"".join(lines) + end


@pytest.mark.parametrize("piece_bytes", [1_000_000, 60_000, 4096])
@pytest.mark.parametrize("fields", [1, 400])
async def test_length_of_heads(fields: int, piece_bytes: int) -> None:
    """64 KiB may come, and not one byte more; what follows the head is not counted."""
    for size, fits in ((SERVER_HEAD_BYTES, True), (SERVER_HEAD_BYTES + 1, False)):
        data = long_head(size, fields)
        assert len(data) == size
        data += b"{}"
        scene = Scene()
        answer = scene.ask()
        scene.hear(*(data[n : n + piece_bytes] for n in range(0, len(data), piece_bytes)))
        if fits:
            assert (answer.status, read_now(answer), scene.idle) == (200, b"{}", 1)
        else:
            with pytest.raises(UpstreamProtocolError, match="64 KiB"):
                await answer.begin()


@pytest.mark.parametrize(
    ("data", "endless"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (OK, b"X-More: of the same\r\n"),
        (OK + b"X-Name", b"e"),
        (IN_CHUNKS + b"2\r\n{}\r\n0\r\n", b"X-Trailer: 1\r\n"),
        (IN_CHUNKS + b"2\r\n{}\r\n0\r\nX", b"x"),
        (IN_CHUNKS + b"2;a", b"a"),
    ],
)
def test_what_never_ends(data: bytes, endless: bytes) -> None:
    """Interim answers, headers, trailers and extensions that go on and on are not listened to for long."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(data)
    piece = endless * (2000 // len(endless))
    for _ in range(100):
        scene.hear(piece)
    assert scene.line.is_cut
    assert answer.stage is AnswerStage.BROKEN


def test_a_client_that_reads_nothing() -> None:
    """The server has to wait: what has come is bounded, and its silence meanwhile is not its own."""
    scene = Scene()
    answer = scene.ask(silence_seconds=10)
    scene.hear(IN_CHUNKS)
    sent = 0
    while not scene.line.is_paused:
        scene.hear(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
        sent += 100_000
    assert sent < 1_000_000
    assert scene.connection.deadline == math.inf
    assert len(answer.take()) == sent
    assert not scene.line.is_paused
    assert scene.connection.deadline == 10
    scene.hear(b"0\r\n\r\n")
    assert (answer.take(), answer.at_end(), scene.idle) == (b"", True, 1)


def test_a_connection_does_not_wait_for_who_reads() -> None:
    """One whose answer has come whole is free, read or not, and hears the next answer."""
    scene = Scene()
    first = scene.ask()
    scene.hear(OK + b"Content-Length: 1000000\r\n\r\n", b"x" * 900_000)
    assert scene.line.is_paused
    scene.connection.data_received(b"x" * 100_000)  # was read before the pause
    assert (scene.idle, scene.line.is_paused) == (1, False)
    second = scene.ask()
    scene.hear(WHOLE)
    assert (len(first.take()), second.take()) == (1_000_000, b"{}")


def test_a_large_body_is_kept_as_it_came() -> None:
    """Nothing has to be found in a body whose length is known, so none of its pieces is copied."""
    pieces = [b"a" * 1000, b"b" * 1000, b"c" * 1000]
    scene = Scene()
    answer = scene.ask()
    scene.hear(OK + b"Content-Length: 3002\r\n\r\n{")
    assert answer.take() == b"{"
    for piece in pieces:
        scene.hear(piece)
        assert answer.take() is piece
    assert not answer.at_end()
    scene.hear(b"}")
    assert (answer.take(), answer.at_end(), scene.idle) == (b"}", True, 1)


@pytest.mark.parametrize(
    ("connection", "behind", "stays"),
    [
        (b"keep-alive", b"", True),
        (b"keep-alive", b"\r\n", True),
        (b"keep-alive", b"\r\n" + WHOLE, False),
        (b"keep-alive", b"}", False),
        (b"close", b"", False),
    ],
)
def test_what_comes_behind_a_large_body(connection: bytes, behind: bytes, stays: bool) -> None:
    """It is no part of it, and whoever has said it serves no more."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(OK + b"Connection: " + connection + b"\r\nContent-Length: 6\r\n\r\n{", b"    ", b"}" + behind)
    assert (read_now(answer), answer.at_end()) == (b"{    }", True)
    assert (scene.idle, scene.line.is_cut) == ((1, False) if stays else (0, True))


def test_a_large_body_that_nobody_wants() -> None:
    """It is counted all the same, so the connection serves again behind it."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(OK + b"Content-Length: 6\r\n\r\n{")
    answer.let_end()
    scene.hear(b"    ", b"}")
    assert (answer.at_end(), scene.idle) == (False, 1)
    second = scene.ask()
    scene.hear(WHOLE)
    assert (second.take(), scene.idle) == (b"{}", 2)


def test_a_server_that_reads_nothing() -> None:
    """No more of a body is written than the server takes; the rest goes out as it takes more."""
    body = bytes(range(256)) * 20_000
    scene = Scene(Line(takes_bytes=64 * 1024))
    scene.ask(body)
    assert sum(map(len, scene.line.written)) < 300_000
    scene.line.takes_bytes = 300_000
    scene.connection.resume_writing()
    assert sum(map(len, scene.line.written)) < 1_000_000
    scene.line.takes_bytes = math.inf
    scene.connection.resume_writing()
    assert b"".join(scene.line.written[1:]) == body


def test_silence_while_a_body_is_sent() -> None:
    """A server that takes a body slowly is not silent; one that stops is."""
    scene = Scene(Line(takes_bytes=1))
    scene.ask(b"x" * 1_000_000, silence_seconds=10)
    assert scene.connection.deadline == 10
    scene.time, scene.line.takes_bytes = 8.0, 1
    scene.connection.resume_writing()
    assert scene.connection.deadline == 18


# -- answers before the request has ended --------------------------------------------------------------


@pytest.mark.parametrize(
    "head", [OK + b"Content-Length: 2\r\n\r\n", b"HTTP/1.1 413 -\r\nContent-Length: 2\r\n\r\n", IN_CHUNKS]
)
def test_early_head(head: bytes) -> None:
    """An answer that begins early is read, and the body goes on: some servers begin before they read."""
    body = b"x" * 1_000_000
    scene = Scene(Line(takes_bytes=1))
    answer = scene.ask(body)
    scene.hear(head)
    assert answer.status in (200, 413)
    scene.line.takes_bytes = math.inf
    scene.connection.resume_writing()
    scene.hear(b"2\r\n{}\r\n0\r\n\r\n" if head is IN_CHUNKS else b"{}")
    assert b"".join(scene.line.written[1:]) == body
    assert (read_now(answer), answer.at_end(), scene.idle) == (b"{}", True, 1)


def test_early_end() -> None:
    """An answer that is over before the request is counts, and the connection is of no more use."""
    scene = Scene(Line(takes_bytes=1))
    answer = scene.ask(b"x" * 1_000_000)
    scene.hear(WHOLE)
    assert (read_now(answer), answer.at_end()) == (b"{}", True)
    assert (scene.idle, scene.line.is_cut) == (0, True)


def test_a_refusal_that_closes_ends_the_upload() -> None:
    """Who refuses and will close does not want the rest (RFC 9112, section 9.5); its words are read."""
    scene = Scene(Line(takes_bytes=1))
    answer = scene.ask(b"x" * 1_000_000)
    scene.hear(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n")
    written = len(scene.line.written)
    scene.connection.resume_writing()
    assert len(scene.line.written) == written
    scene.hear(b"no")
    assert (answer.status, read_now(answer), answer.at_end()) == (413, b"no", True)


# -- ends ----------------------------------------------------------------------------------------------


async def test_silence() -> None:
    """Each sign of the server's counts anew; one that gives none is given up, before its head and after."""
    for head in (b"", IN_CHUNKS):
        scene = Scene()
        answer = scene.ask(silence_seconds=10)
        scene.time = 6.0
        scene.hear(head)
        assert scene.connection.deadline == (16 if head else 10)
        scene.connection.give_up()
        with pytest.raises(UpstreamTimeout):
            await (answer.read() if head else answer.begin())
        assert scene.line.is_cut


def test_a_server_that_only_keeps_its_stream_alive() -> None:
    """Signs that bring nothing of what was asked for count for ten times the patience; a word begins anew."""
    scene = Scene()
    answer = scene.ask(silence_seconds=10)
    scene.hear(IN_CHUNKS)

    def comment_until(seconds: float) -> None:
        while scene.time < seconds:
            scene.time += 5
            scene.hear(b"3\r\n: \n\r\n")
            answer.take()

    comment_until(80)
    assert scene.connection.deadline == 90
    comment_until(95)
    assert scene.connection.deadline == 100
    answer.note_word()
    assert scene.connection.deadline == 105
    comment_until(190)
    assert scene.connection.deadline == 195


def test_the_time_in_which_nothing_is_read_is_not_the_servers() -> None:
    """Who reads slowly does not use up what a server has for signs."""
    scene = Scene()
    answer = scene.ask(silence_seconds=10)
    scene.hear(IN_CHUNKS)
    while not scene.line.is_paused:
        scene.hear(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
    scene.time = 1000.0
    answer.take()
    assert scene.connection.deadline == 1010


def test_the_end_of_a_stream_is_waited_for() -> None:
    """After the last event that matters, a stream has a second to end, whatever it says in that time."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(IN_CHUNKS + b"2\r\n{}\r\n")
    answer.let_end()
    assert scene.connection.deadline == 1
    scene.time = 0.5
    scene.hear(b"2\r\n{}\r\n")
    assert scene.connection.deadline == 1
    scene.hear(b"0\r\n\r\n")
    assert scene.idle == 1


def test_giving_up_what_has_not_ended() -> None:
    """The connection is cut: the answer could still come on it. One that has ended is left alone."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(WHOLE[:-1])
    answer.close()
    assert scene.line.is_cut
    scene = Scene()
    answer = scene.ask()
    scene.hear(WHOLE)
    answer.close()
    assert (scene.idle, scene.line.is_cut) == (1, False)


async def test_somebody_who_waits_is_woken() -> None:
    """By the head, by each piece, and by the end."""
    scene = Scene()
    answer = scene.ask()
    beginning = asyncio.create_task(answer.begin())
    await asyncio.sleep(0)
    scene.hear(IN_CHUNKS)
    await beginning
    for piece, expected in ((b"2\r\n{}\r\n", b"{}"), (b"0\r\n\r\n", b"")):
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        scene.hear(piece)
        assert await reading == expected


# -- compression ---------------------------------------------------------------------------------------

TEXT = b"a line of text, and another one. " * 1000
_raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
CODINGS = {
    "gzip": (b"gzip", gzip.compress(TEXT)),
    "two members": (b"X-GZIP", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
    "padding": (b"gzip", gzip.compress(TEXT) + b"\0\0\0"),
    "deflate": (b"deflate", zlib.compress(TEXT)),
    "deflate without wrapping": (b"deflate", _raw.compress(TEXT) + _raw.flush()),
    "identity": (b"identity", TEXT),
    "none of them": (b"gzip, identity,", gzip.compress(TEXT)),
    "twice": (b"gzip, GZIP", gzip.compress(gzip.compress(TEXT))),
    "three times": (b"deflate,x-gzip ,identity, gzip", gzip.compress(gzip.compress(zlib.compress(TEXT)))),
    "in two lines": (b"deflate\r\nContent-Encoding: gzip", gzip.compress(zlib.compress(TEXT))),
    "something else inside": (b"vendor, gzip", gzip.compress(TEXT)),
    "something else": (b"vendor", TEXT),
    "too often": (b"gzip, " * 4, gzip.compress(gzip.compress(gzip.compress(gzip.compress(TEXT))))),
}


def encoded(coding: bytes, body: bytes) -> bytes:
    """An answer with a compressed body."""
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (coding, len(body), body)


@pytest.mark.parametrize("name", CODINGS)
async def test_compressed_bodies(name: str) -> None:
    """A server that compresses without being asked is understood, wherever its bytes are split."""
    coding, body = CODINGS[name]
    for piece_bytes in (1, 100, 1_000_000):
        scene = Scene()
        answer = scene.ask()
        data = encoded(coding, body)
        scene.hear(*(data[n : n + piece_bytes] for n in range(0, len(data), piece_bytes)))
        undone = await read_to_the_end(answer)
        assert (gzip.decompress(undone) if name == "too often" else undone) == TEXT
        assert answer.at_end()


@pytest.mark.parametrize(
    "body", [gzip.compress(TEXT)[:-5], b"no gzip", gzip.compress(TEXT)[:50]], ids=["cut", "none", "cut early"]
)
async def test_compression_that_is_none(body: bytes) -> None:
    """A body that is not what it was said to be has broken off."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(encoded(b"gzip", body))
    with pytest.raises(ConnectionLost):
        await read_to_the_end(answer)


async def test_a_small_body_of_a_large_text() -> None:
    """What a few bytes stand for comes in pieces, and nobody makes one before it is wanted."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(encoded(b"gzip", gzip.compress(b"\0" * 50_000_000)))
    sizes = [len(await answer.read()) for _ in range(5)]
    assert max(sizes) <= 256 * 1024
    assert not answer.at_end()


async def test_a_small_body_of_a_large_text_twice() -> None:
    """The same where a text is so dull that it can be compressed twice; gigabytes are never anywhere."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(encoded(b"gzip, gzip", gzip.compress(gzip.compress(b"\0" * 50_000_000))))
    sizes = [len(await answer.read()) for _ in range(5)]
    assert 0 < min(sizes) <= max(sizes) <= 256 * 1024
    assert not answer.at_end()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(b"") * 1000),
        (b"gzip, gzip", gzip.compress(gzip.compress(b"") * 1000)),
        (b"deflate, gzip", gzip.compress(zlib.compress(b"", 0)[:2] + b"\0\0\0\xff\xff" * 100_000)),
    ],
    ids=["members", "members inside", "blocks inside"],
)
async def test_what_stands_for_nothing(coding: bytes, body: bytes) -> None:
    """Work without end for nothing is not done: the body is taken for damaged."""
    scene = Scene()
    answer = scene.ask()
    scene.hear(encoded(coding, body))
    with pytest.raises(ConnectionLost):
        await answer.read()


async def test_who_is_read_slowly_waits_with_more() -> None:
    """As long as there is something to take of what has come, nothing more is taken from the server."""
    scene = Scene()
    answer = scene.ask()
    first, later = gzip.compress(b"\0" * 20_000_000), gzip.compress(random.Random(1).randbytes(100_000))
    scene.hear(encoded(b"gzip", first + later + later)[: -2 * len(later)])
    assert answer.take()
    scene.hear(later)
    for _ in range(50):
        assert len(answer.take()) == 256 * 1024
        assert scene.line.is_paused
    while scene.line.is_paused:
        assert answer.take()
    scene.hear(later)
    await read_to_the_end(answer)
    assert answer.at_end()


# -- anything at all -----------------------------------------------------------------------------------

PARTS = st.sampled_from(
    [
        *(OK, WHOLE, IN_CHUNKS, b"\r\n", b"\n", b"\0", b"HTTP/1.1 100 -\r\n\r\n", b"HTTP/1.0 "),
        *(b"2\r\n{}\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n"),
        *(b"Content-Length: 3\r\n", b"Connection: close\r\n", b"Content-Encoding: gzip\r\n"),
    ]
)


@given(
    st.lists(PARTS | st.binary(max_size=20), max_size=8).map(b"".join),
    st.lists(st.integers(0, 300), max_size=5),
)
@example(WHOLE + WHOLE, [len(WHOLE)])
@example(b"".join(itertools.repeat(b"HTTP/1.1 100 -\r\n\r\n", 3)), [5])
def test_anything_may_come(data: bytes, cuts: list[int]) -> None:
    """See ``fuzz/answer_properties.py``."""
    check_answer(data, sorted(min(cut, len(data)) for cut in cuts))
