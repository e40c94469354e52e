"""A server's JSON-RPC error is an answer, whatever HTTP status it comes with."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from modern_bench import Modern, modern

STATUSES = [200, 400, 404, 409, 422, 500, 502, 503]
URL = {"mode": "url", "message": "Log in", "url": "https://x.example"}


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Modern]:
    """A modern client and a server, and the proxy between them."""
    async with Modern(server) as bench:
        await bench.start()
        yield bench


def refuse(
    bench: Modern, method: str, status: int, failure: dict[str, Any], identifier: Any = ..., **headers: str
) -> None:
    """Let the server answer a method with this error and status; its id is the request's unless given."""

    async def reply(_: web.Request, message: Any) -> web.StreamResponse:
        body = {"jsonrpc": "2.0", "id": message["id"] if identifier is ... else identifier, "error": failure}
        if identifier == "absent":
            del body["id"]
        return web.json_response(body, status=status, headers=headers)

    bench.server.on[method] = reply


@pytest.mark.parametrize("status", STATUSES)
async def test_a_resource_that_is_not_there(bench: Modern, status: int) -> None:
    """A modern client is told in its own revision's words, always in the same way."""
    refuse(bench, "resources/read", status, {"code": -32002, "message": "Resource not found"})
    answer = await bench.ask(modern("resources/read", identifier="r", uri="x://y"), Mcp_Name="x://y")
    assert (answer.status, answer.json["id"]) == (200, "r")
    assert answer.json["error"] == {
        "code": -32602,
        "message": "Resource not found",
        "data": {"uri": "x://y"},
    }


@pytest.mark.parametrize("status", STATUSES)
async def test_urls_to_visit(bench: Modern, status: int) -> None:
    """A call that first wants a URL visited asks the client, which calls again when it was."""
    refuse(
        bench,
        "tools/call",
        status,
        {"code": -32042, "message": "Log in", "data": {"elicitations": [URL]}},
    )
    asked = (await bench.ask(modern())).json["result"]
    assert asked["resultType"] == "input_required"
    [(key, request)] = asked["inputRequests"].items()
    assert (request["method"], request["params"]["url"]) == ("elicitation/create", "https://x.example")
    del bench.server.on["tools/call"]
    again = modern(requestState=asked["requestState"], inputResponses={key: {"action": "accept"}})
    assert (await bench.ask(again)).json["result"]["count"] == 1


@pytest.mark.parametrize("status", [401, 403, 429])
@pytest.mark.parametrize("code", [-32002, -32042, -32001])
async def test_what_is_about_the_caller_keeps_its_status(bench: Modern, status: int, code: int) -> None:
    """The status and its explanation stay; a code that a modern client must not see does not reach it."""
    refuse(bench, "tools/call", status, {"code": code, "message": "no"}, **{"Retry-After": "7"})
    answer = await bench.ask(modern())
    assert (answer.status, answer.headers["Retry-After"]) == (status, "7")
    assert answer.json["error"]["code"] == {-32002: -32602, -32042: -32603, -32001: -32001}[code]


@pytest.mark.parametrize("identifier", [None, "absent", "server-error"])
async def test_errors_without_an_id(bench: Modern, identifier: Any) -> None:
    """Some servers lose the id of what they refuse."""
    refuse(bench, "tools/call", 400, {"code": -32002, "message": "no"}, identifier)
    assert (await bench.ask(modern())).json["error"]["code"] == -32602


async def test_an_error_for_another_request(bench: Modern) -> None:
    """It is no answer to this one, yet no client sees a code that it must not."""
    refuse(bench, "tools/call", 400, {"code": -32042, "message": "no"}, 4711)
    answer = await bench.ask(modern())
    assert (answer.status, answer.json["error"]["code"]) == (400, -32603)


@pytest.mark.parametrize("code", [-32042, -32002, -32050])
async def test_a_refused_handshake(bench: Modern, code: int) -> None:
    """What the server says to our handshake is in the client's words, too, whatever its status."""
    for status in (200, 400):
        refuse(bench, "initialize", status, {"code": code, "message": "no"})
        answer = await bench.ask(modern())
        assert answer.json["error"]["code"] == (-32602 if code == -32002 else -32603)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", [-32002, -32042, -32000, 7])
async def test_legacy_clients_see_what_the_server_said(bench: Modern, status: int, code: int) -> None:
    """The error as it came, with its own status and what explains it."""
    failure = {"code": code, "message": "no", "data": {"a": 1}}
    refuse(bench, "tools/call", status, failure, **{"Retry-After": "7"})
    session = await bench.initialize()
    answer = await bench.post(call("c"), session=session)
    assert (answer.status, answer.json) == (status, {"jsonrpc": "2.0", "id": "c", "error": failure})
    assert answer.headers.get("Retry-After") == (None if status == 200 else "7")


async def test_it_is_the_servers_own_error(bench: Modern) -> None:
    """Nothing is sent twice for it, and the session stays."""
    refuse(bench, "tools/call", 500, {"code": -32603, "message": "oops"})
    for _ in range(2):
        answer = await bench.ask(modern())
        assert json.loads(answer.body)["error"]["message"] == "oops"
    assert len(bench.server.posts("tools/call")) == 2
    assert len(bench.server.posts("initialize")) == 1
