"""The admin listener's connections: how many there may be, and how long one may say nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvloop
from aiohttp import web

from mcp_session_proxy.ops.admin.admission import Admission, AdmittingSite


@asynccontextmanager
async def listener(**bounds: float) -> AsyncIterator[int]:
    """A listener with one page; gives its port."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", page)
    admission = Admission(**bounds)  # type: ignore[arg-type]
    admission.watch(app)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await AdmittingSite(runner, "127.0.0.1", 0, admission=admission).start()
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


async def ask(port: int) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as response:
        return await response.text()


async def test_one_over_the_limit_is_ended() -> None:
    """Silent connections leave room for nobody beyond the limit, and take it from nobody once they go."""
    async with listener(max_connections=2) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            assert await is_ended(reader)
            writer.close()
            silent[0][1].close()
            while True:
                try:
                    assert await ask(port) == "here"
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0)
        silent[1][1].close()


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
