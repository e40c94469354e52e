"""The pool in front of a server whose handshakes and goodbyes the tests control.

The first part proves the known pool bugs absent, one test of that name each; then come the pool's own
promises; then whatever Hypothesis can think of.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import ALL_USAGES, REFUSED, SHARING_USAGES, FakeServer, Stand, key, run_story, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import (
    AcquireTimeout,
    Draining,
    InternalError,
    TooManyWaiters,
    UpstreamError,
    UpstreamRejected,
    UpstreamUnreachable,
)
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.state import SessionState
from mcp_session_proxy.upstream.transport import Caller

pytestmark = pytest.mark.looptime

ALONE_USAGES = tuple(usage for usage in ALL_USAGES if usage not in SHARING_USAGES)
every_usage = pytest.mark.parametrize("usage", ALL_USAGES, ids=lambda usage: usage.value)


def by_hand(**limits):
    """A pool whose handshakes end when the test says so."""
    return Stand(FakeServer(by_hand=True), **limits)


def prompt(open_seconds=0.0, **limits):
    """A pool whose server answers by itself."""
    return Stand(FakeServer(open_seconds=open_seconds), **limits)


async def cancel(task):
    """Cancel a task and see it end that way."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def blocker(usage):
    """The usage of a lease that makes this usage wait."""
    return Usage.OWNED if usage is Usage.JOINT else Usage.EXCLUSIVE


def now():
    return asyncio.get_running_loop().time()


# == the known pool bugs, each proven absent ========================================================


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
    assert stand.pool.count_states()["opening"] == 0
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
            counts = stand.pool.count_states()
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
            assert not stand.pool._waiters
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
    stand.pool.maintain()
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
    stand.pool.maintain()
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
    assert one.slot.session.lose(beyond_help=True)
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
    assert lease.slot.session.lose()
    assert lease.slot.session.lose()
    assert (await stand.get()).slot is not lease.slot
    await stand.close_and_check()


async def test_a_session_in_use_that_is_lost_stays():
    """A lost session that somebody holds may re-open itself; it leaves the pool when that fails."""
    stand = by_hand()
    holder = await stand.get()
    assert not holder.slot.session.lose()
    assert holder.slot.usable
    stand.check()
    assert holder.slot.session.lose(beyond_help=True)
    await settle()
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
    assert len(stand.books.buckets) == len(stand.pool._demands) == 10
    await asyncio.sleep(60.0)
    stand.pool.maintain()
    await settle()
    stand.check_empty()
    assert not stand.server.live


# == the pool's own promises ========================================================================


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
    assert stand.pool.waiting == 0
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
    stand.pool._closed = True
    assert stand.pool.reclaim(other.slot, Usage.EXCLUSIVE) is None
    await stand.close_and_check()


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
    assert stand.pool.count_states()["closing"] == 1
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
    assert stand.pool.waiting == 2
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
    results = await asyncio.gather(*asked, return_exceptions=True)
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
    assert not stand.pool.waiting
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


# -- a server that does not answer -----------------------------------------------------------------


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
    stand.limits = stand.pool.limits = stand.limits.__class__(max_sessions=2)
    stand.server.open_error = REFUSED
    with pytest.raises(UpstreamUnreachable):
        await stand.acquire(timeout=1.0)
    stand.pool.limits = stand.limits.__class__(max_sessions=1)
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
    while stand.pool.waiting:
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


# -- pre-warming -----------------------------------------------------------------------------------


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
    stand.pool.maintain()
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


# -- age -------------------------------------------------------------------------------------------


async def test_idle_sessions_expire():
    """A session is closed when it has been idle for ``--idle-timeout``; one in use is not."""
    stand = by_hand(idle_timeout_seconds=60.0)
    busy, idle = await stand.get(), await stand.get()
    await asyncio.sleep(1000.0)
    idle.release()
    await asyncio.sleep(59.0)
    stand.pool.maintain()
    assert stand.books.counted == 2
    await asyncio.sleep(1.0)
    stand.pool.maintain()
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
    stand.pool.maintain()
    assert lease.slot.usable
    lease.release()
    await asyncio.sleep(5.0)
    stand.pool.maintain()
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
    stand.pool.maintain()
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
    stand.pool.maintain()
    await settle()
    stand.check_empty()


# -- pauses ----------------------------------------------------------------------------------------


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
    assert stand.pool.waiting == 2
    with pytest.raises(TooManyWaiters):
        await stand.acquire()
    with pytest.raises(TooManyWaiters):
        await stand.pool.resumed(key(), now() + 5.0)
    with pytest.raises(AcquireTimeout, match="paused"):
        await own
    assert now() == 5.0
    assert stand.pool.waiting == 1
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


# -- the end ---------------------------------------------------------------------------------------


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


# -- what is told ----------------------------------------------------------------------------------


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
    while stand.pool.waiting:
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


# == whatever else may happen =======================================================================

KEYS = st.builds(key, st.sampled_from("pq"), st.sampled_from([None, "x"]))
STEPS = st.one_of(
    st.tuples(st.just("acquire"), KEYS, st.sampled_from(ALL_USAGES), st.sampled_from([1.0, 5.0, 50.0])),
    st.tuples(
        st.sampled_from(
            ["cancel", "release", "retire", "reclaim", "opened", "refused", "failed", "lost", "goodbye"]
        ),
        st.integers(0, 7),
    ),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.25, 1.0, 10.0, 100.0])),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["pause", "resume", "reconnect"])),
    st.tuples(st.sampled_from(["kill", "serve"]), st.integers(0, 7)),
)


class Story:
    """Plays a list of steps on a pool."""

    def __init__(self, stand):
        self.stand = stand
        self.requests = {}
        self.leases = []
        self.former = []

    def collect(self):
        """Take note of the requests that are over."""
        for request, (session_key, usage) in list(self.requests.items()):
            if request.done():
                del self.requests[request]
                if not request.cancelled() and request.exception() is None:
                    lease = request.result()
                    assert lease.slot.key == session_key
                    assert lease.usage is usage
                    self.leases.append(lease)

    def acquire(self, session_key, usage, timeout):
        request = asyncio.ensure_future(self.stand.acquire(session_key, usage, timeout=timeout))
        self.requests[request] = (session_key, usage)

    def choose(self, things, number):
        return things[number % len(things)] if things else None

    def cancel(self, number):
        if (request := self.choose(list(self.requests), number)) is not None:
            request.cancel()

    def release(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            self.leases.remove(lease)
            self.former.append(lease)
            lease.release()

    def retire(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            self.leases.remove(lease)
            lease.retire("lost")

    def reclaim(self, number):
        lease = self.choose([one for one in self.former if one.usage is not Usage.ONCE], number)
        if lease is not None:
            self.former.remove(lease)
            if (again := self.stand.pool.reclaim(lease.slot, lease.usage)) is not None:
                self.leases.append(again)

    def opening(self, number):
        gates = [one for one in self.stand.server.opening if one._gate and not one._gate.done()]
        return self.choose(gates, number)

    def opened(self, number):
        if (session := self.opening(number)) is not None:
            session.finish_opening()

    def refused(self, number):
        if (session := self.opening(number)) is not None:
            session.fail_opening(UpstreamUnreachable("refused"))

    def failed(self, number):
        if (session := self.opening(number)) is not None:
            session.fail_opening(UpstreamError("no"))

    def lost(self, number):
        if (session := self.choose(self.stand.server.sessions[-5:], number)) is not None:
            session.lose(beyond_help=number % 2 == 0)

    def goodbye(self, number):
        sessions = [one for one in self.stand.server.sessions if one.goodbye and not one.goodbye.done()]
        if (session := self.choose(sessions, number)) is not None:
            session.goodbye.set_result(None)

    def pause(self):
        self.stand.pool.pause()

    def resume(self):
        self.stand.pool.resume()

    def reconnect(self):
        self.stand.pool.reconnect()

    def kill(self, number):
        if (session := self.choose(self.stand.server.sessions[-5:], number)) is not None:
            self.stand.pool.kill(session.tag)

    def serve(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            lease.slot.session.requests += 1

    async def time(self, seconds):
        await asyncio.sleep(seconds)
        self.stand.pool.maintain()

    async def step(self, count):
        for _ in range(count):
            await asyncio.sleep(0)

    async def play(self, steps):
        for name, *arguments in steps:
            result = getattr(self, name)(*arguments)
            if result is not None:
                await result
            self.stand.check(at_rest=False)
            self.collect()
        await settle()
        self.collect()
        self.stand.check()
        held = {lease.slot for lease in self.leases if lease.slot.usable}
        leased = {slot for slot in self.stand.books.slots() if slot.state is SessionState.LEASED}
        assert held == leased

    async def stop(self):
        """The server answers, everybody leaves, and time passes."""
        self.resume()
        self.stand.server.by_hand = False
        for lease in self.leases:
            lease.release()
        while (session := self.opening(0)) is not None:
            session.finish_opening()
        await asyncio.sleep(200.0)
        self.collect()
        assert not self.requests, "a request is still waiting long after its deadline"
        for lease in self.leases:
            lease.release()


@given(
    steps=st.lists(STEPS, max_size=40),
    limits=st.fixed_dictionaries(
        {
            "max_sessions": st.integers(1, 4),
            "max_sessions_per_principal": st.integers(1, 3),
            "max_waiters": st.sampled_from([0, 2, 100]),
            "open_concurrency": st.integers(1, 2),
            "min_idle": st.integers(0, 1),
            "idle_timeout_seconds": st.just(60.0),
            "max_lifetime_seconds": st.sampled_from([0.0, 30.0]),
            "max_requests": st.sampled_from([0, 2]),
        }
    ),
)
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_events_keeps_the_books(steps, limits):
    """Whatever comes in whatever order: limits hold, nobody is forgotten, and nothing is left at the end."""

    async def play():
        stand = Stand(FakeServer(by_hand=True, goodbyes_by_hand=True), **limits)
        story = Story(stand)
        await story.play(steps)
        await story.stop()
        await stand.close_and_check()

    run_story(play())
