"""Sessions that nobody uses any more: kept alive for a while, then closed."""

import asyncio

import pytest
from session_fakes import by_hand, now, settle

from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


async def test_idle_sessions_expire():
    """A session is closed when it has been idle for ``--idle-timeout``; one in use is not."""
    stand = by_hand(idle_timeout_seconds=60.0)
    busy, idle = await stand.get(), await stand.get()
    await asyncio.sleep(1000.0)
    idle.release()
    await asyncio.sleep(59.0)
    upkeep.maintain(stand.pool)
    assert stand.books.counted == 2
    await asyncio.sleep(1.0)
    upkeep.maintain(stand.pool)
    await settle()
    assert idle.slot.session.closed_for == "idle"
    assert stand.server.live == {busy.slot.session}
    stand.check()
    await stand.close_and_check()


async def test_abandoned_sessions_are_closed_after_linger():
    """A session whose owner said goodbye is closed after ``--linger``."""
    stand = by_hand(linger_seconds=5.0)
    lease = await stand.get(usage=Usage.OWNED)
    lease.slot.lingering_since = now()
    await asyncio.sleep(100.0)
    upkeep.maintain(stand.pool)
    assert lease.slot.usable
    lease.release()
    await asyncio.sleep(5.0)
    upkeep.maintain(stand.pool)
    await settle()
    assert lease.slot.session.closed_for == "linger"
    stand.check_empty()


async def test_maintenance_keeps_sessions_alive():
    """Sessions in the pool get the time regularly, for their keep-alive; others do not."""
    stand = by_hand()
    lease = await stand.get()
    await stand.ask()
    opening = stand.server.last
    await asyncio.sleep(5.0)
    upkeep.maintain(stand.pool)
    assert lease.slot.session.ticks == [5.0]
    assert opening.ticks == []
    opening.finish_opening()
    await stand.close_and_check()


async def test_a_session_may_turn_out_dead_during_maintenance():
    """Maintenance survives that sessions leave the pool in the course of it."""
    stand = by_hand()
    leases = [await stand.get() for _ in range(3)]
    for lease in leases:
        lease.slot.session.tick = lambda _, session=lease.slot.session: session.lose()
        lease.release()
    upkeep.maintain(stand.pool)
    await settle()
    stand.check_empty()
