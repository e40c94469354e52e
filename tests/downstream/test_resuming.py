"""Clients whose connection breaks, and what they find when they come back: the whole proxy, on the wire."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import TellingTool, begin_stream, write_event
from messages import INITIALIZE, call
from proxy_bench import PATIENCE_SECONDS, Bench, read_events, until

STREAM = "text/event-stream"
OLD = {"MCP-Protocol-Version": "2025-06-18"}


async def first_event(content: aiohttp.StreamReader) -> dict[str, str]:
    """The fields of the first event, whatever they are."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            block = (await content.readuntil(b"\n\n")).decode()
            fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line and line[0] != ":")
            if fields:
                return fields


async def get_rest(bench: Bench, session: str, event_id: str) -> list[Any]:
    """What a GET after an event gives until it ends."""
    headers = {"Last-Event-ID": event_id}
    async with bench.request("GET", session=session, headers=headers, accept=STREAM) as get:
        assert get.status == 200
        found: list[Any] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    [(_, message)] = await read_events(get.content, 1)
                except EOFError:
                    return found
                found.append(message)


async def is_gone(bench: Bench, session: str, event_id: str) -> bool:
    """Whether a GET after an event is told that there is nothing."""
    headers = {"Last-Event-ID": event_id}
    async with bench.request("GET", session=session, headers=headers, accept=STREAM) as get:
        if get.status == 200:
            return False
        assert (get.status, get.headers["Allow"]) == (405, "POST")
        assert (await get.json())["error"]["data"]["reason"] == "unknown-event"
        return True


# -- from the first byte on ------------------------------------------------------------------------


async def test_cut_off_before_the_first_message(bench: Bench) -> None:
    """A silent call has an id from its first heartbeat on, and its answer waits for its client."""
    await bench.start(heartbeat="20ms")
    tool = TellingTool(bench.server)
    session = await bench.initialize()
    async with bench.request("POST", call("x"), session=session, accept=STREAM) as post:
        first = await first_event(post.content)
        assert first["data"] == ""
        post.close()
    await until(lambda: any(not r.is_open for r in bench.unfinished))
    tool.says.put_nowait(None)
    await until(lambda: not bench.endpoint.posts)
    assert await get_rest(bench, session, first["id"]) == [
        {"jsonrpc": "2.0", "id": "x", "result": {"done": 1}}
    ]


@pytest.mark.parametrize("headers", [{}, OLD], ids=["2025-11-25", "2025-06-18"])
async def test_cut_off_as_soon_as_the_server_can_be_resumed(bench: Bench, headers: dict[str, str]) -> None:
    """A server that names an event at once is not waited for any longer: nor is its answer here, for clients
    that can read that.
    """
    await bench.start()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def tool(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await response.write(b"id: first\ndata: \n\n")
        begun.set()
        await go_on.wait()
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"done": 1}})
        return response

    bench.server.on["tools/call"] = tool
    session = await bench.initialize()
    if headers:
        async with bench.asking(call("x"), session=session, headers=headers) as asking:
            await begun.wait()
            go_on.set()
            assert (await asking).json == {"jsonrpc": "2.0", "id": "x", "result": {"done": 1}}
        return
    async with bench.request("POST", call("x"), session=session) as post:
        first = await first_event(post.content)
        post.close()
    go_on.set()
    assert await get_rest(bench, session, first["id"]) == [
        {"jsonrpc": "2.0", "id": "x", "result": {"done": 1}}
    ]


async def test_stream_that_begins_with_a_message(bench: Bench) -> None:
    """The id comes before the first message, too, and leads to all of it."""
    await bench.start()
    tool = TellingTool(bench.server)
    session = await bench.initialize()
    tool.says.put_nowait("half")
    async with bench.request("POST", call("x"), session=session) as post:
        first = await first_event(post.content)
        assert first["data"] == ""
        post.close()
    tool.says.put_nowait(None)
    half, final = await get_rest(bench, session, first["id"])
    assert half["params"]["data"] == "half"
    assert final["result"] == {"done": 1}


async def test_get_stream_begins_with_an_id(bench: Bench) -> None:
    """The id of a GET stream can be used before anything has come on it."""
    await bench.start()
    session = await bench.initialize()
    event_ids: set[str] = set()
    for _ in range(3):
        headers = {"Last-Event-ID": event_ids.copy().pop()} if event_ids else {}
        async with bench.request("GET", session=session, headers=headers, accept=STREAM) as get:
            first = await first_event(get.content)
        assert first["data"] == ""
        event_ids.add(first["id"])
    assert len(event_ids) == 1


async def test_adopted_sessions(bench: Bench) -> None:
    """Whoever brings its own id gets events without data if it names a version that has them."""
    await bench.start()
    for headers, begins in ({"MCP-Protocol-Version": "2025-11-25"}, True), ({}, False), (OLD, False):
        tool = TellingTool(bench.server)
        tool.says.put_nowait("half")
        async with bench.request("POST", call(), session="brought", headers=headers) as post:
            assert ((await first_event(post.content))["data"] == "") is begins
        tool.says.put_nowait(None)


@pytest.mark.parametrize("where", ["client", "server", "header"])
async def test_older_clients(bench: Bench, where: str) -> None:
    """Clients of older versions cannot read events without data and are sent none, on any stream."""

    async def agree(_: web.Request, message: Any) -> web.StreamResponse:
        message["params"]["protocolVersion"] = "2025-06-18"
        return bench.server.open_session(message)

    await bench.start(heartbeat="10ms")
    if where == "server":
        bench.server.on["initialize"] = agree
    params = {**INITIALIZE["params"], "protocolVersion": "2025-06-18" if where == "client" else "2025-11-25"}
    answer = await bench.post({**INITIALIZE, "params": params})
    session = answer.headers["Mcp-Session-Id"]
    headers = OLD if where == "header" else {}
    tool = TellingTool(bench.server)
    async with (
        bench.request("POST", call(), session=session, headers=headers, accept=STREAM) as post,
        bench.request("GET", session=session, headers=headers, accept=STREAM) as get,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        for response in (post, get):
            for _ in range(3):
                assert await response.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        async with bench.request("GET", session=session, headers=headers, accept=STREAM):
            assert b"data" not in await get.content.read()
        tool.says.put_nowait(None)
        assert (await first_event(post.content))["data"] != ""


async def test_without_a_session(bench: Bench) -> None:
    """Nobody could come back, so there is no id."""
    await bench.start(heartbeat="10ms")
    tool = TellingTool(bench.server)
    headers = {"MCP-Protocol-Version": "2025-11-25"}
    async with (
        bench.request("POST", call(), headers=headers, accept=STREAM) as post,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        for _ in range(3):
            assert await post.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        tool.says.put_nowait(None)
        assert "id" not in await first_event(post.content)


# -- after the end ---------------------------------------------------------------------------------


async def test_answer_that_was_lost_on_its_way(bench: Bench) -> None:
    """Written is not received: the end of a stream can be had again, and nobody else's stream is taken."""
    await bench.start()
    tool = TellingTool(bench.server)
    session = await bench.initialize()
    tool.says.put_nowait("half")
    async with bench.request("POST", call("x"), session=session) as post:
        [(event_id, _)] = await read_events(post.content, 1)
        tool.says.put_nowait(None)
        [(last_id, _)] = await read_events(post.content, 1)
    await until(lambda: not bench.endpoint.posts)
    for _ in range(2):
        [final] = await get_rest(bench, session, str(event_id))
        assert final["id"] == "x"
    assert await is_gone(bench, session, str(last_id))


async def test_after_the_linger(bench: Bench) -> None:
    """A while after its end a stream is gone; its id opens no other one. The option can be changed."""
    await bench.start(event_linger="1h")
    tool = TellingTool(bench.server)
    session = await bench.initialize()
    tool.says.put_nowait("half")
    tool.says.put_nowait(None)
    async with bench.request("POST", call("x"), session=session) as post:
        (event_id, _), _ = await read_events(post.content, 2)
    await until(lambda: not bench.endpoint.posts)
    bench.proxy.core.delivery.maintain()
    assert not await is_gone(bench, session, str(event_id))
    bench.reload(event_linger=0)
    bench.proxy.core.delivery.maintain()
    assert await is_gone(bench, session, str(event_id))


@pytest.mark.parametrize("event_id", ["x", "a-b-c", "\u2603", "x" * 5000, "-1", "000000-1-1", "0" * 32])
async def test_ids_that_name_nothing(bench: Bench, event_id: str) -> None:
    """They open no stream, and the one that is open goes on."""
    await bench.start()
    session = await bench.initialize()
    async with bench.request("GET", session=session, accept=STREAM):
        assert await is_gone(bench, session, event_id)
        assert bench.endpoint.streams == 1


async def test_ids_of_another_session(bench: Bench) -> None:
    """What one session was sent cannot be had under another."""
    await bench.start()
    tool = TellingTool(bench.server)
    ours, theirs = await bench.initialize(), await bench.initialize()
    tool.says.put_nowait("half")
    tool.says.put_nowait(None)
    async with bench.request("POST", call(), session=theirs) as post:
        (event_id, _), _ = await read_events(post.content, 2)
    assert await is_gone(bench, ours, str(event_id))


async def test_standalone_stream_after_a_restart(bench: Bench) -> None:
    """A client that goes on with its own stream is not left without one because the proxy is a new one."""
    await bench.start()
    session = await bench.initialize()
    headers = {"Last-Event-ID": "0123ab-0-17", "MCP-Protocol-Version": "2025-11-25"}
    async with bench.request("GET", session=session, headers=headers, accept=STREAM) as get:
        assert get.status == 200
        assert (await first_event(get.content))["id"].endswith("-0-0")


# -- two at once -----------------------------------------------------------------------------------


async def test_two_tabs_with_one_session(bench: Bench) -> None:
    """The newest has the stream; the loser is told to stay away for longer each time."""
    await bench.start()
    session = await bench.initialize()
    told = []
    for _ in range(4):
        await until(lambda: bench.endpoint.streams == 0)
        async with (
            bench.request("GET", session=session, accept=STREAM) as older,
            bench.request("GET", session=session, accept=STREAM),
        ):
            async with asyncio.timeout(PATIENCE_SECONDS):
                text = (await older.content.read()).decode()
        told.append([int(line[7:]) for line in text.split("\n") if line.startswith("retry: ")])
    assert told == [[1000], [2000], [4000], [8000]]
