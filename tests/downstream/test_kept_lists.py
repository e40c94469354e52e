"""Lists for clients with a session: from what is kept of their upstream session, while that is right."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from messages import INITIALIZE, call
from modern_bench import CHANGING, Modern
from proxy_bench import until

CHANGED = "notifications/tools/list_changed"


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Modern]:
    async with Modern(server) as started:
        started.offer(CHANGING)
        server.on["tools/list"] = Tools(server).list
        yield started


class Tools:
    """A list that says which session it is of, what headers it was asked for with, and how often it was."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server

    async def list(self, request: web.Request, message: Any) -> web.StreamResponse:
        asked = len(self.server.posts("tools/list"))
        session, wants = request.headers["Mcp-Session-Id"], request.headers.get("X-Wants")
        return reply_to(message, {"tools": [], "asked": asked, "session": session, "wants": wants})


async def initialize(bench: Modern) -> str:
    """A session, once its server's stream stands."""
    session = await bench.initialize()
    await until(lambda: all(slot.session.streaming for slot in bench.proxy.core.pool.books.slots()))
    return session


async def listed(bench: Modern, session: str | None, *, headers: Any = None, **params: Any) -> dict[str, Any]:
    answer = await bench.post(call(7, "tools/list", **params), session=session, headers=headers)
    assert answer.json["id"] == 7
    found: dict[str, Any] = answer.json["result"]
    return found


async def test_asked_once(bench: Modern) -> None:
    """The server is asked once, until it says that the list has changed; other clients have others."""
    await bench.start(sharing="isolated")
    ada, bob = await initialize(bench), await initialize(bench)
    assert [(await listed(bench, ada))["asked"] for _ in range(3)] == [1, 1, 1]
    of_bob = await listed(bench, bob)
    assert of_bob["asked"] == 2
    assert (await listed(bench, ada))["session"] != of_bob["session"]
    # ``get_stream`` is that of the newest session: word of a change empties everything.
    await bench.server_says(CHANGED)
    await until(lambda: bench.proxy.core.catalog.generation)
    assert (await listed(bench, ada))["asked"] == 3
    assert len(bench.server.posts("tools/list")) == 3


async def test_counted_as_a_request(bench: Modern) -> None:
    """It is in the metrics and in what is shown of the client, but for what would be about its server."""
    await bench.start()
    session = await initialize(bench)
    for _ in range(3):
        await listed(bench, session)
    value = bench.proxy.watchers.metrics.registry.get_sample_value
    of_lists = {"era": "legacy", "method": "tools/list"}
    assert value("mcp_session_proxy_request_seconds_count", of_lists) == 3
    assert value("mcp_session_proxy_upstream_request_seconds_count") == 1
    assert not value("mcp_session_proxy_sessionless_requests_total", {"era": "legacy"})
    (client,) = bench.proxy.core.binder.directory
    assert client.record.requests == 4  # with its initialize


async def test_what_is_asked_in_another_way(bench: Modern) -> None:
    """Other headers, another page, and a wish to hear of progress are the server's to answer."""
    await bench.start()
    session = await initialize(bench)
    assert (await listed(bench, session))["wants"] is None
    assert (await listed(bench, session, headers={"X-Wants": "a"}))["wants"] == "a"
    assert (await listed(bench, session))["wants"] is None
    assert (await listed(bench, session, cursor="2"))["asked"] == 4
    assert (await listed(bench, session, _meta={"progressToken": 1}))["asked"] == 5
    assert (await listed(bench, session))["asked"] == 3


async def test_after_a_call(bench: Modern) -> None:
    """Who calls a tool and then lists sees what it has changed, even if word of that is late."""
    await bench.start()
    session = await initialize(bench)
    assert [(await listed(bench, session))["asked"] for _ in range(2)] == [1, 1]
    await bench.post(call(), session=session)
    assert (await listed(bench, session))["asked"] == 2


async def test_a_change_while_it_is_asked_for(bench: Modern) -> None:
    """An answer that may be of before is given to whoever has asked, and kept for nobody."""
    await bench.start()
    session = await initialize(bench)
    usual, go_on = bench.server.on["tools/list"], asyncio.Event()

    async def slow(request: web.Request, message: Any) -> web.StreamResponse:
        answer = await usual(request, message)
        await go_on.wait()
        return answer

    bench.server.on["tools/list"] = slow
    async with bench.asking(call(1, "tools/list"), session=session) as asking:
        await until(lambda: bench.server.posts("tools/list"))
        await bench.server_says(CHANGED)
        await until(lambda: bench.proxy.core.catalog.generation)
        go_on.set()
        assert (await asking).json["result"]["asked"] == 1
    assert (await listed(bench, session))["asked"] == 2


async def test_the_stream_breaks(bench: Modern) -> None:
    """Without it nobody would hear of a change; and once it stands again, the list is asked for anew."""
    await bench.start()
    session = await initialize(bench)
    await listed(bench, session)
    (slot,) = bench.proxy.core.pool.books.slots()
    usual, may_stand = bench.server.on["GET"], asyncio.Event()

    async def later(request: web.Request, message: Any) -> web.StreamResponse:
        await may_stand.wait()
        return await usual(request, message)

    bench.server.on["GET"] = later
    broken = bench.get_stream._req
    assert broken is not None
    assert broken.transport is not None
    broken.transport.abort()
    await until(lambda: not slot.session.streaming)
    assert (await listed(bench, session))["asked"] == 2
    may_stand.set()
    await until(lambda: slot.session.streaming)
    assert (await listed(bench, session))["asked"] == 3


async def test_the_next_client(bench: Modern) -> None:
    """It gets the session with all that is kept of it: what was switched on there is on."""
    await bench.start(reconnect_grace="0s")
    first = await initialize(bench)
    assert (await listed(bench, first))["asked"] == 1
    async with bench.request("DELETE", session=first) as response:
        assert response.status == 405
    second = await initialize(bench)
    assert second != first
    assert (await listed(bench, second))["asked"] == 1


async def test_no_promise(bench: Modern) -> None:
    """A server that would not tell of a change is asked each time."""
    bench.offer({"tools": {}})
    await bench.start()
    session = await initialize(bench)
    assert [(await listed(bench, session))["asked"] for _ in range(2)] == [1, 2]


async def test_whose_roots(bench: Modern) -> None:
    """Before a client is introduced, its server may list what is for another one's folders."""
    await bench.start(sharing="shared")
    params = {**INITIALIZE["params"], "capabilities": {"roots": {"listChanged": True}}}
    initialize = {**INITIALIZE, "params": params}
    ada, bob = [(await bench.post(initialize)).headers["Mcp-Session-Id"] for _ in range(2)]
    assert [(await listed(bench, ada))["asked"] for _ in range(2)] == [1, 1]
    assert (await listed(bench, bob))["asked"] == 2
    assert len(bench.server.posts("notifications/roots/list_changed")) == 1
