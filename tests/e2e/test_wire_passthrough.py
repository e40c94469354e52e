"""Paths beside the MCP endpoint, OAuth documents, and refusals that the client must see."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from .conftest import Desk
from .launch import Fleet
from .wire import Caller

pytestmark = pytest.mark.e2e

MakeDesk = Callable[..., Desk]


async def test_other_paths_stream_both_ways(desk: MakeDesk) -> None:
    """A path that is not the endpoint reaches the same path of the server's origin, with body and query."""
    at = desk("mcp-1.30")
    body = b"0123456789" * 1_000_000
    async with at.http.post(
        f"{at.proxy.origin}/echo?a=1",
        data=io.BytesIO(body),
        headers={"Content-Type": "application/octet-stream"},
    ) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert await response.read() == body
    async with at.http.get(f"{at.proxy.origin}/stats") as response:
        assert (await response.json())["pid"] == at.server.program.process.pid  # type: ignore[union-attr]
    async with at.http.get(f"{at.proxy.origin}/no/such/page") as response:
        assert response.status == 404


async def test_foreign_origin_on_other_paths(desk: MakeDesk) -> None:
    """The other paths are as closed to foreign pages as the endpoint."""
    at = desk("mcp-1.30")
    async with at.http.post(
        f"{at.proxy.origin}/forget", headers={"Origin": "http://evil.example"}
    ) as response:
        assert response.status == 403


async def test_unauthenticated_calls_reach_the_client_as_401(desk: MakeDesk) -> None:
    """A server's 401 and its WWW-Authenticate reach a client without a token, so that it can log in."""
    at = desk("mcp-1.30-auth")
    nobody = at.another(token=None)
    direct = await Caller(at.http, at.server.url, token=None).initialize()
    reply = await nobody.initialize()
    assert reply.status == direct.status == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "resource_metadata=" in reply.headers["WWW-Authenticate"]
    assert (await nobody.call("increment")).status == 401
    assert (await at.another(token="mallory-1").call("increment")).status == 401


async def test_authenticated_callers_are_told_apart(desk: MakeDesk) -> None:
    """Behind real authentication, two users and two tokens of one user each get sessions of their own."""
    at = desk("mcp-1.30-auth")
    for token in ("alice-a", "bob-a", "alice-b"):
        caller = at.another(token=token)
        session = await caller.open()
        assert [(await caller.call("increment", session=session)).text for _ in range(2)] == ["1", "2"]
        seen = json.loads((await caller.call("whoami", session=session)).text)
        assert seen["authorization"] == f"Bearer {token}"


async def test_protected_resource_metadata(desk: MakeDesk) -> None:
    """The OAuth well-known documents come through."""
    at = desk("mcp-1.30-auth")
    path = "/.well-known/oauth-protected-resource/mcp"
    async with at.http.get(f"{at.server.origin}{path}") as response:
        assert response.status == 200
        direct = await response.json()
    async with at.http.get(f"{at.proxy.origin}{path}") as response:
        assert response.status == 200
        through = await response.json()
    assert through["authorization_servers"] == direct["authorization_servers"]
    assert through["scopes_supported"] == direct["scopes_supported"]


async def test_public_url_rewrites_the_resource(option_desk: MakeDesk) -> None:
    """With --public-url the metadata's resource is the endpoint there, and the 401 points there, too."""
    at = option_desk("mcp-1.30-auth", "--public-url", "https://mcp.example")
    async with at.http.get(f"{at.proxy.origin}/.well-known/oauth-protected-resource/mcp") as response:
        assert response.status == 200
        assert (await response.json())["resource"] == "https://mcp.example/mcp"
    reply = await at.another(token=None).initialize()
    assert reply.status == 401
    assert "https://mcp.example/.well-known/oauth-protected-resource/mcp" in reply.headers["WWW-Authenticate"]
    assert str(at.server.port) not in reply.headers["WWW-Authenticate"]


# Servers that refuse ------------------------------------------------------------------------------


class Refuser:
    """A server that opens sessions like any other and then refuses calls, or breaks, as it is told."""

    def __init__(self) -> None:
        self.refusal: Callable[[], web.Response] | None = None
        self.full = False
        self.breaks = 0
        self.calls = 0
        self.initialized = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        if message["method"] == "initialize":
            if self.full:
                error = {"code": -32603, "message": "Too many open sessions"}
                return web.json_response({"jsonrpc": "2.0", "id": None, "error": error}, status=503)
            self.initialized += 1
            info = {"name": "refuser", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            return web.json_response(answer, headers={"Mcp-Session-Id": f"s{self.initialized}"})
        if "id" not in message:
            return web.Response(status=202)
        if message["method"] == "ping" and self.breaks == 0:
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        self.calls += 1
        if self.breaks > 0:
            self.breaks -= 1
            await self._break(request)
        if self.refusal is not None:
            return self.refusal()
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}})

    async def _break(self, request: web.Request) -> None:
        """Begin an answer and cut the connection."""
        begun = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await begun.prepare(request)
        await begun.write(b": here it comes\n\n")
        assert request.transport is not None
        request.transport.abort()


@pytest.fixture
async def refuser() -> AsyncIterator[tuple[Refuser, str]]:
    """A refusing server and its URL."""
    behaviour = Refuser()
    app = web.Application()
    app.router.add_route("*", "/mcp", behaviour.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        yield behaviour, str(server.make_url("/mcp"))


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_refusals_reach_the_client(
    status: int, refuser: tuple[Refuser, str], owned: Fleet, http: aiohttp.ClientSession
) -> None:
    """A refusal that is not about the session reaches the client; nothing is repeated."""
    behaviour, url = refuser
    behaviour.refusal = lambda: web.json_response(
        {"error": "insufficient_scope"},
        status=status,
        headers={"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="x"', "Retry-After": "7"},
    )
    caller = Caller(http, (await _proxy_before(owned, url)))
    session = await caller.open()
    reply = await caller.call("anything", session=session, request_id="mine")
    assert reply.status == status
    if status == 429:
        assert reply.response["id"] == "mine"
    else:
        assert b"insufficient_scope" in reply.body
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="x"'
    assert (behaviour.calls, behaviour.initialized) == (1, 1)
    behaviour.refusal = None
    assert (await caller.call("anything", session=session)).status == 200
    assert behaviour.initialized == 1


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: web.Response(status=500, text="oops"),
        lambda: web.Response(status=200, text="<html>hello</html>", content_type="text/html"),
        lambda: web.Response(status=200, text="{", content_type="application/json"),
        lambda: web.Response(status=200, text="", content_type="text/event-stream"),
        lambda: web.Response(status=200, text="data: {\n\n", content_type="text/event-stream"),
        lambda: web.json_response({"jsonrpc": "2.0", "id": "another", "result": {}}),
        lambda: web.Response(status=204),
    ],
    ids=["500", "html", "half-json", "empty-stream", "half-event", "wrong-id", "204"],
)
async def test_nonsense_from_the_server(
    refusal: Callable[[], web.Response],
    refuser: tuple[Refuser, str],
    owned: Fleet,
    http: aiohttp.ClientSession,
) -> None:
    """Whatever the server answers, the client gets a JSON-RPC error with its id; nothing runs twice."""
    behaviour, url = refuser
    behaviour.refusal = refusal
    caller = Caller(http, (await _proxy_before(owned, url)))
    session = await caller.open()
    reply = await caller.call("anything", session=session, request_id="mine")
    answer = reply.response
    assert answer["id"] == "mine"
    assert answer["error"]["message"]
    assert reply.status >= 500 or reply.content_type == "text/event-stream"
    assert behaviour.calls == 1
    behaviour.refusal = None
    assert (await caller.call("anything", session=session)).status == 200


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/list", {}),
        ("resources/list", {}),
        ("resources/read", {"uri": "a://b"}),
        ("prompts/get", {"name": "p"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {}}),
        ("ping", {}),
    ],
)
async def test_reads_are_repeated_after_a_broken_connection(
    method: str,
    params: dict[str, object],
    refuser: tuple[Refuser, str],
    owned: Fleet,
    http: aiohttp.ClientSession,
) -> None:
    """A connection that breaks in the middle of an answer: what is a read by protocol is sent again."""
    behaviour, url = refuser
    caller = Caller(http, (await _proxy_before(owned, url)))
    session = await caller.open()
    behaviour.breaks = 1
    assert (await caller.ask(method, params, session=session)).status == 200


async def test_calls_are_not_repeated_after_a_broken_connection(
    refuser: tuple[Refuser, str], owned: Fleet, http: aiohttp.ClientSession
) -> None:
    """A connection that breaks in the middle of a tool call's answer: the call is not sent again."""
    behaviour, url = refuser
    caller = Caller(http, (await _proxy_before(owned, url)))
    session = await caller.open()
    behaviour.breaks = 1
    reply = await caller.call("anything", session=session, request_id="mine")
    assert reply.response["id"] == "mine"
    assert reply.error["data"]["reason"] == "outcome-unknown"
    assert behaviour.calls == 1
    assert (await caller.call("anything", session=session)).status == 200


async def test_server_without_room(
    refuser: tuple[Refuser, str], owned: Fleet, http: aiohttp.ClientSession
) -> None:
    """A server that opens no more sessions: a clear error with the client's id, then service again."""
    behaviour, url = refuser
    behaviour.full = True
    caller = Caller(http, (await _proxy_before(owned, url, "--acquire-timeout", "1s")))
    for reply in (await caller.initialize(), await caller.call("anything", request_id=1)):
        assert reply.status in (502, 503)
        assert reply.error["message"]
        assert reply.response["id"] == 1
    behaviour.full = False
    assert (await caller.initialize()).status == 200


async def _proxy_before(owned: Fleet, url: str, *options: str) -> str:
    """A proxy before a server in this very process, started without blocking its loop; its URL."""
    return (await asyncio.to_thread(owned.new_proxy, url, *options)).url
