"""Calls that end early leave nothing that only a garbage collector would find."""

import asyncio
import contextlib
import gc
import json
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from http_server import reply_to
from messages import call
from modern_bench import modern, routing
from proxy_bench import Bench, until
from yarl import URL

from mcp_session_proxy.downstream.connection import Connection
from mcp_session_proxy.errors import Draining
from mcp_session_proxy.exchange.exchange import Exchange


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Nobody looks for circles meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def none_is_left(kind: type) -> None:
    """Wait until all of a kind have gone by themselves."""
    await until(lambda: not any(isinstance(one, kind) for one in gc.get_objects()))


@pytest.mark.parametrize("how", ["its client leaves", "it is given up"])
@pytest.mark.slow
async def test_a_modern_call_that_ends_early(bench: Bench, how: str) -> None:
    """Its errors lead to its frames, and nothing there leads back to them."""

    async def never(_: web.Request, __: object) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    bench.server.on["tools/call"] = never
    await bench.start()
    with no_collector():
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
        await none_is_left(Exchange)


@pytest.mark.parametrize("length", [2_000_000, 200_000_000])
@pytest.mark.slow
async def test_a_body_that_does_not_arrive(bench: Bench, length: int) -> None:
    """Whether its request waits for it, or was refused, nothing of it is left once its client has left."""
    await bench.start()
    with no_collector():
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
        head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + bytes(1_000_000))
        if length > 100_000_000:
            assert b" 413 " in await reader.readline()
        else:
            await until(lambda: bench.proxy.core.memory.bodies.used_bytes >= 1_000_000)
        writer.transport.abort()
        await none_is_left(Connection)


async def test_a_call_that_the_server_refuses(bench: Bench) -> None:
    """The refusal leads to the error that the client is told, and that does not lead back."""

    async def refuse(_: web.Request, __: object) -> web.StreamResponse:
        return web.Response(status=500)

    bench.server.on["tools/call"] = refuse
    await bench.start()
    with no_collector():
        assert (await bench.post(call())).status == 502
        await none_is_left(Exchange)


@pytest.mark.parametrize("answered", [True, False])
async def test_what_is_no_http(bench: Bench, answered: bool) -> None:
    """Of what cannot be read nothing is left, whether or not its client waits for the answer."""
    await bench.start()
    with no_collector():
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
        writer.write(b"\x00" * 1000)
        if answered:
            assert b" 400 " in await reader.readline()
        else:
            await until(lambda: bool(bench.listener.connections))
        writer.transport.abort()
        await none_is_left(BadHttpMessage)
        await none_is_left(Connection)


async def test_requests_that_nobody_answers(bench: Bench) -> None:
    """What was sent behind a request is let go of with its connection."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request, message: object) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return reply_to(message, {})

    bench.server.on["tools/call"] = slow
    await bench.start()
    with no_collector():
        _, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
        body = json.dumps(call()).encode()
        head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        writer.write((f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body) * 5)
        await begun.wait()
        writer.transport.abort()
        await until(lambda: not bench.listener.connections or not len(bench.listener.places))
        go_on.set()
        await none_is_left(Connection)
