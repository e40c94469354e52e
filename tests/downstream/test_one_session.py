"""The whole proxy before a server that can have one session only."""

from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import INITIALIZE, call
from proxy_bench import Bench

META = "io.modelcontextprotocol/"
MODERN = call(
    1,
    "tools/list",
    _meta={f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {"roots": {}}},
)
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}


@pytest.fixture
async def server(server: HttpServer) -> HttpServer:
    """It opens one session at a time."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        if server.sessions:
            error = {"code": -32600, "message": "Invalid Request: Server already initialized"}
            return web.json_response({"jsonrpc": "2.0", "error": error, "id": None}, status=400)
        return server.open_session(message)

    server.on["initialize"] = initialize
    return server


def client(name: str, **capabilities: object) -> dict[str, Any]:
    """The initialize of a client."""
    params = {
        **INITIALIZE["params"],
        "clientInfo": {"name": name, "version": "1"},
        "capabilities": capabilities,
    }
    return {**INITIALIZE, "params": params}


async def test_shared(bench: Bench) -> None:
    """Every kind of client finds the same state, and a new one when the server lost it."""
    await bench.start(sharing="shared", upstream_era="legacy")
    assert (await bench.post(call())).json["result"] == {"count": 1}
    sessions = []
    for message in (client("a"), client("b", roots={"listChanged": True}), client("c", sampling={})):
        answer = await bench.post(message)
        assert answer.status == 200
        sessions.append(answer.headers["Mcp-Session-Id"])
    assert (await bench.post(MODERN, headers=MODERN_HEADERS)).status == 200
    counts = [(await bench.post(call(), session=session)).json["result"]["count"] for session in sessions]
    assert counts == [2, 3, 4]
    asked = len(bench.server.posts("initialize"))
    await bench.post(client("d"))
    await bench.post(call(), session="from elsewhere")
    assert len(bench.server.posts("initialize")) == asked
    bench.server.sessions.clear()
    assert [(await bench.post(call(), session=s)).json["result"]["count"] for s in sessions] == [1, 2, 3]


async def test_a_client_that_can_do_less(bench: Bench) -> None:
    """The server would ask it in vain, so it gets an error that says what is wrong."""
    await bench.start(sharing="shared")
    assert (await bench.post(client("able", roots={}))).status == 200
    answer = await bench.post(client("unable"))
    assert (answer.status, answer.error) == (503, (0, -32603, "one-session-only"))


@pytest.mark.parametrize("sharing", ["handover", "isolated", "fresh"])
async def test_other_modes(bench: Bench, sharing: str) -> None:
    """The error names the mode that would do, and the session that is there goes on."""
    await bench.start(sharing=sharing)
    session = await bench.initialize()
    answer = await bench.post(client("second"))
    assert (answer.status, answer.error[2]) == (503, "one-session-only")
    assert "--sharing shared" in answer.json["error"]["message"]
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}
