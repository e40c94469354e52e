"""Extensions of the protocol, between clients of either era and a server: what is not ours goes through."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, write_event
from messages import INITIALIZE, call
from modern_bench import META, Modern, modern
from proxy_bench import until

UI = "io.modelcontextprotocol/ui"
CLIENT_EXTENSIONS: dict[str, Any] = {
    UI: {"mimeTypes": ["text/html;profile=mcp-app"]},
    "com.example/colours": {"all": True},
}
SERVER_EXTENSIONS: dict[str, Any] = {UI: {}, "com.example/colours": {"of": ["paper", {"and": "ink"}]}}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": False},
    "resources": {},
    "experimental": {"com.example/older": {"x": 1}},
    "extensions": SERVER_EXTENSIONS,
    "com.example.unheardOf": {"y": [None]},
}
MARKED: dict[str, Any] = {
    "ui": {"resourceUri": "ui://clock/app.html", "visibility": ["model", "app"]},
    "ui/resourceUri": "ui://clock/app.html",
    "com.example/colour": "red",
    f"{META}unheard-of": {"deep": [1, 2.50, "\u00e9"]},
}
TOOL: dict[str, Any] = {
    "name": "clock",
    "title": "Clock",
    "icons": [{"src": "data:,", "sizes": ["any"]}],
    "inputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": True},
    "_meta": MARKED,
    "x-unheard-of": 1,
}
RESOURCE: dict[str, Any] = {
    "uri": "ui://clock/app.html",
    "name": "clock",
    "mimeType": "text/html;profile=mcp-app",
    "_meta": {"ui": {"csp": {"connectDomains": ["https://example.com"]}, "prefersBorder": True}},
}
CONTENTS: dict[str, Any] = {**RESOURCE, "text": "<!doctype html><p>\u00e9\u2028</p>"}
ANSWERS: dict[str, Any] = {
    "tools/list": {"tools": [TOOL], "_meta": MARKED, "x-unheard-of": 2},
    "tools/call": {
        "content": [{"type": "text", "text": "noon", "_meta": MARKED}],
        "structuredContent": {"time": 12},
        "_meta": MARKED,
        "x-unheard-of": {"z": 3},
    },
    "resources/list": {"resources": [RESOURCE], "_meta": MARKED},
    "resources/read": {"contents": [CONTENTS], "_meta": MARKED},
}
PARAMS: dict[str, dict[str, Any]] = {
    "tools/list": {},
    "tools/call": {"name": "clock", "arguments": {"zone": {"_meta": MARKED}}, "x-unheard-of": [4]},
    "resources/list": {},
    "resources/read": {"uri": RESOURCE["uri"]},
}


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Modern]:
    """A server that has extensions, and a client of either era."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        return server.open_session(message, capabilities=CAPABILITIES, _meta=MARKED)

    server.on["initialize"] = initialize
    async with Modern(server) as bench:
        for method, result in ANSWERS.items():
            bench.answer(method, result)
        yield bench


def _modern(method: str, **params: Any) -> dict[str, Any]:
    capabilities = {"extensions": CLIENT_EXTENSIONS}
    return modern(method, meta={f"{META}clientCapabilities": capabilities, **MARKED}, **params)


async def test_a_legacy_handshake(bench: Modern, server: HttpServer) -> None:
    """The server hears of the client's extensions, and the client of the server's, to the letter."""
    await bench.start()
    params = {**INITIALIZE["params"], "capabilities": {"extensions": CLIENT_EXTENSIONS}}
    answer = await bench.post({**INITIALIZE, "params": params})
    assert answer.json["result"]["capabilities"] == CAPABILITIES
    assert answer.json["result"]["_meta"] == MARKED
    ((_, heard),) = server.posts("initialize")
    assert heard["params"]["capabilities"]["extensions"] == CLIENT_EXTENSIONS


async def test_a_modern_client_and_server_hear_of_each_others(bench: Modern, server: HttpServer) -> None:
    """The same by `server/discover`, and by the handshake that is made for it."""
    await bench.start()
    found = await bench.ask(_modern("server/discover"))
    assert found.json["result"]["capabilities"] == CAPABILITIES
    ((_, heard),) = server.posts("initialize")
    assert heard["params"]["capabilities"]["extensions"] == CLIENT_EXTENSIONS


@pytest.mark.parametrize("method", list(ANSWERS))
async def test_legacy_answers_are_the_servers(bench: Modern, server: HttpServer, method: str) -> None:
    """Whatever stands in a request or in its answer arrives."""
    await bench.start()
    session = await bench.initialize()
    params = {**PARAMS[method], "_meta": MARKED}
    answer = await bench.post(call(1, method, **params), session=session)
    assert answer.json["result"] == ANSWERS[method]
    assert server.posts(method)[-1][1]["params"] == params


@pytest.mark.parametrize("method", list(ANSWERS))
async def test_modern_answers_gain_members_only(bench: Modern, server: HttpServer, method: str) -> None:
    """A modern client gets what a legacy one does, and what its revision has besides."""
    await bench.start()
    result = (await bench.ask(_modern(method, **PARAMS[method]))).json["result"]
    assert result.pop("resultType") == "complete"
    assert result["_meta"].pop(f"{META}serverInfo") == {"name": "fake", "version": "1"}
    if method != "tools/call":
        assert (result.pop("ttlMs"), result.pop("cacheScope")) == (0, "private")
    assert result == ANSWERS[method]
    heard = server.posts(method)[-1][1]["params"]
    assert heard == {**PARAMS[method], "_meta": MARKED}


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_notifications_keep_what_is_marked(bench: Modern, server: HttpServer, era: str) -> None:
    """Progress and log messages of a call have their `_meta`, whichever client it is."""
    params = {"level": "info", "data": {"_meta": MARKED}, "_meta": MARKED}

    async def tool(request: web.Request, message: Any) -> web.StreamResponse:
        stream = await begin_stream(request)
        token = message["params"]["_meta"]["progressToken"]
        progress = {"progressToken": token, "progress": 1, "_meta": MARKED}
        for method, said in (("notifications/progress", progress), ("notifications/message", params)):
            await write_event(stream, {"jsonrpc": "2.0", "method": method, "params": said})
        await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return stream

    server.on["tools/call"] = tool
    await bench.start()
    if era == "legacy":
        session = await bench.initialize()
        asked = await bench.post(call(1, name="clock", _meta={"progressToken": "p"}), session=session)
    else:
        asked = await bench.ask(modern(meta={"progressToken": "p", f"{META}logLevel": "info"}, name="clock"))
    progress, logged, _ = asked.json
    assert progress["params"] == {"progressToken": "p", "progress": 1, "_meta": MARKED}
    assert logged["params"] == params


async def test_a_question_and_its_answer_keep_what_is_marked(bench: Modern, server: HttpServer) -> None:
    """What an extension adds to a question reaches the client, and what it adds to the answer the server."""
    asked = {"message": "?", "requestedSchema": {"type": "object"}, "_meta": MARKED, "x-unheard-of": 1}
    bench.ask_client({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": asked}, {})
    await bench.start()
    result = (await bench.ask(modern(name="clock"))).json["result"]
    ((key, question),) = result["inputRequests"].items()
    assert question == {"method": "elicitation/create", "params": asked}
    answer = {"action": "accept", "content": {}, "_meta": MARKED, "x-unheard-of": 2}
    again = modern(name="clock", inputResponses={key: answer}, requestState=result["requestState"])
    assert (await bench.ask(again)).status == 200
    await until(lambda: server.posts("response"))
    ((_, heard),) = server.posts("response")
    assert heard["result"] == answer


async def test_the_extension_for_tasks_makes_no_other_session(bench: Modern, server: HttpServer) -> None:
    """A client that declares it for some of its calls has one session, for the server hears nothing of it."""
    await bench.start()
    declared: list[dict[str, Any]] = [{}, {"extensions": {}}, {"extensions": {f"{META}tasks": {}}}]
    for extensions in declared:
        await bench.ask(modern("tools/list", meta={f"{META}clientCapabilities": extensions}))
    assert len(server.posts("initialize")) == 1
