"""Which clients are served, and what becomes of modern requests before servers of one era and of both."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from messages import INITIALIZE, call
from proxy_bench import Answer, Bench

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"


def modern(method: str = "tools/call", identifier: object = 1, **params: Any) -> dict[str, Any]:
    """A modern request."""
    if method == "tools/call":
        params.setdefault("name", "count")
    params["_meta"] = {f"{META}protocolVersion": VERSION, f"{META}clientCapabilities": {}}
    return call(identifier, method, **params)


class BothEras(HttpServer):
    """A server that answers modern requests, too: always as if they were the first."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("MCP-Protocol-Version") != VERSION:
            return await super().answer(request)
        message = json.loads(await request.read())
        self.seen.append((request, message))
        if (handler := self.on.get(message["method"])) is not None:
            return await handler(request, message)
        if message["method"] == "server/discover":
            return reply_to(message, {"supportedVersions": [VERSION], "capabilities": {}})
        return reply_to(message, {"count": 1, "as": "modern", "resultType": "complete"})


class Desk(Bench):
    """A bench whose client is modern."""

    async def ask(self, message: dict[str, Any], **headers: str) -> Answer:
        routing = {"MCP-Protocol-Version": VERSION, "Mcp-Method": message["method"]}
        if "name" in message["params"]:
            routing["Mcp-Name"] = message["params"]["name"]
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post(message, headers={**routing, **more})

    async def counts(self, times: int = 3, **headers: str) -> list[int]:
        return [(await self.ask(modern(), **headers)).json["result"]["count"] for _ in range(times)]


@pytest.fixture
async def bench() -> AsyncIterator[Desk]:
    """A client and a server of both eras; the proxy between them is started by the test."""
    async with BothEras() as server, Desk(server) as bench:
        yield bench


async def give_no_ids(_: web.Request, message: Any) -> web.StreamResponse:
    """The handshake of a server without sessions."""
    return reply_to(message, {"protocolVersion": "2025-11-25", "capabilities": {}})


# -- what becomes of modern requests -----------------------------------------------------------------


async def test_state_of_a_server_of_both_eras_is_kept(bench: Desk) -> None:
    """Its sessions remember: modern requests are translated, and count on."""
    await bench.start()
    assert await bench.counts() == [1, 2, 3]
    assert len(bench.server.sessions) == 1
    assert len(bench.server.deleted) == 1  # that of the question


async def test_a_server_of_both_eras_without_sessions_gets_modern_requests(bench: Desk) -> None:
    """Nothing is kept there, so nothing is lost: the server answers by itself, byte for byte."""
    bench.server.on["initialize"] = give_no_ids
    await bench.start()
    assert await bench.counts() == [1, 1, 1]
    assert len(bench.server.posts("initialize")) == 1
    assert (await bench.ask(modern())).json["result"]["as"] == "modern"


async def test_legacy_clients_answer_the_question(bench: Desk) -> None:
    """A legacy client's session shows what the server is like: no other one is opened to find out."""
    await bench.start()
    session = await bench.initialize()
    await bench.post(call(), session=session)
    assert await bench.counts() == [1, 2, 3]
    assert len(bench.server.posts("initialize")) == 2
    assert bench.server.deleted == []


@pytest.mark.parametrize(("choice", "counts"), [("legacy", [1, 2, 3]), ("modern", [1, 1, 1])])
async def test_the_operators_choice(bench: Desk, choice: str, counts: list[int]) -> None:
    """Translated or passed on, whatever the server is like, without asking it."""
    await bench.start(upstream_era=choice)
    assert await bench.counts() == counts
    assert bench.server.posts("server/discover") == []


async def test_a_server_that_has_no_legacy_side(bench: Desk) -> None:
    """One that refuses every handshake gets modern requests as they are."""

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        failure = {"code": -32022, "message": "Unsupported", "data": {"supported": [VERSION]}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": failure}, status=400)

    bench.server.on["initialize"] = refuse
    await bench.start()
    assert await bench.counts() == [1, 1, 1]


# -- strangers -----------------------------------------------------------------------------------------


def strict_about_headers(
    bench: Desk, status: int, body: bytes = b"", content_type: str = "text/plain"
) -> None:
    """Let the server refuse requests with much in their headers, or of one caller, before it reads them."""

    async def discover(request: web.Request, message: Any) -> web.StreamResponse:
        headers = sum(len(name) + len(value) for name, value in request.headers.items())
        if headers > 2000 or request.headers.get("Authorization") == "Bearer stranger":
            return web.Response(status=status, body=body, content_type=content_type)
        return reply_to(message, {"supportedVersions": [VERSION], "capabilities": {}})

    bench.server.on |= {"server/discover": discover, "initialize": give_no_ids}


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (431, b"", "text/plain"),
        (401, b'{"error":"invalid_token"}', "application/json"),
        (403, b"no", "text/plain"),
        (429, b"slow down", "text/plain"),
        (500, b"oops", "text/plain"),
        (503, b"", "text/plain"),
        (400, b"<html>Request Header Or Cookie Too Large</html>", "text/html"),
        (404, b"<html>session expired: log in</html>", "text/html"),
        (200, b"<html>log in</html>", "text/html"),
    ],
)
async def test_one_caller_settles_nothing_for_the_others(
    bench: Desk, status: int, body: bytes, content_type: str
) -> None:
    """What the server has against one caller's request does not make it a legacy server for all."""
    strict_about_headers(bench, status, body, content_type)
    await bench.start()
    for _ in range(3):
        await bench.ask(modern(), Authorization="Bearer stranger")
    for caller in ("alice", "bob", "carol"):
        answer = await bench.ask(modern(), Authorization=f"Bearer {caller}")
        assert answer.json["result"]["as"] == "modern"


async def test_the_question_carries_the_credential_and_nothing_else(bench: Desk) -> None:
    """Large headers of a request that say nothing of its sender do not travel with the question."""
    strict_about_headers(bench, 431)
    await bench.start()
    await bench.ask(modern(), X_Large="x" * 4000, Authorization="Bearer alice")
    [(asked, _)] = bench.server.posts("server/discover")
    assert asked.headers["Authorization"] == "Bearer alice"
    assert "X-Large" not in asked.headers
    [(tried, _)] = bench.server.posts("initialize")
    assert tried.headers["Authorization"] == "Bearer alice"
    assert "X-Large" not in tried.headers


# -- whom we serve -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call", "subscriptions/listen"])
async def test_legacy_only_answers_modern_requests_as_a_legacy_server_does(bench: Desk, method: str) -> None:
    """400 with a code that is not the modern revision's own, so that a client of both eras falls back."""
    await bench.start(serve_eras="legacy")
    answer = await bench.ask(modern(method, identifier="d"))
    assert answer.status == 400
    assert answer.json["id"] == "d"
    assert answer.json["error"]["code"] == -32600
    assert "Unsupported protocol version" in answer.json["error"]["message"]
    assert bench.server.seen == []


@pytest.mark.slow
async def test_legacy_only_knows_no_discovery_without_a_header(bench: Desk) -> None:
    """Not even a discovery that names its version nowhere, and not one of a version yet to come."""
    await bench.start(serve_eras="legacy")
    for message, headers in (
        (call(1, "server/discover"), {}),
        (modern("server/discover"), {}),
        (modern("server/discover"), {"MCP-Protocol-Version": "2030-01-01"}),
    ):
        answer = await bench.post(message, headers=headers)
        assert (answer.status, answer.json["error"]["code"]) == (400, -32600)


async def test_legacy_only_serves_legacy_clients(bench: Desk) -> None:
    """Sessions work; within one, marks of the later revision mean nothing."""
    await bench.start(serve_eras="legacy")
    session = await bench.initialize()
    for count in (1, 2):
        answer = await bench.post(modern(), session=session, headers={"MCP-Protocol-Version": "2025-11-25"})
        assert answer.json["result"]["count"] == count
    assert (await bench.post(call())).json["result"]["count"] == 1  # without any session


async def test_legacy_only_before_a_server_without_sessions(bench: Desk) -> None:
    """Modern requests are refused here, though the server would take them."""
    bench.server.on["initialize"] = give_no_ids
    await bench.start(serve_eras="legacy")
    assert (await bench.ask(modern("server/discover"))).status == 400


@pytest.mark.parametrize("version", ["2025-11-25", "2024-11-05"])
async def test_modern_only_refuses_handshakes(bench: Desk, version: str) -> None:
    """The error names the versions that there are, which is all that a legacy client can show its user."""
    await bench.start(serve_eras="modern")
    params = {**INITIALIZE["params"], "protocolVersion": version}
    answer = await bench.post({**INITIALIZE, "id": 7, "params": params})
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (400, 7, -32022)
    data = answer.json["error"]["data"]
    assert (data["supported"], data["requested"]) == ([VERSION], version)
    assert "Mcp-Session-Id" not in answer.headers
    assert bench.server.seen == []


async def test_modern_only_refuses_everything_of_sessions(bench: Desk) -> None:
    """Requests of an earlier revision, streams, goodbyes: nothing is adopted, nothing reaches the server."""
    await bench.start(serve_eras="modern")
    answer = await bench.post(call(), session="mine", headers={"MCP-Protocol-Version": "2025-11-25"})
    assert (answer.status, answer.json["error"]["code"]) == (400, -32022)
    assert answer.json["error"]["data"]["supported"] == [VERSION]
    assert (await bench.post(call(), session="mine")).status == 400
    assert (await bench.post([call(1), call(2)])).status == 400
    notification = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await bench.post(notification, session="mine")).status == 202
    for verb in ("GET", "DELETE"):
        async with bench.request(verb, session="mine") as response:
            assert response.status == 405
    assert bench.server.seen == []
    assert len(bench.proxy.core.binder.directory) == 0


async def test_modern_only_serves_modern_clients(bench: Desk) -> None:
    """They are served as ever, and told of no other version."""
    await bench.start(serve_eras="modern")
    assert await bench.counts() == [1, 2, 3]
    found = (await bench.ask(modern("server/discover"))).json["result"]
    assert found["supportedVersions"] == [VERSION]
