"""The whole proxy before a server that speaks HTTP+SSE: one event stream a session, found out by itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call, notification, request
from proxy_bench import read_events, until
from sse_bench import SseBench
from sse_server import SseServer, Stream, answer_to

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "x"}


@pytest.fixture
async def bench() -> AsyncIterator[SseBench]:
    async with HttpServer() as nobody, SseServer() as sse, SseBench(nobody) as bench:
        bench.sse = sse
        yield bench
    assert nobody.seen == []


async def test_clients_without_a_session_share_one(bench: SseBench) -> None:
    """Their requests find the state of those before them."""
    await bench.start()
    answers = [await bench.post(call(number, name="x")) for number in range(3)]
    assert [answer.json["result"]["count"] for answer in answers] == [1, 2, 3]
    assert len(bench.sse.opened) == 1
    # Its first handshake was refused, and nothing was asked twice after that.
    assert (len(bench.sse.wrong_posts), len(bench.sse.gets)) == (1, 1)


async def test_callers_have_streams_of_their_own(bench: SseBench) -> None:
    """Whoever calls by other credentials never meets another's session; both ways carry them."""
    await bench.start()
    callers = [{"Authorization": f"Bearer {name}"} for name in ("ada", "bob", "ada")]
    answers = [await bench.post(call(1, name="x"), headers=headers) for headers in callers]
    assert [answer.json["result"]["from"] for answer in answers] == ["s1", "s2", "s1"]
    shown = {stream.request.headers["Authorization"]: stream.name for stream in bench.sse.opened}
    assert shown == {"Bearer ada": "s1", "Bearer bob": "s2"}
    for posted, _ in bench.sse.posts:
        assert shown[posted.headers["Authorization"]] == posted.query["session_id"]


async def test_a_client_with_a_session(bench: SseBench) -> None:
    """It hears on its stream what the server says of its own accord; its goodbye ends nothing."""
    await bench.start()
    session = await bench.initialize()
    async with bench.request("GET", session=session) as events:
        stream = bench.sse.only_stream()
        await stream.say(notification("notifications/tools/list_changed"))
        [(_, heard)] = await read_events(events.content, 1)
    assert heard["method"] == "notifications/tools/list_changed"
    async with bench.request("DELETE", session=session) as goodbye:
        assert goodbye.status == 405
    assert (await bench.post(call(1, name="x"), session=session)).json["result"]["from"] == "s1"


async def test_a_server_that_was_restarted(bench: SseBench) -> None:
    """The next call finds a new session, which was told what the former one knew."""
    await bench.start()
    session = await bench.initialize()
    await bench.post(call(1, "logging/setLevel", level="info"), session=session)
    await bench.sse.stop()
    await bench.sse.start()
    answer = await bench.post(call(2, name="x"), session=session)
    assert answer.json["result"] == {"from": "s2", "count": 1}
    assert len(bench.sse.sent("logging/setLevel")) == 2


async def test_a_stream_that_ends_between_calls(bench: SseBench) -> None:
    """Nobody waits for the next call to find out: what nobody holds is retired, and the next call works."""
    await bench.start()
    await bench.post(call(1, name="x"))
    bench.sse.only_stream().end()
    await until(lambda: not bench.sse.streams)
    answer = await bench.post(call(2, name="x"))
    assert answer.json["result"] == {"from": "s2", "count": 1}


async def test_a_stream_that_ends_over_a_call(bench: SseBench) -> None:
    """The client is told that nobody knows what came of it; it is not made again, and the next one works."""

    async def die(stream: Stream, _: Any) -> None:
        stream.end()

    await bench.start()
    bench.sse.on["tools/call"] = die
    assert (await bench.post(call(1, name="x"))).error == (1, -32603, "outcome-unknown")
    del bench.sse.on["tools/call"]
    assert (await bench.post(call(2, name="x"))).json["result"]["from"] == "s2"
    assert len(bench.sse.sent("tools/call")) == 2


async def test_a_session_that_the_endpoint_does_not_know(bench: SseBench) -> None:
    """Refused in words that say so, a call is made once more, on a new session."""
    await bench.start()
    await bench.post(call(1, name="x"))
    bench.sse.forget("s1")
    assert (await bench.post(call(2, name="x"))).json["result"] == {"from": "s2", "count": 1}
    assert len(bench.sse.sent("tools/call")) == 3


async def test_a_question_in_a_call(bench: SseBench) -> None:
    """The client whose call it is gets it in its call, and its answer reaches the server."""
    answered = asyncio.Event()
    asked_for: list[Any] = []

    async def ask(stream: Stream, message: Any) -> None:
        asked_for.append(message)
        await stream.say(request("q", "elicitation/create", message="Sure?"))

    async def take(stream: Stream, message: Any) -> None:
        assert message["result"] == {"action": "accept"}
        answered.set()
        await stream.say(answer_to(asked_for[0], {"ok": 1}))

    bench.sse.on["tools/call"] = ask
    bench.sse.on["response"] = take
    await bench.start()
    session = await bench.initialize()
    async with bench.request("POST", call(1, name="x"), session=session) as response:
        [(_, asked)] = await read_events(response.content, 1)
        assert asked["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
        assert (await bench.post(answer, session=session)).status == 202
        [(_, final)] = await read_events(response.content, 1)
    assert final["result"] == {"ok": 1}
    assert answered.is_set()


@pytest.mark.parametrize("choice", ["auto", "sse"])
async def test_a_modern_client(bench: SseBench, choice: str) -> None:
    """It is translated for: no request can be passed to the server as it is."""
    await bench.start(upstream_transport=choice)
    for number in (1, 2):
        answer = await bench.post(call(1, name="x", _meta=META), headers=MODERN_HEADERS)
        assert answer.json["result"]["count"] == number
    assert bench.sse.sent("server/discover") == []


async def test_an_answer_before_the_word(bench: SseBench) -> None:
    """Servers may answer before they say that they have taken the call, or not say so at all."""
    never = asyncio.Event()

    async def answer_first(stream: Stream, message: Any) -> None:
        await stream.say(answer_to(message, {"early": True}))
        await never.wait()

    bench.sse.on["tools/call"] = answer_first
    await bench.start()
    for number in range(5):
        assert (await bench.post(call(number, name="x"))).json["result"] == {"early": True}


@pytest.mark.slow
async def test_many_calls_at_once(bench: SseBench) -> None:
    """All with the same id, and each gets its own answer."""
    held: list[tuple[Stream, Any]] = []

    async def hold(stream: Stream, message: Any) -> None:
        held.append((stream, message))
        if len(held) == 50:
            for stream_, message_ in reversed(held):
                await stream_.say(answer_to(message_, message_["params"]["arguments"]))

    bench.sse.on["tools/call"] = hold
    await bench.start()
    await bench.initialize()
    answers = await asyncio.gather(
        *(bench.post(call(1, name="x", arguments={"number": number})) for number in range(50))
    )
    assert [answer.json["result"]["number"] for answer in answers] == list(range(50))


async def test_a_refusal_of_the_caller(bench: SseBench) -> None:
    """401 and its challenge reach the client, and say nothing of what the server speaks."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="x"'})

    await bench.start()
    bench.sse.get = refuse
    answer = await bench.post(call(1, name="x"))
    assert answer.status == 405
    bench.sse.get = bench.sse.open_stream
    assert (await bench.post(call(1, name="x"))).json["result"]["from"] == "s1"


async def test_every_stream_is_closed_in_the_end(bench: SseBench) -> None:
    """One by one."""
    await bench.start()
    for name in ("ada", "bob"):
        await bench.post(call(1, name="x"), headers={"Authorization": name})
    await bench.proxy.drain()
    for stream in bench.sse.opened:
        await asyncio.wait_for(stream.ended.wait(), 10)
