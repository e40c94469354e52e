"""The front door: who may knock, what is refused and how, and what goes through to the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from .conftest import Desk
from .wire import BOTH, Caller

pytestmark = pytest.mark.e2e

MakeDesk = Callable[..., Desk]


@pytest.fixture
def at(desk: MakeDesk) -> Desk:
    """A desk at the mcp 1.30 server with the default settings."""
    return desk("mcp-1.30")


# Origin and Host ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://evil.example:80", "null", "http://127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
async def test_foreign_origins_are_refused(origin: str, method: str, at: Desk) -> None:
    """A browser page of another origin gets 403, whatever it tries, and never a CORS header."""
    data = json.dumps(at.caller.request("tools/list")).encode() if method == "POST" else None
    reply = await at.caller.send(method, data=data, headers={"Origin": origin})
    assert reply.status == 403
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert await at.seen() == []


@pytest.mark.parametrize(
    "origin", ["{proxy}", "http://localhost:5173", "http://127.0.0.1:9999", "http://[::1]:80"]
)
async def test_own_and_loopback_origins_are_let_in(origin: str, at: Desk) -> None:
    """The proxy's own origin and, on loopback, any loopback origin may call."""
    headers = {"Origin": origin.format(proxy=at.proxy.origin)}
    assert (await at.caller.initialize(headers=headers)).status == 200


async def test_cors_preflight_of_an_allowed_origin(option_desk: MakeDesk) -> None:
    """A preflight of an allowed origin names MCP's methods and headers; responses expose its ids."""
    origin = "https://inspector.example"
    at = option_desk("mcp-1.30", "--allowed-origin", origin)
    wanted = "content-type, authorization, mcp-session-id, mcp-protocol-version, last-event-id"
    preflight = await Caller(at.http, at.proxy.url, token=None).send(
        "OPTIONS",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert preflight.status in (200, 204)
    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    methods = {m.strip() for m in preflight.headers["Access-Control-Allow-Methods"].split(",")}
    assert {"GET", "POST", "DELETE"} <= methods
    allowed = {h.strip().lower() for h in preflight.headers["Access-Control-Allow-Headers"].split(",")}
    assert {h.strip() for h in wanted.split(",")} <= allowed

    reply = await at.caller.initialize(headers={"Origin": origin})
    assert reply.status == 200
    assert reply.headers["Access-Control-Allow-Origin"] == origin
    exposed = {h.strip().lower() for h in reply.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"mcp-session-id", "mcp-protocol-version", "www-authenticate"} <= exposed
    refused = await at.caller.initialize(headers={"Origin": "https://other.example"})
    assert refused.status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
async def test_foreign_hosts_are_refused(host: str, at: Desk) -> None:
    """A loopback listener called by another name (DNS rebinding) answers 403."""
    reply = await at.caller.initialize(headers={"Host": host})
    assert reply.status == 403
    assert await at.seen() == []


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80"])
async def test_loopback_hosts_are_let_in(host: str, at: Desk) -> None:
    """Every loopback name is the proxy's own."""
    assert (await at.caller.initialize(headers={"Host": host})).status == 200


async def test_allowed_host(option_desk: MakeDesk) -> None:
    """A name given with --allowed-host is the proxy's own."""
    at = option_desk("mcp-1.30", "--allowed-host", "mcp.example")
    assert (await at.caller.initialize(headers={"Host": "mcp.example"})).status == 200
    assert (await at.caller.initialize(headers={"Host": "other.example"})).status == 403


# What is refused ----------------------------------------------------------------------------------


async def test_body_over_the_limit(at: Desk) -> None:
    """A body over 4 MiB is answered 413, and the proxy goes on serving."""
    session = await at.caller.open()
    big = await at.caller.call("echo", {"message": "x" * (4 * 1024 * 1024)}, session=session)
    assert big.status == 413
    assert big.error["message"]
    assert (await at.caller.call("echo", {"message": "hello"}, session=session)).text == "Echo: hello"


async def test_body_under_the_limit(at: Desk) -> None:
    """A megabyte goes through, there and back."""
    session = await at.caller.open()
    text = "x" * (1024 * 1024)
    assert (await at.caller.call("echo", {"message": text}, session=session)).text == f"Echo: {text}"


async def test_body_limit_option(option_desk: MakeDesk) -> None:
    """--max-body-bytes moves the limit, also for a body without a length."""
    at = option_desk("mcp-1.30", "--max-body-bytes", "1000")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 100

    reply = await at.caller.send("POST", data=chunks())
    assert reply.status == 413


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe{}", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"', -32700),
        (b"not json", -32700),
        (b"null", -32600),
        (b"7", -32600),
        (b'"ping"', -32600),
        (b'{"id":5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":5}', -32600),
        (b'{"jsonrpc":"2.0","id":5,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":"x"}', -32600),
        (b"[" * 100_000, -32700),
    ],
)
async def test_malformed_bodies(body: bytes, code: int, at: Desk) -> None:
    """What is not a JSON-RPC message: 400 with a JSON-RPC error, and the id where there is one."""
    reply = await at.caller.send("POST", data=body)
    assert reply.status == 400
    assert reply.content_type == "application/json"
    answer = reply.response
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]
    assert answer.get("id") in (None, 5)
    if b'"id":5' in body and b'"method":"ping"' in body:
        assert answer["id"] == 5
    assert "Traceback" not in reply.body.decode()


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", None])
async def test_content_types_that_are_json(content_type: str | None, at: Desk) -> None:
    """JSON by any spelling, or no content type at all, is taken as JSON."""
    assert (await at.caller.initialize(headers={"Content-Type": content_type})).status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_other_methods(method: str, at: Desk) -> None:
    """Methods that MCP does not use are answered 405 with Allow."""
    reply = await at.caller.send(method, data=b"{}")
    assert reply.status == 405
    assert "POST" in reply.headers["Allow"]


async def test_discover_without_meta(at: Desk) -> None:
    """A bare `server/discover` is refused with the client's id, so that the client can initialize instead."""
    reply = await at.caller.ask("server/discover", request_id="probe")
    assert 400 <= reply.status < 500
    assert reply.response["id"] == "probe"
    assert reply.error["message"]


async def test_errors_of_the_server_come_through(at: Desk) -> None:
    """A tool error and a JSON-RPC error of the server reach the client unchanged, with its own id."""
    session = await at.caller.open()
    failed = await at.caller.call("fail", {"message": "no luck"}, session=session, request_id="f")
    assert failed.result["isError"] is True
    assert "no luck" in failed.result["content"][0]["text"]
    unknown = await at.caller.ask("no/such/method", session=session, request_id="u")
    assert unknown.response["id"] == "u"
    direct = at.direct()
    expected = await direct.ask("no/such/method", session=await direct.open(), request_id="u")
    assert unknown.error == expected.error


async def test_responses_nobody_waits_for(at: Desk) -> None:
    """A client's response to a request that was never made is accepted and dropped."""
    session = await at.caller.open()
    reply = await at.caller.post({"jsonrpc": "2.0", "id": "srv-1", "result": {}}, session)
    assert (reply.status, reply.body) == (202, b"")
    assert (await at.caller.call("increment", session=session)).text == "1"


@pytest.mark.parametrize("status", ["200", "204"])
async def test_delete_status_option(status: str, option_desk: MakeDesk) -> None:
    """--delete-status answers clients that insist on success; the session stays all the same."""
    at = option_desk("mcp-1.30", "--delete-status", status)
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"
    assert (await at.caller.delete(session)).status == int(status)
    assert (await at.caller.call("increment", session=session)).text == "2"
    assert (await at.stats())["sessions"]["closed"] == 0


async def test_unknown_session_reject_option(option_desk: MakeDesk) -> None:
    """--unknown-session reject answers 404 to an id that the proxy did not give out, and serves its own."""
    at = option_desk("mcp-1.30", "--unknown-session", "reject")
    stranger = await at.caller.call("increment", session="somebody-elses")
    assert stranger.status == 404
    assert stranger.error["code"] == -32001
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"


# What the server gets -----------------------------------------------------------------------------


async def test_what_the_server_receives(at: Desk) -> None:
    """The server gets its own Host and session id, the caller's headers and query, nothing hop-by-hop."""
    caller = at.caller
    caller.url += "?tenant=blue&x=1"
    more = {"X-Custom": "kept", "Connection": "close, X-Hop", "X-Hop": "dropped", "TE": "trailers"}
    session = (await caller.initialize(headers=more)).session
    assert session
    await caller.notify("notifications/initialized", session=session)
    assert (await caller.call("increment", session=session, headers=more)).text == "1"
    posts = [r for r in await at.seen() if r["http"] == "POST"]
    assert posts
    for request in posts:
        headers = request["headers"]
        assert headers["host"] == f"127.0.0.1:{at.server.port}"
        assert headers["accept"].replace(" ", "") == BOTH.replace(" ", "")
        assert headers.get("mcp-session-id") != session
        assert "x-hop" not in headers
        assert "te" not in headers
    assert {r["query"] for r in posts} == {"tenant=blue&x=1"}
    call = next(r for r in posts if r["method"] == "tools/call")
    assert call["headers"]["x-custom"] == "kept"
    assert call["headers"]["authorization"] == caller.authorization
    assert call["headers"]["mcp-protocol-version"] == "2025-06-18"
    assert all("mcp-session-id" not in r["headers"] for r in posts if r["method"] == "initialize")


async def test_stream_and_pings_carry_the_credentials(at: Desk) -> None:
    """What the proxy sends of its own accord (GET stream, initialized) carries the caller's credentials."""
    await at.caller.open()

    async def stream_opened() -> bool:
        return any(r["http"] == "GET" and r["status"] == 200 for r in await at.seen())

    for _ in range(200):
        if await stream_opened():
            break
        await asyncio.sleep(0.02)
    assert await stream_opened()
    assert any(r["method"] == "notifications/initialized" for r in await at.seen())


@pytest.mark.parametrize(
    "kind", ["mcp-1.30", "mcp-1.30-json", "mcp-1.30-redirect", "mcp-1.30-stateless", "grafana"]
)
async def test_servers_of_every_habit(kind: str, desk: MakeDesk) -> None:
    """SSE, JSON, redirecting and session-less servers all work, with a session id from the proxy."""
    at = desk(kind)
    session = await at.caller.open()
    assert (await at.caller.ask("tools/list", session=session)).result["tools"]
    kind_of_server = at.server.kind
    for target in (session, None, "an id from before"):
        reply = await at.caller.call(kind_of_server.tool, kind_of_server.arguments, session=target)
        assert kind_of_server.answer in json.dumps(reply.result)
    assert (await at.caller.delete(session)).status == 405


# Server to client ---------------------------------------------------------------------------------


async def test_elicitation_on_the_wire(at: Desk) -> None:
    """The server's question arrives on the calling POST's stream, the client's answer at the tool."""
    session = await at.caller.open(capabilities={"elicitation": {}})
    request = at.caller.request("tools/call", {"name": "elicit_name", "arguments": {}})
    async with at.caller.stream(request, session) as stream:
        question = await stream.next()
        assert question is not None
        assert question["method"] == "elicitation/create"
        answer = {
            "jsonrpc": "2.0",
            "id": question["id"],
            "result": {"action": "accept", "content": {"name": "Ada"}},
        }
        told = await at.caller.post(answer, session)
        assert (told.status, told.body) == (202, b"")
        final = await stream.next()
    assert final is not None
    assert final["id"] == request["id"]
    assert final["result"]["content"][0]["text"] == "accept:Ada"


async def test_roots_on_the_wire(at: Desk) -> None:
    """`roots/list`, which mcp 1.x asks on the GET stream, is answered through the client's GET stream."""
    session = await at.caller.open(capabilities={"roots": {}})
    async with at.caller.listen(session) as stream, asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("list_client_roots", session=session))
        question = await stream.next()
        assert question is not None
        assert question["method"] == "roots/list"
        result = {"roots": [{"uri": "file:///srv/data", "name": "data"}]}
        await at.caller.post({"jsonrpc": "2.0", "id": question["id"], "result": result}, session)
    assert json.loads(call.result().text) == ["file:///srv/data"]


async def test_sampling_on_the_wire(at: Desk) -> None:
    """`sampling/createMessage` is answered by the client that called."""
    session = await at.caller.open(capabilities={"sampling": {}})
    async with at.caller.listen(session) as stream, asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("sample", {"prompt": "hi"}, session=session))
        question = await stream.next()
        assert question is not None
        assert question["method"] == "sampling/createMessage"
        result = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hello"}}
        await at.caller.post({"jsonrpc": "2.0", "id": question["id"], "result": result}, session)
    assert call.result().text == "hello"


async def test_log_messages_come_with_the_call(at: Desk) -> None:
    """A log message that a tool sends arrives on that call's stream, before its result."""
    session = await at.caller.open()
    reply = await at.caller.call("log", {"message": "noted"}, session=session)
    assert [m.get("method") for m in reply.messages] == ["notifications/message", None]
    assert reply.messages[0]["params"]["data"] == "noted"
    assert reply.text == "logged"


async def test_big_answers(at: Desk) -> None:
    """An answer of several megabytes arrives whole, as JSON and as SSE."""
    session = await at.caller.open()
    for accept in ("application/json", "text/event-stream"):
        reply = await at.caller.call("big", {"size": 5_000_000}, session=session, headers={"Accept": accept})
        assert len(reply.text) == 5_000_000
