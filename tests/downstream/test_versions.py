"""Who has chosen a protocol version, and what becomes of that before a server that is strict about it."""

from typing import Any

from aiohttp import web
from messages import INITIALIZE, call
from proxy_bench import Bench

META = "io.modelcontextprotocol/"
MODERN = call(
    1, "tools/list", _meta={f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}}
)
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}


def take_only(bench: Bench, version: str) -> None:
    """Let the server refuse every handshake of another version."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        if message["params"]["protocolVersion"] == version:
            return bench.server.open_session(message)
        error = {"code": -32602, "message": "Unsupported protocol version", "data": {"supported": [version]}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    bench.server.on["initialize"] = initialize


async def test_a_strict_server(bench: Bench) -> None:
    """Requests without a session and modern ones find its version; a client's own handshake is its own."""
    take_only(bench, "2025-03-26")
    await bench.start(upstream_era="legacy")
    assert (await bench.post(call())).status == 200
    assert (await bench.post(call(), session="from elsewhere")).status == 200
    assert (await bench.post(MODERN, headers=MODERN_HEADERS)).status == 200
    for request, _ in bench.server.posts("tools/call"):
        assert request.headers["MCP-Protocol-Version"] == "2025-03-26"
    asked = [message["params"]["protocolVersion"] for _, message in bench.server.posts("initialize")]
    assert asked == ["2025-11-25", "2025-03-26", "2025-03-26", "2025-03-26"]
    answer = await bench.post(INITIALIZE)
    assert answer.json["error"]["data"]["supported"] == ["2025-03-26"]
    assert "Mcp-Session-Id" not in answer.headers


async def test_an_answer_in_an_unknown_version(bench: Bench) -> None:
    """What the proxy began is ended with a clear error; a client that began gets it as it is."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        message["params"]["protocolVersion"] = "2031-01-01"
        return bench.server.open_session(message)

    bench.server.on["initialize"] = initialize
    await bench.start(upstream_era="legacy")
    for message, headers in ((call(), {}), (MODERN, MODERN_HEADERS)):
        answer = await bench.post(message, headers=headers)
        assert (answer.status, answer.error[2]) == (502, "upstream-protocol-error")
        assert "'2031-01-01'" in answer.json["error"]["message"]
    assert len(bench.server.deleted) == 2
    answer = await bench.post(INITIALIZE)
    assert answer.json["result"]["protocolVersion"] == "2031-01-01"
    assert (await bench.post(call(), session=answer.headers["Mcp-Session-Id"])).status == 200


async def test_a_refusal_of_initialized(bench: Bench) -> None:
    """The client's session works, if the server serves it."""

    async def refuse(*_: object) -> web.StreamResponse:
        return web.Response(status=500)

    bench.server.on["notifications/initialized"] = refuse
    await bench.start()
    session = await bench.initialize()
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}
