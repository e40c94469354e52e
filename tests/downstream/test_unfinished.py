"""Heads of requests that go on and on: what they hold counts, and who has begun first is refused over it."""

import asyncio
import json

import pytest
import uvloop
from http_server import HttpServer
from messages import call
from proxy_bench import PATIENCE_SECONDS, Bench, until

HEAD = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(bench: Bench) -> Connection:
    """A bare connection to the listener."""
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def fields(count: int, size: int = 1000) -> bytes:
    """So many header fields of about that size."""
    return b"".join(b"X-%d: %s\r\n" % (number, b"x" * size) for number in range(count))


def held(bench: Bench) -> int:
    """How much is counted."""
    return bench.proxy.core.memory.heads.used_bytes


async def answer_of(connection: Connection) -> bytes:
    """All that comes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            return await connection[0].read()
        except ConnectionError:
            return b""
        finally:
            connection[1].close()


async def test_what_has_come_of_a_head_counts(bench: Bench) -> None:
    """Until it has come whole, or its client has left."""
    await bench.start()
    leaving, finishing = await connect(bench), await connect(bench)
    for _, writer in (leaving, finishing):
        writer.write(HEAD + fields(10))
    await until(lambda: held(bench) > 20_000)
    leaving[1].transport.abort()
    await until(lambda: held(bench) < 11_000)
    finishing[1].write(b"Content-Length: 0\r\n\r\n")
    assert b" 400 " in await finishing[0].readline()
    assert held(bench) == 0
    finishing[1].close()


@pytest.mark.parametrize("pieces", [1, 3])
async def test_bodies_are_no_heads(bench: Bench, pieces: int) -> None:
    """A body in pieces counts as what it is, also a chunked one, and so does the request after it."""
    await bench.start()
    reader, writer = await connect(bench)
    body = json.dumps(call()).encode().ljust(3_000)
    for head, content in (
        (b"Content-Length: 3000\r\n\r\n", body),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"bb8\r\n" + body + b"\r\n0\r\n\r\n"),
    ):
        writer.write(HEAD + b"Accept: application/json\r\nContent-Type: application/json\r\n" + head)
        step = len(content) // pieces + 1
        for start in range(0, len(content), step):
            await asyncio.sleep(0.01)
            writer.write(content[start : start + step])
            await asyncio.sleep(0.01)
            assert held(bench) == 0
        assert b" 200 " in await reader.readline()
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
    writer.close()


async def test_nothing_before_it_hides_a_head(bench: Bench) -> None:
    """One that follows a request at once counts."""
    await bench.start()
    _, writer = await connect(bench)
    writer.write(HEAD + b"Content-Length: 0\r\n\r\n" + HEAD + fields(20))
    writer.write(fields(10))
    await until(lambda: held(bench) > 20_000)
    writer.transport.abort()
    await until(lambda: held(bench) == 0)


@pytest.mark.slow
async def test_who_began_first_is_refused(bench: Bench) -> None:
    """Over the share, the oldest goes, with a reason; ordinary requests in two pieces pass all the time."""
    await bench.start()
    bench.proxy.core.memory.heads.max_bytes = 100_000
    slow = [await connect(bench) for _ in range(5)]
    for _, writer in slow:
        writer.write(HEAD + fields(30))
        await writer.drain()
        await asyncio.sleep(0.01)
    first = await answer_of(slow[0])
    assert b" 503 " in first.partition(b"\r\n")[0]
    assert b"Retry-After: 1" in first
    assert b"memory-budget" in first
    reader, writer = await connect(bench)
    writer.write(b"OPTIONS /mcp HTTP/1.1\r\n")
    await asyncio.sleep(0.01)
    writer.write(b"Host: localhost\r\n\r\n")
    assert b" 204 " in await reader.readline()
    assert held(bench) <= 100_000
    for _, each in (*slow[1:], (reader, writer)):
        each.close()


@pytest.mark.slow
async def test_a_head_that_is_too_large_already(bench: Bench) -> None:
    """It is refused as soon as that is clear, and not when it ends."""
    await bench.start(max_header_bytes="4KiB")
    connection = await connect(bench)
    connection[1].write(HEAD + fields(25))
    answer = await answer_of(connection)
    assert b" 431 " in answer.partition(b"\r\n")[0]
    assert b"--max-header-bytes" in answer
    assert held(bench) == 0


async def test_beyond_a_request_that_is_answered(bench: Bench) -> None:
    """Who sends too much of the next head while one request is answered loses the connection."""
    await bench.start(max_header_bytes="4KiB")
    session = await bench.initialize()
    reader, writer = await connect(bench)
    writer.write(
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        b"Mcp-Session-Id: %s\r\n\r\n" % session.encode()
    )
    assert b" 200 " in await reader.readline()
    writer.write(HEAD + fields(25))
    await answer_of((reader, writer))
    await until(lambda: held(bench) == 0)


CHUNKED = HEAD + (
    b"Accept: application/json\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunks(body: bytes, size: int) -> bytes:
    """A body in chunks of this size, but for its end."""
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize("whole", [True, False])
async def test_trailers_without_end(bench: Bench, whole: bool) -> None:
    """What follows a body and is none of it is bounded; the request is refused, and its connection ends."""
    await bench.start(max_header_bytes="4KiB")
    connection = await connect(bench)
    connection[1].write(CHUNKED + chunks(json.dumps(call()).encode(), 1000))
    await asyncio.sleep(0.05)
    end = b"0\r\n" + fields(100)
    answer = asyncio.create_task(connection[0].readline())
    for piece in (end,) if whole else (end[start : start + 500] for start in range(0, len(end), 500)):
        if answer.done():
            break
        connection[1].write(piece)
        await asyncio.sleep(0.001)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert b" 400 " in await answer
    connection[1].close()
    assert bench.server.posts("tools/call") == []


async def test_extensions_without_end(bench: Bench) -> None:
    """The same of what may stand beside the size of a chunk."""
    await bench.start(max_header_bytes="4KiB")
    connection = await connect(bench)
    connection[1].write(CHUNKED)
    await asyncio.sleep(0.05)
    connection[1].write(b"1;" + b"x" * 100_000)
    assert b" 400 " in (await answer_of(connection)).partition(b"\r\n")[0]


async def test_large_trailers_end_their_connection(bench: Bench) -> None:
    """The request is answered, but what the parser keeps is not kept for the time between two requests."""
    await bench.start(max_header_bytes="4KiB")
    connection = await connect(bench)
    connection[1].write(CHUNKED + chunks(json.dumps(call()).encode(), 1000))
    await asyncio.sleep(0.05)
    connection[1].write(b"0\r\n" + fields(6) + b"\r\n")
    answer = await answer_of(connection)
    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert b'"count"' in answer


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.slow
async def test_small_chunks_are_no_trailers(bench: Bench, size: int) -> None:
    """However small the chunks of a body are, and with a few trailers, its connection goes on."""
    await bench.start(max_header_bytes="4KiB")
    reader, writer = await connect(bench)
    body = json.dumps(call()).encode().ljust(30_000)
    for _ in range(2):
        writer.write(CHUNKED)
        await asyncio.sleep(0.01)
        sent = chunks(body, size) + b"0\r\nX-Checksum: 1\r\n\r\n"
        for start in range(0, len(sent), 50_000):
            writer.write(sent[start : start + 50_000])
            await asyncio.sleep(0.01)
        assert b" 200 " in await reader.readline()
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
    writer.close()


async def test_bodies_that_are_read_late_are_no_trailers(bench: Bench) -> None:
    """What comes of a body while nobody has the time to take what is there of it is body all the same."""
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(CHUNKED)
    server = bench.proxy.front.runner.server
    assert server is not None
    await until(lambda: any(each._current_request is not None for each in server.connections))
    (connection,) = server.connections
    sent = chunks(json.dumps(call()).encode().ljust(3_000_000), 10_000) + b"0\r\n\r\n"
    # As they come out of the socket while something else keeps the event loop.
    for start in range(0, len(sent), 200_000):
        connection.data_received(sent[start : start + 200_000])
    assert b" 200 " in await reader.readline()
    writer.close()


async def test_a_large_head_ends_its_connection(bench: Bench) -> None:
    """It is answered, but not held by a connection that waits for the next request."""
    await bench.start()
    connection = await connect(bench)
    connection[1].write(HEAD + fields(20) + b"Content-Length: 0\r\n\r\n")
    answer = await answer_of(connection)
    assert b"Connection: close" in answer


@pytest.mark.slow
def test_under_the_programs_own_event_loop() -> None:
    """A large head that comes with the connection is refused under uvloop, too."""

    async def once() -> bytes:
        async with HttpServer() as server, Bench(server) as bench:
            await bench.start(max_header_bytes="4KiB")
            connection = await connect(bench)
            connection[1].write(HEAD + fields(25))
            return await answer_of(connection)

    assert b" 431 " in uvloop.run(once()).partition(b"\r\n")[0]
