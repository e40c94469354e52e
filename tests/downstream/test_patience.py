"""Clients that say that they take both and read only JSON: the whole proxy, on the wire."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import call, notification
from proxy_bench import BOTH, PATIENCE_SECONDS, Bench, until

RELUCTANT = "text/event-stream;q=0.5, application/json"
STREAM_FIRST = "text/event-stream, application/json"


def hold(bench: Bench) -> asyncio.Event:
    """Calls take until this is set."""
    go_on = asyncio.Event()

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        await go_on.wait()
        return reply_to(message, {"ok": 1})

    bench.server.on["tools/call"] = work
    return go_on


def beats_missed(bench: Bench) -> bool:
    """Whether the silent answers have been silent for several heartbeats."""
    heartbeats = bench.endpoint.heartbeats
    return any(
        heartbeats.now() - r.last_write > 5 * heartbeats.rules.interval_seconds for r in bench.unfinished
    )


@pytest.mark.parametrize("accept", [BOTH, RELUCTANT, "application/json,text/event-stream;q=0.9"])
@pytest.mark.parametrize("with_session", [True, False])
async def test_slow_answers_stay_json(bench: Bench, accept: str, with_session: bool) -> None:
    """Heartbeats do not make a stream of an answer for a client that prefers JSON."""
    await bench.start(heartbeat="10ms")
    go_on = hold(bench)
    session = await bench.initialize() if with_session else None
    async with bench.asking(call("x"), session=session, accept=accept) as asking:
        await until(lambda: beats_missed(bench))
        go_on.set()
        answer = await asking
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"jsonrpc": "2.0", "id": "x", "result": {"ok": 1}}


@pytest.mark.parametrize(
    ("accept", "options"),
    [
        (STREAM_FIRST, {}),
        ("text/event-stream", {}),
        ("application/json;q=0.5, text/event-stream", {}),
        (BOTH, {"heartbeat_format": "sse"}),
        (BOTH, {"json_patience": "50ms"}),
        (STREAM_FIRST, {"heartbeat_format": "json", "json_patience": "50ms"}),
    ],
)
async def test_slow_answers_that_become_streams(bench: Bench, accept: str, options: dict[str, str]) -> None:
    """For everybody else, when the operator says so, and when the patience ends."""
    await bench.start(heartbeat="10ms", **options)
    go_on = hold(bench)
    async with bench.request("POST", call("x"), accept=accept) as response, asyncio.timeout(PATIENCE_SECONDS):
        assert response.headers["Content-Type"] == "text/event-stream"
        go_on.set()
        assert b'"ok":1' in (await response.read()).replace(b" ", b"")


async def test_for_everybody(bench: Bench) -> None:
    """The operator may have all wait who take JSON."""
    await bench.start(heartbeat="10ms", heartbeat_format="json")
    go_on = hold(bench)
    async with bench.asking(call("x"), accept=STREAM_FIRST) as asking:
        await until(lambda: beats_missed(bench))
        go_on.set()
        assert (await asking).headers["Content-Type"] == "application/json"


async def test_clients_with_a_get_stream(bench: Bench) -> None:
    """A client that has opened a GET stream reads such streams: its calls beat."""
    await bench.start(heartbeat="10ms")
    go_on = hold(bench)
    session = await bench.initialize()
    async with bench.request("GET", session=session):
        pass
    async with bench.request("POST", call("x"), session=session) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        go_on.set()


@pytest.mark.parametrize(("option", "kind"), [("auto", "text/event-stream"), ("json", "application/json")])
async def test_servers_that_begin_a_stream(bench: Bench, option: str, kind: str) -> None:
    """A stream of the server that can be resumed is one here, too, as without the proxy."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await response.write(b"id: first\ndata: \n\n")
        await asyncio.sleep(0.05)
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    await bench.start(heartbeat_format=option)
    bench.server.on["tools/call"] = work
    assert (await bench.post(call("x"), session=await bench.initialize())).headers["Content-Type"] == kind


async def test_messages_do_not_wait(bench: Bench) -> None:
    """What the server says before the answer makes a stream of it at once."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, notification("notifications/message", data="news"))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    await bench.start()
    bench.server.on["tools/call"] = work
    answer = await bench.post(call("x"))
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.json[0]["params"]["data"] == "news"
