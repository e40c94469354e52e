"""What is kept for a caller, under the next token and for those who claim to be it: lists, streams, calls."""

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

SHARING = ["handover", "isolated", "shared", "fresh"]
FORM = {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}}
QUESTION = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": FORM}
OTHERS = {
    "bob": lambda: token("bob"),
    "forged": lambda: token(key=b"mine"),
    "unsigned": unsigned,
    "expired": lambda: token(seconds=-5),
    "other tenant": lambda: token(tid="other"),
    "other issuer": lambda: token(iss="https://mine.example"),
    "other audience": lambda: token(aud="https://mine.example"),
}


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    """A server that checks tokens."""
    async with TokenServer() as server:
        yield server


@pytest.fixture
async def bench(server: TokenServer) -> AsyncIterator[Modern]:
    """A modern client before it."""
    async with Modern(server) as bench:
        yield bench


async def found(bench: Modern) -> None:
    """Alice's first token has been taken, and the damaged one refused."""
    answer = await bench.ask(modern(), **bearer(token()))
    assert answer.status == 200, answer.body
    await settled(bench)


@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_modern_requests_go_on(bench: Modern, sharing: str) -> None:
    """Each request with a token of its own, and one session for all of them."""
    await bench.start(token_identity="server", sharing=sharing)
    answers = [await bench.ask(modern(), **bearer(token())) for _ in range(4)]
    assert [answer.json["result"]["count"] for answer in answers] == [1, 2, 3, 4]


async def test_conversations_go_on(bench: Modern) -> None:
    """A conversation that its requests name is the same one under each token, and each has its own."""
    await bench.start(token_identity="server")

    async def count(conversation: str) -> int:
        message = call(_meta={"openai/session": conversation})
        counted: int = (await bench.post(message, headers=bearer(token()))).json["result"]["count"]
        return counted

    assert [await count(each) for each in ("a", "b", "a", "b", "a")] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
async def test_a_parked_call(bench: Modern, other: str, sharing: str) -> None:
    """It is answered under the next token, and by nobody else whatever he claims."""
    bench.ask_client(QUESTION, {"content": []})
    await bench.start(token_identity="server", sharing=sharing)
    asked = (await bench.ask(modern(), **bearer(token()))).json["result"]
    (key,) = asked["inputRequests"]
    answers = {
        "inputResponses": {key: {"action": "accept", "content": {}}},
        "requestState": asked["requestState"],
    }
    await settled(bench)
    stolen = await bench.ask(modern(**answers), **bearer(OTHERS[other]()))
    assert stolen.status in (400, 401), stolen.body
    done = await bench.ask(modern(**answers), **bearer(token()))
    assert done.json["result"]["content"] == []


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_kept_lists(bench: Modern, other: str, sharing: str) -> None:
    """They serve the next token, once it was accepted; nobody else gets them, or puts his own there."""
    bench.offer(CHANGING)

    async def tools(request: web.Request, message: Any) -> web.StreamResponse:
        who = request.headers["Authorization"]
        tool = {"name": "whoami", "description": who, "inputSchema": {"type": "object"}}
        return reply_to(message, {"tools": [tool]})

    bench.server.on["tools/list"] = tools
    await bench.start(token_identity="server", sharing=sharing)
    first = token()
    for text in (first, token(), token()):
        answer = await bench.post(call(method="tools/list"), headers=bearer(text))
        assert answer.json["result"]["tools"][0]["description"] == f"Bearer {first}"
    stranger = OTHERS[other]()
    answer = await bench.post(call(method="tools/list"), headers=bearer(stranger))
    assert first.encode() not in answer.body
    answer = await bench.post(call(method="tools/list"), headers=bearer(token()))
    assert stranger.encode() not in answer.body


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.slow
async def test_streams(bench: Modern, other: str, sharing: str) -> None:
    """What the server says is heard on the stream under the next token; under another's, nothing is."""
    bench.offer(CHANGING)
    await bench.start(token_identity="server", sharing=sharing)
    session = await bench.initialize(headers=bearer(token()))
    await bench.post(call(), session=session, headers=bearer(token()))
    async with contextlib.AsyncExitStack() as stack:
        thief = await stack.enter_async_context(
            bench.request("GET", session=session, headers=bearer(OTHERS[other]()))
        )
        mine = await stack.enter_async_context(bench.request("GET", session=session, headers=bearer(token())))
        assert mine.status == 200
        await bench.server_says("notifications/tools/list_changed")
        assert "list_changed" in str(await read_events(mine.content, 1))
        assert b"list_changed" not in await _heard(thief)


async def _heard(stream: aiohttp.ClientResponse) -> bytes:
    """What comes on a stream, for a while that is long beside what it takes to come."""
    heard = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            async for chunk in stream.content.iter_any():
                heard += chunk
    return bytes(heard)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
async def test_events_that_are_kept(bench: Modern, other: str, sharing: str) -> None:
    """Whoever comes back for them under the next token gets them; a thief of the event's id does not."""
    bench.offer(CHANGING)
    await bench.start(token_identity="server", sharing=sharing)
    session = await bench.initialize(headers=bearer(token()))
    await bench.post(call(), session=session, headers=bearer(token()))
    async with bench.request("GET", session=session, headers=bearer(token())) as stream:
        await bench.server_says("notifications/tools/list_changed")
        ((place, _),) = await read_events(stream.content, 1)
    assert place is not None
    await bench.server_says("notifications/resources/list_changed")
    last = {"Last-Event-ID": place}
    stolen = bench.request("GET", session=session, headers={**bearer(OTHERS[other]()), **last})
    async with stolen as stream:  # it may wait for a POST that the server accepts
        assert b"list_changed" not in await _heard(stream)
    async with bench.request("GET", session=session, headers={**bearer(token()), **last}) as stream:
        assert "resources/list_changed" in str(await read_events(stream.content, 1))


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.slow
async def test_listeners(bench: Modern, other: str, sharing: str) -> None:
    """One that was opened under the first token goes on; another's hears nothing of it."""
    bench.offer(CHANGING)
    await bench.start(token_identity="server", sharing=sharing)
    await found(bench)
    message = modern("subscriptions/listen", "l", notifications={"toolsListChanged": True})
    headers = routing(message)
    async with bench.request("POST", message, headers={**headers, **bearer(token())}) as mine:
        await read_events(mine.content, 1)
        own_stream = bench.get_stream
        thief = bench.request("POST", message, headers={**headers, **bearer(OTHERS[other]())})
        async with thief as stream:
            assert stream.status == 401 or other in ("bob", "other tenant")
            assert (await bench.ask(modern(), **bearer(token()))).status == 200
            changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            await write_event(own_stream, changed)
            assert "list_changed" in str(await read_events(mine.content, 1))
            if stream.status == 200:
                await read_events(stream.content, 1)  # that it listens
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await stream.content.readline()


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.slow
async def test_tokens_that_rotate_all_the_time(bench: Modern, server: TokenServer, sharing: str) -> None:
    """Two users, each request with another token, some forged: no session at the server has seen both."""
    await bench.start(token_identity="server", sharing=sharing)
    sessions = {who: await bench.initialize(headers=bearer(token(who))) for who in ("alice", "bob")}

    async def life(who: str, other: str) -> None:
        for turn in range(15):
            for session in (sessions[who], sessions[other], None):
                answer = await bench.post(call(), session=session, headers=bearer(token(who)))
                assert answer.status == 200, answer.body
            if turn % 5 == 0:
                forged = await bench.post(
                    call(), session=sessions[other], headers=bearer(token(other, key=b"mine"))
                )
                assert forged.status == 401

    await asyncio.gather(life("alice", "bob"), life("bob", "alice"))
    for request, _ in server.seen:
        session = request.headers.get("Mcp-Session-Id")
        if session is not None:
            assert server.owners[session] == server.caller_of(request)
    assert [request for request in server.refused if "Mcp-Session-Id" in request.headers] == []
