"""Whoever has several tokens before the server knows any of them is one caller all the same."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from messages import INITIALIZE, call, notification
from proxy_bench import Bench, until
from token_server import TokenServer, bearer, count, settled, token

from mcp_session_proxy import events

pytestmark = pytest.mark.slow

SHARING = ["handover", "isolated", "shared"]


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    """A server that checks tokens."""
    async with TokenServer() as server:
        yield server


@pytest.mark.parametrize("number", [2, 40])
@pytest.mark.parametrize("sharing", SHARING)
async def test_first_tokens_at_once(bench: Bench, sharing: str, number: int) -> None:
    """Some first tokens of one user in the same moment: one count for all of them, then and later."""
    await bench.start(token_identity="server", sharing=sharing)
    texts = [token() for _ in range(number)]
    first = await asyncio.gather(*[count(bench, text) for text in texts])
    again = await asyncio.gather(*[count(bench, text) for text in texts])
    assert sorted([*first, *again]) == list(range(1, 2 * number + 1))
    server = bench.server
    assert isinstance(server, TokenServer)
    assert len(server.posts("initialize")) == number
    assert len(server.refused) == 1
    assert list(server.sessions.values()) == [2 * number]


async def test_sessions_of_first_tokens_at_once(bench: Bench) -> None:
    """Two clients that begin at once, each with a token of its own: either goes on under a third one."""
    await bench.start(token_identity="server")
    texts = [token(), token()]
    sessions = await asyncio.gather(*[bench.initialize(headers=bearer(text)) for text in texts])
    third = token()
    for session in sessions:
        assert [await count(bench, text, session) for text in (*texts, third)] == [1, 2, 3]
    principals = {client.principal for client in bench.proxy.core.binder.directory}
    assert len(principals) == 1


async def test_a_forged_first_token_and_the_right_one_at_once(bench: Bench) -> None:
    """Who claims to be somebody in the moment in which that one comes for the first time changes nothing."""
    await bench.start(token_identity="server")
    forged = [token(key=b"mine") for _ in range(5)]
    mine = [token(), token()]
    statuses = asyncio.gather(*[bench.post(call(), headers=bearer(text)) for text in forged])
    assert sorted(await asyncio.gather(*[count(bench, text) for text in mine])) == [1, 2]
    assert {answer.status for answer in await statuses} == {401}
    assert await count(bench, token()) == 3
    assert {(await bench.post(call(), headers=bearer(text))).status for text in forged} == {401}


async def test_a_forged_first_token_that_hangs(bench: Bench) -> None:
    """If the server takes long to refuse it, whoever it claims to be does not wait for longer than it may."""
    server, forged = bench.server, token(key=b"mine")
    assert isinstance(server, TokenServer)
    held = server.refuses_when[f"Bearer {forged}"] = asyncio.Event()
    await bench.start(token_identity="server", acquire_timeout="500ms", handshake_timeout="20s")
    async with bench.asking(call(), headers=bearer(forged)) as asking:
        await until(lambda: bench.proxy.core.pool.books.counted)
        texts = [token(), token()]
        assert [await count(bench, text) for text in texts] == [1, 2]
        held.set()
        assert (await asking).status == 401
    assert [await count(bench, text) for text in (*texts, token())] == [3, 4, 5]


async def test_a_first_token_that_opens_nothing(bench: Bench) -> None:
    """One that was only shown with pings and notifications is its caller's as well."""
    await bench.start(token_identity="server")
    first, second = token(), token()
    assert (await bench.post(call(method="ping"), headers=bearer(first))).status == 200
    assert (await bench.post(notification("notifications/x"), headers=bearer(first))).status == 202
    assert [await count(bench, text) for text in (second, first, second, first)] == [1, 2, 3, 4]


async def test_a_first_token_that_was_revoked(bench: Bench) -> None:
    """Its client gets a new one, and with that its session by one handshake."""
    await bench.start(token_identity="server")
    revoked = token(key=b"no more")
    assert (await bench.post(call(), headers=bearer(revoked))).status == 401
    texts = [token(), token()]
    assert await count(bench, texts[0]) == 1
    assert len(bench.server.posts("initialize")) == 1
    assert await count(bench, texts[1]) == 2


async def test_a_first_token_meets_a_server_that_is_full(bench: Bench) -> None:
    """Nothing comes of that; later it is the first one as before."""

    async def full(_: web.Request, message: object) -> web.StreamResponse:
        return web.Response(status=503)

    bench.server.on["initialize"] = full
    await bench.start(token_identity="server")
    first = token()
    assert (await bench.post(call(), headers=bearer(first))).status == 503
    del bench.server.on["initialize"]
    assert [await count(bench, text) for text in (first, token(), first, token())] == [1, 2, 3, 4]


async def test_first_tokens_at_a_server_that_checks_nothing(bench: Bench) -> None:
    """Each is somebody of its own, also in the same moment."""
    assert isinstance(bench.server, TokenServer)
    bench.server.checks = False
    await bench.start(token_identity="server")
    texts = [token(key=key) for key in (b"mine", b"yours", b"theirs")]
    for expected in (1, 2, 3):
        counts = await asyncio.gather(*[count(bench, text) for text in texts])
        assert counts == [expected] * 3


async def test_many_tokens_of_one_caller(bench: Bench) -> None:
    """A thousand, some at a time: one session, one count, and nothing is left open."""
    await bench.start(token_identity="server")

    async def life() -> list[int]:
        return [await count(bench, token()) for _ in range(100)]

    counts = [each for some in await asyncio.gather(*[life() for _ in range(10)]) for each in some]
    assert sorted(counts) == list(range(1, 1001))
    await until(lambda: len(bench.server.sessions) == 1)
    assert len(bench.proxy.core.pool.books.buckets) == 1


async def test_two_hundred_callers_refresh_at_once(bench: Bench) -> None:
    """All in the same moment: one handshake more for each, and none of them is left open."""
    await bench.start(token_identity="server")
    server, callers = bench.server, [f"user-{number}" for number in range(200)]
    assert isinstance(server, TokenServer)
    everybody = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=everybody) as http:
        bench.http, usual = http, bench.http
        for expected in (1, 2, 3):
            opened = len(server.posts("initialize"))
            counts = await asyncio.gather(*[count(bench, token(caller)) for caller in callers])
            assert counts == [expected] * 200
            assert len(server.posts("initialize")) - opened == 200
            assert len(server.refused) == 1
        await until(lambda: len(server.sessions) == 200)
        bench.http = usual


# -- what is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "slow", "away"])
async def test_an_error_over_a_new_token_is_told(bench: Bench, how: str) -> None:
    """A request that fails because its token cannot be asked about fails like any other."""
    await bench.start(token_identity="server", acquire_timeout="500ms", handshake_timeout="300ms")
    session = await bench.initialize(headers=bearer(token()))
    assert await count(bench, token(), session) == 1
    told: list[events.Event] = []
    bench.watch(told.append)
    go_on = asyncio.Event()

    async def trouble(_: web.Request, message: object) -> web.StreamResponse:
        if how == "slow":
            await go_on.wait()
        return web.Response(status=503)

    bench.server.on["initialize"] = trouble
    if how == "away":
        await bench.server.__aexit__()
    answer = await bench.post(call(7), session=session, headers=bearer(token()))
    go_on.set()
    assert answer.status in (502, 503, 504)
    assert answer.json["id"] == 7
    reason = answer.error[2]
    (failed,) = [event for event in told if isinstance(event, events.RequestFailed)]
    assert (failed.method, failed.reason) == ("tools/call", reason)
    (finished,) = [event for event in told if isinstance(event, events.RequestFinished)]
    assert (finished.outcome, finished.era, finished.request_id) == (reason, "legacy", failed.request_id)
    assert finished.seconds > 0


async def test_an_error_over_a_new_token_is_told_of_each_request(bench: Bench) -> None:
    """Of a batch, each; of what wants no answer, none; and a modern request is one of its era."""
    await bench.start(token_identity="server")
    assert await count(bench, token()) == 1
    assert await count(bench, token()) == 2
    told: list[events.Event] = []
    bench.watch(told.append)

    async def full(_: web.Request, message: object) -> web.StreamResponse:
        return web.Response(status=503)

    bench.server.on["initialize"] = full
    for body in ([call(1), notification("notifications/x"), call(2)], notification("notifications/x")):
        answer = await bench.post(body, headers=bearer(token()))
        assert answer.status == (503 if isinstance(body, list) else 202)
    failed = [event for event in told if isinstance(event, events.RequestFailed)]
    assert len(failed) == 2
    told.clear()
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    await bench.post(call(3, _meta=meta), headers=bearer(token()))
    (finished,) = [event for event in told if isinstance(event, events.RequestFinished)]
    assert (finished.era, finished.outcome) == ("modern", failed[0].reason)


async def test_what_was_found_out_of_tokens_is_told(bench: Bench) -> None:
    """Accepted and refused ones, and those of an issuer that is not checked."""
    await bench.start(token_identity="server")
    told: list[tuple[str, str]] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.TokenJudged):
            told.append((event.outcome, event.principal))

    bench.watch(note)
    for _ in range(3):
        await count(bench, token())
    forged = token(key=b"mine")
    for _ in range(2):
        await bench.post(call(), headers=bearer(forged))
    assert [outcome for outcome, _ in told] == ["accepted"] * 3 + ["refused"]
    assert len({principal for outcome, principal in told if outcome == "accepted"}) == 1
    view = bench.proxy.snapshot.tokens()
    assert (view.identity, view.accepted, view.refused, view.not_believed) == ("server", 3, 1, 0)
    assert (view.believed, view.callers, view.asking, view.unchecked_issuers) == (3, 1, 0, [])


async def test_tokens_that_are_not_believed_are_told(bench: Bench) -> None:
    """Each once, and whose they are."""
    assert isinstance(bench.server, TokenServer)
    bench.server.checks = False
    await bench.start(token_identity="server")
    texts = [token(), token(), token()]
    await count(bench, texts[0])
    await settled(bench)
    for _ in range(2):
        for text in texts:
            await count(bench, text)
    view = bench.proxy.snapshot.tokens()
    assert (view.accepted, view.refused, view.not_believed) == (0, 0, 3)
    assert list(view.unchecked_issuers) == ["https://issuer.example"]


async def test_initialize_under_a_new_token(bench: Bench) -> None:
    """The first thing that a new token brings may be a handshake of its own."""
    await bench.start(token_identity="server", sharing="isolated")
    first = await bench.initialize(headers=bearer(token()))
    second = (await bench.post(INITIALIZE, headers=bearer(token()))).headers["Mcp-Session-Id"]
    assert first != second
    assert [await count(bench, token(), session) for session in (first, second)] == [1, 1]
