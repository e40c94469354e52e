"""The whole proxy before a server that is deployed anew: clients that keep what they were told hear of it."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to
from messages import call
from proxy_bench import Bench, read_events, until

from mcp_session_proxy.sessions import upkeep

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
LISTS = ["notifications/tools/list_changed", "notifications/prompts/list_changed"]


class Deployed:
    """A server that tells of changes, and its version."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.version = "1"
        self.streams: list[web.StreamResponse] = []
        server.on.update({"initialize": self.initialize, "GET": self.stream})

    async def initialize(self, request: web.Request, message: Any) -> web.StreamResponse:
        capabilities = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}
        info = {"name": "shop", "version": self.version}
        return self.server.open_session(message, capabilities=capabilities, serverInfo=info)

    async def stream(self, request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers["Mcp-Session-Id"] not in self.server.sessions:
            return web.Response(status=404)
        response = await begin_stream(request)
        self.streams.append(response)
        while request.headers["Mcp-Session-Id"] in self.server.sessions:
            await asyncio.sleep(0.01)
        return response

    def deploy(self) -> None:
        """Another version takes over, without the sessions."""
        self.version = "2"
        self.server.sessions.clear()


@pytest.fixture
async def at(bench: Bench) -> Deployed:
    deployed = Deployed(bench.server)
    await bench.start()
    return deployed


async def methods(stream: aiohttp.ClientResponse, count: int) -> list[str]:
    return [data["method"] for _, data in await read_events(stream.content, count)]


async def test_a_legacy_client_that_listens(bench: Bench, at: Deployed) -> None:
    """It hears that its lists have changed, without asking for anything."""
    session = await bench.initialize()
    async with bench.request("GET", session=session) as stream:
        await until(lambda: at.streams)
        at.deploy()
        assert await methods(stream, 2) == LISTS


async def test_a_legacy_client_that_comes_back(bench: Bench, at: Deployed) -> None:
    """What it was told while it had no stream waits for it."""
    session = await bench.initialize()
    at.deploy()
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}
    async with bench.request("GET", session=session) as stream:
        assert await methods(stream, 2) == LISTS


async def test_a_modern_listener(bench: Bench, at: Deployed) -> None:
    """It hears of what it asked for."""
    params = {"notifications": {"toolsListChanged": True}, "_meta": MODERN}
    listen = call(1, "subscriptions/listen", **params)
    async with bench.request("POST", listen, headers=HEADERS) as stream:
        assert await methods(stream, 1) == ["notifications/subscriptions/acknowledged"]
        await until(lambda: at.streams)
        at.deploy()
        assert await methods(stream, 1) == LISTS[:1]


async def test_a_kept_list_goes(bench: Bench, at: Deployed) -> None:
    """A session-less client gets the new server's list."""

    async def tools(request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers["Mcp-Session-Id"] not in at.server.sessions:
            return web.Response(status=404)
        return reply_to(message, {"tools": [], "version": at.version})

    bench.server.on["tools/list"] = tools
    for _ in range(2):
        assert (await bench.post(call(1, "tools/list"))).json["result"]["version"] == "1"
    assert len(bench.server.posts("tools/list")) == 1
    at.deploy()
    await until(lambda: not list(bench.proxy.core.pool.books.slots()))  # nobody holds it
    assert (await bench.post(call(1, "tools/list"))).json["result"]["version"] == "2"


async def test_a_client_whose_session_was_closed_meanwhile(bench: Bench, at: Deployed) -> None:
    """It comes back to another one, and hears that it may be another server."""
    session = await bench.initialize()
    await bench.post(call(), session=session)
    (slot,) = bench.proxy.core.pool.books.slots()
    at.deploy()
    upkeep.kill(bench.proxy.core.pool, slot.session.tag)
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}
    async with bench.request("GET", session=session) as stream:
        assert await methods(stream, 2) == LISTS


async def test_the_operator_is_told(bench: Bench, at: Deployed) -> None:
    """Where the server says otherwise of itself, and only there."""
    told: list[Any] = []
    session = await bench.initialize()
    bench.watch(
        lambda event: told.append(event) if event.name.startswith(("session.", "upstream.")) else None
    )
    at.server.sessions.clear()
    await bench.post(call(), session=session)
    assert [event.name for event in told] == ["session.lost", "session.opened"]
    at.deploy()
    await bench.post(call(), session=session)
    (changed,) = [event for event in told if event.name == "upstream.changed"]
    assert (changed.what, changed.before, changed.after) == ("version", "shop 1", "shop 2")
