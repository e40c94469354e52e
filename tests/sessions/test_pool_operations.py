"""How sessions end by age and use, and what an operator can do to the pool."""

import asyncio

import pytest
from session_fakes import SessionMaker, Stand

from mcp_session_proxy.errors import AcquireTimeout
from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


def stand(**limits):
    """A pool whose server answers by itself."""
    return Stand(SessionMaker(), **limits)


# -- wear --------------------------------------------------------------------------------------------


async def test_old_idle_session_is_closed():
    """A session over its lifetime is closed while nobody holds it."""
    at = stand(max_lifetime_seconds=100.0, idle_timeout_seconds=1000.0)
    lease = await at.get()
    lease.release()
    await asyncio.sleep(89)
    upkeep.maintain(at.pool)
    assert at.books.counted == 1
    await asyncio.sleep(12)
    upkeep.maintain(at.pool)
    await asyncio.sleep(1)
    assert lease.slot.session.closed_for == "lifetime"
    at.check_empty()


async def test_old_held_session_goes_when_it_is_released():
    """A session over its lifetime is taken from nobody, and given to nobody else."""
    at = stand(max_lifetime_seconds=100.0)
    old = await at.get(usage=Usage.COMMON)
    await asyncio.sleep(101)
    upkeep.maintain(at.pool)
    new = await at.get(usage=Usage.COMMON)
    assert new.slot is not old.slot
    assert not old.slot.session.closed
    old.release()
    await asyncio.sleep(1)
    assert old.slot.session.closed_for == "lifetime"
    new.release()
    await at.close_and_check()


async def test_old_sessions_do_not_end_together():
    """Sessions that began together end one at a time."""
    at = stand(max_lifetime_seconds=100.0, idle_timeout_seconds=1000.0, open_concurrency=5)
    leases = [await at.get() for _ in range(5)]
    for lease in leases:
        lease.release()
    await asyncio.sleep(101)
    left = []
    for _ in range(5):
        upkeep.maintain(at.pool)
        left.append(at.books.counted)
    assert left == [4, 3, 2, 1, 0]
    await at.close_and_check()


async def test_used_up_session_is_replaced():
    """A session that has served its number of requests is given to nobody new."""
    at = stand(max_requests=3)
    lease = await at.get(usage=Usage.COMMON)
    lease.slot.session.record.requests = 3
    lease.release()
    upkeep.maintain(at.pool)
    await asyncio.sleep(1)
    assert lease.slot.session.closed_for == "requests"
    at.check_empty()


# -- turned away ---------------------------------------------------------------------------------------


async def test_retry_after_follows_how_long_sessions_are_held():
    """Who gets no session is told to come back in about the time that others hold theirs."""
    at = stand(max_sessions=1)
    for _ in range(50):
        lease = await at.get()
        await asyncio.sleep(8)
        lease.release()
    lease = await at.get()
    with pytest.raises(AcquireTimeout) as caught:
        await at.acquire(timeout=1.0)
    assert caught.value.headers()["Retry-After"] == "8"
    lease.release()
    await at.close_and_check()


# -- an operator's hand ----------------------------------------------------------------------------------


async def test_paused_pool_lets_callers_wait():
    """During a pause nobody is given a session, not even an idle one; afterwards everybody is."""
    at = stand()
    (await at.get()).release()
    at.pool.pause()
    waiting = [asyncio.ensure_future(at.acquire(usage=Usage.COMMON, timeout=60.0)) for _ in range(3)]
    await asyncio.sleep(30)
    assert not any(task.done() for task in waiting)
    at.pool.resume()
    for lease in await asyncio.gather(*waiting):
        lease.release()
    await at.close_and_check()


async def test_pause_has_the_callers_deadline():
    """Who waits through a pause for too long gets an error."""
    at = stand()
    at.pool.pause()
    with pytest.raises(AcquireTimeout, match="paused"):
        await at.acquire(timeout=5.0)
    at.pool.resume()
    await at.close_and_check()


async def test_held_sessions_survive_a_pause():
    """Who holds a session keeps it."""
    at = stand()
    lease = await at.get()
    at.pool.pause()
    lease.release()
    at.pool.resume()
    assert not lease.slot.session.closed
    await at.close_and_check()


async def test_closing_ends_a_pause():
    """A shutdown does not wait for an operator."""
    at = stand()
    at.pool.pause()
    waiting = asyncio.ensure_future(at.acquire(timeout=60.0))
    await asyncio.sleep(1)
    await at.close_and_check()
    with pytest.raises(Exception, match="shutting down"):
        await waiting


async def test_reconnect_relieves_everyone():
    """After a reconnect, idle sessions are closed, held ones when they come back, and new ones are opened."""
    at = stand()
    held, idle = await at.get(), await at.get()
    idle.release()
    assert upkeep.reconnect(at.pool) == 2
    await asyncio.sleep(1)
    assert idle.slot.session.closed_for == "reconnect"
    assert not held.slot.session.closed
    held.release()
    await asyncio.sleep(1)
    assert held.slot.session.closed_for == "reconnect"
    at.check_empty()


async def test_kill_takes_one_session():
    """A killed session is closed at once, whoever holds it; the lease's end is harmless."""
    at = stand()
    lease, other = await at.get(), await at.get()
    assert upkeep.kill(at.pool, lease.slot.session.tag)
    await asyncio.sleep(1)
    assert lease.slot.session.closed_for == "killed"
    assert not other.slot.session.closed
    assert not upkeep.kill(at.pool, lease.slot.session.tag)
    lease.release()
    other.release()
    await at.close_and_check()
