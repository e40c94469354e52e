"""The pool's own promises: who is served next, with which session, and when another one is opened."""

import asyncio

import pytest
from session_fakes import SHARING_USAGES, by_hand, cancel, settle

from mcp_session_proxy.errors import Draining
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.state import SessionState

pytestmark = pytest.mark.looptime


# -- hand-off --------------------------------------------------------------------------------------


async def test_waiters_are_served_first_come_first_served():
    """Released sessions go to waiters in the order of their arrival."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    order = []

    async def use(number):
        lease = await stand.acquire()
        order.append(number)
        lease.release()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(use(number)))
        await settle()
    holder.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert len(stand.server.sessions) == 1
    await stand.close_and_check()


async def test_a_released_session_is_owned_before_anybody_wakes():
    """The lease is recorded in the step of the release, not when the waiter wakes."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    waiter = await stand.ask()
    holder.release()
    assert holder.slot.state is SessionState.LEASED
    assert len(stand.pool.queue) == 0
    assert (await waiter).slot is holder.slot
    await stand.close_and_check()


async def test_checkout_is_lifo():
    """The session that was released last is taken first."""
    stand = by_hand()
    one, two = await stand.get(), await stand.get()
    two.release()
    one.release()
    assert (await stand.get()).slot is one.slot
    assert (await stand.get()).slot is two.slot
    await stand.close_and_check()


@pytest.mark.parametrize("usage", SHARING_USAGES)
async def test_those_who_share_are_served_together(usage):
    """One handshake serves all who wait for a session that they share."""
    stand = by_hand()
    requests = [await stand.ask(usage=usage) for _ in range(10)]
    assert len(stand.server.sessions) == 1
    stand.server.last.finish_opening()
    leases = await asyncio.gather(*requests)
    assert len({lease.slot for lease in leases}) == 1
    for lease in leases:
        stand.check()
        lease.release()
    assert leases[0].slot.state is SessionState.IDLE
    await stand.close_and_check()


async def test_releasing_twice_is_releasing_once():
    """A lease given back, declined or retired once is over."""
    stand = by_hand()
    one, two = await stand.get(usage=Usage.COMMON), await stand.get(usage=Usage.COMMON)
    one.release()
    one.release()
    one.decline()
    one.retire("lost")
    stand.check()
    assert two.slot.leases == 1
    assert two.slot.usable
    await stand.close_and_check()


async def test_a_session_for_one_request_is_closed_afterwards():
    """ONCE: the session is closed with the lease and never used again."""
    stand = by_hand()
    lease = await stand.get(usage=Usage.ONCE)
    lease.release()
    await settle()
    assert lease.slot.session.closed_for == "once"
    assert (await stand.get(usage=Usage.ONCE)).slot is not lease.slot
    await stand.close_and_check()


# -- reclaiming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [Usage.EXCLUSIVE, Usage.COMMON, Usage.JOINT, Usage.OWNED])
async def test_a_client_gets_its_own_session_back(usage):
    """The session that a client used before is leased to it again, whatever else is idle."""
    stand = by_hand()
    lease = await stand.get(usage=usage)
    lease.release()
    again = stand.pool.reclaim(lease.slot, usage)
    assert again is not None
    assert again.slot is lease.slot
    stand.check()
    again.release()
    stand.check()
    await stand.close_and_check()


async def test_its_own_session_is_shared_if_need_be():
    """Reclaiming takes a session that another client has by now; both leave it before the next one comes."""
    stand = by_hand(max_sessions=1)
    lease = await stand.get()
    lease.release()
    other = await stand.get()
    again = stand.pool.reclaim(lease.slot, Usage.EXCLUSIVE)
    waiter = await stand.ask()
    other.release()
    await settle()
    assert not waiter.done()
    again.release()
    assert (await waiter).slot is lease.slot
    await stand.close_and_check()


async def test_a_session_that_is_gone_is_not_reclaimed():
    """What left the pool is not taken back, nor anything after the end."""
    stand = by_hand()
    lease, other = await stand.get(), await stand.get()
    lease.retire("lost")
    assert stand.pool.reclaim(lease.slot, Usage.EXCLUSIVE) is None
    other.release()
    await stand.close_and_check()
    assert stand.pool.reclaim(other.slot, Usage.EXCLUSIVE) is None


# -- growth ----------------------------------------------------------------------------------------


async def test_growth_is_one_at_a_time():
    """However many wait, one session of a key is opened at a time."""
    stand = by_hand()
    requests = [await stand.ask() for _ in range(3)]
    for number in (1, 2, 3):
        assert len(stand.server.sessions) == number
        stand.server.last.finish_opening()
        await settle()
    assert len({(await request).slot for request in requests}) == 3
    assert len(stand.server.sessions) == 3
    await stand.close_and_check()


async def test_growth_as_configured():
    """``--open-concurrency`` sessions of a key are opened at a time."""
    stand = by_hand(open_concurrency=2)
    requests = [await stand.ask() for _ in range(3)]
    assert len(stand.server.opening) == 2
    stand.server.sessions[1].finish_opening()
    await settle()
    assert requests[0].done()  # first come, first served, whichever session it is
    assert len(stand.server.opening) == 2
    await stand.close_and_check()
    for request in requests[1:]:
        with pytest.raises(Draining):
            await request


async def test_a_freed_session_beats_a_new_one():
    """Who waits for a handshake takes a session that becomes free meanwhile, and demand is looked at anew."""
    stand = by_hand()
    holder = await stand.get()
    first, second = await stand.ask(), await stand.ask()
    assert len(stand.server.opening) == 1
    holder.release()
    assert (await first).slot is holder.slot
    stand.server.last.finish_opening()
    await second
    assert len(stand.server.sessions) == 2
    await stand.close_and_check()


async def test_demand_that_went_away_opens_nothing():
    """When the waiters have left, no further session is opened for them."""
    stand = by_hand()
    first, second, third = await stand.ask(), await stand.ask(), await stand.ask()
    await cancel(second)
    await cancel(third)
    stand.server.last.finish_opening()
    await first
    await settle()
    assert len(stand.server.sessions) == 1
    await stand.close_and_check()
