"""The whole proxy before a server that is reached by pipes: no status, header or URL; one pipe a session."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes import say, stream
from http_server import HttpServer
from messages import call, request, result
from pipe_server import PipeServer
from proxy_bench import Bench, read_events, until

from mcp_session_proxy.protocol.jsonrpc import Response
from mcp_session_proxy.upstream.fleet import Server
from mcp_session_proxy.upstream.monitor import always_there
from mcp_session_proxy.upstream.transport import ConnectionLost

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "x"}


class PipeBench(Bench):
    """A client, the proxy, and pipes to the server behind it."""

    pipes: PipeServer


@pytest.fixture
async def bench() -> AsyncIterator[PipeBench]:
    """Started with the default options."""
    async with HttpServer() as nobody, PipeBench(nobody) as bench:
        bench.pipes = PipeServer()
        bench.servers = [Server(name="pipes", transport=bench.pipes, probe=always_there)]
        await bench.start()
        yield bench
    assert nobody.seen == []


async def test_clients_without_a_session_share_one(bench: PipeBench) -> None:
    """Their requests find the state of those before them."""
    answers = [await bench.post(call(number, name="x")) for number in range(3)]
    assert [answer.json["result"] for answer in answers] == [{"from": "s1"}] * 3
    assert bench.pipes.transcript == ["initialize", "notifications/initialized @s1", *["tools/call @s1"] * 3]


async def test_callers_have_pipes_of_their_own(bench: PipeBench) -> None:
    """Whoever calls by other credentials never meets another's session."""
    callers = [{"Authorization": f"Bearer {name}"} for name in ("ada", "bob", "ada")]
    answers = [await bench.post(call(1, name="x"), headers=headers) for headers in callers]
    assert [answer.json["result"]["from"] for answer in answers] == ["s1", "s2", "s1"]


async def test_many_calls_on_one_pipe(bench: PipeBench) -> None:
    """All with the same id, and each gets its own answer."""
    bench.pipes.script(
        "tools/call",
        *(
            stream(0.01 * (number % 7), say(result({"number": sent})))
            for number, sent in enumerate(range(50))
        ),
    )
    answers = await asyncio.gather(*(bench.post(call(1, name="x")) for _ in range(50)))
    assert sorted(answer.json["result"]["number"] for answer in answers) == list(range(50))


async def test_a_client_with_a_session(bench: PipeBench) -> None:
    """It hears on its stream what the server says of its own accord; its goodbye ends nothing."""
    session = await bench.initialize()
    async with bench.request("GET", session=session) as events:
        [pipe] = bench.pipes.pipes
        pipe.write(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
        [(_, heard)] = await read_events(events.content, 1)
    assert heard["method"] == "notifications/tools/list_changed"
    async with bench.request("DELETE", session=session) as goodbye:
        assert goodbye.status == 405
    assert (await bench.post(call(1, name="x"), session=session)).json["result"] == {"from": "s1"}


async def test_a_server_that_died_meanwhile(bench: PipeBench) -> None:
    """The next call finds a new one, which was told what the former one knew."""
    session = await bench.initialize()
    await bench.post(call(1, "logging/setLevel", level="info"), session=session)
    bench.pipes.forget()
    assert (await bench.post(call(2, name="x"), session=session)).json["result"] == {"from": "s2"}
    await until(lambda: "logging/setLevel @s2" in bench.pipes.transcript)


async def test_a_server_that_dies_over_a_call(bench: PipeBench) -> None:
    """The client is told that nobody knows what came of it; it is not made again, and the next one works."""
    bench.pipes.script("tools/call", ConnectionLost())
    answer = await bench.post(call(1, name="x"))
    assert answer.error == (1, -32603, "outcome-unknown")
    assert (await bench.post(call(2, name="x"))).json["result"] == {"from": "s2"}
    assert [line for line in bench.pipes.transcript if line.startswith("tools/call")] == [
        "tools/call @s1",
        "tools/call @s2",
    ]


async def test_a_question_in_a_call(bench: PipeBench) -> None:
    """The client whose call it is gets it in its call, and its answer reaches the server."""
    session = await bench.initialize()
    answered = asyncio.Event()
    question = request("q", "elicitation/create", message="Sure?")
    bench.pipes.script("tools/call", stream(say(question), answered, say(result({"ok": 1}))))
    async with bench.request("POST", call(1, name="x"), session=session) as response:
        [(_, asked)] = await read_events(response.content, 1)
        assert asked["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
        assert (await bench.post(answer, session=session)).status == 202
        await until(lambda: bench.pipes.posts("response"))
        answered.set()
        [(_, final)] = await read_events(response.content, 1)
    assert final["result"] == {"ok": 1}
    assert bench.pipes.posts("response")[0].message == Response(b'"q"', result=b'{"action": "accept"}')


async def test_a_modern_client_is_translated_for(bench: PipeBench) -> None:
    """The server is not even asked whether it speaks modern: no request could be passed to it as it is."""
    answer = await bench.post(call(1, name="x", _meta=META), headers=MODERN_HEADERS)
    assert answer.json["result"]["from"] == "s1"
    assert bench.pipes.posts("server/discover") == []


async def test_there_are_no_other_paths(bench: PipeBench) -> None:
    """Where there is no URL, nothing can be passed through."""
    for path in ("/", "/.well-known/oauth-protected-resource", "/health"):
        async with bench.http.get(bench.proxy.listen_url + path) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["reason"] == "not-passed-through"


async def test_what_is_shown_of_it(bench: PipeBench) -> None:
    """It is ready, and goes by its name."""
    await bench.post(call(1, name="x"))
    [replica] = bench.proxy.snapshot.replicas()
    assert replica.upstream == "pipes"
    [session] = bench.proxy.snapshot.upstream_sessions()
    assert (session.server, session.server_condition) == ("pipes", "up")


async def test_every_pipe_is_closed_in_the_end(bench: PipeBench) -> None:
    """One by one, with a goodbye."""
    for name in ("ada", "bob"):
        await bench.post(call(1, name="x"), headers={"Authorization": name})
    await bench.proxy.drain()
    assert sorted(bench.pipes.deleted) == ["s1", "s2"]
    assert bench.pipes.pipes == []
