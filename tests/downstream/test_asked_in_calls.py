"""What a server asks on the standalone stream, of a client that has no GET stream but waits for an answer."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import INITIALIZE, INITIALIZE_PARAMS, call
from proxy_bench import Bench, read_events


class Asking:
    """A server that asks on the standalone stream in each call, and tells what it was answered."""

    def __init__(self, server: HttpServer, method: str) -> None:
        self.listening = asyncio.Event()
        self._method = method
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        server.on |= {"GET": self.listen, "response": self.hear, "tools/call": self.work}

    async def listen(self, request: web.Request, _: object) -> web.StreamResponse:
        self._stream = await begin_stream(request)
        self.listening.set()
        await asyncio.Event().wait()
        return self._stream

    async def hear(self, _: web.Request, message: Any) -> web.Response:
        self._answers.put_nowait(message)
        return web.Response(status=202)

    async def work(self, _: web.Request, message: Any) -> web.Response:
        await self.listening.wait()
        await write_event(self._stream, {"jsonrpc": "2.0", "id": 99, "method": self._method, "params": {}})
        return reply_to(message, await self._answers.get())


@pytest.mark.parametrize("method", ["vendor/ask", "roots/list", "sampling/createMessage"])
async def test_it_is_asked_on_the_calls_stream(bench: Bench, server: HttpServer, method: str) -> None:
    """At once and not when it opens a GET stream, whatever the method: nobody has to know it."""
    Asking(server, method)
    await bench.start()
    params = {**json.loads(INITIALIZE_PARAMS), "capabilities": {"roots": {}, "sampling": {}}}
    opened = await bench.post({**INITIALIZE, "params": params})
    session = opened.headers["Mcp-Session-Id"]
    async with bench.request("POST", call(), session=session) as response:
        [(_, asked)] = await read_events(response.content, 1)
        assert (asked["method"], asked["params"]) == (method, {})
        await bench.post({"jsonrpc": "2.0", "id": asked["id"], "result": {"well": 1}}, session=session)
        [(_, answer)] = await read_events(response.content, 1)
    assert answer["result"] == {"jsonrpc": "2.0", "id": 99, "result": {"well": 1}}


async def test_a_client_that_reads_no_streams(bench: Bench, server: HttpServer) -> None:
    """It cannot be asked there, so the server is refused, after a moment for a GET stream."""
    Asking(server, "vendor/ask")
    await bench.start()
    session = await bench.initialize()
    answer = await bench.post(call(), session=session, accept="application/json")
    assert "error" in answer.json["result"]
    assert json.loads(answer.body)["id"] == 1
