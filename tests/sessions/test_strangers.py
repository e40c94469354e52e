"""A full pool and callers whom the server has not accepted: nobody pays for a handshake that fails."""

import asyncio

import pytest
from session_fakes import SessionMaker, Stand, key, settle

from mcp_session_proxy.errors import TooManyWaiters, UpstreamRejected
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime

UNAUTHORIZED = UpstreamRejected(401, b"", None, {}, None)


async def full(**limits):
    """A pool whose places to stay are all taken, by nine idle sessions; the tenth is for trials."""
    stand = Stand(SessionMaker(by_hand=True), **{"max_sessions": 10, **limits})
    for number in range(9):
        (await stand.get(key(f"known {number}"), Usage.COMMON)).release()
    assert stand.books.counted == 9
    return stand


async def test_nobody_goes_for_a_stranger_whom_the_server_refuses():
    """Made-up credentials evict nothing, however many there are."""
    stand = await full()
    for number in range(20):
        task = await stand.ask(key(f"made up {number}"), Usage.COMMON)
        stand.check()
        assert len(stand.server.live) == 9
        stand.server.last.fail_opening(UNAUTHORIZED)
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(slot.key.principal for slot in stand.books.slots()) == [f"known {n}" for n in range(9)]
    await stand.close_and_check()


async def test_somebody_goes_for_a_newcomer_whom_the_server_accepts():
    """Once it has, the newcomer gets the place of one that is idle, and the server never holds too many."""
    stand = await full()
    task = await stand.ask(key("new"), Usage.COMMON)
    stand.server.last.finish_opening()
    lease = await task
    assert lease.slot.key.principal == "new"
    assert [s.key.principal for s in stand.server.sessions if s.closed_for == "evicted"] == ["known 0"]
    assert len(stand.server.live) <= 10
    stand.check()
    lease.release()
    await stand.close_and_check()


async def test_a_newcomer_that_finds_everybody_busy_waits():
    """When all sessions came into use while it was tried, it is closed again, and its caller waits on."""
    stand = await full()
    task = await stand.ask(key("new"), Usage.COMMON)
    tried = stand.server.last
    held = [await stand.get(key(f"known {number}"), Usage.COMMON) for number in range(9)]
    tried.finish_opening()
    await settle()
    assert tried.closed_for == "evicted"
    assert not task.done()
    stand.check()
    held.pop().release()
    await settle()
    stand.server.last.finish_opening()
    (await task).release()
    for lease in held:
        lease.release()
    await stand.close_and_check()


async def test_one_who_is_known_needs_no_trial():
    """A caller with a session may open another one: room is made at once, by who has the most."""
    stand = Stand(SessionMaker(by_hand=True), max_sessions=10)
    leases = [await stand.get(key("many")) for _ in range(8)]
    (await stand.get(key("few"), Usage.COMMON)).release()
    for lease in leases:
        lease.release()
    task = await stand.ask(key("few", affinity="another"), Usage.COMMON)
    assert [s.key.principal for s in stand.server.sessions if s.closed_for == "evicted"] == ["many"]
    stand.server.last.finish_opening()
    (await task).release()
    await stand.close_and_check()


async def test_strangers_do_not_fill_the_pool():
    """Handshakes for callers that nobody knows take a quarter of the places at most."""
    stand = Stand(SessionMaker(by_hand=True), max_sessions=40)
    tasks = [await stand.ask(key(f"made up {number}"), Usage.COMMON) for number in range(30)]
    assert len(stand.server.opening) == 10
    while stand.server.opening:
        stand.server.opening[0].fail_opening(UNAUTHORIZED)
        await settle()
    assert all(
        isinstance(error, UpstreamRejected) for error in await asyncio.gather(*tasks, return_exceptions=True)
    )
    await stand.close_and_check()


async def test_strangers_do_not_fill_the_queue():
    """The last quarter of the places to wait in is for callers that the server has accepted."""
    stand = Stand(SessionMaker(by_hand=True), max_sessions=1, max_waiters=4)
    lease = await stand.get(key("known"))
    strangers = [await stand.ask(key(f"made up {number}")) for number in range(3)]
    with pytest.raises(TooManyWaiters):
        await stand.acquire(key("made up 4"))
    waiting = await stand.ask(key("known"))
    assert not waiting.done()
    for task in strangers:
        task.cancel()
    await settle()
    lease.release()
    (await waiting).release()
    await stand.close_and_check()
