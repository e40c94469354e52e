"""Whose folders a server works in when its session goes from one client to another. On the wire."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import INITIALIZE, call
from proxy_bench import BOTH, Bench, until

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"


class RootsServer(HttpServer):
    """A server that asks a client for its roots when a session begins, and again when it is told of a change.

    Its tool gives the roots that it knows; ``log`` is what happened, in order.
    """

    def __init__(self, *, asks: bool = True) -> None:
        super().__init__()
        self.asks = asks
        self.roots: dict[str, list[str]] = {}
        self.log: list[str] = []
        self.hold: asyncio.Event | None = None
        self._streams: dict[str, web.StreamResponse] = {}
        self._asked = 0
        self._unanswered: dict[str, str] = {}
        self.on = {
            "GET": self._listen,
            "notifications/roots/list_changed": self._changed,
            "response": self._take,
            "tools/call": self._call,
        }

    @staticmethod
    def _session(request: web.Request) -> str:
        return request.headers["Mcp-Session-Id"]

    async def _listen(self, request: web.Request, _: Any) -> web.StreamResponse:
        response = self._streams[self._session(request)] = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    async def _ask(self, session: str) -> None:
        self._asked += 1
        self._unanswered[f"q{self._asked}"] = session
        question = {"jsonrpc": "2.0", "id": f"q{self._asked}", "method": "roots/list"}
        await write_event(self._streams[session], question)

    async def _changed(self, request: web.Request, _: Any) -> web.StreamResponse:
        self.log.append("changed")
        if self.asks:
            await self._ask(self._session(request))
        return web.Response(status=202)

    async def _take(self, request: web.Request, message: Any) -> web.StreamResponse:
        session = self._unanswered.pop(message["id"])
        if "result" in message:
            self.roots[session] = [root["uri"] for root in message["result"]["roots"]]
        return web.Response(status=202)

    async def _call(self, request: web.Request, message: Any) -> web.StreamResponse:
        session = self._session(request)
        if session not in self.roots:
            await self._ask(session)
            await until(lambda: session in self.roots)
        if self.hold is not None:
            hold, self.hold = self.hold, None
            await hold.wait()
        self.log.append(f"call in {self.roots[session]}")
        return reply_to(message, {"roots": self.roots[session], "session": session})


class Legacy:
    """A legacy client with roots, and a GET stream on which it is asked for them."""

    def __init__(self, bench: Bench, http: aiohttp.ClientSession, folder: str) -> None:
        self.bench = bench
        self.http = http
        self.folder = folder
        self.asked = 0
        self.session = ""
        self.capabilities: Any = {"roots": {"listChanged": True}}

    async def post(self, message: Any) -> Any:
        headers = {"Accept": BOTH} | ({"Mcp-Session-Id": self.session} if self.session else {})
        async with self.http.post(self.bench.url, json=message, headers=headers) as response:
            self.session = response.headers.get("Mcp-Session-Id", self.session)
            return await response.json() if response.status == 200 else None

    async def begin(self) -> None:
        message = copy.deepcopy(INITIALIZE)
        message["params"]["capabilities"] = self.capabilities
        await self.post(message)

    async def answer(self) -> None:
        """Hold the GET stream and answer what comes."""
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": self.session}
        async with self.http.get(self.bench.url, headers=headers) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    question = json.loads(line[6:])
                    assert question["method"] == "roots/list"
                    self.asked += 1
                    result = {"roots": [{"uri": self.folder}]}
                    await self.post({"jsonrpc": "2.0", "id": question["id"], "result": result})

    async def roots(self) -> list[str]:
        answer = await self.post(call())
        found: list[str] = answer["result"]["roots"]
        return found


@asynccontextmanager
async def legacy(bench: Bench, folder: str, capabilities: Any = None) -> AsyncIterator[Legacy]:
    """A legacy client that is there, and says DELETE at the end."""
    async with aiohttp.ClientSession() as http:
        one = Legacy(bench, http, folder)
        one.capabilities = capabilities or one.capabilities
        await one.begin()
        answering = asyncio.create_task(one.answer())
        yield one
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await http.delete(bench.url, headers={"Mcp-Session-Id": one.session})


class RootsBench(Bench):
    """A bench before such a server."""

    server: RootsServer


@asynccontextmanager
async def world(server: RootsServer, **options: Any) -> AsyncIterator[RootsBench]:
    """The proxy before this server."""
    async with server, RootsBench(server) as bench:
        await bench.start(**options)
        yield bench


# -- legacy clients --------------------------------------------------------------------------------


async def test_handed_over_with_the_next_client_s_roots() -> None:
    """The server hears of the change, and has the new client's answer, before that client's call."""
    async with world(RootsServer()) as bench:
        async with legacy(bench, "file:///one") as one:
            assert await one.roots() == ["file:///one"]
        async with legacy(bench, "file:///two") as two:
            assert await two.roots() == ["file:///two"]
            assert await two.roots() == ["file:///two"]
        assert bench.server.log == [
            "call in ['file:///one']",
            "changed",
            "call in ['file:///two']",
            "call in ['file:///two']",
        ]
        assert len(bench.server.sessions) == 1


async def test_the_first_client_comes_back() -> None:
    """A client that finds its session again after another has used it finds its folder again, too."""
    async with world(RootsServer()) as bench:
        async with legacy(bench, "file:///one") as one:
            assert await one.roots() == ["file:///one"]
            await bench.http.delete(bench.url, headers={"Mcp-Session-Id": one.session})
            await until(lambda: not bench.endpoint.streams)
            async with legacy(bench, "file:///two") as two:
                assert await two.roots() == ["file:///two"]
            again = asyncio.create_task(one.answer())
            assert await one.roots() == ["file:///one"]
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
        assert len(bench.server.sessions) == 1


async def test_no_handover_of_roots_that_nobody_can_replace() -> None:
    """A client that will not tell of changes has a session of its own."""
    fixed: Any = {"roots": {}}
    async with world(RootsServer(), linger="1h") as bench:
        for folder in ("file:///one", "file:///two"):
            async with legacy(bench, folder, fixed) as client:
                assert await client.roots() == [folder]
        assert len(bench.server.sessions) == 2
        assert "changed" not in bench.server.log


async def test_shared_by_clients_with_roots() -> None:
    """Under ``shared``, too, the server is told when another client calls."""
    async with (
        world(RootsServer(), sharing="shared") as bench,
        legacy(bench, "file:///one") as one,
        legacy(bench, "file:///two") as two,
    ):
        for _ in range(2):
            assert await one.roots() == ["file:///one"]
            assert await two.roots() == ["file:///two"]
        assert len(bench.server.sessions) == 1


async def test_several_calls_at_once_after_a_handover() -> None:
    """All of the new client's calls wait for the server to know its roots."""
    async with world(RootsServer()) as bench:
        async with legacy(bench, "file:///one") as one:
            assert await one.roots() == ["file:///one"]
        async with legacy(bench, "file:///two") as two:
            found = await asyncio.gather(*(two.roots() for _ in range(5)))
            assert found == [["file:///two"]] * 5
        assert bench.server.log.count("changed") == 1


async def test_a_server_that_does_not_ask_is_not_waited_for_twice() -> None:
    """It is told all the same; how long it is given to ask is learnt at the first time."""
    async with world(RootsServer(asks=False)) as bench:
        for _ in range(4):
            async with legacy(bench, "file:///one") as one:
                await one.roots()
        [slot] = bench.proxy.core.pool.books.slots()
        assert slot.session.record.roots._asks_at_once is False
        assert bench.server.log.count("changed") == 3


# -- modern clients --------------------------------------------------------------------------------


class Modern:
    """A modern client with roots, which answers what it is asked with its retries."""

    def __init__(self, bench: Bench, http: aiohttp.ClientSession, folder: str, **headers: str) -> None:
        self.bench = bench
        self.http = http
        self.folder = folder
        self.headers = headers
        self.asked = 0

    async def post(self, meta: dict[str, Any], **params: Any) -> Any:
        message = call(1, name="roots", **params)
        message["params"]["_meta"] = {
            f"{META}protocolVersion": VERSION,
            f"{META}clientCapabilities": {"roots": {}},
            f"{META}clientInfo": {"name": "m", "version": "1"},
            **meta,
        }
        headers = {
            "Accept": BOTH,
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "roots",
            **self.headers,
        }
        async with self.http.post(self.bench.url, json=message, headers=headers) as response:
            text = await response.text()
            if response.content_type == "text/event-stream":
                text = [line[6:] for line in text.splitlines() if line.startswith("data: {")][-1]
            return json.loads(text)

    async def roots(self, **meta: Any) -> list[str]:
        answer = await self.post(meta)
        while answer["result"]["resultType"] == "input_required":
            asked = answer["result"]["inputRequests"]
            assert {question["method"] for question in asked.values()} == {"roots/list"}
            self.asked += 1
            answers = {key: {"roots": [{"uri": self.folder}]} for key in asked}
            state = answer["result"]["requestState"]
            answer = await self.post(meta, inputResponses=answers, requestState=state)
        found: list[str] = answer["result"]["roots"]
        return found


@asynccontextmanager
async def modern(bench: Bench, folder: str, **headers: str) -> AsyncIterator[Modern]:
    """A modern client, with connections of its own."""
    async with aiohttp.ClientSession() as http:
        yield Modern(bench, http, folder, **headers)


async def test_modern_clients_of_one_caller() -> None:
    """Each call is worked on in its own client's folder, on one session; nobody is asked without need."""
    async with (
        world(RootsServer()) as bench,
        modern(bench, "file:///one") as one,
        modern(bench, "file:///two") as two,
    ):
        for _ in range(2):
            for _ in range(3):
                assert await one.roots() == ["file:///one"]
            assert await two.roots() == ["file:///two"]
        assert (one.asked, two.asked) == (2, 2)
        assert len(bench.server.sessions) == 1


async def test_what_the_server_is_told_of_roots_has_no_header_of_a_call() -> None:
    """It is the proxy that tells it, in whoever's course: only the call has the call's headers."""
    mark = "X-Request-Mark"
    async with (
        world(RootsServer()) as bench,
        modern(bench, "file:///one") as one,
        modern(bench, "file:///two", **{mark: "two"}) as two,
    ):
        assert await one.roots() == ["file:///one"]
        assert await two.roots() == ["file:///two"]
        told = [request for request, _ in bench.server.posts("notifications/roots/list_changed")]
        assert [request.headers.get(mark) for request in told] == [None]
        calls = [request for request, _ in bench.server.posts("tools/call")]
        assert [request.headers.get(mark) for request in calls] == [None, "two"]


async def test_modern_clients_at_the_same_time() -> None:
    """A call of another client waits until the server has finished with the one before."""
    server = RootsServer()
    async with (
        world(server) as bench,
        modern(bench, "file:///one") as one,
        modern(bench, "file:///two") as two,
    ):
        server.hold = hold = asyncio.Event()
        first = asyncio.create_task(one.roots())
        await until(lambda: server.hold is None)
        second = asyncio.create_task(two.roots())
        await until(lambda: len(bench.endpoint.posts) == 2)
        hold.set()
        assert await first == ["file:///one"]
        assert await second == ["file:///two"]


async def test_calls_of_one_modern_client_at_the_same_time() -> None:
    """Calls of one conversation run together."""
    server = RootsServer()
    async with world(server) as bench, modern(bench, "file:///one") as one:
        meta = {"sessionID": "conversation"}
        assert await one.roots(**meta) == ["file:///one"]
        server.hold = hold = asyncio.Event()
        first = asyncio.create_task(one.roots(**meta))
        await until(lambda: server.hold is None)
        assert await one.roots(**meta) == ["file:///one"]
        hold.set()
        assert await first == ["file:///one"]
        assert "changed" not in server.log


async def test_modern_clients_behind_another_proxy() -> None:
    """On a connection that may be anybody's, each call may be another client's."""
    async with world(RootsServer()) as bench, aiohttp.ClientSession() as http:
        clients = [Modern(bench, http, f"file:///{number}", Via="1.1 front") for number in range(2)]
        for client in (*clients, *clients):
            assert await client.roots() == [client.folder]


async def test_clients_without_roots_cost_nothing() -> None:
    """Nothing is told where no roots are declared."""
    async with world(RootsServer()) as bench:
        for _ in range(3):
            session = await bench.initialize()
            await bench.post(call(method="ping2"), session=session)
            async with bench.request("DELETE", session=session):
                pass
        assert bench.server.log == []


@pytest.mark.parametrize("sharing", ["isolated", "fresh"])
async def test_modes_without_handover(sharing: str) -> None:
    """Where nothing is handed over, nothing is told."""
    async with world(RootsServer(), sharing=sharing) as bench:
        for folder in ("file:///one", "file:///two"):
            async with legacy(bench, folder) as client:
                assert await client.roots() == [folder]
        assert "changed" not in bench.server.log
