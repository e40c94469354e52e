"""Sessions that the pool opens in advance."""

import asyncio

import pytest
from session_fakes import ALL_USAGES, REFUSED, by_hand, key, now, prompt, settle

from mcp_session_proxy import events
from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.books import Usage

pytestmark = pytest.mark.looptime


async def unused(stand):
    await settle()
    stand.check()
    bucket = stand.books.buckets.get(key())
    return 0 if bucket is None else len(bucket.unused)


async def test_prewarming_begins_with_the_first_request():
    """After the first request ``--min-idle`` unused sessions stand ready, and each one used is replaced."""
    stand = prompt(min_idle=2)
    first = await stand.acquire(usage=Usage.ONCE)
    assert await unused(stand) == 2
    second = await stand.acquire(usage=Usage.ONCE)
    assert await unused(stand) == 2
    first.release()
    second.release()
    assert await unused(stand) == 2
    assert len(stand.server.live) == 2
    await stand.close_and_check()


async def test_a_prewarmed_session_is_at_hand():
    """A request that finds an unused session does not wait for a handshake."""
    stand = prompt(min_idle=1, open_seconds=1.0)
    first = await stand.acquire(usage=Usage.ONCE)
    first.release()
    assert now() == 1.0
    await asyncio.sleep(1.0)
    second = await stand.acquire(usage=Usage.ONCE)
    second.release()
    assert now() == 2.0
    assert [first.waited_seconds, second.waited_seconds] == [1.0, 0.0]
    assert [event.why for event in stand.told(events.SessionOpened)] == ["demand", "prewarm"]
    await stand.close_and_check()


@pytest.mark.parametrize("usage", ALL_USAGES)
async def test_every_usage_can_be_prewarmed(usage):
    """Where that is wanted, unused sessions stand ready for each way of using one, and never more of them."""
    stand = prompt(min_idle=2, prewarmed=frozenset(Usage))
    for _ in range(3):
        lease = await stand.acquire(usage=usage)
        assert await unused(stand) == 2
        lease.release()
        assert await unused(stand) == 2
    await stand.close_and_check()


@pytest.mark.parametrize("usage", [usage for usage in ALL_USAGES if usage is not Usage.ONCE])
async def test_only_fresh_sessions_are_prewarmed(usage):
    """Nothing is opened in advance for those who do not use a new session for every request."""
    stand = prompt(min_idle=2)
    await stand.acquire(usage=usage)
    await settle()
    assert len(stand.server.sessions) == 1
    await stand.close_and_check()


async def test_prewarming_stays_within_the_limits():
    """Sessions in advance do not exceed the limits and push nobody out."""
    stand = prompt(min_idle=5, max_sessions=3)
    idle = await stand.acquire(key("other"))
    idle.release()
    lease = await stand.acquire(usage=Usage.ONCE)
    assert await unused(stand) == 1
    assert idle.slot.usable
    lease.release()
    await stand.close_and_check()


async def test_prewarmed_sessions_make_room():
    """An unused session in advance gives way to who needs the place."""
    stand = prompt(min_idle=1, max_sessions=2)
    lease = await stand.acquire(usage=Usage.ONCE)
    assert await unused(stand) == 1
    await stand.acquire(key("other"))
    stand.check()
    assert stand.books.counted == 2
    lease.release()
    await stand.close_and_check()


async def test_prewarmed_sessions_expire():
    """When a kind of caller is not seen any more, its unused sessions age like any other."""
    stand = prompt(min_idle=3, idle_timeout_seconds=60.0)
    (await stand.acquire(usage=Usage.ONCE)).release()
    assert await unused(stand) == 3
    await asyncio.sleep(60.0)
    upkeep.maintain(stand.pool)
    await settle()
    stand.check_empty()
    assert not stand.server.live


async def test_prewarming_that_fails_is_not_repeated():
    """A failure to open in advance harms nobody and is not tried again until the next request."""
    stand = prompt(min_idle=2, open_seconds=1.0)
    request = await stand.ask(usage=Usage.ONCE)
    await asyncio.sleep(1.0)
    stand.server.open_error = REFUSED
    lease = await request
    await asyncio.sleep(100.0)
    assert len(stand.server.sessions) == 2
    assert stand.server.last.attempts == 1
    lease.release()
    await settle()
    stand.check_empty()


async def test_who_waits_takes_what_is_opened_in_advance():
    """A request that comes while a session is opened in advance gets that one."""
    stand = by_hand(min_idle=1)
    await stand.get(usage=Usage.ONCE)
    in_advance = stand.server.last
    request = await stand.ask(usage=Usage.ONCE)
    assert stand.server.last is in_advance
    in_advance.finish_opening()
    assert (await request).slot.session is in_advance
    await stand.close_and_check()
