"""The admin listener's connections: how many there may be, and how long one may say nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvloop
from aiohttp import web

from mcp_session_proxy.ops.admin.admission import Admission, AdmittingSite


class Slow:
    """A page that comes when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def page(self, _: web.Request) -> web.Response:
        """Answer."""
        self.begun += 1
        await self.end.wait()
        return web.Response(text="slow")


@asynccontextmanager
async def listener(slow: Slow | None = None, **bounds: float) -> AsyncIterator[int]:
    """A listener with one page, or two; gives its port."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", page)
    if slow is not None:
        app.router.add_get("/slow", slow.page)
    admission = Admission(**bounds)  # type: ignore[arg-type]
    admission.watch(app)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await AdmittingSite(runner, socket.create_server(("127.0.0.1", 0)), admission=admission).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes the connection without a word."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def ask(port: int, path: str = "/") -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
        return await response.text()


async def test_silence_makes_room() -> None:
    """Connections that say nothing keep nobody out who asks for something, and the oldest one goes."""
    async with listener(max_connections=2) as port, asyncio.timeout(30):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await is_ended(silent[0][0])
        for _ in range(5):
            assert await ask(port) == "here"
        for _, writer in silent:
            writer.close()


async def test_one_over_the_limit_is_ended() -> None:
    """Where all are being answered, one more is closed, and takes nothing from anybody."""
    slow = Slow()
    async with listener(slow, max_connections=2) as port, asyncio.timeout(30):
        waiting = [asyncio.create_task(ask(port, "/slow")) for _ in range(2)]
        while slow.begun < 2:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_ended(reader)
        writer.close()
        slow.end.set()
        assert await asyncio.gather(*waiting) == ["slow", "slow"]
        assert await ask(port) == "here"


async def test_idle_connections_make_room() -> None:
    """Who has asked for something and stays keeps nobody out, either."""
    async with listener(max_connections=2) as port, asyncio.timeout(30), aiohttp.ClientSession() as idle:
        responses = [await idle.get(f"http://127.0.0.1:{port}/") for _ in range(2)]
        for response in responses:
            await response.read()
        for _ in range(5):
            assert await ask(port) == "here"


async def test_silence_ends() -> None:
    """Who connects and asks for nothing is let go, also in the middle of a request's head."""
    async with listener(first_request_seconds=0.05) as port:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(30):
                assert await is_ended(reader)
            writer.close()


def test_under_the_programs_own_event_loop() -> None:
    """uvloop's connections are let in like asyncio's."""

    async def once() -> str:
        async with listener() as port:
            return await ask(port)

    assert uvloop.run(once()) == "here"


async def test_who_asks_may_stay() -> None:
    """A connection that has made a request is kept for the next one."""
    async with listener(first_request_seconds=0.05) as port, aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.get(f"http://127.0.0.1:{port}/") as response:
                assert await response.text() == "here"
                connection = response.connection
            await asyncio.sleep(0.1)
        assert connection is None
        assert len(http.connector._conns) == 1  # type: ignore[union-attr]
