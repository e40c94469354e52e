"""Answers of the server with heads that are large, or that cannot be read, through the whole proxy."""

from typing import Any

from aiohttp import web
from http_server import reply_to
from messages import INITIALIZE, call
from proxy_bench import Bench


def fatten(bench: Bench, method: str, size: int) -> None:
    """Let the server answer a method with a header of this size."""

    async def handle(request: web.Request, message: Any) -> web.StreamResponse:
        if method == "initialize":
            response = bench.server.open_session(message)
        else:
            bench.server.sessions[request.headers["Mcp-Session-Id"]] += 1
            response = reply_to(message, {"content": []})
        response.headers["X-Fat"] = "x" * size
        return response

    bench.server.on[method] = handle


async def test_a_fat_head(bench: Bench) -> None:
    """Up to 64 KiB is nothing special."""
    for method in ("initialize", "tools/call"):
        fatten(bench, method, 60_000)
    await bench.start()
    assert (await bench.post(call(), session=await bench.initialize())).status == 200


async def test_a_head_that_is_too_fat(bench: Bench) -> None:
    """The client learns what is wrong, and that the call may have been executed; it is executed once."""
    fatten(bench, "tools/call", 80_000)
    await bench.start()
    session = await bench.initialize()
    answer = await bench.post(call(), session=session)
    assert (answer.status, answer.error) == (502, (1, -32603, "upstream-protocol-error"))
    message = answer.json["error"]["message"]
    assert "64 KiB" in message
    assert "may have been done" in message
    assert len(bench.server.posts("tools/call")) == 1
    del bench.server.on["tools/call"]
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 2}


async def test_a_handshake_with_a_head_that_is_too_fat(bench: Bench) -> None:
    """It fails at once, with the reason."""
    fatten(bench, "initialize", 80_000)
    await bench.start()
    answer = await bench.post(INITIALIZE)
    assert (answer.status, answer.error[2]) == (502, "upstream-protocol-error")
    assert "64 KiB" in answer.json["error"]["message"]
    assert len(bench.server.posts("initialize")) == 1


async def test_a_page_with_a_head_that_is_too_fat(bench: Bench) -> None:
    """On the other paths, too."""

    async def get(*_: object) -> web.StreamResponse:
        return web.Response(headers={"X-Fat": "x" * 80_000})

    bench.server.on["GET"] = get
    await bench.start(passthrough="all")
    async with bench.http.get(bench.proxy.listen_url + "/page") as response:
        assert response.status == 502
        assert "64 KiB" in await response.text()
