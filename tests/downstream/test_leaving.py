"""Who has left, and who was only cut off: which client gets the session that another one had. On the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from http_server import begin_stream, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import BOTH, Bench, read_events, until


class Client:
    """One client, with connections of its own."""

    def __init__(self, bench: Bench, http: aiohttp.ClientSession, **headers: str) -> None:
        self.bench = bench
        self.http = http
        self.headers = {"Accept": BOTH, "Content-Type": "application/json", **headers}
        self.session = ""
        self._stack = AsyncExitStack()

    async def post(self, message: Any) -> Any:
        """One POST."""
        headers = self.headers | ({"Mcp-Session-Id": self.session} if self.session else {})
        async with self.http.post(self.bench.url, json=message, headers=headers) as response:
            self.session = response.headers.get("Mcp-Session-Id", self.session)
            return await response.json() if response.status == 200 else None

    async def begin(self) -> "Client":
        """The handshake."""
        await self.post(INITIALIZE)
        await self.post(notification("notifications/initialized"))
        return self

    async def count(self) -> int:
        """A call; how many this session of the server's has seen."""
        answer = await self.post(call())
        found: int = answer["result"]["count"]
        return found

    async def listen(self) -> aiohttp.ClientResponse:
        """Open a GET stream, on a connection of its own."""
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": self.session}
        return await self._stack.enter_async_context(self.http.get(self.bench.url, headers=headers))

    async def close(self) -> None:
        """Close its streams."""
        await self._stack.aclose()

    async def cut(self, stream: aiohttp.ClientResponse) -> None:
        """The stream's connection breaks."""
        streams = self.bench.endpoint.streams
        stream.close()
        await until(lambda: self.bench.endpoint.streams < streams)


@asynccontextmanager
async def client(bench: Bench, **headers: str) -> AsyncIterator[Client]:
    """A client; its connections are closed at the end, and the proxy has seen that."""
    async with aiohttp.ClientSession() as http:
        one = Client(bench, http, **headers)
        yield one
        await one.close()
    await until(lambda: not bench.proxy.front.listener.connections)


async def attached(bench: Bench) -> int:
    """How many client sessions hold an upstream session."""
    return sum(one.lease is not None for one in bench.proxy.core.binder.directory)


async def test_a_client_that_closes_its_connections_has_left(bench: Bench) -> None:
    """A session per call, without DELETE and without a GET stream: the state goes on."""
    await bench.start()
    counts = []
    for _ in range(3):
        async with client(bench) as one:
            await one.begin()
            counts.append(await one.count())
    assert counts == [1, 2, 3]


async def test_a_client_with_a_stream_that_closes_everything_has_left(bench: Bench) -> None:
    """The same with a GET stream: who closes all connections does not mean to come back."""
    await bench.start()
    counts = []
    for _ in range(3):
        async with client(bench) as one:
            await one.begin()
            await one.listen()
            counts.append(await one.count())
    assert counts == [1, 2, 3]


async def test_a_cut_stream_keeps_its_session(bench: Bench) -> None:
    """A client whose GET stream is cut for a moment keeps its session to itself."""
    await bench.start()
    async with client(bench) as one:
        await one.begin()
        stream = await one.listen()
        assert await one.count() == 1
        await one.cut(stream)
        async with aiohttp.ClientSession() as http:
            other = await Client(bench, http).begin()
            assert await other.count() == 1
        await one.listen()
        assert await one.count() == 2


async def test_a_cut_stream_after_an_answer_in_a_stream(bench: Bench) -> None:
    """Nor is a cut stream one of a client that closes the connection of each answer that is a stream."""

    async def tool(request: Any, message: Any) -> Any:
        response = await begin_stream(request)
        await write_event(response, notification("notifications/message", data="hm"))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    await bench.start()
    async with client(bench) as one:
        await one.begin()
        stream = await one.listen()
        assert await one.count() == 1
        bench.server.on["tools/call"] = tool
        headers = one.headers | {"Mcp-Session-Id": one.session}
        async with one.http.post(bench.url, json=call(), headers=headers) as answer:
            await read_events(answer.content, 2)
        await until(lambda: not bench.endpoint.posts)
        await one.cut(stream)
        await one.http.close()
        await until(lambda: not bench.proxy.front.listener.connections)
        assert await attached(bench) == 1


async def test_a_stream_that_stays_closed(bench: Bench) -> None:
    """After the grace without a sign of life, another client gets the session."""
    await bench.start(reconnect_grace="1h")
    async with client(bench) as one:
        await one.begin()
        stream = await one.listen()
        assert await one.count() == 1
        await one.cut(stream)
        bench.proxy.core.binder.maintain()
        assert await attached(bench) == 1
        binder = bench.proxy.core.binder
        binder.rules = msgspec.structs.replace(binder.rules, reconnect_grace_seconds=0.0)
        bench.proxy.core.binder.maintain()
        async with aiohttp.ClientSession() as http:
            assert await (await Client(bench, http).begin()).count() == 2


@pytest.mark.parametrize("headers", [{"Connection": "close"}, {"X-Forwarded-For": "192.0.2.1"}, {"Via": "x"}])
async def test_closings_that_say_nothing(bench: Bench, headers: dict[str, str]) -> None:
    """A connection that we close, or that is a front proxy's, says nothing of the client."""
    await bench.start()
    async with client(bench, **headers) as one:
        await one.begin()
        assert await one.count() == 1
    async with client(bench, **headers) as other:
        await other.begin()
        assert await other.count() == 1
    async with client(bench) as again:
        again.session = one.session
        assert await again.count() == 2


async def test_a_connection_for_each_request(bench: Bench) -> None:
    """Nor does one that carried a single request, though its client closes it."""
    await bench.start()
    session = ""
    for message in (INITIALIZE, notification("notifications/initialized"), call()):
        async with client(bench) as one:
            one.session = session
            await one.post(message)
            session = one.session
    assert await attached(bench) == 1


async def test_a_connection_of_several_clients(bench: Bench) -> None:
    """Nor does one that carried several client sessions."""
    await bench.start()
    async with client(bench) as one:
        for each in (one, Client(bench, one.http)):
            await each.begin()
            assert await each.count() == 1
    assert await attached(bench) == 2


async def test_a_connection_that_was_lost_in_mid_call(bench: Bench) -> None:
    """Nor does one that is lost while the client waits for an answer."""
    await bench.start()
    release, reached = asyncio.Event(), asyncio.Event()

    async def slow(_: Any, message: Any) -> Any:
        reached.set()
        await release.wait()
        raise aiohttp.web.HTTPInternalServerError

    bench.server.on["tools/call"] = slow
    async with client(bench) as one:
        await one.begin()
        asking = asyncio.create_task(one.count())
        await reached.wait()
        [connection] = bench.proxy.front.listener.connections
        asking.cancel()
        await until(lambda: connection.transport is None)
        assert await attached(bench) == 1
        release.set()
    assert await attached(bench) == 1


async def test_our_own_idle_timeout(bench: Bench) -> None:
    """A connection that we close because nothing came on it says nothing."""
    await bench.start(connection_idle_timeout="100ms")
    async with client(bench) as one:
        await one.begin()
        assert await one.count() == 1
        await until(lambda: not bench.proxy.front.listener.connections)
        assert await attached(bench) == 1


async def test_nobody_holds_what_nobody_heard_of(bench: Bench) -> None:
    """A client leaves before its ``initialize`` is answered: the next one has the session at once."""
    go_on = bench.server.hold_up_handshakes()
    await bench.start()
    async with bench.asking(INITIALIZE) as leaving:
        await until(lambda: bench.server.posts("initialize"))
        leaving.cancel()
    await until(lambda: all(each.transport is None for each in bench.listener.connections))
    go_on.set()
    await until(lambda: not bench.endpoint.posts)
    session = await bench.initialize()
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}
    assert len(bench.server.posts("initialize")) == 1
    assert [client.id for client in bench.proxy.core.binder.directory] == [session]
