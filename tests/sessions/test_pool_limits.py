"""The pool at its limits: whose session makes room, and how many may wait for how long."""

import asyncio
from typing import Any

import pytest
from session_fakes import REFUSED, by_hand, cancel, key, now, prompt, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import AcquireTimeout, TooManyWaiters, UpstreamUnreachable
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


# -- limits and eviction ---------------------------------------------------------------------------


async def test_at_its_limit_a_principal_gives_up_its_own():
    """At the principal's limit its own longest idle session is closed for its next, nobody else's."""
    stand = by_hand(max_sessions_per_principal=2)
    stranger = await stand.get(key("q"))
    stranger.release()
    first = await stand.get(key("p", "1"))
    second = await stand.get(key("p", "2"))
    first.release()
    await asyncio.sleep(1.0)
    second.release()
    third = await stand.get(key("p", "3"))
    assert first.slot.session.closed_for == "evicted"
    assert {second.slot.session, third.slot.session, stranger.slot.session} == stand.server.live
    stand.check()
    await stand.close_and_check()


async def test_at_the_global_limit_the_longest_idle_goes():
    """At the global limit the longest idle session of all is closed."""
    stand = by_hand(max_sessions=2)
    stranger = await stand.get(key("q"))
    stranger.release()
    mine = await stand.get(key("p", "1"))
    mine.release()
    await stand.get(key("p", "2"))
    assert stranger.slot.session.closed_for == "evicted"
    assert not mine.slot.session.closed
    await stand.close_and_check()


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_principal"])
async def test_a_leased_session_is_never_evicted(limit):
    """At a limit with everything in use, one waits until something is released."""
    stand = by_hand(**{limit: 2})
    holder, other = await stand.get(key("p", "1")), await stand.get(key("p", "2"))
    request = await stand.ask(key("p", "3"))
    assert len(stand.server.sessions) == 2
    other.release()
    await settle()
    assert other.slot.session.closed_for == "evicted"
    assert holder.slot.usable
    stand.server.last.finish_opening()
    await request
    stand.check()
    await stand.close_and_check()


async def test_a_goodbye_that_takes_long_does_not_hold_up_others():
    """The place of a session is free as soon as it leaves the pool, not when its goodbye is over."""
    stand = by_hand(max_sessions=1)
    stand.server.goodbyes_by_hand = True
    (await stand.get(key("p"))).release()
    lease = await stand.get(key("q"))
    assert lease.slot.usable
    assert stand.pool.books.count_states()["closing"] == 1
    stand.check()
    await stand.close_and_check()


async def test_room_goes_to_who_waits_longest():
    """Room that is made goes to the keys in the order of their first waiters."""
    stand = by_hand(max_sessions=2)
    one, two = await stand.get(key("1")), await stand.get(key("2"))
    third, fourth = await stand.ask(key("3")), await stand.ask(key("4"))
    two.retire("lost")
    await settle()
    assert [session.key.principal for session in stand.server.opening] == ["3"]
    one.release()
    await settle()
    assert [session.key.principal for session in stand.server.opening] == ["3", "4"]
    await cancel(third)
    await cancel(fourth)
    await stand.close_and_check()


async def test_a_session_that_nobody_waits_for_any_more_makes_room():
    """A session whose demand went away during its handshake gives way to who waits for room."""
    stand = by_hand(max_sessions=1)
    hasty = await stand.ask(key("p"))
    patient = await stand.ask(key("q"))
    await cancel(hasty)
    stand.server.last.finish_opening()
    await settle()
    stand.check()
    assert [session.key for session in stand.server.opening] == [key("q")]
    stand.server.last.finish_opening()
    await patient
    assert len(stand.server.live) == 1
    await stand.close_and_check()


# -- bounds on waiting -----------------------------------------------------------------------------


async def test_too_many_waiters():
    """One more than ``--max-waiters`` is refused at once, and it is told."""
    stand = by_hand(max_sessions=1, max_waiters=2)
    holder = await stand.get()
    waiters = [await stand.ask(), await stand.ask(key("q"))]
    for session_key in (key(), key("q"), key("r")):
        with pytest.raises(TooManyWaiters):
            await stand.acquire(session_key)
    assert [event.reason for event in stand.told(events.LeaseFailed)] == ["too-many-waiters"] * 3
    assert len(stand.pool.queue) == 2
    stand.check()
    assert key("r") not in stand.books.buckets
    for waiter in waiters:
        await cancel(waiter)
    holder.release()
    await stand.close_and_check()


async def test_no_waiters_at_all():
    """With ``--max-waiters 0`` a session is still opened for who needs one; who would queue is refused."""
    stand = by_hand(max_waiters=0, max_sessions=1)
    holder = await stand.get()
    with pytest.raises(TooManyWaiters):
        await stand.acquire()
    holder.release()
    (await stand.get()).release()
    await stand.close_and_check()


async def test_who_waits_for_a_handshake_waits_for_that():
    """However short the time is in which a session should become free."""
    stand = prompt(open_seconds=13.0)
    leases = await asyncio.gather(*(stand.acquire(usage=Usage.COMMON, timeout=1.0) for _ in range(5)))
    assert now() == 13.0
    assert [lease.waited_seconds for lease in leases] == [13.0] * 5
    for lease in leases:
        lease.release()
    await stand.close_and_check()


async def test_who_waits_for_the_next_handshake_waits_for_that_too():
    """Sessions that are opened one after the other come to all who wait, within the time for it all."""
    stand = prompt(open_seconds=13.0, open_concurrency=1, handshake_timeout_seconds=60.0)
    asked = [await stand.ask(timeout=10.0) for _ in range(7)]
    results: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
    assert now() == 70.0
    assert [lease.waited_seconds for lease in results[:5]] == [13.0, 26.0, 39.0, 52.0, 65.0]
    assert all(isinstance(error, AcquireTimeout) for error in results[5:])
    assert "--open-concurrency" in results[5].message
    assert "--max-sessions" not in results[5].message
    await stand.close_and_check()


async def test_a_handshake_that_waits_to_try_again_is_waited_for_no_longer():
    """A server that takes no connections is tried again as long as the shorter time lasts."""
    stand = prompt(open_seconds=0.0)
    stand.server.open_error = REFUSED
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=5.0)
    assert now() == pytest.approx(5.0, abs=1.0)
    patient = await stand.ask(timeout=30.0)
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=2.0)
    assert now() == pytest.approx(7.0, abs=1.0)
    stand.server.open_error = None
    assert (await patient).slot.usable
    await stand.close_and_check()


async def test_a_handshake_elsewhere_is_not_waited_for():
    """What another key's session takes is no reason to wait longer for room."""
    stand = by_hand(max_sessions=1)
    opening = await stand.ask(key("other"), timeout=100.0)
    with pytest.raises(AcquireTimeout):
        await stand.acquire(timeout=3.0)
    assert now() == 3.0
    await cancel(opening)
    await stand.close_and_check()


async def test_who_leaves_while_a_handshake_is_under_way_leaves_nothing():
    """Long after the shorter time was over."""
    stand = by_hand()
    request = await stand.ask(timeout=1.0)
    await asyncio.sleep(30)
    await cancel(request)
    assert not len(stand.pool.queue)
    stand.server.last.finish_opening()
    await settle()
    stand.check()
    assert (await stand.acquire()).slot.session is stand.server.sessions[0]
    await stand.close_and_check()


async def test_acquire_timeout():
    """Who waits for a session in use until the deadline is told so, with a hint when to come back."""
    stand = by_hand(max_sessions=1)
    await stand.get()
    with pytest.raises(AcquireTimeout) as caught:
        await stand.acquire(timeout=7.0)
    assert now() == 7.0
    assert caught.value.http_status == 503
    assert "Retry-After" in caught.value.headers()
    (failed,) = stand.told(events.LeaseFailed)
    assert (failed.reason, failed.waited_seconds) == ("acquire-timeout", 7.0)
    stand.check()
    await stand.close_and_check()
