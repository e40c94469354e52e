"""The end of a pool: everybody is told, and nothing is left."""

import asyncio

import pytest
from session_fakes import REFUSED, by_hand, key, now, prompt, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import Draining
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


async def test_close_ends_everything():
    """Idle, leased and opening sessions are all closed, the waiters told, and nothing is left."""
    stand = by_hand(max_sessions=3)
    idle, leased = await stand.get(key("1")), await stand.get(key("2"))
    opens = await stand.ask(key("3"))
    waits = await stand.ask(key("4"))
    opening = stand.server.last
    idle.release()  # which makes room for the fourth
    await settle()
    stand.check()
    await stand.pool.close()
    for request in (opens, waits):
        with pytest.raises(Draining):
            await request
    assert leased.slot.session.closed_for == "shutdown"
    assert opening.abandoned
    assert not stand.server.live
    stand.check_empty()
    leased.release()
    stand.check_empty()


async def test_close_lets_a_handshake_end():
    """A handshake that the server answers soon comes to its end, and nobody gets the session."""
    stand = by_hand()
    opens = await stand.ask()
    opening = stand.server.last
    closing = asyncio.create_task(stand.pool.close())
    await asyncio.sleep(1.0)
    assert (opening.abandoned, closing.done()) == (False, False)
    opening.finish_opening()
    await closing
    with pytest.raises(Draining):
        await opens
    assert now() == 1.0
    stand.check_empty()


async def test_close_waits_for_a_handshake_in_vain():
    """A handshake that the server does not answer is given up after a moment."""
    stand = by_hand()
    opens = await stand.ask()
    await stand.pool.close()
    with pytest.raises(Draining):
        await opens
    assert now() == 3.0
    assert stand.server.last.abandoned
    stand.check_empty()


async def test_close_waits_for_the_goodbyes():
    """Closing takes as long as the goodbyes do."""
    stand = by_hand()
    lease = await stand.get()
    stand.server.goodbyes_by_hand = True
    closing = asyncio.create_task(stand.pool.close())
    await settle()
    assert not closing.done()
    lease.slot.session.goodbye.set_result(None)
    await closing
    stand.check_empty()


async def test_close_twice():
    """Closing is idempotent."""
    stand = by_hand()
    await stand.get()
    await asyncio.gather(stand.pool.close(), stand.pool.close())
    await stand.pool.close()
    stand.check_empty()


async def test_nothing_is_given_out_after_the_end():
    """A closed pool refuses demands at once, and says so."""
    stand = by_hand()
    await stand.pool.close()
    with pytest.raises(Draining):
        await stand.acquire()
    assert [event.reason for event in stand.told(events.LeaseFailed)] == ["draining"]
    stand.check_empty()


async def test_close_during_a_retry():
    """A handshake that waits to be tried again is given up at the end, without another attempt."""
    stand = prompt()
    stand.server.open_error = REFUSED
    request = await stand.ask(timeout=100.0)
    await asyncio.sleep(10.2)
    attempts = stand.server.last.attempts
    await stand.pool.close()
    assert stand.server.last.attempts == attempts
    assert now() < 12.0
    with pytest.raises(Draining):
        await request
    stand.check_empty()


async def test_nothing_is_prewarmed_at_the_end():
    """Closing opens nothing."""
    stand = prompt(min_idle=2)
    await stand.acquire(usage=Usage.ONCE)
    begun = len(stand.server.sessions)
    await stand.pool.close()
    assert len(stand.server.sessions) == begun
    stand.check_empty()
