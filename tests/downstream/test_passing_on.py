"""Large results on their way to a client while they come from the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from proxy_bench import Bench, until

from mcp_session_proxy import events
from mcp_session_proxy.errors import Draining

HALF = 300_000
MESSAGE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}


class HalfWay:
    """A server's answer of which the second half waits for ``go_on``, or never comes."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.half_sent = asyncio.Event()
        self.go_on = asyncio.Event()
        self.breaks = False
        self.ends_amid = False
        self.closing = b'y"}]}}'

    async def __call__(self, http: web.Request, message: Any) -> web.StreamResponse:
        first, second = self.halves(message)
        is_stream = self.form.startswith("events")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream" if is_stream else "application/json"}
        )
        if self.form == "json":
            response.content_length = len(first) + len(second)
        await response.prepare(http)
        if self.form == "events after a message":
            await response.write(b"data: " + json.dumps(MESSAGE).encode() + b"\n\n")
        before, behind = (b"event: message\ndata: ", b"\n\n") if is_stream else (b"", b"")
        await response.write(before + first)
        self.half_sent.set()
        await self.go_on.wait()
        if self.breaks:
            assert http.transport is not None
            http.transport.abort()
            return response
        await response.write(second + behind)
        await response.write_eof()
        return response

    def halves(self, message: Any) -> tuple[bytes, bytes]:
        beginning = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' % message["id"]
        return beginning + b"x" * HALF, b"y" * HALF + (b"" if self.ends_amid else self.closing)


FORMS = ["json", "json in chunks", "events", "events after a message"]


def texts_of(answer: bytes, content_type: str) -> list[Any]:
    """The messages of an answer."""
    if content_type == "application/json":
        return [json.loads(answer)]
    lines = answer.split(b"\n")
    return [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: {")]


async def read_broken(response: aiohttp.ClientResponse, answer: "HalfWay") -> None:
    """Read a body whose second half is no end."""
    await first_half(response)
    answer.go_on.set()
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def first_half(response: aiohttp.ClientResponse) -> bytes:
    """So much of a body that it can only be from a result whose end has not come."""
    data = b""
    while len(data) < HALF:
        data += await response.content.readany()
    return data


@pytest.fixture(params=FORMS)
async def half_way(request: pytest.FixtureRequest, server: HttpServer) -> AsyncIterator[HalfWay]:
    """The server's answer to a tool call, in each form."""
    answer = HalfWay(request.param)
    server.on["tools/call"] = answer
    yield answer
    answer.go_on.set()


async def test_the_first_half_does_not_wait_for_the_second(bench: Bench, half_way: HalfWay) -> None:
    """Whatever the server answers in; and what arrives is the whole."""
    await bench.start()
    async with bench.request("POST", call("a")) as response:
        data = await first_half(response)
        assert not half_way.go_on.is_set()
        half_way.go_on.set()
        data += await response.read()
    message = texts_of(data, response.content_type)[-1]
    assert message["id"] == "a"
    assert message["result"]["content"][0]["text"] == "x" * HALF + "y" * HALF + "y"
    assert ("Content-Length" in response.headers) == (half_way.form == "json")
    assert response.content_type == (
        "text/event-stream" if half_way.form == "events after a message" else "application/json"
    )
    assert bench.proxy.core.memory.answers.used_bytes == 0


async def test_a_client_session(bench: Bench, half_way: HalfWay) -> None:
    """In JSON as for others; an event is gathered, as its client may come back for it."""
    await bench.start()
    session = await bench.initialize()
    async with bench.request("POST", call(5), session=session) as response:
        if half_way.form == "events after a message":
            await response.content.readline()
            half_way.go_on.set()
        data = await first_half(response)
        assert half_way.go_on.is_set() == (half_way.form == "events after a message")
        half_way.go_on.set()
        data += await response.read()
    assert texts_of(data, response.content_type)[-1]["id"] == 5
    assert (await bench.post(call("next", "ping"), session=session)).status == 200


@pytest.mark.parametrize("how", ["breaks", "ends amid its JSON"])
async def test_a_broken_end_breaks_the_answer(bench: Bench, half_way: HalfWay, how: str) -> None:
    """What has begun as a 200 never looks whole, nothing is sent again, and it is told as a failure."""
    await bench.start()
    told: list[events.Event] = []
    bench.watch(told.append)
    half_way.breaks, half_way.ends_amid = how == "breaks", how != "breaks"
    async with bench.request("POST", call()) as response:
        assert response.status == 200
        await read_broken(response, half_way)
    assert len(bench.server.posts("tools/call")) == 1
    await until(lambda: any(isinstance(event, events.RequestFinished) for event in told))
    outcomes = [event.outcome for event in told if isinstance(event, events.RequestFinished)]
    assert outcomes == ["outcome-unknown"]


async def test_a_read_that_has_begun_to_arrive_is_not_asked_for_again(bench: Bench) -> None:
    """No second answer can follow the first half of another."""
    answer = HalfWay("json")
    answer.breaks = True
    bench.server.on["resources/read"] = answer
    await bench.start()
    async with bench.request("POST", call(1, "resources/read", uri="x:y")) as response:
        await read_broken(response, answer)
    assert len(bench.server.posts("resources/read")) == 1


async def test_too_deep(bench: Bench) -> None:
    """The limit of depth holds for what is passed on, too."""
    answer = HalfWay("json")
    answer.closing = b'","z":' + b"[" * 2000 + b"]" * 2000 + b"}]}}"
    bench.server.on["tools/call"] = answer
    answer.go_on.set()
    await bench.start()
    with pytest.raises(aiohttp.ClientPayloadError):
        await bench.post(call())


async def test_an_id_behind_the_result(bench: Bench) -> None:
    """Nobody knows whose the result is, so it is gathered; what breaks is an error then."""
    answer = HalfWay("json")
    answer.halves = lambda message: (  # type: ignore[method-assign]
        b'{"result":{"x":"' + b"x" * HALF,
        b'"},"jsonrpc":"2.0","id":%d}' % message["id"],
    )
    bench.server.on["tools/call"] = answer
    await bench.start()
    async with bench.asking(call(3)) as asked:
        await answer.half_sent.wait()
        answer.go_on.set()
        assert (await asked).json == {"jsonrpc": "2.0", "id": 3, "result": {"x": "x" * HALF}}
    answer.breaks = True
    assert (await bench.post(call())).error[2] == "outcome-unknown"


async def test_a_batch(bench: Bench) -> None:
    """Its answers are one text, which is gathered."""
    answer = HalfWay("json")
    answer.go_on.set()
    bench.server.on["tools/call"] = answer
    await bench.start()
    session = await bench.initialize()
    batch = [call(1), call(2)]
    answered = await bench.post(batch, session=session, headers={"MCP-Protocol-Version": "2025-03-26"})
    assert sorted(message["id"] for message in answered.json) == [1, 2]


async def test_http_1_0(bench: Bench) -> None:
    """Without chunks, a body without a length would look whole wherever it breaks: it is gathered."""
    answer = HalfWay("json in chunks")
    answer.breaks = True
    answer.go_on.set()
    bench.server.on["tools/call"] = answer
    await bench.start()
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(call()).encode()
    head = (
        "POST /mcp HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    assert b"outcome-unknown" in await reader.read()
    writer.close()


class Endless:
    """An answer of many megabytes, of which it is known how much the server could send."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes
        self.sent_megabytes = 0

    async def __call__(self, http: web.Request, message: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(http)
        await response.write(b'{"jsonrpc":"2.0","id":%d,"result":{"x":"' % message["id"])
        for _ in range(self.megabytes):
            await response.write(b"x" * 1_000_000)
            self.sent_megabytes += 1
        await response.write(b'"}}')
        return response


async def settled(number: Callable[[], int]) -> int:
    """What a number comes to that grows no more."""
    before = -1
    while (now := number()) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


@pytest.fixture
async def endless(bench: Bench) -> Endless:
    """Before a proxy that is started."""
    answer = Endless(60)
    bench.server.on["tools/call"] = answer
    await bench.start()
    return answer


async def test_a_client_that_reads_slowly_slows_its_server_down(bench: Bench, endless: Endless) -> None:
    """Of what nobody reads, hardly anything is in memory; when it is read, all of it comes."""
    async with bench.request("POST", call()) as response:
        assert await settled(lambda: endless.sent_megabytes) < 40  # in buffers of the systems, on three ways
        assert bench.proxy.core.memory.answers.used_bytes < 1_000_000
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
    assert size > 60_000_000
    assert bench.proxy.core.memory.answers.used_bytes == 0


async def test_a_client_that_leaves_amid_its_answer(bench: Bench, endless: Endless) -> None:
    """What a legacy client leaves is read to its end, so its session and the connection serve again."""
    told: list[events.Event] = []
    bench.watch(told.append)
    async with bench.request("POST", call()) as response:
        await response.content.readany()
        response.close()
    await until(lambda: any(isinstance(event, events.RequestFinished) for event in told))
    assert [event.outcome for event in told if isinstance(event, events.RequestFinished)] == ["ok"]
    assert endless.sent_megabytes == 60
    assert bench.proxy.core.memory.answers.used_bytes == 0


async def test_a_call_that_is_cancelled_amid_its_answer(bench: Bench) -> None:
    """The server is told, and the client's answer is broken off when it falls silent."""
    answer = HalfWay("json")
    bench.server.on["tools/call"] = answer
    await bench.start()
    session = await bench.initialize()
    async with bench.request("POST", call(9), session=session) as response:
        await first_half(response)
        for exchange in bench.endpoint.exchanges():
            exchange.give_up(Draining("over"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    await until(lambda: len(bench.server.posts("notifications/cancelled")) == 1)
