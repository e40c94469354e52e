"""Cancelling at every suspension point: opening a session, an exchange, a modern call and its parking.

A task is cancelled at its first, second, third ... step until it ends before it can be. Whatever the step,
nothing may be left: no session at the server, no call in flight, no visit that has not ended, no task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from fakes import FakeServer, FakeVisit, Recorder, make_session, settle
from modern_fakes import ADA, ASK_NAME, FakeChannel, Visit, modern

from mcp_session_proxy.exchange.attribution import Attribution
from mcp_session_proxy.exchange.call import Asked, ModernCall
from mcp_session_proxy.exchange.exchange import Exchange
from mcp_session_proxy.exchange.relay import PostChannel
from mcp_session_proxy.protocol.jsonrpc import Request
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

MAX_STEPS = 200


async def cancel_at(step: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Run work for so many steps of the loop, then cancel it; gives whether it was still running."""
    task = asyncio.ensure_future(work)
    for _ in range(step):
        await asyncio.sleep(0)
    running = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return running


async def sweep(scene: Callable[[int], Coroutine[Any, Any, bool]]) -> int:
    """Play a scene, cancelled at one step after the other; gives how many steps there were."""
    for step in range(MAX_STEPS):
        if not await scene(step):
            return step
    raise AssertionError("the work never ends")


async def rest(server: FakeServer, session: UpstreamSession) -> None:
    """After the session's end nothing is left of it, here or at the server."""
    await settle()
    await asyncio.sleep(5)
    assert session.in_flight == 0
    await session.close("test")
    await settle()
    assert server.sessions == []
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_open() -> None:
    """A handshake that is cancelled anywhere leaves no session at the server."""

    async def scene(step: int) -> bool:
        server = FakeServer()
        session = make_session(server)
        running = await cancel_at(step, session.open(NOBODY))
        session.abandon()
        await rest(server, session)
        return running

    assert await sweep(scene) > 1


async def test_exchange() -> None:
    """A request that is cancelled anywhere leaves no call in flight, and was executed once at most."""

    async def scene(step: int) -> bool:
        server = FakeServer()
        session = make_session(server)
        await session.open(NOBODY)
        visit = cast(Any, FakeVisit(session))
        request = Request(b"1", "tools/call", b"{}")
        running = await cancel_at(step, Exchange(request, None, visit, cast(Any, None), Recorder()).run())
        assert server.executed["tools/call"] <= 1
        await rest(server, session)
        return running

    assert await sweep(scene) > 1


async def play(visit: Visit, attribution: Attribution, made: list[ModernCall]) -> None:
    """A modern call in two rounds: it is asked a question, and comes back with the answer."""
    request = modern(name="t")
    call = ModernCall(request, b"{}", {}, cast(Any, visit), attribution, Recorder())
    made.append(call)
    channel = cast(PostChannel, FakeChannel())
    ask = asyncio.ensure_future(ask_soon(call, visit.session))
    try:
        outcome = await call.next(channel, {})
        if isinstance(outcome, Asked):
            await call.next(channel, dict.fromkeys(outcome.questions, ADA))
    finally:
        ask.cancel()


async def ask_soon(call: ModernCall, session: UpstreamSession) -> None:
    """The server asks in the course of the call."""
    await asyncio.sleep(0)
    await call.ask(session, ASK_NAME)


async def test_modern_call() -> None:
    """A modern call that is cancelled anywhere, before, between or after its rounds, ends its visit once."""

    async def scene(step: int) -> bool:
        server = FakeServer()
        session = make_session(server)
        await session.open(NOBODY)
        visit, made = Visit(session), list[ModernCall]()
        running = await cancel_at(step, play(visit, Attribution(), made))
        for call in made:
            call.abandon()  # what parking does with a call whose client does not come back
        await settle()
        await asyncio.sleep(5)
        assert visit.ended == len(made)
        assert server.executed["tools/call"] <= 1
        await rest(server, session)
        return running

    assert await sweep(scene) > 1
