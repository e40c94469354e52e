"""Callers stay themselves when their tokens change, and nobody gets anything by claiming to be them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, reply_to
from messages import INITIALIZE, call
from proxy_bench import Answer, Bench, until
from token_server import CHALLENGE, TokenServer, bearer, count, settled, token, unsigned

from mcp_session_proxy import events
from mcp_session_proxy.sessions import accepting

SHARING = ["handover", "isolated", "shared", "fresh"]


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    """A server that checks tokens."""
    async with TokenServer() as server:
        yield server


@pytest.mark.parametrize("sharing", SHARING)
async def test_a_client_session_goes_on(bench: Bench, sharing: str) -> None:
    """The client goes on with its session, whatever its token is by then."""
    await bench.start(token_identity="server", sharing=sharing)
    first, second, third = token(), token(), token()
    session = await bench.initialize(headers=bearer(first))
    counts = [await count(bench, text, session) for text in (first, first, second, second, third, third)]
    assert counts == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_requests_without_a_session_go_on(bench: Bench, sharing: str) -> None:
    """Requests that name no session find the same one under each token."""
    await bench.start(token_identity="server", sharing=sharing)
    texts = [token() for _ in range(3)]
    counts = [await count(bench, text) for text in texts for _ in range(2)]
    assert counts == [1, 2, 3, 4, 5, 6]


async def test_by_bytes_each_token_is_somebody(bench: Bench) -> None:
    """With --token-identity bytes, a new token is a new caller."""
    await bench.start(token_identity="bytes")
    texts = [token(), token()]
    assert [await count(bench, text) for text in texts for _ in range(2)] == [1, 2, 1, 2]
    assert bench.server.refused == []  # type: ignore[attr-defined]


async def test_one_handshake_for_each_token(bench: Bench) -> None:
    """The first token costs a question with a damaged one, each other one a handshake that is ended."""
    await bench.start(token_identity="server")
    for text in [token(), token(), token()]:
        for _ in range(3):
            await count(bench, text)
    server = bench.server
    assert isinstance(server, TokenServer)
    assert len(server.posts("initialize")) == 3
    assert len(server.refused) == 1
    assert len(server.deleted) == 2
    assert list(server.sessions.values()) == [9]


@pytest.mark.slow
async def test_all_who_bring_a_token_share_its_question(bench: Bench) -> None:
    """Many connections with one new token: one handshake. Many callers with one each: one each."""
    await bench.start(token_identity="server")
    callers = [f"user-{number}" for number in range(20)]
    await asyncio.gather(*[count(bench, token(caller)) for caller in callers])
    await settled(bench)
    server = bench.server
    assert isinstance(server, TokenServer)
    opened, refused = len(server.posts("initialize")), len(server.refused)
    assert (opened, refused) == (20, 1)
    fresh = [token(caller) for caller in callers]
    counts = await asyncio.gather(*[count(bench, text) for text in fresh for _ in range(5)])
    assert sorted(counts) == sorted([2, 3, 4, 5, 6] * 20)
    assert len(server.posts("initialize")) - opened == 20
    assert len(server.sessions) == 20


# -- nobody else ------------------------------------------------------------------------------------

FORGERIES = {
    "another signature": lambda: token(key=b"mine"),
    "no signature": unsigned,
    "another issuer": lambda: token(iss="https://mine.example"),
    "expired": lambda: token(seconds=-5),
    "another audience": lambda: token(aud="https://mine.example"),
}


@pytest.mark.parametrize("kind", FORGERIES)
@pytest.mark.parametrize("sharing", SHARING)
async def test_a_forged_token_gets_the_servers_refusal(bench: Bench, kind: str, sharing: str) -> None:
    """With a stolen session id or without: the server's own 401, and nothing is learnt."""
    await bench.start(token_identity="server", sharing=sharing)
    owner = token()
    session = await bench.initialize(headers=bearer(owner))
    await count(bench, owner, session)
    await settled(bench)
    forged = FORGERIES[kind]()
    for stolen in (None, session):
        for message in (call(), call(method="tools/list"), INITIALIZE, call(method="ping")):
            answer = await bench.post(message, session=stolen, headers=bearer(forged))
            assert answer.status == 401, (stolen, message, answer.body)
            assert answer.headers["WWW-Authenticate"] == CHALLENGE
    async with bench.request("GET", session=session, headers=bearer(forged)) as response:
        if response.status == 200:  # it waits for a POST that the server accepts
            response.close()
        else:
            assert response.status == 405
    await bench.request("DELETE", session=session, headers=bearer(forged))
    assert await count(bench, owner, session) == 2
    assert await count(bench, token(), session) == 3


@pytest.mark.parametrize(
    "other", [lambda: token("bob"), lambda: token(tid="other"), lambda: token(azp="other")]
)
@pytest.mark.parametrize("sharing", SHARING)
async def test_another_user_shares_nothing(bench: Bench, other: Callable[[], str], sharing: str) -> None:
    """Whoever is somebody else by a claim that identifies has sessions of its own."""
    await bench.start(token_identity="server", sharing=sharing)
    session = await bench.initialize(headers=bearer(token()))
    assert await count(bench, token(), session) == 1
    assert [await count(bench, other(), session) for _ in range(2)] == [1, 2]
    assert await count(bench, token(), session) == 2


async def test_a_server_that_checks_nothing_is_not_believed(bench: Bench) -> None:
    """Where any signature will do, tokens count by their bytes, and one event says so."""
    server = bench.server
    assert isinstance(server, TokenServer)
    server.checks = False
    await bench.start(token_identity="server")
    told: list[object] = []
    bench.watch(lambda event: told.append(event))
    first, forged = token(), token(key=b"mine")
    assert [await count(bench, first) for _ in range(2)] == [1, 2]
    await settled(bench)
    assert [await count(bench, forged) for _ in range(2)] == [1, 2]
    assert [await count(bench, token()), await count(bench, first)] == [1, 3]
    assert len([event for event in told if isinstance(event, events.TokensNotChecked)]) == 1


@pytest.mark.slow
async def test_a_kept_list_is_not_for_a_token_that_is_over(bench: Bench) -> None:
    """A list that is kept for its caller needs no server, so the proxy itself has to look at the time."""

    async def initialize(_: web.Request, message: object) -> web.StreamResponse:
        return bench.server.open_session(message, capabilities={"tools": {"listChanged": True}})

    async def get(request: web.Request, _: object) -> web.StreamResponse:
        response = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    async def tools(_: web.Request, message: object) -> web.StreamResponse:
        return reply_to(message, {"tools": []})

    bench.server.on |= {"initialize": initialize, "GET": get, "tools/list": tools}
    await bench.start(token_identity="server")
    lists = call(method="tools/list")
    short = token(seconds=2)
    for text in (token(), short, short):
        assert (await bench.post(lists, headers=bearer(text))).status == 200
    assert len(bench.server.posts("tools/list")) == 1
    await asyncio.sleep(2.1)
    answer = await bench.post(lists, headers=bearer(short))
    assert answer.status == 401


async def test_a_server_that_is_full_teaches_nothing(bench: Bench) -> None:
    """A new token meets a server in trouble: the caller is told so, and later it is its caller's."""
    await bench.start(token_identity="server")
    first, second = token(), token()
    session = await bench.initialize(headers=bearer(first))
    assert await count(bench, first, session) == 1
    await settled(bench)

    async def full(_: web.Request, message: object) -> web.StreamResponse:
        return web.Response(status=503)

    bench.server.on["initialize"] = full
    answer = await bench.post(call(7), session=session, headers=bearer(second))
    assert answer.status == 503
    assert answer.json["id"] == 7
    del bench.server.on["initialize"]
    assert await count(bench, second, session) == 2


async def test_whoever_comes_first_with_a_forged_token_is_nobody(bench: Bench) -> None:
    """A forger who is there before its victim founds nothing."""
    await bench.start(token_identity="server")
    forged = token(key=b"mine")
    for _ in range(2):
        assert (await bench.post(call(), headers=bearer(forged))).status == 401
    texts = [token() for _ in range(3)]
    assert [await count(bench, text) for text in texts] == [1, 2, 3]
    assert (await bench.post(call(), headers=bearer(forged))).status == 401
    assert await count(bench, token()) == 4


async def test_the_question_ends_no_session_that_somebody_has(bench: Bench) -> None:
    """A server that has one session for each user gives its id again; a goodbye would end it for all."""

    async def initialize(request: web.Request, message: object) -> web.StreamResponse:
        return bench.server.open_session(message, identifier="the users one")

    bench.server.on["initialize"] = initialize
    await bench.start(token_identity="server")
    texts = [token() for _ in range(3)]
    assert [await count(bench, text) for text in texts] == [1, 2, 3]
    assert bench.server.deleted == []


async def test_a_server_that_can_have_one_session_only(bench: Bench) -> None:
    """It refuses the handshake of the question, but not over the token, as it would refuse a wrong one."""

    async def initialize(request: web.Request, message: object) -> web.StreamResponse:
        if bench.server.sessions:
            return web.json_response({"error": "Server already initialized"}, status=400)
        return bench.server.open_session(message)

    bench.server.on["initialize"] = initialize
    await bench.start(token_identity="server")
    first = token()
    assert await count(bench, first) == 1
    await settled(bench)
    assert [await count(bench, token()) for _ in range(2)] == [2, 3]
    assert (await bench.post(call(), headers=bearer(token(key=b"mine")))).status == 401


@pytest.mark.parametrize("checks", [True, False])
async def test_a_server_that_wants_clients_that_can_do_something(bench: Bench, checks: bool) -> None:
    """It refuses handshakes of those that can do nothing, so it is asked as its caller's client is."""
    assert isinstance(bench.server, TokenServer)
    bench.server.checks = checks

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        if "sampling" not in message["params"]["capabilities"]:
            error = {"code": -32602, "message": "This server needs a client with sampling."}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
        return bench.server.open_session(message)

    bench.server.on["initialize"] = initialize
    await bench.start(token_identity="server")
    capable = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": {"sampling": {}}}}
    session = (await bench.post(capable, headers=bearer(token()))).headers["Mcp-Session-Id"]
    await settled(bench)
    counts = [await count(bench, token(), session) for _ in range(3)]
    assert counts == ([1, 2, 3] if checks else [1, 1, 1])
    forged = await bench.post(call(), session=session, headers=bearer(token(key=b"mine")))
    assert forged.status == (401 if checks else 200)


async def test_what_is_sent_by_itself_carries_the_newest_token(bench: Bench) -> None:
    """A session whose caller has a new token does not go on with the one that is about to expire."""
    await bench.start(token_identity="server")
    first, second = token(), token()
    await bench.initialize(headers=bearer(first))
    session = await bench.initialize(headers=bearer(first))  # of two sessions, the second token uses one
    await settled(bench)
    await count(bench, second, session)
    slots = list(bench.proxy.core.pool.books.slots())
    assert len(slots) == 2
    for slot in slots:
        assert ("Authorization", f"Bearer {second}") in slot.session.record.credentials.headers


async def test_many_forged_tokens_keep_nobody_else_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions about tokens with one claim are bounded; callers with another claim are not touched."""
    monkeypatch.setattr(accepting, "NEW_TOKENS_A_CLAIMANT", 40)
    await bench.start(token_identity="server")
    await count(bench, token())
    await count(bench, token("bob"))
    await settled(bench)
    go_on = bench.server.hold_up_handshakes()
    flood = [asyncio.create_task(bench.post(call(), headers=bearer(token()))) for _ in range(64)]
    statuses = [(await task).status for task in await _first(flood, 24)]
    assert statuses == [503] * 24
    bob = asyncio.create_task(count(bench, token("bob")))
    go_on.set()
    assert await bob == 2
    for task in flood:
        assert (await task).status in (200, 503)


async def _first(tasks: list[asyncio.Task[Answer]], number: int) -> list[asyncio.Task[Answer]]:
    """Those of the tasks that are done, as soon as there are so many."""
    await until(lambda: sum(task.done() for task in tasks) >= number)
    return [task for task in tasks if task.done()]


@pytest.mark.slow
async def test_a_token_that_the_server_takes_after_its_end(bench: Bench) -> None:
    """Clocks differ, so servers allow for some seconds; until they refuse it, its bearer stays itself."""
    assert isinstance(bench.server, TokenServer)
    bench.server.leeway_seconds = 60
    await bench.start(token_identity="server")
    first = token(seconds=1)
    session = await bench.initialize(headers=bearer(first))
    assert await count(bench, first, session) == 1
    await settled(bench)
    second = token(seconds=1)
    assert await count(bench, second, session) == 2
    await asyncio.sleep(1.1)
    assert await count(bench, first, session) == 3
    assert await count(bench, second, session) == 4
    bench.server.leeway_seconds = 0
    await asyncio.sleep(2.1)
    for text in (first, second):
        assert (await bench.post(call(), session=session, headers=bearer(text))).status == 401
    assert await count(bench, token(), session) == 5


async def test_what_wants_no_answer_is_accepted_in_any_trouble(bench: Bench) -> None:
    """A notification and a goodbye under a new token while the server is full: clients give up over less."""
    await bench.start(token_identity="server")
    session = await bench.initialize(headers=bearer(token()))
    await settled(bench)

    async def full(_: web.Request, message: object) -> web.StreamResponse:
        return web.Response(status=503)

    bench.server.on["initialize"] = full
    told = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
    assert (await bench.post(told, session=session, headers=bearer(token()))).status == 202
    async with bench.request("DELETE", session=session, headers=bearer(token())) as response:
        assert response.status == 405
