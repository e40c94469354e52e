"""Servers that only accept a request (202), and give its answer on the standalone stream."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from http_server import HttpServer, begin_stream, write_event
from messages import call, notification
from proxy_bench import PATIENCE_SECONDS, Bench, until


class Accepting:
    """A server that answers tool calls so; ``then`` says what comes on the stream."""

    def __init__(
        self, server: HttpServer, then: Callable[[web.StreamResponse, Any], Awaitable[None]]
    ) -> None:
        self._streams: dict[str, web.StreamResponse] = {}
        self._then = then
        self._tasks: list[asyncio.Task[None]] = []
        server.on |= {"GET": self.listen, "tools/call": self.accept}

    async def listen(self, request: web.Request, _: object) -> web.StreamResponse:
        """The standalone stream."""
        response = self._streams[request.headers["Mcp-Session-Id"]] = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    async def accept(self, request: web.Request, message: Any) -> web.Response:
        """A call, which is only accepted."""
        session = request.headers["Mcp-Session-Id"]
        await until(lambda: session in self._streams)
        self._tasks.append(asyncio.create_task(self._answer(self._streams[session], message)))
        return web.Response(status=202)

    async def _answer(self, stream: web.StreamResponse, message: Any) -> None:
        await asyncio.sleep(0.02)  # most likely behind the 202, but it may be before that as well
        await self._then(stream, message)


async def count(stream: web.StreamResponse, message: Any) -> None:
    """The answer."""
    await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], "result": {"count": 7}})


async def test_an_answer_on_the_standalone_stream(bench: Bench, server: HttpServer) -> None:
    """It reaches its caller, who has a session or none; each call is made once."""
    Accepting(server, count)
    await bench.start()
    session = await bench.initialize()
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 7}
    assert (await bench.post(call())).json["result"] == {"count": 7}
    assert len(server.posts("tools/call")) == 2


async def test_an_error_on_the_standalone_stream(bench: Bench, server: HttpServer) -> None:
    """The same of an error."""

    async def fail(stream: web.StreamResponse, message: Any) -> None:
        error = {"code": -32050, "message": "not today"}
        await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], "error": error})

    Accepting(server, fail)
    await bench.start()
    answer = await bench.post(call(), session=await bench.initialize())
    assert answer.json["error"]["message"] == "not today"


async def test_others_do_not_end_it(bench: Bench, server: HttpServer) -> None:
    """What comes there meanwhile for nobody, or for another call, is no answer to this one."""

    async def talk(stream: web.StreamResponse, message: Any) -> None:
        await write_event(stream, {"jsonrpc": "2.0", "id": 999_999, "result": {"count": 0}})
        await write_event(stream, notification("notifications/message", level="info", data="well"))
        await count(stream, message)

    Accepting(server, talk)
    await bench.start()
    answer = await bench.post(call(), session=await bench.initialize())
    assert answer.json["result"] == {"count": 7}


async def test_a_server_without_that_stream(bench: Bench, server: HttpServer) -> None:
    """Nothing can come there, so the client is told at once that nobody knows."""

    async def accept(_: web.Request, message: object) -> web.Response:
        return web.Response(status=202)

    server.on["tools/call"] = accept
    await bench.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await bench.post(call(), session=await bench.initialize())
    assert (answer.status, answer.error[2]) == (502, "outcome-unknown")
    assert "accepted this request (202)" in answer.json["error"]["message"]


async def test_an_answer_that_never_comes(bench: Bench, server: HttpServer) -> None:
    """It is waited for as long as the server may be silent, and the server is told that nobody waits."""

    async def say_nothing(_: web.StreamResponse, message: object) -> None:
        pass

    Accepting(server, say_nothing)
    await bench.start(request_timeout="200ms")
    answer = await bench.post(call(), session=await bench.initialize())
    assert (answer.status, answer.error[2]) == (504, "upstream-timeout")
    await until(lambda: server.posts("notifications/cancelled"))
    assert len(server.posts("tools/call")) == 1
