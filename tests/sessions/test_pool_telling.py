"""What the pool tells of itself."""

import asyncio

import pytest
from session_fakes import by_hand, cancel, key, prompt, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import UpstreamError

pytestmark = pytest.mark.looptime


async def test_events_of_a_life():
    """Opening and reuse are told with short tags and seconds; a lease knows how long it was waited for."""
    stand = prompt(open_seconds=2.0)
    lease = await stand.acquire()
    lease.release()
    again = await stand.acquire()
    assert (lease.waited_seconds, again.waited_seconds) == (2.0, 0.0)
    tag = lease.slot.session.tag
    assert stand.events == [
        events.SessionOpened(session=tag, principal="p", why="demand", seconds=2.0),
        events.SessionReused(session=tag, principal="p"),
    ]
    await stand.close_and_check()


async def test_a_pool_in_one_line():
    """``repr`` shows how many sessions are in each state, and how many wait."""
    stand = by_hand(max_sessions=2)
    await stand.get()
    (await stand.get(key("q"))).release()
    await stand.ask(key("r"))
    await stand.ask(key("s"))
    assert repr(stand.pool) == "<Pool opening=1 idle=0 leased=1 closing=0 waiters=2>"
    await stand.close_and_check()


async def test_no_task_and_no_exception_is_left_behind():
    """Failures that nobody waits for any more are not reported by the event loop as forgotten."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stand = by_hand()
    request = await stand.ask()
    stand.server.last.fail_opening(UpstreamError("no"))
    while len(stand.pool.queue):
        await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    other = await stand.ask()
    await cancel(other)
    stand.server.last.fail_opening(UpstreamError("no"))
    await settle()
    del request, other
    stand.check_empty()
    assert complaints == []
