"""A server that gives one session id twice: callers never meet on it."""

from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from proxy_bench import Bench


@pytest.fixture
async def server(server: HttpServer) -> HttpServer:
    """It gives every session the same id."""

    async def initialize(_: web.Request, message: Any) -> web.Response:
        return server.open_session(message, identifier="same")

    server.on["initialize"] = initialize
    return server


async def test_another_caller_never_comes_onto_it(bench: Bench) -> None:
    """It is told so, nothing is sent on the other one's session, and that one goes on."""
    await bench.start()
    alice, bob = {"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}
    assert (await bench.post(call(), headers=alice)).json["result"] == {"count": 1}
    refused = await bench.post(call(7), headers=bob)
    assert (refused.status, refused.error) == (502, (7, -32603, "upstream-protocol-error"))
    seen = [r for r, _ in bench.server.seen if r.headers.get("Authorization") == "Bearer bob"]
    assert all("Mcp-Session-Id" not in request.headers for request in seen)
    assert (await bench.post(call(), headers=alice)).json["result"] == {"count": 2}
    assert bench.server.deleted == []


async def test_one_caller_may_have_it_twice(bench: Bench) -> None:
    """What a server does with one caller's own sessions is between the two of them."""
    await bench.start(sharing="isolated")
    first, second = await bench.initialize(), await bench.initialize()
    assert first != second
    assert (await bench.post(call(), session=first)).json["result"] == {"count": 1}
    assert (await bench.post(call(), session=second)).json["result"] == {"count": 2}
