"""The whole proxy before a server that speaks first, before its client has made a sound."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import call
from proxy_bench import Bench, read_events, until

ROOTS = {"jsonrpc": "2.0", "id": "r-1", "method": "roots/list"}
NEWS = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
LOG = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "up"}}
INITIALIZE = call(
    0,
    "initialize",
    protocolVersion="2025-11-25",
    capabilities={"roots": {}},
    clientInfo={"name": "t", "version": "1"},
)
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
}


@pytest.fixture
async def bench(bench: Bench) -> Bench:
    """A client, the proxy, and a server whose GET stream begins with something for the client."""

    async def speak(request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers["Mcp-Session-Id"] not in bench.server.sessions:
            return web.Response(status=404)
        response = await begin_stream(request)
        for said in (NEWS, ROOTS, LOG):
            await write_event(response, said)
        await asyncio.Event().wait()
        return response

    bench.server.on["GET"] = speak
    await bench.start()
    return bench


async def test_a_legacy_client(bench: Bench) -> None:
    """It hears all of it, in order, whenever it opens its stream; its answer reaches the server."""
    session = (await bench.post(INITIALIZE)).headers["Mcp-Session-Id"]
    async with bench.request("GET", session=session) as stream:
        heard = [data for _, data in await read_events(stream.content, 3)]
        assert [data["method"] for data in heard] == [NEWS["method"], "roots/list", LOG["method"]]
        await bench.post({"jsonrpc": "2.0", "id": heard[1]["id"], "result": {"roots": []}}, session=session)
        await until(lambda: bench.server.posts("response"))
    assert [message for _, message in bench.server.posts("response")] == [
        {"jsonrpc": "2.0", "id": "r-1", "result": {"roots": []}}
    ]


async def test_a_legacy_client_whose_session_was_opened_anew(bench: Bench) -> None:
    """The next incarnation of its session asks anew, and it is asked."""
    session = (await bench.post(INITIALIZE)).headers["Mcp-Session-Id"]
    async with bench.request("GET", session=session) as stream:
        await read_events(stream.content, 3)
        bench.server.sessions.clear()
        await bench.post(call(), session=session)
        heard = [data for _, data in await read_events(stream.content, 3)]
    assert [data["method"] for data in heard] == [NEWS["method"], "roots/list", LOG["method"]]


async def test_a_modern_client(bench: Bench) -> None:
    """The first call that can be asked gets the question."""

    def headers(method: str) -> dict[str, str]:
        return {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}

    listing = await bench.post(call(1, "tools/list", _meta=MODERN), headers=headers("tools/list"))
    assert listing.status == 200
    go_on = asyncio.Event()

    async def wait(request: web.Request, message: Any) -> web.StreamResponse:
        await go_on.wait()
        return reply_to(message, {"content": []})

    bench.server.on["tools/call"] = wait
    named = {**headers("tools/call"), "Mcp-Name": "x"}
    asked = (await bench.post(call(2, name="x", _meta=MODERN), headers=named)).json["result"]
    assert asked["resultType"] == "input_required"
    answers: dict[str, object] = {key: {"roots": []} for key in asked["inputRequests"]}
    again = call(3, name="x", _meta=MODERN, inputResponses=answers, requestState=asked["requestState"])
    async with bench.asking(again, headers=named) as asking:
        await until(lambda: bench.server.posts("response"))
        go_on.set()
        assert (await asking).json["result"]["resultType"] == "complete"
    assert bench.server.posts("response")[0][1] == {"jsonrpc": "2.0", "id": "r-1", "result": {"roots": []}}
    assert len(bench.server.posts("tools/call")) == 1


async def test_a_caller_without_a_session(bench: Bench) -> None:
    """It has declared nothing and cannot be asked: the server does not wait."""
    assert (await bench.post(call())).json["result"] == {"count": 1}
    await until(lambda: bench.server.posts("response"))
    assert "error" in bench.server.posts("response")[0][1]
