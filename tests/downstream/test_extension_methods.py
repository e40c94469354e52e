"""Methods that the core does not know: those of extensions are the server's, all others are nobody's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from modern_bench import META, Modern, modern
from task_bench import LIFTED

NOTES: dict[str, Any] = {"tools": {}, "extensions": {"com.example/notes": {}}}
UNKNOWN_TO_ALL = [
    "tasks/pause",
    "tasks/list",
    "tasks/result",
    "tasks/",
    "notifications/notes",
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "x" * 300,
]


@pytest.fixture
async def bench() -> AsyncIterator[Modern]:
    """A modern client and a server with an extension; the proxy between them is started by the test."""
    async with HttpServer() as server, Modern(server) as bench:
        bench.offer(NOTES)
        yield bench


async def test_they_are_passed_on(bench: Modern) -> None:
    """With all parameters but the core's metadata, once; the answer is lifted as any."""
    bench.answer("notes/list", {"notes": [1]})
    await bench.start()
    discovered = (await bench.ask(modern("server/discover"))).json["result"]["capabilities"]
    assert discovered["extensions"] == NOTES["extensions"]
    params = {"inputResponses": 3, "requestState": "s", "task": {"a": 1}, "of": "Ada"}
    meta = {"com.example/mine": True}
    answer = await bench.ask(modern("notes/list", "n-1", meta=meta, **params))
    assert answer.json == {"jsonrpc": "2.0", "id": "n-1", "result": LIFTED | {"notes": [1]}}
    [(_, sent)] = bench.server.posts("notes/list")
    assert sent["params"] == {**params, "_meta": meta}


async def test_what_the_server_says_of_them(bench: Modern) -> None:
    """Its errors are the client's; a method that it does not know is 404."""
    bench.fail("notes/add", -32010, "full", {"most": 3})
    bench.fail("notes/burn", -32601, "Method not found")
    await bench.start()
    answer = await bench.ask(modern("notes/add", 7))
    assert (answer.status, answer.json["id"], answer.json["error"]) == (
        200,
        7,
        {"code": -32010, "message": "full", "data": {"most": 3}},
    )
    answer = await bench.ask(modern("notes/burn", "b"))
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (404, "b", -32601)


async def test_an_answer_that_is_lost(bench: Modern) -> None:
    """Nobody knows what such a method does, so it is not sent again."""

    async def break_off(request: web.Request, _: Any) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    bench.server.on["notes/add"] = break_off
    await bench.start()
    assert (await bench.ask(modern("notes/add"))).json["error"]["data"]["reason"] == "outcome-unknown"
    assert len(bench.server.posts("notes/add")) == 1


@pytest.mark.parametrize("extensions", [None, {}, {f"{META}tasks": {}}], ids=["none", "empty", "tasks"])
async def test_servers_without_extensions(bench: Modern, extensions: Any) -> None:
    """They are not asked: the method is not found, under the client's own id. The session serves the next."""
    bench.offer({"tools": {}} if extensions is None else {"tools": {}, "extensions": extensions})
    await bench.start()
    for identifier in ("a", 0):
        answer = await bench.ask(modern("notes/list", identifier))
        assert answer.status == 404
        assert (answer.json["id"], answer.json["error"]["code"]) == (identifier, -32601)
    assert bench.server.posts("notes/list") == []
    assert (await bench.ask(modern(name="count"))).json["result"]["count"] == 1
    assert len(list(bench.proxy.core.pool.books.slots())) == 1


@pytest.mark.parametrize("method", UNKNOWN_TO_ALL, ids=lambda method: method[:20])
async def test_methods_that_no_extension_has(bench: Modern, method: str) -> None:
    """They are not found, and no session is opened for them."""
    await bench.start()
    answer = await bench.ask(modern(method, "mine"))
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (404, "mine", -32601)
    assert list(bench.proxy.core.pool.books.slots()) == []


async def test_their_headers(bench: Modern) -> None:
    """``Mcp-Method`` repeats the method, as of any request."""
    await bench.start()
    answer = await bench.ask(modern("notes/list"), Mcp_Method="notes/add")
    assert (answer.status, answer.json["error"]["code"]) == (400, -32020)


async def test_legacy_clients(bench: Modern) -> None:
    """What they ask is the server's to know, whatever it declares."""

    async def list_notes(_: web.Request, message: Any) -> web.StreamResponse:
        return reply_to(message, {"notes": []})

    bench.server.on["notes/list"] = list_notes
    await bench.start()
    session = await bench.initialize()
    message = {"jsonrpc": "2.0", "id": "l", "method": "notes/list", "params": {"task": 1}}
    answer = await bench.post(message, session=session)
    assert answer.json == {"jsonrpc": "2.0", "id": "l", "result": {"notes": []}}
