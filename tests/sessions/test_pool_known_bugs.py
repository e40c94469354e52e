"""The known bugs of pools elsewhere, each proven absent here by the test of its name."""

import asyncio

import pytest
from session_fakes import (
    ALL_USAGES,
    REFUSED,
    SHARING_USAGES,
    blocker,
    by_hand,
    cancel,
    every_usage,
    key,
    now,
    prompt,
    settle,
)

from mcp_session_proxy import events
from mcp_session_proxy.errors import AcquireTimeout, UpstreamError, UpstreamUnreachable
from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.upstream.transport import Caller

pytestmark = pytest.mark.looptime


@every_usage
async def test_cancel_during_acquire_does_not_leak_the_slot(usage):
    """A request that is cancelled while it waits takes nothing along (asyncpg #467 #547, psycopg #503)."""
    stand = by_hand(max_sessions=1)
    first = await stand.ask(usage=usage)
    await cancel(first)
    stand.check()
    stand.server.last.finish_opening()
    await settle()
    stand.check()
    second = await stand.ask(usage=usage)
    assert (await second).slot.session is stand.server.sessions[0]
    assert len(stand.server.sessions) == 1
    await stand.close_and_check()


@every_usage
async def test_timeout_during_acquire_does_not_leak_the_slot(usage):
    """A request whose time runs out takes nothing along (asyncpg #955, psycopg #509 #1275, httpx #1461)."""
    stand = by_hand(max_sessions=1, handshake_timeout_seconds=2.0)
    with pytest.raises(AcquireTimeout):
        await stand.acquire(usage=usage, timeout=3.0)
    assert now() == 5.0
    stand.check()
    stand.server.last.finish_opening()
    assert (await stand.acquire(usage=usage)).slot.session is stand.server.sessions[0]
    await stand.close_and_check()


@every_usage
async def test_timeout_in_the_step_of_the_hand_off_does_not_leak_the_slot(usage):
    """Time running out just when the session comes leaves it to the next (psycopg #1275, httpx #1461).

    A handshake that begins in that very step is waited for.
    """
    for release_first in (True, False):
        stand = prompt(max_sessions=1)
        holder = await stand.acquire(usage=blocker(usage))
        deadline, loop = now() + 5.0, asyncio.get_running_loop()
        if release_first:
            loop.call_at(deadline, holder.release)
        late = await stand.ask(usage=usage, timeout=5.0)
        next_one = await stand.ask(usage=usage, timeout=60.0)
        if not release_first:
            loop.call_at(deadline, holder.release)
        try:
            (await late).release()
        except AcquireTimeout:
            assert now() == deadline
        assert (await next_one).slot.usable
        stand.check()
        await stand.close_and_check()


@every_usage
@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_after_assignment_before_connect_leaves_no_zombie(usage, steps):
    """A request cancelled while its session is being opened leaves a session that the next one gets,
    whenever the cancellation comes (httpcore #658 #785 #830 #1093).
    """
    stand = by_hand(max_sessions=1)
    request = asyncio.create_task(stand.acquire(usage=usage))
    for _ in range(steps):
        await asyncio.sleep(0)
    await cancel(request)
    await settle()
    stand.check()
    opening = stand.server.opening
    assert len(opening) == (1 if steps else 0)  # cancelled before its first step it asked for nothing
    for session in opening:
        session.finish_opening()
    await settle()
    stand.check()
    assert stand.pool.books.count_states()["opening"] == 0
    lease = await stand.get(usage=usage)
    assert {lease.slot.session} == stand.server.live
    await stand.close_and_check()


@every_usage
async def test_woken_waiter_cancelled_hands_the_session_on(usage):
    """A waiter cancelled in the step that woke it does not take the session with it: the next waiter gets
    that very session (aiohttp #9670, anyio #947, cpython gh-112202).
    """
    stand = by_hand(max_sessions=1, open_concurrency=1)
    first, second = await stand.ask(usage=usage), await stand.ask(usage=usage)
    stand.server.last.finish_opening()
    while stand.server.last.is_opening:
        await asyncio.sleep(0)
    assert not first.done()  # granted, but it does not know yet
    await cancel(first)
    lease = await second
    assert lease.slot.session is stand.server.sessions[0]
    assert len(stand.server.sessions) == 1
    stand.check()
    await stand.close_and_check()


async def test_woken_waiter_cancelled_hands_a_released_session_on():
    """The same for a session that another client released (aiohttp #9670, anyio #947)."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    first, second = await stand.ask(), await stand.ask()
    holder.release()
    await cancel(first)
    assert (await second).slot is holder.slot
    stand.check()
    await stand.close_and_check()


async def test_no_barging_past_the_first_waiter():
    """A newcomer in the step of a release does not get what a waiter waits for (asyncpg #1247)."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    waiter = await stand.ask()
    holder.release()
    newcomer = asyncio.create_task(stand.acquire())
    lease = await waiter
    await settle()
    assert not newcomer.done()
    lease.release()
    assert (await newcomer).slot is holder.slot
    await stand.close_and_check()


async def test_no_barging_past_a_waiter_of_another_key():
    """Who waits for room is not passed over by later waiters of the key that has it (asyncpg #1247)."""
    stand = prompt(max_sessions=1)
    holder = await stand.acquire(key("busy"))
    starving = await stand.ask(key("starving"), timeout=60.0)
    later = [await stand.ask(key("busy"), timeout=60.0) for _ in range(3)]
    holder.release()
    lease = await starving
    assert not any(task.done() for task in later)
    stand.check()
    lease.release()
    for task in later:
        (await task).release()
    await stand.close_and_check()


async def test_deadline_is_not_reset_while_waiting():
    """However often the server is tried and others come and go, the deadline stays (asyncpg #1247)."""
    stand = prompt()
    stand.server.open_error = REFUSED
    request = await stand.ask(timeout=10.0)
    others = [await stand.ask(timeout=3.0 * number) for number in (1, 2, 20)]
    with pytest.raises(UpstreamUnreachable):
        await request
    assert now() == pytest.approx(10.0)
    assert stand.server.last.attempts > 10
    for task in others:
        with pytest.raises(UpstreamUnreachable):
            await task
    assert now() <= 60.0
    await stand.close_and_check()


async def test_deadline_is_not_reset_by_declined_sessions():
    """A waiter that others overtook by nothing but time keeps its place and its deadline (asyncpg #1247)."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    hasty = [await stand.ask(timeout=1.0 + number) for number in range(3)]
    patient = await stand.ask(timeout=10.0)
    with pytest.raises(AcquireTimeout):
        await hasty[2]
    with pytest.raises(AcquireTimeout):
        await patient
    assert now() == 10.0
    for task in hasty[:2]:
        with pytest.raises(AcquireTimeout):
            await task
    holder.release()
    stand.check()
    await stand.close_and_check()


async def test_never_more_than_the_limit():
    """A crowd never has more sessions than allowed, in all and per principal (anyio #1170, mcp-context-forge
    #4029). The observer of the stand checks the limit at every single event, too.
    """
    stand = prompt(
        open_seconds=0.5, max_sessions=5, max_sessions_per_principal=3, open_concurrency=2, max_waiters=1000
    )
    most = 0

    async def use(number):
        nonlocal most
        session_key = key(f"p{number % 3}", affinity=str(number % 4))
        lease = await stand.acquire(session_key, ALL_USAGES[number % len(ALL_USAGES)], timeout=10_000.0)
        for _ in range(3):
            stand.check()
            counts = stand.pool.books.count_states()
            most = max(most, counts["idle"] + counts["leased"] + counts["opening"])
            await asyncio.sleep(number % 7)
        lease.release()

    await asyncio.gather(*(use(number) for number in range(200)))
    assert most == 5
    await stand.close_and_check()


@every_usage
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_no_await_between_take_and_record(usage, cancel_first):
    """Cancelled at any point of its way, before or after whatever happens in that step, a request leaves
    the books right and the session to the next one (aiohttp #5259).
    """
    for release_step in range(8):
        for cancel_step in range(12):
            stand = prompt(max_sessions=1)
            holder = await stand.acquire(usage=blocker(usage))
            request = asyncio.create_task(stand.acquire(usage=usage))
            behind = asyncio.create_task(stand.acquire(usage=usage))
            for step in range(13):
                actions = [holder.release] if step == release_step else []
                if step == cancel_step:
                    actions.insert(0 if cancel_first else len(actions), request.cancel)
                for action in actions:
                    action()
                stand.check()
                await asyncio.sleep(0)
            await settle()
            stand.check()
            if not request.cancelled():
                (await request).release()
            (await behind).release()
            stand.check()
            assert len(stand.pool.queue) == 0
            assert len(stand.server.live) <= 1
            await stand.close_and_check()


async def test_failed_connect_wakes_the_next_waiter():
    """A failed handshake makes room for who waits behind it, at once (aiohttp #835)."""
    stand = by_hand(max_sessions=1)
    first = await stand.ask(key("p"))
    second = await stand.ask(key("q"))
    assert len(stand.server.opening) == 1
    stand.server.last.fail_opening(UpstreamError("no"))
    await settle()
    with pytest.raises(UpstreamError, match="no"):
        await first
    assert [session.key for session in stand.server.opening] == [key("q")]
    stand.server.last.finish_opening()
    assert (await second).slot.key == key("q")
    assert now() == 0.0
    await stand.close_and_check()


@every_usage
async def test_failed_connect_is_told_to_everyone_who_waited_for_it(usage):
    """Nobody is left waiting for a handshake that failed, and the next demand tries anew (aiohttp #835)."""
    stand = by_hand()
    requests = [await stand.ask(usage=usage) for _ in range(3)]
    stand.server.last.fail_opening(UpstreamError("no"))
    await settle()
    for request in requests:
        with pytest.raises(UpstreamError, match="no"):
            await request
    stand.check_empty()
    lease = await stand.get(usage=usage)
    assert lease.slot.session is stand.server.sessions[1]
    await stand.close_and_check()


@every_usage
async def test_idle_session_is_not_closed_after_it_was_assigned(usage):
    """A session that has been idle for its whole time, and is assigned in the moment of the clean-up, is
    not closed (httpcore #1110).
    """
    stand = by_hand(idle_timeout_seconds=100.0)
    abandoned = await stand.ask(usage=usage)
    await cancel(abandoned)
    stand.server.last.finish_opening()
    await asyncio.sleep(100.0)
    request = asyncio.create_task(stand.acquire(usage=usage))
    await asyncio.sleep(0)
    upkeep.maintain(stand.pool)
    lease = await request
    assert lease.slot.usable
    assert not lease.slot.session.closed
    stand.check()
    await stand.close_and_check()


async def test_idle_session_is_not_evicted_after_it_was_assigned():
    """Nor does it make room for another key after it was handed to a waiter (httpcore #1110)."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    waiter = await stand.ask()
    other = await stand.ask(key("q"))
    holder.release()
    upkeep.maintain(stand.pool)
    await settle()
    assert (await waiter).slot.usable
    assert not other.done()
    await cancel(other)
    await stand.close_and_check()


async def test_dead_sessions_are_not_put_back():
    """A session that was lost while somebody had it is given to nobody afterwards (mcp-context-forge
    #3520).
    """
    stand = by_hand()
    holder = await stand.get()
    dead = holder.slot.session
    dead.lose(beyond_help=True)
    await settle()
    holder.release()
    stand.check()
    lease = await stand.get()
    assert lease.slot.session is not dead
    assert dead.closed_for == "lost"
    await stand.close_and_check()


async def test_dead_sessions_are_not_handed_to_a_waiter():
    """Retiring a lease does not pass the session to who waits for one (mcp-context-forge #5460)."""
    stand = by_hand(max_sessions=1)
    holder = await stand.get()
    dead = holder.slot.session
    waiter = await stand.ask()
    holder.retire("lost")
    await settle()
    assert not waiter.done()
    stand.server.last.finish_opening()
    assert (await waiter).slot.session is not dead
    assert dead.closed_for == "lost"
    await stand.close_and_check()


@pytest.mark.parametrize("usage", SHARING_USAGES)
async def test_dead_sessions_are_not_joined(usage):
    """A session that is lost is joined by nobody, though others still have it (mcp-context-forge #5460)."""
    stand = by_hand()
    one, two = await stand.get(usage=usage), await stand.get(usage=usage)
    assert one.slot is two.slot
    one.slot.session.lose(beyond_help=True)
    await settle()
    assert not one.slot.usable
    three = await stand.get(usage=usage)
    assert three.slot is not one.slot
    one.release()
    two.release()
    stand.check()
    assert len(stand.server.live) == 1
    await stand.close_and_check()


async def test_dead_idle_sessions_are_not_given_out():
    """A session that is lost while it is idle is not given out (mcp-context-forge #3520)."""
    stand = by_hand()
    lease = await stand.get()
    lease.release()
    lease.slot.session.lose()
    assert not lease.slot.usable
    lease.slot.session.lose()
    assert len(stand.told(events.SessionLost)) == 1
    assert (await stand.get()).slot is not lease.slot
    await stand.close_and_check()


async def test_a_session_in_use_that_is_lost_stays():
    """A lost session that somebody holds may re-open itself; it leaves the pool when that fails."""
    stand = by_hand()
    holder = await stand.get()
    holder.slot.session.lose()
    await settle()
    assert holder.slot.session.revived == ["test"]
    assert holder.slot.usable
    stand.check()
    holder.slot.session.lose(beyond_help=True)
    await settle()
    assert not holder.slot.usable
    stand.check_empty()


@every_usage
async def test_session_outlives_the_request_that_opened_it(usage):
    """A session is opened in a task of the pool's own, so the end of the request's task, however it ends,
    is not the end of the session (mcp-context-forge #3737).
    """
    stand = by_hand()
    request = asyncio.create_task(stand.acquire(usage=usage))
    await settle()
    session = stand.server.last
    assert session.opened_by is not request
    await cancel(request)
    await settle()
    assert session.is_opening
    session.finish_opening()
    lease = await asyncio.create_task(stand.acquire(usage=usage))
    await settle()
    assert lease.slot.session is session
    assert session in stand.server.live
    await stand.close_and_check()


@every_usage
async def test_state_of_one_principal_is_never_shown_to_another(usage):
    """What one principal used is never given to another, even when everything else of the key is the same
    (mcp-context-forge #2055 #4205, MCPJungle #298).
    """
    stand = by_hand(max_sessions=1)
    mine = await stand.get(key("me", "conversation"), usage)
    theirs = await stand.ask(key("you", "conversation"), usage)
    mine.release()
    await settle()
    stand.server.last.finish_opening()
    lease = await theirs
    assert lease.slot.session is not mine.slot.session
    assert lease.slot.session.key == key("you", "conversation")
    assert mine.slot.session.closed
    await stand.close_and_check()


async def test_sessions_are_opened_with_the_credentials_of_their_principal():
    """A handshake carries the headers of a caller of that very key (mcp-context-forge #4205)."""
    stand = by_hand()
    callers = {name: Caller(headers=(("authorization", name),)) for name in ("p", "q")}
    for name, caller in callers.items():
        await stand.ask(key(name), caller=caller)
    assert {session.key.principal: session.caller for session in stand.server.sessions} == callers
    await stand.close_and_check()


@every_usage
@pytest.mark.slow
async def test_idle_sessions_do_not_pile_up(usage):
    """Thousands of requests leave no more idle sessions than were ever needed at once (metamcp #162)."""
    stand = prompt(max_sessions=11)
    for _ in range(2000):
        (await stand.acquire(usage=usage)).release()
    await settle()
    stand.check()
    limit = {Usage.OWNED: 10, Usage.ONCE: 0}.get(usage, 1)
    assert len(stand.server.live) == stand.books.counted == limit
    await stand.close_and_check()


async def test_idle_sessions_of_many_callers_do_not_pile_up():
    """Thousands of callers leave no more than the limit, and nothing at all after a while (n8n #33201)."""
    stand = prompt(max_sessions=11, idle_timeout_seconds=60.0)  # one of them to try newcomers in
    for number in range(2000):
        (await stand.acquire(key(f"p{number}"), Usage.COMMON)).release()
    await settle()
    stand.check()
    assert len(stand.server.live) == 10
    assert len(stand.books.buckets) == 10
    await asyncio.sleep(60.0)
    upkeep.maintain(stand.pool)
    await settle()
    stand.check_empty()
    assert not stand.server.live
