"""What clients asked to be told of, when several have one session at once or in turn. On the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import call, notification
from proxy_bench import Bench, until

LISTS = "notifications/tools/list_changed"


class TellingServer(HttpServer):
    """A server that tells of resources that were subscribed to, and logs as loudly as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed: dict[str, set[str]] = {}
        self.level: dict[str, str] = {}
        self.refuse = False
        self._streams: dict[str, web.StreamResponse] = {}
        self.on = {
            "GET": self._listen,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "logging/setLevel": self._set_level,
        }

    async def _listen(self, request: web.Request, _: Any) -> web.StreamResponse:
        response = self._streams[request.headers["Mcp-Session-Id"]] = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    async def _subscribe(self, request: web.Request, message: Any) -> web.StreamResponse:
        if self.refuse:
            return web.json_response(
                {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "no"}}
            )
        own = self.subscribed.setdefault(request.headers["Mcp-Session-Id"], set())
        own.add(message["params"]["uri"])
        return reply_to(message, {})

    async def _unsubscribe(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.subscribed.setdefault(request.headers["Mcp-Session-Id"], set()).discard(message["params"]["uri"])
        return reply_to(message, {})

    async def _set_level(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.level[request.headers["Mcp-Session-Id"]] = message["params"]["level"]
        return reply_to(message, {})

    async def say(self, method: str, **params: Any) -> None:
        """Tell something on every session's stream."""
        for stream in self._streams.values():
            await write_event(stream, notification(method, **params))

    async def update(self, uri: str) -> None:
        await self.say("notifications/resources/updated", uri=uri)

    async def log(self, level: str) -> None:
        await self.say("notifications/message", level=level, data="x")


@pytest.fixture
async def server() -> TellingServer:
    """A server, not started yet."""
    return TellingServer()


@asynccontextmanager
async def world(server: TellingServer, **options: Any) -> AsyncIterator[Bench]:
    """The proxy before it."""
    async with server, Bench(server) as bench:
        await bench.start(**options)
        yield bench


class Ear:
    """A client session and what it hears on its GET stream."""

    def __init__(self, bench: Bench, session: str) -> None:
        self.bench = bench
        self.session = session
        self.heard: list[str] = []

    async def listen(self) -> None:
        async with self.bench.request("GET", session=self.session) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    told = json.loads(line[6:])
                    params = told.get("params", {})
                    words = (params.get(name) for name in ("uri", "level", "elicitationId"))
                    self.heard.append(next(filter(None, words), told["method"]))

    async def ask(self, method: str, **params: Any) -> Any:
        return (await self.bench.post(call(1, method, **params), session=self.session)).json


@asynccontextmanager
async def ear(bench: Bench, session: str | None = None) -> AsyncIterator[Ear]:
    """A client that listens, and says DELETE at the end."""
    one = Ear(bench, session or await bench.initialize())
    before = bench.endpoint.streams
    listening = asyncio.create_task(one.listen())
    await until(lambda: bench.endpoint.streams > before)
    yield one
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    async with bench.request("DELETE", session=one.session):
        pass
    await until(lambda: bench.endpoint.streams == before)


def only(mapping: dict[str, Any]) -> Any:
    """The value of the only session."""
    [value] = mapping.values()
    return value


async def test_the_next_client_inherits_no_subscriptions(server: TellingServer) -> None:
    """The server is unsubscribed for it; who comes back to its session is subscribed again."""
    async with world(server) as bench:
        async with ear(bench) as one:
            await one.ask("resources/subscribe", uri="a:1")
            await server.update("a:1")
            await until(lambda: one.heard == ["a:1"])
        async with ear(bench) as two:
            await until(lambda: only(server.subscribed) == set())
            await server.update("a:1")
            await two.ask("resources/subscribe", uri="a:2")
            await server.update("a:2")
            await until(lambda: two.heard)
            assert two.heard == ["a:2"]
        async with ear(bench, one.session) as again:
            await until(lambda: only(server.subscribed) == {"a:1"})
            await server.update("a:1")
            await until(lambda: again.heard[-1:] == ["a:1"])
            assert "a:2" not in again.heard
        assert len(server.sessions) == 1


async def test_the_next_client_inherits_no_log_level(server: TellingServer) -> None:
    """The server is set to what is usual, or to what the next client had asked for itself."""
    async with world(server) as bench:
        async with ear(bench) as one:
            await one.ask("logging/setLevel", level="error")
        async with ear(bench):
            await until(lambda: only(server.level) == "info")
        async with ear(bench, one.session):
            await until(lambda: only(server.level) == "error")


async def test_clients_of_a_shared_session_hear_what_they_asked_for(server: TellingServer) -> None:
    """Subscriptions are counted, levels are brought together, and each hears its own."""
    async with (
        world(server, sharing="shared") as bench,
        ear(bench) as one,
        ear(bench) as two,
        ear(bench) as three,
    ):
        for client in (one, two):
            assert (await client.ask("resources/subscribe", uri="a:1"))["result"] == {}
        assert (await one.ask("resources/unsubscribe", uri="a:1"))["result"] == {}
        assert only(server.subscribed) == {"a:1"}
        await server.update("a:1")
        await server.update("a:1/part")
        await until(lambda: len(two.heard) == 2)
        assert (await two.ask("resources/unsubscribe", uri="a:1"))["result"] == {}
        assert only(server.subscribed) == set()
        await one.ask("logging/setLevel", level="debug")
        await two.ask("logging/setLevel", level="error")
        assert only(server.level) == "debug"
        for level in ("debug", "error"):
            await server.log(level)
        await until(lambda: len(two.heard) == 3 and len(one.heard) == 2)
        assert two.heard == ["a:1", "a:1/part", "error"]
        assert one.heard == ["debug", "error"]
        await one.ask("logging/setLevel", level="warning")
        assert only(server.level) == "warning"
        await until(lambda: len(three.heard) == 2)
        assert three.heard == ["debug", "error"]


async def test_a_change_in_the_course_of_a_call(server: TellingServer) -> None:
    """Its client hears of it there, and the others of the session on their own streams."""

    async def tool(http: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(http)
        await write_event(response, notification(LISTS))
        await write_event(response, notification("notifications/resources/updated", uri="a:1"))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    server.on["tools/call"] = tool
    async with world(server, sharing="shared") as bench, ear(bench) as one, ear(bench) as two:
        for client in (one, two):
            await client.ask("resources/subscribe", uri="a:1")
        told = (await bench.post(call(), session=one.session)).json
        assert [each.get("method") for each in told] == [LISTS, "notifications/resources/updated", None]
        await server.log("info")
        await until(lambda: one.heard and len(two.heard) == 3)
        assert (one.heard, two.heard) == (["info"], [LISTS, "a:1", "info"])


async def test_a_refused_subscription(server: TellingServer) -> None:
    """What the server refused is nobody's wish, and is not asked for again."""
    server.refuse = True
    async with world(server) as bench:
        async with ear(bench) as one:
            assert (await one.ask("resources/subscribe", uri="a:1"))["error"]["code"] == -32602
            await server.update("a:1")
            await server.update("a:1")
        async with ear(bench, one.session):
            await bench.post(call(), session=one.session)
        assert one.heard == []
        assert len(server.posts("resources/subscribe")) == 1


async def test_a_completed_elicitation_of_somebody_else(server: TellingServer) -> None:
    """It is told to the client that was asked for it, by an error, too."""

    async def tool(_: web.Request, message: Any) -> web.StreamResponse:
        wanted = {"mode": "url", "elicitationId": "e-1", "url": "https://a.example/", "message": "m"}
        failure = {"code": -32042, "message": "visit", "data": {"elicitations": [wanted]}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": failure})

    server.on["tools/call"] = tool
    async with world(server, sharing="shared") as bench, ear(bench) as one, ear(bench) as two:
        assert (await one.ask("tools/call"))["error"]["code"] == -32042
        await server.say("notifications/elicitation/complete", elicitationId="e-1")
        await server.log("info")
        await until(lambda: two.heard and len(one.heard) == 2)
        assert one.heard == ["e-1", "info"]
        assert two.heard == ["info"]
