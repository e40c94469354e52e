"""Several proxies on one state directory: any request at any of them, as with one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import call, notification
from proxy_bench import read_events, until
from selection import FULL_FAULTS
from several_bench import MODERN, Several, cluster_of, modern, open_several, written
from token_server import TokenServer, bearer, token

from mcp_session_proxy import events
from mcp_session_proxy.assembly.sockets import CannotStart

pytestmark = pytest.mark.slow

ME = {"Authorization": "Bearer me"}
YOU = {"Authorization": "Bearer you"}


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with open_several(tmp_path / "state") as opened:
        yield opened


@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_a_count_goes_on_at_any_of_them(several: Several, sharing: str) -> None:
    """Each call of a client comes to another one, and finds its session."""
    await several.start(sharing=sharing)
    session = await several.initialize(headers=ME)
    assert [await several.count(session=session, headers=ME) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert len(several.server.posts("initialize")) == 1


async def test_everybody_finds_their_own(several: Several) -> None:
    """Callers with and without sessions and credentials, foreign ids, conversations: each its own count."""
    await several.start(affinity_header="X-Talk")
    session = await several.initialize(headers=ME)
    who: list[dict[str, Any]] = [
        {"session": session, "headers": ME},
        {"session": "platform-17", "headers": ME},
        {"headers": ME},
        {"headers": YOU},
        {},
        {"headers": {**ME, "X-Talk": "one"}},
    ]
    for n in range(1, 5):
        assert [await several.count(**options) for options in who] == [n] * len(who)


async def test_handover_is_as_with_one(several: Several) -> None:
    """A client that has left at one member hands its session to the next client, which comes to another."""
    await several.start(reconnect_grace="0s")
    first = await several.initialize(headers=ME)
    assert await several.count(session=first, headers=ME) == 1
    async with several.next.request("DELETE", session=first, headers=ME):
        pass
    second = await several.initialize(headers=ME)
    assert await several.count(session=second, headers=ME) == 2


async def test_a_fresh_session_for_each_call(several: Several) -> None:
    """``--sharing fresh`` is as fresh as with one."""
    await several.start(sharing="fresh")
    assert [await several.count(headers=ME) for _ in range(4)] == [1, 1, 1, 1]


async def test_the_hot_path_asks_no_store(several: Several) -> None:
    """Neither at the owner nor elsewhere, once the place is known."""
    await several.start(2)
    for _ in range(4):
        await several.count(headers=ME)
    for bench in several.benches:
        await written(bench)
    asked: list[str] = []
    for bench in several.benches:
        cluster_of(bench).shards.membership._told = lambda verb, _: asked.append(verb)
    for _ in range(1000 if FULL_FAULTS else 40):
        await several.count(headers=ME)
    assert set(asked) <= {"beat", "members", "news", "reserve", "write"}
    assert asked.count("write") <= 2


async def test_one_that_is_stopped_hands_over(several: Several) -> None:
    """Its callers go on at the others, in the same sessions; the server hears no goodbye."""
    await several.start()
    session = await several.initialize(headers=ME)
    for n in range(1, 4):
        assert await several.count(session=session, headers=ME) == n
    await several.stop(several.owner())
    assert [await several.count(session=session, headers=ME) for _ in range(3)] == [4, 5, 6]
    assert several.server.deleted == []
    assert len(several.server.posts("initialize")) == 1


async def test_one_that_is_killed(several: Several) -> None:
    """Its callers go on at another one at once, on the same machine: nobody waits for its lease."""
    await several.start(lease="1h")
    session = await several.initialize(headers=ME)
    for n in range(1, 4):
        assert await several.count(session=session, headers=ME) == n
    owner = several.owner()
    await written(owner)
    await several.kill(owner)
    assert [await several.count(session=session, headers=ME) for _ in range(3)] == [4, 5, 6]
    assert len(several.server.posts("initialize")) == 1
    assert several.told_of(events.MemberBuried)


async def test_a_token_that_was_renewed(tmp_path: Path) -> None:
    """A caller whose token says who it is goes on with another one, wherever each of them comes to, and also
    when whoever had accepted the first is gone.
    """
    async with open_several(tmp_path / "state", TokenServer()) as several:
        await several.start(3)
        first, second, third = (bearer(token()) for _ in range(3))
        assert [await several.count(headers=first) for _ in range(3)] == [1, 2, 3]
        known = several.owner().proxy.core.acceptances.known
        await until(lambda: known.callers)
        assert [await several.count(headers=second) for _ in range(3)] == [4, 5, 6]
        await several.stop(several.owner())
        assert [await several.count(headers=third) for _ in range(2)] == [7, 8]


async def test_one_that_is_stopped_finishes_first(several: Several) -> None:
    """A call under way comes to its end, also one that was sent on by another member."""
    await several.start()
    await several.count(headers=ME)
    owner = several.owner()
    go_on = asyncio.Event()

    async def slow(_: web.Request, message: Any) -> web.Response:
        await go_on.wait()
        return reply_to(message, {"count": 77})

    several.server.on["tools/call"] = slow
    calls = [asyncio.create_task(bench.post(call(), headers=ME)) for bench in several.benches]
    await until(lambda: len(several.server.posts("tools/call")) == 4)
    stopping = asyncio.create_task(several.stop(owner))
    await until(lambda: cluster_of(owner).shards.draining)
    go_on.set()
    assert [(await answer).json["result"]["count"] for answer in calls] == [77, 77, 77]
    await stopping
    del several.server.on["tools/call"]
    assert await several.count(headers=ME) == 2


async def test_a_stream_at_another_member(several: Several) -> None:
    """What the server says of its own accord is heard there, and again where its client comes back to."""
    await several.start()
    stream: list[web.StreamResponse] = []

    async def listen(request: web.Request, _: Any) -> web.StreamResponse:
        opened = await begin_stream(request)
        stream.append(opened)
        await asyncio.sleep(3600)
        return opened

    several.server.on["GET"] = listen
    session = await several.initialize(headers=ME)
    await several.count(session=session, headers=ME)
    other = several.others(several.owner())[0]
    async with other.request("GET", session=session, headers=ME) as response:
        assert response.status == 200
        await until(lambda: stream)
        await write_event(stream[0], notification("notifications/tools/list_changed"))
        events_read = await read_events(response.content, 1)
    assert events_read[0][1]["method"] == "notifications/tools/list_changed"


async def test_a_cancellation_at_another_member(several: Several) -> None:
    """It reaches the server for the call that came in elsewhere."""
    await several.start()
    session = await several.initialize(headers=ME)
    go_on = asyncio.Event()

    async def slow(_: web.Request, message: Any) -> web.Response:
        await go_on.wait()
        return reply_to(message, {})

    several.server.on["tools/call"] = slow
    one, other = several.benches[:2]
    calling = asyncio.create_task(one.post({**call(), "id": 5}, session=session, headers=ME))
    await until(lambda: several.server.posts("tools/call"))
    cancel = {**notification("notifications/cancelled"), "params": {"requestId": 5}}
    assert (await other.post(cancel, session=session, headers=ME)).status == 202
    await until(lambda: several.server.posts("notifications/cancelled"))
    go_on.set()
    await calling


async def test_a_parked_call_at_another_member(several: Several) -> None:
    """The client's answers come to another member, and go on to the call that waits for them."""
    await several.start(2)
    answered = asyncio.Event()
    form = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}

    async def tool(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        question = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": form}
        await write_event(response, question)
        await answered.wait()
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"count": 9}})
        return response

    async def hear(_: web.Request, __: Any) -> web.Response:
        answered.set()
        return web.Response(status=202)

    several.server.on |= {"tools/call": tool, "response": hear}
    first = modern()
    asked = (await several.post(first, headers={**ME, **MODERN})).json["result"]
    retry = modern(
        identifier=2,
        requestState=asked["requestState"],
        inputResponses={key: {"action": "accept", "content": {}} for key in asked["inputRequests"]},
    )
    # The two members take turns, so this one comes to the other.
    answer = await several.post(retry, headers={**ME, **MODERN})
    assert answer.json["result"]["count"] == 9


async def test_a_parked_call_whose_member_is_killed(several: Several) -> None:
    """Its server is told that nobody will answer, and its client to make it again."""
    await several.start(2, lease="1h")
    form = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}

    async def tool(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        question = {"jsonrpc": "2.0", "id": "q-7", "method": "elicitation/create", "params": form}
        await write_event(response, question)
        await asyncio.sleep(3600)
        return response

    several.server.on["tools/call"] = tool
    asked = (await several.post(modern(), headers={**ME, **MODERN})).json["result"]
    owner = several.owner()
    await written(owner)
    await several.kill(owner)
    retry = modern(
        requestState=asked["requestState"],
        inputResponses={key: {"action": "accept", "content": {}} for key in asked["inputRequests"]},
    )
    answer = await several.post(retry, headers={**ME, **MODERN})
    assert "has been given up" in answer.json["error"]["message"]
    del several.server.on["tools/call"]
    again = modern()
    assert (await several.post(again, headers={**ME, **MODERN})).json["result"]["count"] == 1
    await until(lambda: several.server.posts("response"))
    [(_, refused)] = several.server.posts("response")
    assert (refused["id"], "error" in refused) == ("q-7", True)


async def test_proxies_of_other_servers_do_not_meet(several: Several) -> None:
    """One directory is for proxies in front of the same server."""
    await several.start(1)
    async with HttpServer() as other:
        stranger = Several(other, several.path)
        with pytest.raises(CannotStart, match="in use by a proxy in front of"):
            await stranger.start(1)
        await stranger.close()


async def test_an_error_has_the_id_of_its_request(several: Several) -> None:
    """The owner cannot be reached, and lives: the client is told so in its own words."""
    await several.start(2, acquire_timeout="0.2s")
    await several.count(headers=ME)
    owner = several.owner()
    (other,) = several.others(owner)
    for address in cluster_of(owner)._listener.addresses:
        Path(address.removeprefix("unix:")).unlink()
    cluster_of(other).peers.close()  # the connections that there are
    answer = await other.post(call(identifier=7), headers=ME)
    assert answer.status == 503
    assert (answer.error[0], answer.error[2]) == (7, "peer-unreachable")
    assert several.told_of(events.Forwarded)[-1].outcome == "refused"
