"""Bodies that nobody reads: what has come of them counts, and over what there may be they end."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from messages import call
from proxy_bench import PATIENCE_SECONDS, Bench, until

from mcp_session_proxy.bounds import BODY_HELD_BYTES

BOTH = "application/json, text/event-stream"
BODY = json.dumps(call()).encode().ljust(2_000_000)
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(bench: Bench) -> Connection:
    """A bare connection to the listener."""
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def post(body: bytes) -> bytes:
    """A request by hand."""
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: {BOTH}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def held(bench: Bench) -> int:
    """How much of bodies is counted."""
    return bench.proxy.core.memory.bodies.used_bytes


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has closed the connection."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while await reader.read(100_000):
                pass
        except ConnectionError:
            return


class Slow:
    """A server whose calls end when they are told to."""

    def __init__(self, server: HttpServer) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        server.on["tools/call"] = self.answer

    async def answer(self, _: web.Request, message: Any) -> web.StreamResponse:
        """Answer one call."""
        self.begun += 1
        await self.go_on.wait()
        return reply_to(message, {"done": True})


@pytest.mark.parametrize("when", ["with its head", "later"])
async def test_the_body_of_a_stream(bench: Bench, when: str) -> None:
    """A GET with a large body, which nobody reads, is cut off."""
    await bench.start()
    session = await bench.initialize()
    reader, writer = await connect(bench)
    head = f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: {session}\r\nAccept: {BOTH}\r\n"
    writer.write(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode())
    if when == "later":
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(BODY[:-1])
    await ended(reader)
    await until(lambda: held(bench) == 0)
    writer.close()


async def test_a_request_whose_turn_has_not_come(bench: Bench) -> None:
    """What has come of its body counts until it is read, and it is answered like any other."""
    slow = Slow(bench.server)
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(post(json.dumps(call()).encode()))
    await until(lambda: slow.begun)
    writer.write(post(BODY))
    await until(lambda: held(bench) >= BODY_HELD_BYTES)
    slow.go_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(2):
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}}")
    await until(lambda: held(bench) == 0)
    writer.close()


async def test_all_of_them_together(bench: Bench) -> None:
    """Where there is no memory for another one, it is cut off, and those before go on."""
    slow = Slow(bench.server)
    await bench.start(max_inflight_bytes="2MiB")
    first, second = await connect(bench), await connect(bench)
    for number, (_, writer) in enumerate((first, second), 1):
        writer.write(post(json.dumps(call()).encode()))
        await until(lambda number=number: slow.begun == number)  # type: ignore[misc]
        writer.write(post(BODY))
        await until(lambda: held(bench) >= BODY_HELD_BYTES)
    await ended(second[0])
    slow.go_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert b" 200 " in await first[0].readline()
    for _, writer in (first, second):
        writer.close()


async def test_the_request_after_one_that_had_to_wait(bench: Bench) -> None:
    """What had come of the former body before it was read is no part of the next one, which is slow."""
    slow = Slow(bench.server)
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(post(json.dumps(call()).encode()))
    await until(lambda: slow.begun)
    writer.write(post(BODY[:600_000]))
    await until(lambda: held(bench) >= BODY_HELD_BYTES)
    slow.go_on.set()
    (connection,) = bench.listener.connections
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(2):
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"}}")
        await until(lambda: connection.is_idle)
        head, _, body = post(BODY[:10_000]).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        await until(lambda: not connection.is_idle)
        writer.write(body[:5_000])
        await until(lambda: held(bench) >= 5_000)
        writer.write(body[5_000:])
        assert b" 200 " in await reader.readline()
    writer.close()
