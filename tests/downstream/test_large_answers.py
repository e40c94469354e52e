"""Large answers on their way: what they take of the memory, and what is left of those that nobody took."""

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, write_event
from messages import call
from proxy_bench import Bench, until

from mcp_session_proxy.downstream.streams import Responder

pytestmark = pytest.mark.slow

LARGE = "y" * 8_000_000


@contextmanager
def without_collector() -> Iterator[None]:
    """No garbage is looked for; what is let go of has to go by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def whole(message: Any) -> dict[str, Any]:
    """A response that is gathered, as only its end says whose it is; see ``test_passing_on`` for others."""
    return {"result": {"x": LARGE}, "jsonrpc": "2.0", "id": message["id"]}


async def json_answer(_: web.Request, message: Any) -> web.StreamResponse:
    return web.json_response(whole(message))


async def event_answer(request: web.Request, message: Any) -> web.StreamResponse:
    response = await begin_stream(request)
    await write_event(response, whole(message))
    return response


async def late_event_answer(request: web.Request, message: Any) -> web.StreamResponse:
    response = await begin_stream(request)
    await write_event(response, {"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
    await write_event(response, whole(message))
    return response


async def ask_and_read_nothing(bench: Bench, session: str) -> asyncio.StreamWriter:
    """A client that makes a call and takes only the beginning of its answer."""
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
    body = json.dumps(call()).encode()
    head = (
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n"
        f"Mcp-Session-Id: {session}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await reader.readexactly(50)
    return writer


@pytest.mark.share(3)
@pytest.mark.parametrize("answer", [json_answer, event_answer, late_event_answer])
async def test_nothing_is_left_of_what_nobody_took(bench: Bench, answer: Any) -> None:
    """Clients that leave in the middle of a large answer leave nothing behind, without any collector."""
    bench.server.on["tools/call"] = answer
    await bench.start(max_buffered_events=0)
    answers = bench.proxy.core.memory.answers
    session = await bench.initialize()
    with without_collector():
        for _ in range(3):
            writer = await ask_and_read_nothing(bench, session)
            await until(lambda: answers.used_bytes >= len(LARGE))
            writer.transport.abort()
            await until(lambda: answers.used_bytes == 0)
        bench.server.seen.clear()
        await until(lambda: not bench.endpoint.exchanges())
        await until(lambda: not any(isinstance(o, Responder) for o in gc.get_objects()))


@pytest.mark.parametrize("answer", [json_answer, event_answer])
async def test_an_answer_that_does_not_fit(bench: Bench, answer: Any) -> None:
    """The caller is told that its call may have been executed; nobody else is concerned."""
    bench.server.on["tools/call"] = answer
    await bench.start(memory_budget="10MB")
    refused = await bench.post(call(7))
    assert (refused.status, refused.error) == (502, (7, -32603, "answer-over-budget"))
    assert "may have been executed" in refused.json["error"]["message"]
    assert len(bench.server.posts("tools/call")) == 1
    assert bench.proxy.core.memory.answers.used_bytes == 0
    del bench.server.on["tools/call"]
    assert (await bench.post(call())).status == 200


async def test_slow_readers_leave_room_for_ordinary_answers(bench: Bench) -> None:
    """Where slow readers of large answers use up the share, ordinary calls go on."""
    await bench.start(memory_budget="40MB")  # 12 MB for answers, 9 of them for large ones
    bench.server.on["tools/call"] = json_answer
    writer = await ask_and_read_nothing(bench, await bench.initialize())
    await until(lambda: bench.proxy.core.memory.answers.used_bytes >= len(LARGE))
    assert (await bench.post(call())).error[2] == "answer-over-budget"
    del bench.server.on["tools/call"]
    assert (await bench.post(call())).status == 200
    writer.transport.abort()
    await until(lambda: bench.proxy.core.memory.answers.used_bytes == 0)


async def test_a_large_answer_arrives_whole(bench: Bench) -> None:
    """In pieces or not, it is the same answer, with its length."""
    bench.server.on["tools/call"] = json_answer
    await bench.start()
    answer = await bench.post(call())
    assert answer.json["result"]["x"] == LARGE
    assert int(answer.headers["Content-Length"]) == len(answer.body)
