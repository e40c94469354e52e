"""Calls that end early leave nothing that only a garbage collector would find."""

import asyncio
import gc

import pytest
from aiohttp import web
from modern_bench import modern, routing
from proxy_bench import Bench, until

from mcp_session_proxy.errors import Draining
from mcp_session_proxy.exchange.exchange import Exchange


@pytest.mark.parametrize("how", ["its client leaves", "it is given up"])
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
