"""Session ids that come back, that are forgotten, stolen or a platform's own. On the wire."""

import copy
import secrets
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import Bench, read_events, until

CAPABLE = copy.deepcopy(INITIALIZE)
CAPABLE["params"]["capabilities"] = {"elicitation": {}, "roots": {"listChanged": True}}
ALICE, ALICE_LATER = {"Authorization": "Bearer alice-1"}, {"Authorization": "Bearer alice-2"}


async def count(bench: Bench, session: str, **options: Any) -> int:
    """A call; how many this session of the server's has seen."""
    found: int = (await bench.post(call(), session=session, **options)).json["result"]["count"]
    return found


# -- initialize with an id -------------------------------------------------------------------------


async def test_initialize_with_its_own_former_id(bench: Bench) -> None:
    """A client that initialises again under its id keeps both id and state."""
    await bench.start()
    session = await bench.initialize()
    assert await count(bench, session) == 1
    assert await bench.initialize(session=session) == session
    assert await count(bench, session) == 2
    assert len(bench.server.sessions) == 1


async def test_initialize_as_another_under_a_former_id(bench: Bench) -> None:
    """With other capabilities it is another client to the server, with another id and session."""
    await bench.start()
    session = await bench.initialize()
    assert await count(bench, session) == 1
    answer = await bench.post(CAPABLE, session=session)
    other = answer.headers["Mcp-Session-Id"]
    assert other != session
    assert await count(bench, other) == 1


# -- ids that are forgotten ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [call("x"), [call("x"), call("y")]])
async def test_after_a_restart_a_capable_client_can_be_asked(bench: Bench, body: Any) -> None:
    """An id of ours that is forgotten carries what its client said of itself: the server hears that again."""
    await bench.start()
    session = (await bench.post(CAPABLE)).headers["Mcp-Session-Id"]
    await bench.start()
    assert (await bench.post(notification("notifications/x"), session=session)).status == 202
    async with bench.request("DELETE", session=session) as response:
        assert response.status == 405
    assert len(bench.proxy.core.binder.directory) == 0
    answer = await bench.post(body, session=session)
    assert answer.status == 200
    first, second = bench.server.posts("initialize")
    assert second[1]["params"] == first[1]["params"] == CAPABLE["params"]
    [client] = bench.proxy.core.binder.directory
    async with bench.request("GET", session=session) as response:
        assert response.status == 200
        await until(lambda: client.streams)
    answer = await bench.post(CAPABLE, session=session)
    assert answer.status == 200


@pytest.mark.parametrize("body", [call("x"), [call("x"), call("y")]])
async def test_after_a_restart_a_client_with_a_large_profile_is_told(bench: Bench, body: Any) -> None:
    """What is too large for a header is not in the id: its client is told 404, and has to start anew."""
    large = copy.deepcopy(CAPABLE)
    large["params"]["capabilities"]["experimental"] = {"x": secrets.token_hex(1000)}
    await bench.start()
    session = (await bench.post(large)).headers["Mcp-Session-Id"]
    await bench.start()
    answer = await bench.post(body, session=session)
    assert answer.status == 404
    assert answer.error[0] == "x"
    assert (await bench.post(notification("notifications/x"), session=session)).status == 202
    for verb in ("GET", "DELETE"):
        async with bench.request(verb, session=session) as response:
            assert response.status == 405
    assert len(bench.proxy.core.binder.directory) == 0
    answer = await bench.post(large, session=session)
    assert answer.status == 200
    assert answer.headers["Mcp-Session-Id"] != session


async def test_after_a_restart_under_another_token(bench: Bench) -> None:
    """The profile comes from the id, whoever brings it: it is worth nothing to a thief."""
    await bench.start()
    session = (await bench.post(CAPABLE, headers=ALICE)).headers["Mcp-Session-Id"]
    await bench.start()
    assert [await count(bench, session, headers=ALICE_LATER) for _ in range(2)] == [1, 2]
    assert bench.server.posts("initialize")[-1][1]["params"] == CAPABLE["params"]


async def test_after_a_restart_a_plain_client_goes_on(bench: Bench) -> None:
    """Without capabilities nothing is lost with the profile, and most clients take a 404 for the end."""
    await bench.start()
    session = await bench.initialize()
    await bench.start()
    assert await count(bench, session) == 1
    assert await count(bench, session) == 2


# -- another credential ----------------------------------------------------------------------------


async def test_a_renewed_token_keeps_the_profile(bench: Bench) -> None:
    """The server may ask the client on under its next token, in a session of its own."""
    await bench.start()
    session = (await bench.post(CAPABLE, headers=ALICE)).headers["Mcp-Session-Id"]
    assert await count(bench, session, headers=ALICE) == 1
    assert await count(bench, session, headers=ALICE_LATER) == 1
    assert await count(bench, session, headers=ALICE) == 2
    first, second = bench.server.posts("initialize")
    assert second[1]["params"] == first[1]["params"] == CAPABLE["params"]
    assert second[0].headers["Authorization"] == "Bearer alice-2"


# -- GET and DELETE with unknown ids ---------------------------------------------------------------


async def test_unknown_ids_create_nothing(bench: Bench) -> None:
    """Whatever needs no session leaves nothing behind under an unknown id, and displaces nobody."""
    await bench.start(max_client_sessions=5)
    session = await bench.initialize()
    assert await count(bench, session) == 1
    for number in range(20):
        async with bench.request("DELETE", session=f"made-up-{number}") as response:
            assert response.status == 405
        async with bench.request("GET", session=f"made-up-{number}") as response:
            assert response.status == 200
        for message in (
            notification("notifications/initialized"),
            {"jsonrpc": "2.0", "id": 1, "result": {}},
            [notification("notifications/x"), notification("notifications/y")],
        ):
            assert (await bench.post(message, session=f"made-up-{number}")).status == 202
        assert (await bench.post(call(method="ping"), session=f"made-up-{number}")).status == 200
    await until(lambda: not bench.endpoint.streams)
    assert [one.id for one in bench.proxy.core.binder.directory] == [session]
    assert len(bench.proxy.core.early) == 0
    assert await count(bench, session) == 2


@pytest.mark.parametrize("first", ["initialize", "call"])
async def test_a_stream_that_comes_first(bench: Bench, first: str) -> None:
    """A platform that opens its stream before anything else hears its server there."""
    told: list[web.StreamResponse] = []

    async def listen(request: web.Request, _: Any) -> web.StreamResponse:
        stream = await begin_stream(request)
        told.append(stream)
        await request.content.read()
        await until(lambda: not told)
        return stream

    bench.server.on["GET"] = listen
    await bench.start()
    async with bench.request("GET", session="platform-1") as response:
        assert response.status == 200
        assert len(bench.proxy.core.binder.directory) == 0
        await bench.post(INITIALIZE if first == "initialize" else call(), session="platform-1")
        await until(lambda: told)
        await write_event(told[0], notification("notifications/tools/list_changed"))
        [(_, message)] = await read_events(response.content, 1)
        assert message["method"] == "notifications/tools/list_changed"
        [client] = bench.proxy.core.binder.directory
        assert client.streams == 1
        assert client.lease is not None
        told.clear()
    await until(lambda: not client.streams)


async def test_early_streams_are_each_caller_s_own(bench: Bench) -> None:
    """Another caller's client session under the same id is not joined."""
    await bench.start()
    async with bench.request("GET", session="platform-1", headers=ALICE) as response:
        assert response.status == 200
        await bench.post(INITIALIZE, session="platform-1")
        [client] = bench.proxy.core.binder.directory
        assert client.streams == 0
        assert len(bench.proxy.core.early) == 1


async def test_early_streams_end_with_the_proxy(bench: Bench) -> None:
    """A stream that still waits is ended gracefully when the proxy stops."""
    await bench.start()
    async with bench.request("GET", session="platform-1") as response:
        await bench.proxy.drain()
        assert (await response.read()).startswith(b":")
