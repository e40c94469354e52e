"""The MCP endpoint for legacy clients: the whole proxy between a real client and a small server."""

import asyncio
import gc
import gzip
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import GONE, INITIALIZE, call, notification
from proxy_bench import BOTH, PATIENCE_SECONDS, Bench, read_events, until
from yarl import URL

from mcp_session_proxy.exchange.exchange import Exchange
from mcp_session_proxy.upstream.fleet import FleetRules

OURS = "mcp-session-proxy"
STREAM_FIRST = "text/event-stream, application/json"


# -- sessions --------------------------------------------------------------------------------------


async def no_exchange_is_left() -> None:
    """What is over is forgotten, wherever it was noted."""

    def is_any_left() -> bool:
        return any(isinstance(each, Exchange) for each in gc.get_objects())

    # One that is only in a circle of its own is noted nowhere: the collector has not come by yet.
    await until(lambda: not is_any_left() or (gc.collect() and not is_any_left()))


async def test_initialize(bench: Bench) -> None:
    """The client gets an id of ours and the server's own answer; the server sees no session id."""
    await bench.start()
    answer = await bench.post(INITIALIZE)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "jsonrpc": "2.0",
        "id": 0,
        "result": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        },
    }
    ours = answer.headers["Mcp-Session-Id"]
    assert ours.isascii()
    assert ours.isprintable()
    assert ours not in bench.server.sessions
    [(request, message)] = bench.server.posts("initialize")
    assert "Mcp-Session-Id" not in request.headers
    assert message["params"] == INITIALIZE["params"]


async def test_state_is_kept_over_delete(bench: Bench) -> None:
    """DELETE is absorbed, and the id goes on working on the same upstream session."""
    await bench.start()
    session = await bench.initialize()
    counts = []
    for number in range(3):
        counts.append((await bench.post(call(number), session=session)).json["result"]["count"])
        async with bench.request("DELETE", session=session) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, POST")
    assert counts == [1, 2, 3]
    assert bench.server.deleted == []


@pytest.mark.parametrize("status", [405, 200, 204])
async def test_delete_status(bench: Bench, status: int) -> None:
    """Clients that insist get another status; ids that nobody knows get the same."""
    await bench.start(delete_status=str(status))
    for session in (await bench.initialize(), "unknown", None):
        async with bench.request("DELETE", session=session) as response:
            assert response.status == status
            assert ("Allow" in response.headers) is (status == 405)
    assert not any(request.method == "DELETE" for request, _ in bench.server.seen)


async def test_without_a_session(bench: Bench) -> None:
    """Requests that name no session share a pooled one."""
    await bench.start()
    counts = [(await bench.post(call())).json["result"]["count"] for _ in range(3)]
    assert counts == [1, 2, 3]
    assert len(bench.server.sessions) == 1


async def test_foreign_session_ids_are_adopted(bench: Bench) -> None:
    """An id that we did not give out names a conversation of its own."""
    await bench.start()
    for count in (1, 2):
        for session in ("a", "b"):
            assert (await bench.post(call(), session=session)).json["result"]["count"] == count
    assert "Mcp-Session-Id" not in (await bench.post(call(), session="a")).headers


@pytest.mark.parametrize("session", ["\u65e5\u672c", "x" * 8000, "a b", "{}", "..", "%00"])
async def test_odd_session_ids(bench: Bench, session: str) -> None:
    """Whatever a client calls its session, it works, also as the answer to initialize."""
    await bench.start()
    answer = await bench.post(INITIALIZE, session=session)
    assert answer.status == 200
    assert answer.headers["Mcp-Session-Id"] == session
    for count in (1, 2):
        assert (await bench.post(call(), session=session)).json["result"]["count"] == count


async def test_session_id_that_is_not_utf_8(bench: Bench) -> None:
    """Bytes that are no text are a session id like any other, and no crash."""
    await bench.start()
    body = json.dumps(INITIALIZE).encode()
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMcp-Session-Id: caf\xe9\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(head + body)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Mcp-Session-Id: caf\xc3\xa9\r\n" in answer


async def test_unknown_session_refused(bench: Bench) -> None:
    """With --unknown-session reject, a foreign id is told so; notifications and GET stay harmless."""
    await bench.start(unknown_session="reject")
    answer = await bench.post(call("x"), session="foreign")
    assert answer.status == 404
    assert answer.error == ("x", -32001, "unknown-session")
    assert (await bench.post([notification("a"), call(7)], session="foreign")).error[0] == 7
    answer = await bench.post(notification("notifications/initialized"), session="foreign")
    assert (answer.status, answer.body) == (202, b"")
    async with bench.request("GET", session="foreign") as response:
        assert response.status == 405
    async with bench.request("DELETE", session="foreign") as response:
        assert response.status == 405
    session = await bench.initialize(session="foreign")
    assert session != "foreign"
    assert (await bench.post(call(), session=session)).status == 200
    assert bench.proxy.core.binder.directory.__len__() == 1


# -- what may be sent ------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", [0, -1, 2**63, 10**30, "", "a", "7", 'q"\\\n', "x" * 1000, "\u2603"])
async def test_ids_come_back_as_they_are(bench: Bench, identifier: object) -> None:
    """Every id that MCP allows comes back, whatever the server is given instead."""
    await bench.start()
    answer = await bench.post(call(identifier))
    assert answer.json["id"] == identifier
    assert isinstance(bench.server.posts("tools/call")[0][1]["id"], int)


@pytest.mark.parametrize("identifier", [None, 1.5, True, [], {}, "x" * 1100])
async def test_ids_that_are_refused(bench: Bench, identifier: object) -> None:
    """Other ids are refused, with an error that has none."""
    await bench.start()
    answer = await bench.post(call(identifier))
    assert answer.status == 400
    assert answer.error == (None, -32600, "invalid-request")


@pytest.mark.parametrize(
    ("body", "identifier", "code"),
    [
        (b"", None, -32700),
        (b"{", None, -32700),
        (b"\xff\xfe", None, -32700),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"\xff"}}', 7, -32700),
        (b"null", None, -32600),
        (b'"hi"', None, -32600),
        (b"{}", None, -32600),
        (b"[]", None, -32600),
        (b'{"id":7,"method":"x"}', 7, -32600),
        (b'{"jsonrpc":"1.0","id":"s","method":"x"}', "s", -32600),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', 7, -32600),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":[1]}', 7, -32600),
        (b'{"jsonrpc":"2.0","id":7}', 7, -32600),
        (b'{"jsonrpc":"2.0","id":7,"result":{},"error":{}}', 7, -32600),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"x","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
            7,
            -32700,
        ),
        (b"[" * 100_000, None, -32700),
        (json.dumps([call(n) for n in range(101)]).encode(), None, -32600),
    ],
    ids=range(17),
)
async def test_what_is_no_message(bench: Bench, body: bytes, identifier: object, code: int) -> None:
    """What cannot be read is refused with the client's own id where it has a usable one."""
    await bench.start()
    answer = await bench.post(body)
    assert answer.status == 400
    assert answer.error[:2] == (identifier, code)
    assert answer.json["error"]["data"]["source"] == OURS
    assert answer.headers["Content-Type"] == "application/json"
    assert bench.server.seen == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "protocolVersion"),
        ({"protocolVersion": 7}, "protocolVersion"),
        ({"protocolVersion": "x" * 300}, "protocolVersion"),
    ],
)
async def test_initialize_that_cannot_be_read(bench: Bench, params: dict[str, Any], message: str) -> None:
    """An initialize without its parameters is the client's mistake."""
    await bench.start()
    answer = await bench.post(call(1, "initialize", **params))
    assert answer.status == 400
    assert message in answer.json["error"]["message"]


async def test_initialize_with_odd_capabilities(bench: Bench) -> None:
    """Numbers and depths that nobody can compare are no crash."""
    await bench.start()
    for odd in ("1e999", "[" * 400 + "]" * 400, "123456789012345678901234567890"):
        body = json.dumps(INITIALIZE).replace('"capabilities": {}', f'"capabilities": {{"x": {odd}}}')
        assert (await bench.post(body.encode())).status == 200


@pytest.mark.parametrize(
    "message",
    [
        notification("notifications/initialized"),
        notification("notifications/cancelled", requestId=99),
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        notification("notifications/no/such"),
        {"jsonrpc": "2.0", "id": 5, "result": {}},
        {"jsonrpc": "2.0", "id": "never-asked", "error": {"code": 1, "message": "x"}},
        [notification("a"), notification("b")],
    ],
)
async def test_notifications_are_always_accepted(bench: Bench, message: object) -> None:
    """202 and an empty body, with any session id or none, and whatever the server thinks of it."""

    async def refuse(_: web.Request, __: Any) -> web.Response:
        return web.Response(status=400)

    await bench.start()
    for method in ("notifications/no/such", "response", "a"):
        bench.server.on[method] = refuse
    for session in (await bench.initialize(), "unknown", None):
        answer = await bench.post(message, session=session)
        assert (answer.status, answer.body) == (202, b"")
        assert "Content-Type" not in answer.headers or answer.headers["Content-Length"] == "0"


async def test_notifications_while_the_server_is_down(bench: Bench) -> None:
    """202 also when nobody can be told."""
    await bench.start()
    session = await bench.initialize()
    await bench.server.__aexit__()
    answer = await bench.post(notification("notifications/roots/list_changed"), session=session)
    assert answer.status == 202


async def test_large_bodies(bench: Bench) -> None:
    """A body over the limit is refused as such, announced or not; one just below passes."""
    await bench.start(max_body_bytes="100KiB")
    fits = json.dumps(call(1, pad="x" * (100 * 1024 - 200))).encode()
    assert (await bench.post(fits)).status == 200
    for large in (fits + b" " * 1024, fits + b" " * 900_000):
        answer = await bench.post(large)
        assert answer.status == 413
        assert answer.error == (None, -32600, "body-too-large")
        assert "--max-body-bytes" in answer.json["error"]["message"]

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_240

    async with bench.http.post(bench.url, data=pieces()) as response:
        assert response.status == 413
    assert (await bench.post(call())).status == 200


async def test_compressed_bodies(bench: Bench) -> None:
    """A compressed body is understood, counts at its real size, and may not be broken."""
    await bench.start(max_body_bytes="100KiB")
    gzipped = {"Content-Encoding": "gzip"}
    assert (await bench.post(gzip.compress(json.dumps(call()).encode()), headers=gzipped)).status == 200
    assert (await bench.post(gzip.compress(b" " * 10_000_000), headers=gzipped)).status == 413
    answer = await bench.post(b"this is not gzip", headers=gzipped)
    assert answer.status == 400
    assert answer.error[2] == "invalid-request"


@pytest.mark.parametrize("verb", ["PUT", "PATCH", "HEAD", "TRACE"])
async def test_other_verbs(bench: Bench, verb: str) -> None:
    """What MCP does not use is not allowed."""
    await bench.start()
    async with bench.request(verb) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BOTH, "application/json"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        (None, "application/json"),
        ("text/html", "application/json"),
        ("text/event-stream", "text/event-stream"),
    ],
)
async def test_every_client_gets_what_it_takes(bench: Bench, accept: str | None, kind: str) -> None:
    """The server is always asked for both; the client gets what it can read."""
    await bench.start()
    answer = await bench.post(call(), accept=accept)
    assert answer.headers["Content-Type"] == kind
    request, _ = bench.server.posts("tools/call")[0]
    assert request.headers["Accept"] == BOTH


# -- batches ---------------------------------------------------------------------------------------


async def test_batch(bench: Bench) -> None:
    """A batch is worked off together: an answer per request, an error per mistake."""
    await bench.start()
    session = await bench.initialize()
    batch = [
        call(1),
        notification("notifications/roots/list_changed"),
        call("b", "ping"),
        {"jsonrpc": "2.0", "id": 3},
        17,
        INITIALIZE,
        {"jsonrpc": "2.0", "id": 9, "result": {}},
    ]
    answer = await bench.post(batch, session=session)
    assert answer.status == 200
    found = {json.dumps(entry["id"]): entry for entry in answer.json}
    assert len(answer.json) == 5
    assert found["1"]["result"] == {"count": 1}
    assert found['"b"']["result"] == {}
    assert found["3"]["error"]["code"] == found["null"]["error"]["code"] == -32600
    assert "initialize" in found["0"]["error"]["message"]
    assert len(bench.server.posts("initialize")) == 1
    assert len(bench.server.posts("notifications/roots/list_changed")) == 1


async def test_batch_of_one(bench: Bench) -> None:
    """A batch is answered with a batch, and initialize may not even be alone in one."""
    await bench.start()
    assert (await bench.post([call()])).json[0]["result"] == {"count": 1}
    answer = await bench.post([INITIALIZE])
    assert "must not be part of a batch" in answer.json[0]["error"]["message"]
    assert "Mcp-Session-Id" not in answer.headers


async def test_batch_runs_at_the_same_time(bench: Bench) -> None:
    """The slowest request of a batch does not hold up the others, and equal ids do not mix."""
    everyone = asyncio.Barrier(5)

    async def together(_: web.Request, message: Any) -> web.StreamResponse:
        await everyone.wait()
        return reply_to(message, message["params"])

    await bench.start()
    bench.server.on["tools/call"] = together
    answer = await bench.post([call(1, n=n) for n in range(5)])
    assert sorted(entry["result"]["n"] for entry in answer.json) == list(range(5))


async def test_batch_with_a_plain_refusal(bench: Bench) -> None:
    """A refusal that is no JSON becomes JSON-RPC inside a batch."""

    async def refuse(_: web.Request, __: Any) -> web.Response:
        return web.Response(status=401, text="<html>who?</html>")

    await bench.start()
    bench.server.on["tools/call"] = refuse
    answer = await bench.post([call(1), call(2, "tools/list")])
    assert {entry["id"]: "error" in entry for entry in answer.json} == {1: True, 2: False}


# -- trouble with the server -----------------------------------------------------------------------


async def test_server_is_down(bench: Bench) -> None:
    """502 says whose fault it is; the same for a first request and for one without a session."""
    bench.server.url = f"http://127.0.0.1:{unused_port()}/mcp"
    await bench.start(acquire_timeout="200ms")
    # Whoever comes late would hear that it has been down for long.
    bench.proxy.core.fleet.rules = FleetRules(patience_seconds=3600)
    for task in bench.proxy._tasks:
        task.cancel()  # so that the monitor does not notice it first
    answers = await asyncio.gather(bench.post(INITIALIZE), bench.post(call("c")))
    assert [answer.status for answer in answers] == [502, 502]
    assert [answer.error for answer in answers] == [
        (identifier, -32603, "upstream-unreachable") for identifier in (0, "c")
    ]
    assert answers[0].json["error"]["data"]["source"] == OURS


async def test_server_is_down_for_long(bench: Bench) -> None:
    """Nobody is kept waiting for a server that has been away for longer than anybody would wait."""
    bench.server.url = f"http://127.0.0.1:{unused_port()}/mcp"
    await bench.start(acquire_timeout="50ms")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await bench.post(call("x"))).status == 502:
            assert answer.error == ("x", -32603, "upstream-unreachable")
    assert (answer.status, answer.error) == (503, ("x", -32603, "upstream-down"))
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("status", "told"), [(400, 400), (403, 403), (418, 418), (429, 429), (500, 502), (502, 502), (503, 503)]
)
async def test_refusals_of_the_server(bench: Bench, status: int, told: int) -> None:
    """The client sees the server's status where it is about the client, else 502 (503 stays)."""

    async def refuse(_: web.Request, __: Any) -> web.Response:
        return web.Response(status=status, text="no", headers={"Retry-After": "7"})

    await bench.start()
    bench.server.on["tools/call"] = refuse
    answer = await bench.post(call("x"))
    assert answer.status == told
    assert answer.headers["Retry-After"] == "7"
    if status == 403:
        assert (answer.body, answer.headers["Content-Type"]) == (b"no", "text/plain")
    else:
        assert answer.error == ("x", -32603, "upstream-rejected")


async def test_json_rpc_error_with_a_status(bench: Bench) -> None:
    """The server's own error comes through, under the client's id."""

    async def refuse(_: web.Request, message: Any) -> web.Response:
        error = {"code": -32602, "message": "bad", "data": {"x": 1}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error}, status=400)

    await bench.start()
    bench.server.on["tools/call"] = refuse
    answer = await bench.post(call("x"))
    assert answer.status == 400
    assert answer.json == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {"code": -32602, "message": "bad", "data": {"x": 1}},
    }


CHALLENGE = (
    'Bearer error="invalid_token", resource_metadata="{origin}/.well-known/oauth-protected-resource/mcp"'
)


@pytest.mark.parametrize("method", ["initialize", "tools/call"])
async def test_unauthorized(bench: Bench, method: str) -> None:
    """401 and its challenge reach the client, body and all; metadata URLs lead to us."""
    body = {"error": "invalid_token", "error_description": "Authentication required"}

    async def refuse(request: web.Request, _: Any) -> web.Response:
        challenge = CHALLENGE.format(origin=request.url.origin())
        return web.json_response(body, status=401, headers={"WWW-Authenticate": challenge})

    await bench.start(public_url="https://mcp.example.com")
    bench.server.on[method] = refuse
    answer = await bench.post(INITIALIZE if method == "initialize" else call())
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == CHALLENGE.format(origin="https://mcp.example.com")
    assert answer.json == body


async def test_refusal_with_odd_headers(bench: Bench) -> None:
    """Header bytes that are no UTF-8 are passed on as text, and are no crash."""

    async def refuse(request: web.Request, _: Any) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(
            b'HTTP/1.1 401 Nope\r\nWWW-Authenticate: Basic realm="caf\xe9"\r\n'
            b"Content-Type: text/\xff\r\nContent-Length: 2\r\n\r\nno"
        )
        request.transport.close()
        return web.Response()

    await bench.start()
    bench.server.on["tools/call"] = refuse
    answer = await bench.post(call())
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="caf\u00e9"'
    assert answer.body == b"no"


async def test_slow_refusal(bench: Bench) -> None:
    """When a heartbeat has already made a stream of it, a refusal is still a JSON-RPC error."""
    go_on = asyncio.Event()

    async def refuse(_: web.Request, __: Any) -> web.Response:
        await go_on.wait()
        return web.Response(status=401, text="who?")

    await bench.start(heartbeat="30ms")
    bench.server.on["tools/call"] = refuse
    async with bench.request("POST", call("x"), accept=STREAM_FIRST) as response:
        assert response.status == 200
        assert await response.content.readline() == b": keep-alive\n"
        go_on.set()
        [(_, message)] = await read_events(response.content, 1)
    assert message["id"] == "x"
    assert message["error"]["data"]["reason"] == "upstream-rejected"


async def test_server_hangs_up(bench: Bench) -> None:
    """A call that was lost is answered, not repeated; the next one works."""
    hung_up = 0

    async def hang_up(request: web.Request, message: Any) -> web.Response:
        nonlocal hung_up
        hung_up += 1
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    await bench.start()
    bench.server.on["tools/call"] = hang_up
    answer = await bench.post(call("x"))
    assert answer.status == 502
    assert answer.error == ("x", -32603, "outcome-unknown")
    assert hung_up == 1
    del bench.server.on["tools/call"]
    assert (await bench.post(call())).status == 200


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "application/json"])
async def test_server_says_nothing_useful(bench: Bench, kind: str) -> None:
    """A 200 without a response is an error for the client, never a hang."""

    async def babble(_: web.Request, __: Any) -> web.Response:
        return web.Response(body=b"<html></html>", headers={"Content-Type": kind})

    await bench.start()
    bench.server.on["tools/call"] = babble
    answer = await bench.post(call("x"))
    assert (answer.status, answer.error[2]) == (502, "outcome-unknown")


async def test_server_is_too_slow(bench: Bench) -> None:
    """A server that says nothing for the request timeout is given up with 504."""

    async def sleep(_: web.Request, __: Any) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    await bench.start()
    await bench.post(call())
    bench.server.on["tools/call"] = sleep
    bench.reload(request_timeout="100ms")
    answer = await bench.post(call("x"))
    assert (answer.status, answer.error) == (504, ("x", -32603, "upstream-timeout"))
    await until(lambda: bench.server.posts("notifications/cancelled"))


async def test_server_restarts(bench: Bench) -> None:
    """A client that keeps its id after a restart of the server goes on, invisibly."""
    await bench.start()
    session = await bench.initialize()
    await bench.post(call(), session=session)
    bench.server.sessions.clear()
    answer = await bench.post(call("x"), session=session)
    assert answer.json == {"jsonrpc": "2.0", "id": "x", "result": {"count": 1}}


async def test_answers_of_any_size(bench: Bench) -> None:
    """A large answer comes through byte for byte, as JSON and in a stream."""
    text = "\u2603" * 1_000_000

    async def large(request: web.Request, message: Any) -> web.StreamResponse:
        if message["params"]["as"] == "json":
            return reply_to(message, {"text": text})
        response = await begin_stream(request)
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"text": text}})
        return response

    await bench.start()
    bench.server.on["tools/call"] = large
    for kind in ("json", "stream"):
        assert (await bench.post(call(1, **{"as": kind}))).json["result"]["text"] == text


# -- in the course of a call -----------------------------------------------------------------------


async def test_progress(bench: Bench) -> None:
    """The client hears progress under its own token, and gets a stream for it."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        token = message["params"]["_meta"]["progressToken"]
        for progress in (1, 2):
            await write_event(
                response, notification("notifications/progress", progressToken=token, progress=progress)
            )
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    await bench.start()
    bench.server.on["tools/call"] = work
    answer = await bench.post(call("x", _meta={"progressToken": "mine"}))
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert [message["params"] for message in answer.json[:2]] == [
        {"progressToken": "mine", "progress": 1},
        {"progressToken": "mine", "progress": 2},
    ]
    assert answer.json[2] == {"jsonrpc": "2.0", "id": "x", "result": {}}


def asks(method: str = "elicitation/create") -> tuple[Any, "asyncio.Future[Any]"]:
    """A tool that asks the client something on its own stream, and what it was answered."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def ask(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, {"jsonrpc": "2.0", "id": "q-1", "method": method, "params": {}})
        result = await answered
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"was": result}})
        return response

    return ask, answered


def takes_answers(bench: Bench, answered: "asyncio.Future[Any]") -> None:
    async def take(_: web.Request, message: Any) -> web.StreamResponse:
        assert message["id"] == "q-1"
        answered.set_result(message.get("result", message.get("error")))
        return web.Response(status=202)

    bench.server.on["response"] = take


async def test_server_asks_the_client(bench: Bench) -> None:
    """A question in the course of a call goes to the client under an id of ours, the answer back."""
    await bench.start()
    session = await bench.initialize()
    bench.server.on["tools/call"], answered = asks()
    takes_answers(bench, answered)
    async with bench.request("POST", call("x"), session=session) as response:
        [(_, question)] = await read_events(response.content, 1)
        assert question["method"] == "elicitation/create"
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
        assert (await bench.post(reply, session=session)).status == 202
        [(_, final)] = await read_events(response.content, 1)
    assert final == {"jsonrpc": "2.0", "id": "x", "result": {"was": {"action": "accept"}}}


@pytest.mark.parametrize("case", ["no-session", "json-only"])
async def test_server_asks_a_client_that_cannot_answer(bench: Bench, case: str) -> None:
    """The server gets an error at once, so that the call goes on."""
    await bench.start()
    session = await bench.initialize() if case == "json-only" else None
    bench.server.on["tools/call"], answered = asks()
    takes_answers(bench, answered)
    accept = "application/json" if case == "json-only" else BOTH
    answer = await bench.post(call("x"), session=session, accept=accept)
    assert answer.json["result"]["was"]["code"] == -32603


async def test_server_asks_on_the_get_stream(bench: Bench) -> None:
    """A client that wants JSON for its calls is asked on its GET stream."""
    await bench.start()
    session = await bench.initialize()
    bench.server.on["tools/call"], answered = asks()
    takes_answers(bench, answered)
    async with (
        bench.request("GET", session=session, accept="text/event-stream") as get,
        bench.asking(call("x"), session=session, accept="application/json") as asking,
    ):
        [(_, question)] = await read_events(get.content, 1)
        await bench.post({"jsonrpc": "2.0", "id": question["id"], "result": {"ok": 1}}, session=session)
        assert (await asking).json["result"]["was"] == {"ok": 1}


@pytest.mark.slow
async def test_cancellation(bench: Bench) -> None:
    """The client's cancellation reaches the server under the id that the server knows."""
    started, cancelled = asyncio.Event(), asyncio.Event()
    seen: dict[str, Any] = {}

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        seen["id"] = message["id"]
        started.set()
        await cancelled.wait()
        return web.json_response(
            {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -1, "message": "stopped"}}
        )

    async def cancel(_: web.Request, message: Any) -> web.Response:
        seen["cancelled"] = message["params"]
        cancelled.set()
        return web.Response(status=202)

    await bench.start()
    bench.server.on.update({"tools/call": work, "notifications/cancelled": cancel})
    session = await bench.initialize()
    async with bench.asking(call("mine"), session=session) as asking:
        await started.wait()
        for wanted in ("yours", "mine"):
            body = notification("notifications/cancelled", requestId=wanted, reason="bored")
            assert (await bench.post(body, session=session)).status == 202
        assert (await asking).json["error"]["message"] == "stopped"
    assert seen["cancelled"] == {"requestId": seen["id"], "reason": "bored"}
    await no_exchange_is_left()


async def test_same_id_twice(bench: Bench) -> None:
    """Two requests in flight with the same id are two requests; both are answered."""
    both = asyncio.Barrier(2)

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        await both.wait()
        return reply_to(message, message["params"])

    await bench.start()
    bench.server.on["tools/call"] = work
    session = await bench.initialize()
    answers = await asyncio.gather(*(bench.post(call(7, n=n), session=session) for n in range(2)))
    assert [answer.json["result"]["n"] for answer in answers] == [0, 1]
    await no_exchange_is_left()


async def test_client_that_leaves_does_not_cancel(bench: Bench) -> None:
    """Disconnecting is not cancelling: the call goes on at the server, and nothing is left behind."""
    started, go_on = asyncio.Event(), asyncio.Event()
    finished = 0

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        nonlocal finished
        started.set()
        await go_on.wait()
        finished += 1
        return reply_to(message, {})

    await bench.start()
    bench.server.on["tools/call"] = work
    for session in (await bench.initialize(), None):
        started.clear()
        go_on.clear()
        async with bench.asking(call(), session=session):
            await started.wait()
        await until(lambda: any(not r.is_open for r in bench.unfinished))
        go_on.set()
        await until(lambda: not bench.endpoint.posts)
    assert finished == 2
    assert bench.endpoint.exchanges() == []
    assert bench.unfinished == []


async def test_client_that_leaves_while_sending(bench: Bench) -> None:
    """A body that never arrives whole leaves nothing behind."""
    await bench.start()
    _, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0)
    writer.transport.abort()
    assert (await bench.post(call())).status == 200
    await until(lambda: not bench.endpoint.posts)


# -- streams ---------------------------------------------------------------------------------------


async def test_get_without_a_session(bench: Bench) -> None:
    """A GET that could never hear anything is told so in the way every client knows."""
    await bench.start()
    async with bench.request("GET") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_get_hears_the_server(bench: Bench) -> None:
    """What the server says on its own stream reaches the client's, and a re-opened one misses nothing."""
    news: asyncio.Queue[str] = asyncio.Queue()

    async def stream(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        while True:
            await write_event(response, notification("notifications/message", data=await news.get()))

    await bench.start()
    bench.server.on["GET"] = stream
    session = await bench.initialize()
    async with bench.request("GET", session=session, accept="text/event-stream") as get:
        assert get.status == 200
        assert get.headers["Content-Type"] == "text/event-stream"
        assert get.headers["X-Accel-Buffering"] == "no"
        assert await get.content.readline() == b": keep-alive\n"
        news.put_nowait("a")
        news.put_nowait("b")
        (first, a), (_, b) = await read_events(get.content, 2)
        assert (a["params"]["data"], b["params"]["data"]) == ("a", "b")
        assert bench.endpoint.streams == 1
    await until(lambda: bench.endpoint.streams == 0)
    news.put_nowait("c")
    again = {"Last-Event-ID": str(first)}
    async with bench.request("GET", session=session, headers=again, accept="text/event-stream") as get:
        assert [message["params"]["data"] for _, message in await read_events(get.content, 2)] == ["b", "c"]
    async with bench.request("GET", session=session, accept="text/event-stream") as get:
        news.put_nowait("d")
        assert [message["params"]["data"] for _, message in await read_events(get.content, 1)] == ["d"]


async def test_newest_get_wins(bench: Bench) -> None:
    """A second GET is no conflict: the first one ends gracefully. DELETE ends the stream, too."""
    await bench.start()
    session = await bench.initialize()
    async with (
        bench.request("GET", session=session) as older,
        bench.request("GET", session=session) as newer,
    ):
        assert (older.status, newer.status) == (200, 200)
        assert b"\nretry: 1000\n" in await older.content.read()
        async with bench.request("DELETE", session=session):
            pass
        assert b"retry" not in await newer.content.read()
    await until(lambda: bench.endpoint.streams == 0)


async def test_get_beats(bench: Bench) -> None:
    """A silent stream carries comments."""
    await bench.start(heartbeat="20ms")
    session = await bench.initialize()
    async with bench.request("GET", session=session) as get, asyncio.timeout(PATIENCE_SECONDS):
        beats = 0
        while beats < 3:
            beats += await get.content.readline() == b": keep-alive\n"


async def test_lost_post_is_resumed(bench: Bench) -> None:
    """A client whose stream broke in the middle of a call gets the rest on a GET."""
    go_on = asyncio.Event()

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, notification("notifications/message", data="half"))
        await go_on.wait()
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"all": 1}})
        return response

    await bench.start()
    bench.server.on["tools/call"] = work
    session = await bench.initialize()
    async with bench.request("POST", call("x"), session=session) as post:
        [(event_id, message)] = await read_events(post.content, 1)
        assert message["params"]["data"] == "half"
        post.close()
    await until(lambda: any(not r.is_open for r in bench.unfinished))
    headers = {"Last-Event-ID": str(event_id)}
    async with bench.request("GET", session=session, headers=headers, accept="text/event-stream") as get:
        go_on.set()
        [(_, final)] = await read_events(get.content, 1)
        assert (await get.content.read()).strip() == b""
    assert final == {"jsonrpc": "2.0", "id": "x", "result": {"all": 1}}


async def test_slow_initialize_does_not_beat(bench: Bench) -> None:
    """The session id is in a header: nothing may be written before it, however long it takes."""
    await bench.start()
    go_on = bench.server.hold_up_handshakes()
    async with bench.asking(INITIALIZE) as asking:
        await until(lambda: bench.server.posts("initialize"))
        assert bench.unfinished == []
        go_on.set()
        assert "Mcp-Session-Id" in (await asking).headers


async def test_slow_call_beats(bench: Bench) -> None:
    """A call that takes long becomes a stream with comments, and its answer arrives all the same."""
    go_on = asyncio.Event()

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        await go_on.wait()
        return reply_to(message, {"ok": 1})

    await bench.start(heartbeat="20ms")
    bench.server.on["tools/call"] = work
    async with bench.request("POST", call("x"), accept=STREAM_FIRST) as response:
        assert await response.content.readline() == b": keep-alive\n"
        go_on.set()
        [(_, message)] = await read_events(response.content, 1)
    assert message["result"] == {"ok": 1}


# -- shutting down ---------------------------------------------------------------------------------


async def test_draining(bench: Bench) -> None:
    """While the proxy shuts down, new requests are told to come back; notifications stay accepted."""
    await bench.start()
    session = await bench.initialize()
    bench.endpoint.drain()
    for body in (INITIALIZE, call("x"), call("x", "ping")):
        answer = await bench.post(body, session=session)
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.error == (body["id"], -32603, "draining")
    assert (await bench.post(notification("notifications/initialized"), session=session)).status == 202
    async with bench.request("GET", session=session) as response:
        assert response.status == 503


# -- everything at once ----------------------------------------------------------------------------


@pytest.mark.slow
async def test_nothing_is_left_behind(bench: Bench) -> None:
    """After many clients that come, call, leave in the middle and come back, only sessions remain."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, notification("notifications/message", data=1))
        await asyncio.sleep(0.001)
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    await bench.start()
    bench.server.on["tools/call"] = work

    async def client(number: int) -> None:
        session = await bench.initialize()
        async with bench.request("POST", call(number), session=session) as response:
            if number % 2:
                await response.read()
        async with bench.request("DELETE", session=session):
            pass

    await asyncio.gather(*(client(number) for number in range(40)))
    await until(lambda: not bench.endpoint.posts)
    assert bench.endpoint.exchanges() == []
    assert bench.unfinished == []
    await no_exchange_is_left()
    assert all(not s.session.incarnation.calls for s in bench.proxy.core.pool.books.slots())
    assert all(client.in_flight == 0 and client.streams == 0 for client in bench.proxy.core.binder.directory)


class Chaos:
    """A server that fails in every way it can, and counts what it executed."""

    def __init__(self, server: HttpServer, luck: random.Random) -> None:
        self.server = server
        self.luck = luck
        self.executed: Counter[int] = Counter()
        server.on.update({"tools/call": self.work, "GET": self.talk})

    async def work(self, request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers.get("Mcp-Session-Id") not in self.server.sessions:
            return web.json_response({**GONE, "id": None}, status=404)
        key = message["params"]["key"]
        self.executed[key] += 1
        fault = self.luck.random()
        assert request.transport is not None
        if fault < 0.08:
            if fault < 0.03:
                self.server.sessions.clear()
            request.transport.abort()
        elif fault < 0.10:
            return web.Response(status=500, text="oops")
        elif fault < 0.12:
            return web.Response(headers={"Content-Type": "text/event-stream"})
        elif fault < 0.5:
            return reply_to(message, {"key": key})
        response = await begin_stream(request)
        for number in range(self.luck.randint(0, 3)):
            await write_event(response, notification("notifications/message", data=number))
            await asyncio.sleep(self.luck.random() / 100)
        if fault > 0.9:
            await write_event(response, {"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        if fault > 0.95:
            request.transport.abort()
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"key": key}})
        return response

    async def talk(self, request: web.Request, _: Any) -> web.StreamResponse:
        if request.headers.get("Mcp-Session-Id") not in self.server.sessions:
            return web.Response(status=404)
        response = await begin_stream(request)
        for number in range(self.luck.randint(0, 20)):
            await asyncio.sleep(self.luck.random() / 50)
            message = self.luck.choice([call(number, "ping"), call(number, "roots/list"), notification("x")])
            await write_event(response, message, event_id=str(number))
        return response


class ChaoticClient:
    """A client that calls, leaves in the middle, says goodbye and comes back as it likes."""

    def __init__(self, bench: Bench, luck: random.Random, keys: Iterator[int], number: int) -> None:
        self.bench = bench
        self.luck = luck
        self.keys = keys
        self.headers = {"Authorization": f"Bearer {number % 5}"}
        self.session: str | None = None

    async def live(self) -> None:
        for _ in range(4):
            answer = await self.bench.post(INITIALIZE, headers=self.headers)
            self.session = self.luck.choice([answer.headers.get("Mcp-Session-Id"), None, "foreign"])
            listening = asyncio.create_task(self.listen())
            for _ in range(self.luck.randint(1, 4)):
                await self.call()
            if self.luck.random() < 0.5:
                async with self.bench.request("DELETE", session=self.session, headers=self.headers):
                    pass
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def listen(self) -> None:
        async with self.bench.request("GET", session=self.session, headers=self.headers) as response:
            await response.read()

    async def call(self) -> None:
        key = next(self.keys)
        accept = self.luck.choice([BOTH, "application/json", "text/event-stream"])
        body = call(self.luck.randint(1, 3), key=key)
        async with self.bench.asking(
            body, session=self.session, headers=self.headers, accept=accept
        ) as asking:
            if self.luck.random() < 0.2:
                await asyncio.sleep(self.luck.random() / 50)
                return
            answer = (await asking).json
        final = answer[-1] if isinstance(answer, list) else answer
        assert final["id"] == body["id"]
        assert "error" in final or final["result"] == {"key": key}


@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared", "fresh"])
@pytest.mark.slow
async def test_chaos(bench: Bench, sharing: str) -> None:
    """Whatever fails and whoever leaves: each call is answered once, with its own answer, is executed at
    most once, and leaves nothing behind, neither here nor at the server.
    """
    luck = random.Random(sharing)
    chaos, keys = Chaos(bench.server, luck), itertools.count()
    await bench.start(sharing=sharing, heartbeat="20ms", max_sessions="20", detach_after="50ms")
    async with asyncio.timeout(60):
        await asyncio.gather(*(ChaoticClient(bench, luck, keys, number).live() for number in range(20)))
    endpoint, books = bench.endpoint, bench.proxy.core.pool.books
    await until(lambda: not (endpoint.posts or endpoint.streams))
    assert max(chaos.executed.values()) == 1
    assert endpoint.exchanges() == []
    assert bench.unfinished == []
    await no_exchange_is_left()
    assert all(client.in_flight == 0 and client.streams == 0 for client in bench.proxy.core.binder.directory)
    assert all(not slot.session.incarnation.calls for slot in books.slots())
    await bench.proxy.drain()
    assert bench.server.sessions == {}
