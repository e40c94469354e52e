"""The pool in front of a server that does not answer, refuses or crashes."""

import asyncio

import pytest
from session_fakes import REFUSED, by_hand, cancel, now, prompt, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import (
    AcquireTimeout,
    InternalError,
    UpstreamError,
    UpstreamRejected,
    UpstreamUnreachable,
)

pytestmark = pytest.mark.looptime


async def test_refused_connections_are_retried_while_somebody_waits():
    """A server that comes up within the deadline is found; nobody notices but by the time it takes."""
    stand = prompt()
    stand.server.open_error = REFUSED
    request = await stand.ask(timeout=10.0)
    await asyncio.sleep(4.0)
    stand.server.open_error = None
    lease = await request
    assert 4.0 <= now() <= 5.0
    assert len(stand.server.sessions) == 1
    assert lease.slot.session.attempts > 3
    stand.check()
    await stand.close_and_check()


async def test_an_unreachable_server_is_the_reason_given():
    """Who waited in vain for an unreachable server is told that, not that time ran out."""
    stand = prompt()
    stand.server.open_error = REFUSED
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=10.0)
    assert now() == pytest.approx(10.0, abs=1.0)
    await settle()
    stand.check_empty()
    (failed,) = stand.told(events.SessionOpenFailed)
    assert failed.error == "upstream-unreachable"


async def test_a_caller_that_the_server_refuses():
    """Neither a failed handshake nor a failed lease, whatever is counted: it is between caller and server."""
    stand = prompt()
    stand.server.open_error = UpstreamRejected(401, b"", None, {}, None)
    with pytest.raises(UpstreamRejected):
        await stand.acquire()
    await settle()
    stand.check_empty()
    assert not stand.told(events.LeaseFailed)
    (refused,) = stand.told(events.SessionOpenFailed)
    assert isinstance(refused, events.SessionRefused)
    assert (refused.error, refused.why) == ("upstream-rejected", "demand")
    stand.server.open_error = UpstreamRejected(500, b"", None, {}, None)
    with pytest.raises(UpstreamRejected):
        await stand.acquire()
    assert [event.reason for event in stand.told(events.LeaseFailed)] == ["upstream-rejected"]
    assert type(stand.told(events.SessionOpenFailed)[-1]) is events.SessionOpenFailed


async def test_a_short_deadline_among_long_ones():
    """While the server is tried on for others, who has less time is told at its own deadline why."""
    stand = prompt()
    stand.server.open_error = REFUSED
    patient = await stand.ask(timeout=30.0)
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=2.0)
    assert now() == 2.0
    stand.server.open_error = None
    await patient
    await stand.close_and_check()


async def test_an_old_failure_is_not_the_reason_given_later():
    """That the server was unreachable once is not told to who later waits for a session in use."""
    stand = prompt(max_sessions=1)
    holder = await stand.acquire()
    stand.limits = stand.pool.rules = stand.limits.__class__(max_sessions=2)
    stand.server.open_error = REFUSED
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=1.0)
    stand.pool.rules = stand.limits.__class__(max_sessions=1)
    with pytest.raises(AcquireTimeout):
        await stand.acquire(timeout=1.0)
    holder.release()
    await stand.close_and_check()


async def test_nobody_waits_nothing_is_retried():
    """When all who waited have left, an unreachable server is tried once more at most."""
    stand = prompt()
    stand.server.open_error = REFUSED
    request = await stand.ask(timeout=1000.0)
    await asyncio.sleep(5.0)
    await cancel(request)
    attempts = stand.server.last.attempts
    await asyncio.sleep(100.0)
    assert stand.server.last.attempts <= attempts + 1
    stand.check_empty()


async def test_another_refusal_is_not_retried():
    """Only connections that were refused are tried again: any other failure is told at once."""
    stand = prompt()
    stand.server.open_error = UpstreamError("no")
    with pytest.raises(UpstreamError, match="no"):
        await stand.acquire()
    assert now() == 0.0
    assert stand.server.last.attempts == 1
    assert stand.server.last.abandoned
    await settle()
    stand.check_empty()


async def test_a_newcomer_just_after_a_failure_is_served():
    """Who asks after a failed handshake, but before those who waited for it wake, loses nothing to them."""
    stand = by_hand()
    first = await stand.ask()
    stand.server.last.fail_opening(UpstreamError("no"))
    while len(stand.pool.queue):
        await asyncio.sleep(0)
    assert not first.done()  # told, but it does not know yet
    newcomer = asyncio.create_task(stand.acquire())
    await settle()
    stand.check()
    stand.server.last.finish_opening()
    await settle()
    assert newcomer.done()
    with pytest.raises(UpstreamError, match="no"):
        await first
    await newcomer
    stand.check()
    await stand.close_and_check()


async def test_a_handshake_that_crashes_is_told():
    """An exception that nobody expected fails the waiters with a clean error, and is reported as a bug."""
    stand = by_hand()
    request = await stand.ask()
    stand.server.last.fail_opening(ZeroDivisionError("oops"))
    with pytest.raises(InternalError):
        await request
    (crash,) = stand.told(events.Crashed)
    assert "oops" in crash.error
    await settle()
    stand.check_empty()


async def test_a_goodbye_that_crashes_is_told():
    """An exception in a goodbye is reported, and the session is gone all the same."""
    stand = by_hand()
    lease = await stand.get()
    stand.server.close_error = ZeroDivisionError("oops")
    lease.retire("lost")
    await settle()
    (crash,) = stand.told(events.Crashed)
    assert "oops" in crash.error
    stand.check_empty()


async def test_lost_while_it_is_being_opened():
    """A session that is lost before its handshake is over is replaced; nothing of it comes back."""
    stand = by_hand()
    request = await stand.ask()
    lost = stand.server.last
    lost.lose()
    await settle()
    stand.check()
    lost.finish_opening()
    await settle()
    assert not request.done()
    stand.server.last.finish_opening()
    assert (await request).slot.session is not lost
    assert stand.server.live == {stand.server.last}
    stand.check()
    await stand.close_and_check()
