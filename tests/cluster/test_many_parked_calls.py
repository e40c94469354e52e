"""Calls that wait for their clients' answers at one of three members: those come to another one, while the
holder of the call is there, is being stopped, or was killed.

FULL_FAULTS=1 has fifty of each (`make cluster`); without it one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from counting import Note
from http_server import HttpServer, begin_stream, reply_to, write_event
from proxy_bench import Answer, Bench, until
from selection import FULL_FAULTS
from several_bench import MODERN, Several, cluster_of, modern, open_several, written

from mcp_session_proxy import events

ROUNDS = 50 if FULL_FAULTS else 1
FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class AskingTool:
    """A tool that asks its caller, and does its work once that has accepted; it asks each only once."""

    def __init__(self, server: HttpServer) -> None:
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        server.on |= {"tools/call": self._work, "response": self._hear}

    async def _work(self, request: web.Request, message: Any) -> web.StreamResponse:
        caller = request.headers["Authorization"]
        if caller in self.begun:
            return reply_to(message, {"asked": False})
        self.begun[caller] += 1
        answer = self._answers[caller] = asyncio.get_running_loop().create_future()
        stream = await begin_stream(request)
        question = {"jsonrpc": "2.0", "id": caller, "method": "elicitation/create", "params": FORM}
        await write_event(stream, question)
        accepted = (await answer).get("result", {}).get("action") == "accept"
        (self.done if accepted else self.refused)[caller] += 1
        await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], "result": {"done": accepted}})
        return stream

    async def _hear(self, _: web.Request, message: Any) -> web.Response:
        self._answers[message["id"]].set_result(message)
        return web.Response(status=202)


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with open_several(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def tool(several: Several) -> AskingTool:
    return AskingTool(several.server)


class Caller:
    """One caller with a call of its own, which is parked where it came in: there was nobody's before."""

    def __init__(self, name: str, holder: Bench) -> None:
        self.holder = holder
        self._headers = {"Authorization": name, **MODERN}
        self._asked: Any = None

    async def park(self) -> None:
        answer = await self.holder.post(modern(), headers=self._headers)
        assert answer.status == 200, answer.body
        self._asked = answer.json["result"]
        assert self._asked["resultType"] == "input_required"

    async def call_again(self, to: Bench) -> Answer:
        """Make the call anew."""
        return await to.post(modern(3), headers=self._headers)

    async def come_back(self, to: Bench) -> Answer:
        """Bring the answer."""
        answers = {key: {"action": "accept", "content": {}} for key in self._asked["inputRequests"]}
        retry = modern(2, requestState=self._asked["requestState"], inputResponses=answers)
        return await to.post(retry, headers=self._headers)


@asynccontextmanager
async def last_moments(several: Several, member: Bench) -> AsyncIterator[None]:
    """It has stopped to serve meanwhile, and gives up what is under way at the end of them."""
    over, finish = asyncio.Event(), member.proxy.front.finish

    async def finish_late(patience_seconds: float) -> int:
        await over.wait()
        return await finish(patience_seconds)

    member.proxy.front.finish = finish_late  # type: ignore[method-assign]
    stopping = asyncio.create_task(several.stop(member))
    try:
        await until(lambda: member.endpoint.draining)
        yield
    finally:
        over.set()
        await stopping


@asynccontextmanager
async def standing_still(member: Bench) -> AsyncIterator[asyncio.Event]:
    """As by SIGSTOP: it beats no more, and answers nothing that comes from other members; the event is that
    something has come. When it goes on, it knows by its clock how late it is.
    """
    cluster, goes_on, reached = cluster_of(member), asyncio.Event(), asyncio.Event()
    door = cluster._listener.server._door
    check = door._check_member

    async def stands(other: str) -> None:
        reached.set()
        await goes_on.wait()
        await check(other)

    door._check_member = stands
    cluster._tasks.cancel()
    await cluster._tasks.ended()
    yield reached
    cluster.shards.membership.sure_until = 0.0
    door._check_member = check
    goes_on.set()
    cluster._tasks.spawn(cluster.shards.keep(), "beat")


async def end_lease(member: Bench, seen_by: Bench) -> None:
    """It has run out, and another one sees it."""
    cluster = cluster_of(seen_by)
    (stored,) = await cluster.shards.membership.others()
    assert stored.member == cluster_of(member).shards.membership.member
    await cluster.shards.membership.bury(stored)
    await cluster.members.look()


async def test_at_each_other_member(several: Several, tool: AskingTool, record_property: Note) -> None:
    """The call goes on, and its result comes back there."""
    first, *others = await several.start()
    for number in range(ROUNDS):
        caller = Caller(f"Bearer {number}", first)
        await caller.park()
        answer = await caller.come_back(others[number % len(others)])
        assert answer.status == 200, answer.body
        assert answer.json["result"]["done"] is True
    assert tool.begun == tool.done == Counter(f"Bearer {number}" for number in range(ROUNDS))
    record_property("count", ROUNDS)
    record_property(
        "figures", f"{ROUNDS} parked calls, retried at another member: {tool.done.total()} continued"
    )


@pytest.mark.skipif(not FULL_FAULTS, reason="takes minutes: `make cluster`")
async def test_their_holder_is_stopped(several: Several, tool: AskingTool, record_property: Note) -> None:
    """It waits for their answers, which come by way of another one, before it ends."""
    # Until then, however busy the machine is: nobody waits for what is over.
    await several.start(drain_timeout="60s")
    for number in range(ROUNDS):
        caller = Caller(f"Bearer {number}", several.next)
        await caller.park()
        stopping = asyncio.create_task(several.stop(caller.holder))
        cluster = cluster_of(caller.holder)
        await until(lambda cluster=cluster: cluster.shards.draining)  # type: ignore[misc]
        answer = await caller.come_back(several.next)
        assert answer.status == 200, answer.body
        assert answer.json["result"]["done"] is True
        await stopping
        await several.start(1, drain_timeout="60s")
    assert tool.begun == tool.done == Counter(f"Bearer {number}" for number in range(ROUNDS))
    record_property("count", ROUNDS)
    record_property("figures", f"{ROUNDS} parked calls, their holder stopped: {tool.done.total()} continued")


async def test_their_holder_does_not_wait(several: Several, tool: AskingTool) -> None:
    """Its time to drain is over: who comes back in its last moments waits until it has gone, and is told that
    the call has been given up, for which its question was refused at the server.
    """
    holder, other = await several.start(2, drain_timeout="0s")
    caller = Caller("Bearer 0", holder)
    await caller.park()
    async with last_moments(several, holder):
        coming_back = asyncio.create_task(caller.come_back(other))
        await until(lambda: "misdirected" in [told.outcome for told in several.told_of(events.Forwarded)])
        assert not coming_back.done()
    answer = await coming_back
    assert (answer.status, answer.error[2]) == (400, "request-state-refused")
    assert "has been given up" in answer.json["error"]["message"]
    assert tool.refused == Counter(["Bearer 0"])
    assert not tool.done


async def test_their_holder_stands_still(several: Several, tool: AskingTool) -> None:
    """Who comes back by way of another one hears that the outcome is unknown, once the lease of the holder is
    over; then, that the call has been given up. The holder that goes on finds out first what it has lost, and
    does nothing of what had come meanwhile.
    """
    holder, other = await several.start(2)
    caller = Caller("Bearer 0", holder)
    await caller.park()
    await written(holder)
    async with standing_still(holder) as reached:
        coming_back = asyncio.create_task(caller.come_back(other))
        await reached.wait()
        await end_lease(holder, other)
        answer = await coming_back
        assert (answer.status, answer.error[2]) == (502, "outcome-unknown")
        answer = await caller.come_back(other)
        assert (answer.status, answer.error[2]) == (400, "request-state-refused")
    await until(lambda: not cluster_of(holder).shards.held)
    again = await caller.call_again(other)
    assert again.json["result"]["asked"] is False
    await until(lambda: tool.refused["Bearer 0"])
    assert not tool.done


async def test_their_holder_is_killed(several: Several, tool: AskingTool, record_property: Note) -> None:
    """Who comes back is told that the call has been given up, and makes it again: then its question is
    refused at the server, so that no tool does what nobody hears of.
    """
    await several.start(lease="1h")
    for number in range(ROUNDS):
        caller = Caller(f"Bearer {number}", several.next)
        await caller.park()
        await written(caller.holder)
        await several.kill(caller.holder)
        answer = await caller.come_back(several.next)
        assert "has been given up" in answer.json["error"]["message"]
        again = await caller.call_again(several.next)
        assert again.status == 200, again.body
        assert again.json["result"]["asked"] is False
        await until(lambda number=number: tool.refused[f"Bearer {number}"])  # type: ignore[misc]
        await several.start(1, lease="1h")
    assert tool.begun == tool.refused == Counter(f"Bearer {number}" for number in range(ROUNDS))
    assert not tool.done
    record_property("count", ROUNDS)
    record_property(
        "figures",
        f"{ROUNDS} parked calls, their holder killed: {tool.refused.total()} refused, 0 executed unheard",
    )
