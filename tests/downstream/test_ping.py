"""What a client's ping is told: the truth as far as it is known."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from proxy_bench import Bench, until

from mcp_session_proxy.downstream import ping as module

PING = call("p", "ping")
PONG = {"jsonrpc": "2.0", "id": "p", "result": {}}
TOKEN = {"Authorization": "Bearer good"}


def wants_token(bench: Bench) -> None:
    """Have the server refuse handshakes without the token."""

    async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") == TOKEN["Authorization"]:
            return bench.server.open_session(message)
        headers = {"WWW-Authenticate": 'Bearer realm="x"'}
        return web.json_response({"error": "invalid_token"}, status=401, headers=headers)

    bench.server.on["initialize"] = initialize


def sent(bench: Bench) -> int:
    """How many requests have reached the server."""
    return len(bench.server.seen)


async def test_accepted_callers(bench: Bench) -> None:
    """Whoever has a session at the server is answered at once, and nothing is sent."""
    await bench.start()
    session = await bench.initialize()
    before = sent(bench)
    for name in (session, None, "any"):
        for _ in range(3):
            answer = await bench.post(PING, session=name)
            assert (answer.status, answer.json) == (200, PONG)
    assert (await bench.post([PING])).json == [PONG]
    assert sent(bench) == before


@pytest.mark.parametrize("session", [None, "a-platforms-own"])
async def test_first_ping_of_a_stranger(bench: Bench, session: str | None) -> None:
    """It is one handshake; the next ones are answered at once."""
    await bench.start()
    for _ in range(5):
        assert (await bench.post(PING, session=session)).json == PONG
    assert len(bench.server.posts("initialize")) == 1
    assert bench.server.posts("ping") == []


@pytest.mark.parametrize("session", [None, "a-platforms-own"])
async def test_refused_callers(bench: Bench, session: str | None) -> None:
    """Without the token that the server wants, its own refusal comes through; with it, all is well."""
    await bench.start()
    wants_token(bench)
    for headers in ({}, {"Authorization": "Bearer bad"}):
        for _ in range(2):
            answer = await bench.post(PING, session=session, headers=headers)
            assert (answer.status, answer.json) == (401, {"error": "invalid_token"})
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="x"'
    for _ in range(3):
        assert (await bench.post(PING, session=session, headers=TOKEN)).status == 200
    assert (await bench.post(PING, session=session)).status == 401


async def test_others_acceptance_does_not_count(bench: Bench) -> None:
    """That one caller has a session says nothing of another, nor does one that is only being opened."""
    await bench.start()
    wants_token(bench)
    await bench.initialize(headers=TOKEN)
    assert (await bench.post(PING)).status == 401
    go_on = asyncio.Event()

    async def slow(_: web.Request, __: Any) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=403, text="no")

    bench.server.on["initialize"] = slow
    async with bench.asking(PING) as first, bench.asking(PING) as second:
        await until(lambda: bench.proxy.core.pool.books.counted == 2)
        go_on.set()
        assert {(await first).status, (await second).status} == {403}


async def test_session_for_each_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sessions are not kept, that the caller was accepted is remembered for a while."""
    await bench.start(sharing="fresh")
    for _ in range(3):
        assert (await bench.post(PING)).status == 200
    assert len(bench.server.posts("initialize")) == 1
    monkeypatch.setattr(module, "_REMEMBERED_SECONDS", 0.0)
    await until(lambda: not bench.proxy.core.pool.books.counted)
    assert (await bench.post(PING)).status == 200
    assert len(bench.server.posts("initialize")) == 2


async def test_what_is_remembered_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that invent credentials do not fill the memory."""
    monkeypatch.setattr(module, "PINGED_CALLERS", 3)
    await bench.start(sharing="fresh")
    asked = []
    for number in (0, 1, 2, 3, 4, 5, 5, 4, 3, 2):
        assert (await bench.post(PING, headers={"Authorization": f"Bearer {number}"})).status == 200
        await until(lambda: not bench.proxy.core.pool.books.counted)
        asked.append(len(bench.server.posts("initialize")))
    assert asked == [1, 2, 3, 4, 5, 6, 6, 6, 6, 7]


async def test_while_the_server_is_down(bench: Bench) -> None:
    """Nobody is told that all is well, whatever session it has; and all is well again afterwards."""
    await bench.start()
    session = await bench.initialize()
    [replica] = bench.proxy.core.fleet.replicas
    await until(lambda: replica.monitor.up)
    before = sent(bench)
    replica.monitor.up = False
    for name in (session, None, "any"):
        answer = await bench.post(PING, session=name)
        assert (answer.status, answer.error) == (503, ("p", -32603, "upstream-down"))
        assert answer.headers["Retry-After"]
    assert sent(bench) == before
    replica.monitor.up = True
    assert (await bench.post(PING, session=session)).status == 200


async def test_server_that_went_away(bench: Bench) -> None:
    """The monitors notice, and then pings say it."""
    await bench.start()
    session = await bench.initialize()
    [replica] = bench.proxy.core.fleet.replicas
    await until(lambda: replica.monitor.up)
    await bench.server.__aexit__()
    replica.monitor.look_now()
    await until(lambda: replica.monitor.up is False)
    assert (await bench.post(PING, session=session)).status == 503


async def test_one_replica_is_enough(bench: Bench) -> None:
    """While another one takes connections, the server is there."""
    async with HttpServer() as other:
        await bench.start(replica=other.url)
        session = await bench.initialize()
        await until(lambda: all(replica.monitor.up for replica in bench.proxy.core.fleet.replicas))
        bench.proxy.core.fleet.replicas[0].monitor.up = False
        assert (await bench.post(PING, session=session)).status == 200
