"""A server that takes any token: whoever claims to be somebody gets nothing that is kept for that one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import reply_to, write_event
from messages import call
from modern_bench import CHANGING, Modern, modern, routing
from proxy_bench import read_events
from token_server import TokenServer, bearer, settled, token, unsigned

pytestmark = pytest.mark.slow

SHARING = ["handover", "isolated", "shared", "fresh"]
FORM = {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}}
QUESTION = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": FORM}
CHANGED = "notifications/tools/list_changed"
# All of them claim to be alice; the last ones would be refused where anybody looks.
OTHERS = {
    "forged": lambda: token(key=b"mine"),
    "unsigned": unsigned,
    "right": token,
    "expired": lambda: token(seconds=-5),
}


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    """A server that checks nothing."""
    async with TokenServer() as server:
        server.checks = False
        yield server


@pytest.fixture
async def bench(server: TokenServer) -> AsyncIterator[Modern]:
    """A modern client before it."""
    async with Modern(server) as bench:
        yield bench


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
async def test_sessions(bench: Modern, other: str, sharing: str) -> None:
    """A stolen id leads to a session of one's own, with the very first request of either, too."""
    await bench.start(token_identity="server", sharing=sharing)
    mine, stranger = token(), OTHERS[other]()
    session = await bench.initialize(headers=bearer(mine))

    async def count(text: str) -> int:
        answer = await bench.post(call(), session=session, headers=bearer(text))
        counted: int = answer.json["result"]["count"]
        return counted

    assert [await count(text) for text in (mine, stranger)] == [1, 1]
    await settled(bench)
    assert [await count(text) for text in (mine, stranger, mine, stranger)] == [2, 2, 3, 3]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
async def test_a_parked_call(bench: Modern, other: str, sharing: str) -> None:
    """It is answered under the very token alone."""
    bench.ask_client(QUESTION, {"content": []})
    await bench.start(token_identity="server", sharing=sharing)
    mine = token()
    asked = (await bench.ask(modern(), **bearer(mine))).json["result"]
    (key,) = asked["inputRequests"]
    answers = {
        "inputResponses": {key: {"action": "accept", "content": {}}},
        "requestState": asked["requestState"],
    }
    stolen = await bench.ask(modern(**answers), **bearer(OTHERS[other]()))
    assert stolen.json["error"]["data"]["reason"] == "request-state-refused"
    done = await bench.ask(modern(**answers), **bearer(mine))
    assert done.json["result"]["content"] == []


@pytest.mark.parametrize("other", OTHERS)
async def test_kept_lists(bench: Modern, other: str) -> None:
    """Each gets its own."""
    bench.offer(CHANGING)

    async def tools(request: web.Request, message: Any) -> web.StreamResponse:
        who = request.headers["Authorization"]
        tool = {"name": "whoami", "description": who, "inputSchema": {"type": "object"}}
        return reply_to(message, {"tools": [tool]})

    bench.server.on["tools/list"] = tools
    await bench.start(token_identity="server")
    mine, stranger = token(), OTHERS[other]()
    for text in (mine, stranger, mine, stranger):
        answer = await bench.post(call(method="tools/list"), headers=bearer(text))
        assert answer.json["result"]["tools"][0]["description"] == f"Bearer {text}"
        await settled(bench)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
async def test_streams_and_what_is_kept_for_them(bench: Modern, other: str, sharing: str) -> None:
    """A stolen id hears nothing, and neither does one with the id of an event."""
    bench.offer(CHANGING)
    await bench.start(token_identity="server", sharing=sharing)
    mine, stranger = token(), OTHERS[other]()
    session = await bench.initialize(headers=bearer(mine))
    await bench.post(call(), session=session, headers=bearer(mine))
    await settled(bench)
    async with bench.request("GET", session=session, headers=bearer(mine)) as stream:
        await bench.server_says(CHANGED)
        ((place, _),) = await read_events(stream.content, 1)
    assert place is not None
    await bench.server_says("notifications/resources/list_changed")
    for more in ({}, {"Last-Event-ID": place}):
        stolen = bench.request("GET", session=session, headers={**bearer(stranger), **more})
        async with stolen as stream:  # it may wait for a POST
            assert b"list_changed" not in await _heard(stream)
    headers = {**bearer(mine), "Last-Event-ID": place}
    async with bench.request("GET", session=session, headers=headers) as stream:
        assert "resources/list_changed" in str(await read_events(stream.content, 1))


async def _heard(stream: aiohttp.ClientResponse) -> bytes:
    """What comes on a stream, for a while that is long beside what it takes to come."""
    heard = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            async for chunk in stream.content.iter_any():
                heard += chunk
    return bytes(heard)


@pytest.mark.parametrize("other", OTHERS)
async def test_listeners(bench: Modern, other: str) -> None:
    """What the server tells one's session is not heard by whoever claims to be that one."""
    bench.offer(CHANGING)
    await bench.start(token_identity="server")
    mine, stranger = token(), OTHERS[other]()
    assert (await bench.ask(modern(), **bearer(mine))).status == 200
    await settled(bench)
    message = modern("subscriptions/listen", "l", notifications={"toolsListChanged": True})
    async with bench.request("POST", message, headers={**routing(message), **bearer(mine)}) as stream:
        await read_events(stream.content, 1)
        own_stream = bench.get_stream
        thief = bench.request("POST", message, headers={**routing(message), **bearer(stranger)})
        async with thief as theirs:
            await read_events(theirs.content, 1)
            await write_event(own_stream, {"jsonrpc": "2.0", "method": CHANGED})
            assert "list_changed" in str(await read_events(stream.content, 1))
            assert b"list_changed" not in await _heard(theirs)


async def test_a_kept_list_is_not_for_a_token_that_is_over(bench: Modern) -> None:
    """A server may look at the time though it checks no signature: what it gave before is not given on."""
    bench.offer(CHANGING)

    async def tools(_: web.Request, message: Any) -> web.StreamResponse:
        return reply_to(message, {"tools": []})

    bench.server.on["tools/list"] = tools
    await bench.start(token_identity="server")
    short = token(seconds=1.5)
    lists = call(method="tools/list")
    for _ in range(2):
        assert (await bench.post(lists, headers=bearer(short))).status == 200
    await settled(bench)
    assert len(bench.server.posts("tools/list")) == 1

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        return web.Response(status=401)

    bench.server.on["initialize"] = refuse
    await asyncio.sleep(1.6)
    assert (await bench.post(lists, headers=bearer(short))).status == 401
