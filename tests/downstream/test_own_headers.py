"""Each request has its own headers upstream; what the proxy sends by itself has credentials only."""

import asyncio
import json
from typing import Any

from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import INITIALIZE, call
from proxy_bench import Bench, until

MARK = "X-Request-Mark"
SERVERS_QUESTION = {"jsonrpc": "2.0", "id": "q-1", "method": "roots/list", "params": {}}


def marked(mark: str, **more: str) -> dict[str, str]:
    """The headers of one request of a caller."""
    return {MARK: mark, "Idempotency-Key": mark, "Authorization": "Bearer alice", **more}


def marks(bench: Bench, what: str) -> list[Any]:
    """The marks of the requests of this kind (a JSON-RPC method, ``response``, GET or DELETE), in order."""
    found = []
    for request, message in bench.server.seen:
        kind = request.method if message is None else message.get("method", "response")
        if kind == what:
            assert request.headers.get("Idempotency-Key") == request.headers.get(MARK)
            assert request.headers["Authorization"] == "Bearer alice"
            found.append(request.headers.get(MARK))
    return found


def hold_calls(bench: Bench) -> asyncio.Event:
    """Let the server answer calls when the event is set."""
    go_on = asyncio.Event()

    async def handle(_: web.Request, message: Any) -> web.StreamResponse:
        await go_on.wait()
        return reply_to(message, {"content": []})

    bench.server.on["tools/call"] = handle
    return go_on


async def test_two_requests_of_one_session_at_once(bench: Bench) -> None:
    """Neither goes out with the other's headers, on a session of their client or without one."""
    go_on = hold_calls(bench)
    await bench.start()
    session = await bench.initialize(headers=marked("i"))
    for where in (session, None):
        asked = [
            asyncio.create_task(bench.post(call(n), session=where, headers=marked(str(n)))) for n in range(4)
        ]
        await until(lambda: len(bench.server.posts("tools/call")) == 4)
        go_on.set()
        await asyncio.gather(*asked)
        seen = {m["params"].get("n"): r.headers[MARK] for r, m in bench.server.posts("tools/call")}
        assert sorted(marks(bench, "tools/call")) == ["0", "1", "2", "3"], seen
        bench.server.seen.clear()


async def test_authorization_that_is_no_credential(bench: Bench) -> None:
    """Where the operator says that it tells no callers apart, each request keeps its own all the same."""
    go_on = hold_calls(bench)
    await bench.start(credential_header=["x-tenant"])
    told = {"X-Tenant": "acme"}
    session = await bench.initialize(headers=told)
    asked = [
        asyncio.create_task(bench.post(call(), session=session, headers={**told, "Authorization": who}))
        for who in ("Bearer a", "Bearer b")
    ]
    await until(lambda: len(bench.server.posts("tools/call")) == 2)
    go_on.set()
    await asyncio.gather(*asked)
    seen = {request.headers["Authorization"] for request, _ in bench.server.posts("tools/call")}
    assert seen == {"Bearer a", "Bearer b"}


async def test_resumption_and_cancellation(bench: Bench) -> None:
    """A call whose stream broke is resumed, and cancelled when it takes too long, with its own headers."""
    resumed = asyncio.Event()

    async def handle(request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers[MARK] == "other":
            return reply_to(message, {})
        response = await begin_stream(request)
        await write_event(response, {"jsonrpc": "2.0", "method": "notifications/message"}, event_id="e-1")
        return response

    async def get(request: web.Request, _: Any) -> web.StreamResponse:
        if "Last-Event-ID" not in request.headers:
            return web.Response(status=405)
        resumed.set()
        response = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    bench.server.on |= {"tools/call": handle, "GET": get}
    await bench.start(request_timeout="0.5s")
    session = await bench.initialize(headers=marked("i"))
    async with bench.asking(call(1), session=session, headers=marked("mine")) as mine:
        await until(lambda: bench.server.posts("tools/call"))
        await bench.post(call(2), session=session, headers=marked("other"))
        await resumed.wait()
        assert (await mine).json[-1]["error"]["data"]["reason"] == "upstream-timeout"
    await until(lambda: bench.server.posts("notifications/cancelled"))
    assert marks(bench, "GET") == [None, "mine"]
    assert marks(bench, "notifications/cancelled") == ["mine"]


async def test_what_a_client_says_of_its_own_accord(bench: Bench) -> None:
    """Notifications, cancellations and answers travel with the headers of the POST that brought them."""

    async def handle(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, SERVERS_QUESTION)
        await until(lambda: bench.server.posts("notifications/cancelled"))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    bench.server.on["tools/call"] = handle
    await bench.start()
    session = await bench.initialize(headers=marked("i"))
    async with bench.request("POST", call(7), session=session, headers=marked("call")) as response:
        while not (line := await response.content.readline()).startswith(b"data: {"):
            pass
        question = json.loads(line[6:])
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        cancelled = call(None, "notifications/cancelled", requestId=7)
        changed = call(None, "notifications/roots/list_changed")
        for mark, message in (("answer", answer), ("changed", changed), ("cancelled", cancelled)):
            if message.get("id") is None:
                del message["id"]
            sent = await bench.post(message, session=session, headers=marked(mark))
            assert sent.status == 202
        await response.read()
    assert marks(bench, "response") == ["answer"]
    assert marks(bench, "notifications/roots/list_changed") == ["changed"]
    assert marks(bench, "notifications/cancelled") == ["cancelled"]


async def test_what_the_proxy_sends_by_itself(bench: Bench) -> None:
    """GET stream, pings, answers to pings, DELETE: the caller's credentials, nothing of a call's."""

    async def get(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, {"jsonrpc": "2.0", "id": "p-1", "method": "ping"})
        await asyncio.Event().wait()
        return response

    bench.server.on["GET"] = get
    await bench.start(check_after="0.05s")
    session = await bench.initialize(headers=marked("i"))
    await until(lambda: bench.server.posts("response"))
    await asyncio.sleep(0.06)
    await bench.post(call(), session=session, headers=marked("call"))
    await bench.proxy.drain()
    assert marks(bench, "initialize") == ["i"]
    assert marks(bench, "notifications/initialized") == ["i"]
    assert marks(bench, "tools/call") == ["call"]
    for kind in ("GET", "response", "ping", "DELETE"):
        found = marks(bench, kind)
        assert found, kind
        assert set(found) == {None}, kind


async def test_a_session_that_is_opened_anew(bench: Bench) -> None:
    """The handshake has the headers of the request that needs it; what is told again has credentials only."""
    await bench.start()
    session = await bench.initialize(headers=marked("i"))
    await bench.post(call(1, "logging/setLevel", level="info"), session=session, headers=marked("level"))
    bench.server.sessions.clear()
    answer = await bench.post(call(2), session=session, headers=marked("call"))
    assert answer.status == 200
    assert marks(bench, "initialize") == ["i", "call"]
    assert marks(bench, "notifications/initialized") == ["i", "call"]
    assert marks(bench, "logging/setLevel") == ["level", None]
    assert marks(bench, "tools/call") == ["call", "call"]


async def test_the_query_travels_with_everything(bench: Bench) -> None:
    """A query string tells callers apart, so the proxy's own requests carry it, too."""
    await bench.start()
    async with bench.http.post(bench.url + "?tenant=1", json=INITIALIZE, headers={MARK: "i"}) as response:
        assert response.status == 200
    await bench.proxy.drain()
    queries = {request.method: request.query_string for request, _ in bench.server.seen}
    assert queries == {"POST": "tenant=1", "GET": "tenant=1", "DELETE": "tenant=1"}


# -- headers that modern clients repeat from the body ----------------------------------------------

OWN = {"Mcp-Param-Region": "eu", "mcp-param-Tenant": "caf\u00e9", "Mcp-Method": "any", "MCP-Name": "thing"}


def own_headers(request: web.Request) -> dict[str, str]:
    """What the server got of them."""
    return {name: value for name, value in request.headers.items() if name in OWN}


async def test_they_travel_with_each_request_of_a_legacy_client(bench: Bench) -> None:
    """They mean nothing in its protocol version, so they are its own, different ones in each request."""
    await bench.start()
    answer = await bench.post(INITIALIZE, headers=OWN)
    for session in (answer.headers["Mcp-Session-Id"], None):
        for region in ("eu", "us"):
            await bench.post(call(), session=session, headers={**OWN, "Mcp-Param-Region": region})
            request, _ = bench.server.posts("tools/call")[-1]
            assert own_headers(request) == {**OWN, "Mcp-Param-Region": region}
        await bench.post(call(), session=session)
        assert own_headers(bench.server.posts("tools/call")[-1][0]) == {}
    await bench.post(
        {"jsonrpc": "2.0", "method": "notifications/x"}, session=answer.headers["Mcp-Session-Id"], headers=OWN
    )
    assert own_headers(bench.server.posts("initialize")[0][0]) == OWN


async def test_they_do_not_travel_with_a_modern_request(bench: Bench) -> None:
    """There they repeat the modern body, which the server never sees."""
    await bench.start()
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "count",
        "Mcp-Param-Region": "eu",
    }
    answer = await bench.post(call(1, name="count", arguments={}, _meta=meta), headers=headers)
    assert answer.status == 200
    assert not any(
        name.lower().startswith("mcp-") and name.lower() not in ("mcp-session-id", "mcp-protocol-version")
        for request, _ in (*bench.server.posts("initialize"), *bench.server.posts("tools/call"))
        for name in request.headers
    )


async def test_they_are_not_sent_with_what_the_proxy_sends_itself(bench: Bench) -> None:
    """Only the request that had them has them, and nobody else's."""
    await bench.start()
    session = await bench.initialize(headers=OWN)
    await bench.post(call(), session=session, headers=OWN)
    await bench.proxy.drain()
    others = [request for request, message in bench.server.seen if message is None]
    assert {request.method for request in others} == {"GET", "DELETE"}
    assert all(own_headers(request) == {} for request in others)


async def test_headers_with_similar_names(bench: Bench) -> None:
    """They travel as everything does that is not the proxy's."""
    await bench.start()
    similar = {"X-Mcp-Method": "a", "Mcp-Names": "b", "Mcp-Methodical": "c"}
    await bench.post(call(), headers={**similar, "Mcp-Param-X": "1"})
    request, _ = bench.server.posts("tools/call")[0]
    assert {name: request.headers[name] for name in similar} == similar
    assert request.headers.getall("Mcp-Param-X") == ["1"]
