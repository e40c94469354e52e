"""The pool while an operator has paused it."""

import asyncio

import pytest
from session_fakes import by_hand, cancel, key, now, settle

from mcp_session_proxy.errors import AcquireTimeout, TooManyWaiters
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


async def test_nobody_gets_a_session_during_a_pause():
    """Who waited before the pause gets nothing in it either, neither a released nor a new session."""
    stand = by_hand(max_sessions=2)
    holder, other = await stand.get(), await stand.get()
    waiter = await stand.ask()
    stand.pool.pause()
    holder.release()
    other.retire("lost")
    await settle()
    assert not waiter.done()
    assert not stand.server.opening
    stand.pool.resume()
    assert (await waiter).slot is holder.slot
    stand.check()
    await stand.close_and_check()


async def test_a_handshake_that_ends_during_a_pause():
    """A session that is opened during a pause is given out after it."""
    stand = by_hand()
    waiter = await stand.ask()
    stand.pool.pause()
    stand.server.last.finish_opening()
    await settle()
    assert not waiter.done()
    stand.pool.resume()
    await waiter
    await stand.close_and_check()


async def test_no_barging_after_a_pause():
    """Who waited through a pause is served before who comes in the moment of its end."""
    stand = by_hand(max_sessions=1)
    (await stand.get()).release()
    stand.pool.pause()
    first, second = await stand.ask(), await stand.ask()
    stand.pool.resume()
    newcomer = asyncio.create_task(stand.acquire())
    lease = await first
    assert not newcomer.done()
    lease.release()
    (await second).release()
    await newcomer
    await stand.close_and_check()


async def test_waiters_in_a_pause_are_bounded():
    """``--max-waiters`` holds in a pause, for those who wait for their own session as well."""
    stand = by_hand(max_waiters=2)
    stand.pool.pause()
    own = asyncio.create_task(stand.pool.resumed(key(), now() + 5.0))
    waiter = await stand.ask()
    assert len(stand.pool.queue) == 2
    with pytest.raises(TooManyWaiters):
        await stand.acquire()
    with pytest.raises(TooManyWaiters):
        await stand.pool.resumed(key(), now() + 5.0)
    with pytest.raises(AcquireTimeout, match="paused"):
        await own
    assert now() == 5.0
    assert len(stand.pool.queue) == 1
    await cancel(waiter)
    stand.check_empty()
    await stand.close_and_check()


async def test_nothing_is_prewarmed_in_a_pause():
    """A pause keeps the pool from opening sessions in advance."""
    stand = by_hand(min_idle=1)
    await stand.get(usage=Usage.ONCE)
    stand.pool.pause()
    stand.server.last.finish_opening()
    await settle()
    begun = len(stand.server.sessions)
    waiter = await stand.ask(usage=Usage.ONCE)
    assert len(stand.server.sessions) == begun
    stand.pool.resume()
    await waiter
    assert len(stand.server.sessions) == begun + 1
    await stand.close_and_check()


async def test_pausing_and_resuming_twice():
    """Pause and resume are idempotent, and may follow one another without a step between."""
    stand = by_hand()
    stand.pool.resume()
    stand.pool.pause()
    stand.pool.pause()
    own = asyncio.create_task(stand.pool.resumed(key(), now() + 5.0))
    await settle()
    stand.pool.resume()
    stand.pool.pause()
    await settle()
    assert not own.done()
    stand.pool.resume()
    await own
    await stand.close_and_check()
