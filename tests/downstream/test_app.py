"""The front door: who may come in, by which path, and what every answer carries."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from http_server import Handler, begin_stream, reply_to
from messages import INITIALIZE, call, notification
from proxy_bench import PATIENCE_SECONDS, Answer, Bench, until
from yarl import URL

from mcp_session_proxy.downstream.legacy import LegacyRequests

PAGE = "https://app.example.com"
EXPOSED = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"


async def talk(bench: Bench, request: bytes) -> bytes:
    """Send raw bytes, read what comes back until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer


def is_cors(headers: Any) -> bool:
    return (
        headers.get("Access-Control-Allow-Origin") == PAGE
        and headers.get("Access-Control-Expose-Headers") == EXPOSED
        and headers.get("Vary") == "Origin"
    )


# -- who may come in -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a b", ""])
@pytest.mark.parametrize("path", ["/mcp", "/other"])
async def test_rebound_page(bench: Bench, host: str, path: str) -> None:
    """On loopback a foreign Host is refused on every path, before anything is done."""
    await bench.start()
    body = json.dumps(INITIALIZE).encode()
    answer = await talk(
        bench,
        b"POST %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (path.encode(), host.encode(), len(body), body),
    )
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"host-not-allowed" in answer
    assert bench.server.seen == []


@pytest.mark.parametrize(
    ("line", "more"),
    [
        (b"POST http://evil.example/mcp HTTP/1.1", b""),
        (b"GET http://evil.example/page HTTP/1.1", b""),
        (b"POST /mcp HTTP/1.1", b"Origin: http://localhost\r\nOrigin: http://evil.example\r\n"),
    ],
)
async def test_names_that_are_hidden(bench: Bench, line: bytes, more: bytes) -> None:
    """A target that names a host counts as well as ``Host``, and of two origins none does."""
    await bench.start()
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(line + b"\r\nHost: localhost\r\nContent-Length: 0\r\n" + more + b"\r\n")
    assert b" 403 " in await reader.readline()
    assert bench.server.seen == []
    writer.close()


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE", "OPTIONS"])
async def test_foreign_page(bench: Bench, verb: str) -> None:
    """A page that may not call us gets 403, without leave to read it."""
    await bench.start()
    async with bench.request(verb, INITIALIZE, headers={"Origin": PAGE}) as response:
        answer = await Answer.read(response)
    assert answer.status == 403
    assert answer.error == (None, -32600, "origin-not-allowed")
    assert "--allowed-origin" in answer.json["error"]["message"]
    assert not any(name.startswith("Access-Control") for name in answer.headers)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_own_names(bench: Bench, host: str) -> None:
    """On loopback all its names are ours, in Host and in Origin."""
    await bench.start()
    port = URL(bench.url).port
    headers = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
    answer = await bench.post(INITIALIZE, headers=headers)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == headers["Origin"]


async def test_allowed_host(bench: Bench) -> None:
    """--allowed-host adds a name."""
    await bench.start(allowed_host="*.example.com")
    assert (await bench.post(INITIALIZE, headers={"Host": "a.example.com"})).status == 200
    assert (await bench.post(INITIALIZE, headers={"Host": "example.org"})).status == 403


# -- CORS ------------------------------------------------------------------------------------------


async def test_every_answer_carries_cors(bench: Bench) -> None:
    """A page that may call us may read every answer: results, errors, refusals, streams, other paths."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        if message["params"].get("fail"):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        response = await begin_stream(request)
        event = {"jsonrpc": "2.0", "id": message["id"], "result": {}}
        await response.write(b"data: {}\n\ndata: " + json.dumps(event).encode() + b"\n\n")
        return response

    await bench.start(allowed_origin=PAGE)
    bench.server.on["tools/call"] = work
    page = {"Origin": PAGE}
    session = await bench.initialize(headers=page)
    answers = {
        "initialize": await bench.post(INITIALIZE, headers=page),
        "stream": await bench.post(call(1), headers=page, session=session, accept="text/event-stream"),
        "refusal": await bench.post(call(1, fail=True), headers=page),
        "batch": await bench.post([call(1)], headers=page),
        "accepted": await bench.post(notification("x"), headers=page, session=session),
        "garbage": await bench.post(b"{", headers=page),
        "modern": await bench.post(call(1, "server/discover"), headers=page),
    }
    for verb, path in (("DELETE", ""), ("GET", ""), ("PUT", ""), ("GET", "/../elsewhere")):
        async with bench.http.request(verb, bench.url + path, headers=page) as response:
            answers[f"{verb}{path}"] = await Answer.read(response)
    async with bench.request("GET", session=session, headers=page) as response:
        answers["get"] = Answer(response.status, response.headers, b"")
    bench.endpoint.drain()
    answers["draining"] = await bench.post(call(), headers=page)
    statuses = {name: answer.status for name, answer in answers.items()}
    assert statuses["refusal"] == 401
    assert statuses["draining"] == 503
    assert {name for name, answer in answers.items() if not is_cors(answer.headers)} == set()


async def test_nobody_else_gets_cors(bench: Bench) -> None:
    """Callers that are no pages get no such headers."""
    await bench.start(allowed_origin=PAGE)
    answer = await bench.post(INITIALIZE)
    assert not any(name.startswith("Access-Control") for name in answer.headers)


async def test_preflight(bench: Bench) -> None:
    """A preflight is answered here, with the methods and the headers it asks for."""
    await bench.start(allowed_origin=PAGE)
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, mcp-session-id, x-y z",
    }
    async with bench.request("OPTIONS", headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE, OPTIONS"
        assert response.headers["Access-Control-Allow-Headers"] == "authorization, mcp-session-id"
    async with bench.request("OPTIONS") as response:
        assert (response.status, response.headers["Allow"]) == (204, "GET, POST, DELETE, OPTIONS")
    assert bench.server.seen == []


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/mcp", "/mcp/", "/", "", "/a/b/mcp", "/a%20b", "/caf%C3%A9", "/a%2Fb/", "/x;y=1", "/@:!$&'()*+,=~"],
)
async def test_endpoint_path(bench: Bench, path: str) -> None:
    """The endpoint is at the server's path, with and without a slash, and never redirects."""
    bench.server.url = bench.server.url.removesuffix("/mcp") + path
    await bench.start()
    bare = bench.proxy.listen_url + path.rstrip("/")
    for url in (bare + "/", bare or bare + "/"):
        target = URL(url, encoded=True)
        async with bench.http.post(target, json=INITIALIZE, allow_redirects=False) as response:
            assert response.status == 200
            assert "Mcp-Session-Id" in response.headers
    asked = {request.raw_path for request, _ in bench.server.posts("initialize")}
    assert asked == {path or "/"}
    assert bench.proxy.endpoint_url == bench.proxy.listen_url + (path or "/")


async def test_non_ascii_path(bench: Bench) -> None:
    """A path written with other letters in the configuration is the same path."""
    bench.server.url = bench.server.url.removesuffix("/mcp") + "/caf\u00e9"
    await bench.start()
    async with bench.http.post(f"{bench.proxy.listen_url}/caf\u00e9", json=INITIALIZE) as response:
        assert "Mcp-Session-Id" in response.headers


async def test_query_is_part_of_the_call(bench: Bench) -> None:
    """A query string leads to the endpoint, too, and goes to the server."""
    await bench.start()
    url = URL(f"{bench.url}?key=1&x=%2F", encoded=True)
    async with bench.http.post(url, json=call()) as response:
        assert response.status == 200
    assert {request.raw_path for request, _ in bench.server.seen} == {"/mcp?key=1&x=%2F"}


async def test_other_paths_are_passed_through(bench: Bench) -> None:
    """Everything that is not the endpoint is the server's, unchanged."""

    async def page(request: web.Request, _: Any) -> web.Response:
        return web.Response(text=f"page {request.raw_path}", headers={"X-Own": "1"})

    await bench.start()
    bench.server.on["GET"] = page
    for path in ("/", "/health?x=1", "/mcp2", "/mcp/more", "/.well-known/oauth-authorization-server"):
        async with bench.http.get(bench.proxy.listen_url + path) as response:
            assert (response.status, response.headers["X-Own"]) == (200, "1")
            assert await response.text() == f"page {path}"


# -- trouble ---------------------------------------------------------------------------------------


async def test_bug_is_told_without_its_details(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected is a clean error, and the proxy goes on."""

    async def broken(*_: object) -> web.Response:
        raise ZeroDivisionError("secret detail")

    await bench.start()
    monkeypatch.setattr(bench.endpoint, "handle", broken)
    answer = await bench.post(INITIALIZE)
    assert answer.status == 500
    assert answer.error == (None, -32603, "internal")
    assert b"secret" not in answer.body
    monkeypatch.undo()
    monkeypatch.setattr(LegacyRequests, "answer", broken)
    answer = await bench.post(call("x"))
    assert (answer.status, answer.error) == (500, ("x", -32603, "internal"))
    monkeypatch.undo()
    assert (await bench.post(call())).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header: x\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["no-http", "length", "header", "long-header", "long-path"],
)
@pytest.mark.slow
async def test_what_is_no_http(bench: Bench, request_: bytes) -> None:
    """What is no HTTP is answered 400 and harms nobody else."""
    await bench.start()
    assert (await talk(bench, request_)).startswith(b"HTTP/1.")
    assert (await bench.post(call())).status == 200


async def test_broken_chunks(bench: Bench) -> None:
    """A body whose framing breaks is an error of the client's."""
    await bench.start()
    answer = await talk(
        bench,
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nXYZ\r\n",
    )
    assert answer.split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert (await bench.post(call())).status == 200


async def test_expect_continue(bench: Bench) -> None:
    """A client that asks before it sends its body is told to go on."""
    await bench.start()
    body = json.dumps(call("x")).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_old_http(bench: Bench) -> None:
    """A client of HTTP/1.0 is answered, also with a stream, which the end of the connection ends."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await response.write(b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n')
        await response.write(
            b"data: " + json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}).encode() + b"\n\n"
        )
        return response

    await bench.start()
    handlers: list[dict[str, Handler]] = [{}, {"tools/call": work}]
    for on in handlers:
        bench.server.on = on
        body = json.dumps(call("x")).encode()
        answer = await talk(
            bench,
            b"POST /mcp HTTP/1.0\r\nHost: 127.0.0.1\r\n"
            b"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body),
        )
        assert answer.split(b"\r\n")[0].endswith(b"200 OK")
        assert b'"id":"x"' in answer


async def test_pipelined_requests(bench: Bench) -> None:
    """Requests that arrive behind one another on one connection are answered in order."""
    await bench.start()
    requests = b""
    for number in range(3):
        body = json.dumps(call(number, "ping")).encode()
        close = b"Connection: close\r\n" if number == 2 else b""
        requests += b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
            close,
            len(body),
            body,
        )
    answer = await talk(bench, requests)
    assert [answer.index(b'"id":%d' % number) for number in range(3)] == sorted(
        answer.index(b'"id":%d' % number) for number in range(3)
    )


async def test_client_that_leaves_cancels_its_handler(bench: Bench) -> None:
    """A GET whose client has gone ends by itself, without waiting for something to write."""
    await bench.start()
    session = await bench.initialize()
    async with bench.request("GET", session=session) as response:
        await response.content.readline()
        assert bench.endpoint.streams == 1
        response.close()
    await until(lambda: bench.endpoint.streams == 0)


async def test_server_that_is_not_there(bench: Bench) -> None:
    """Other paths say so in plain JSON, for callers that speak no JSON-RPC."""
    bench.server.url = f"http://127.0.0.1:{unused_port()}/mcp"
    await bench.start()
    async with bench.http.get(f"{bench.proxy.listen_url}/health") as response:
        assert response.status == 502
        assert (await response.json())["error"]["reason"] == "upstream-unreachable"


@pytest.mark.slow
async def test_many_at_once(bench: Bench) -> None:
    """A hundred callers at the same time all get their own answer."""
    everyone = asyncio.Barrier(100)

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        await everyone.wait()
        return reply_to(message, message["params"])

    await bench.start()
    bench.server.on["tools/call"] = work
    answers = await asyncio.gather(*(bench.post(call(f"id-{n}", n=n)) for n in range(100)))
    assert [(a.json["id"], a.json["result"]["n"]) for a in answers] == [(f"id-{n}", n) for n in range(100)]
