"""Calls that end early leave nothing that only a garbage collector would find."""

import asyncio
import gc

import pytest
from aiohttp import web
from modern_bench import modern, routing
from proxy_bench import Bench, until

from mcp_session_proxy.downstream.connection import Connection
from mcp_session_proxy.errors import Draining
from mcp_session_proxy.exchange.exchange import Exchange


@pytest.mark.parametrize("how", ["its client leaves", "it is given up"])
@pytest.mark.slow
async def test_a_modern_call_that_ends_early(bench: Bench, how: str) -> None:
    """Its errors lead to its frames, and nothing there leads back to them."""

    async def never(_: web.Request, __: object) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    bench.server.on["tools/call"] = never
    await bench.start()
    gc.collect()
    gc.disable()
    try:
        message = modern()
        asked = asyncio.create_task(bench.post(message, headers=routing(message)))
        await until(lambda: bool(bench.server.posts("tools/call")))
        if how == "it is given up":
            bench.endpoint.exchanges()[0].give_up(Draining("over"))
        else:
            asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        del asked
        bench.server.seen.clear()
        await until(lambda: not any(isinstance(one, Exchange) for one in gc.get_objects()))
    finally:
        gc.enable()


@pytest.mark.parametrize("length", [2_000_000, 200_000_000])
async def test_a_body_that_does_not_arrive(bench: Bench, length: int) -> None:
    """Whether its request waits for it, or was refused, nothing of it is left once its client has left."""
    await bench.start()
    gc.collect()
    gc.disable()
    try:
        host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + bytes(1_000_000))
        if length > 100_000_000:
            assert b" 413 " in await reader.readline()
        else:
            await until(lambda: bench.proxy.core.memory.bodies.used_bytes >= 1_000_000)
        writer.transport.abort()
        await until(lambda: not any(isinstance(one, Connection) for one in gc.get_objects()))
    finally:
        gc.enable()
