"""How a client session gets its upstream session: at once, waiting, cancelled, paused, for a stream."""

import asyncio
import contextlib

import pytest
from binding_world import ALPHA, DETACH, GRACE, LINGER, ME, YOU, World
from session_fakes import settle

from mcp_session_proxy.errors import AcquireTimeout, Draining, UpstreamError
from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.client import Farewell
from mcp_session_proxy.sessions.modes import Sharing
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("every_beginning")]


async def test_a_free_session_is_taken_in_one_step():
    """A new client has the session that its predecessor has left before the event loop turns."""
    world = World()
    first = await world.start()
    session = await world.call(first)
    world.delete(first)
    turns: list[bool] = []
    asyncio.get_running_loop().call_soon(turns.append, True)
    second, visit = await world.binder.initialize(ME, ALPHA, None, None, NOBODY)
    assert not turns
    assert visit.session is session
    assert second in audience_of(session)
    visit.end()
    world.check()
    await world.end()


async def test_two_requests_of_a_returning_client_attach_once():
    """Requests that arrive together after the session is gone get one new session between them."""
    world = World(open_seconds=1.0)
    one = await world.start()
    old = await world.call(one)
    await world.lose(old)
    visits = await asyncio.gather(*(world.enter(one) for _ in range(5)))
    assert len({visit.session for visit in visits}) == 1
    assert len(world.server.sessions) == 2
    assert one.lease.slot.leases == 1
    for visit in visits:
        visit.end()
    world.check()
    await world.end()


async def test_requests_of_an_adopted_id_attach_once():
    """The same for the first requests of an id from before a restart."""
    world = World(open_seconds=1.0)
    one = world.find("foreign")
    sessions = await asyncio.gather(*(world.call(one) for _ in range(5)))
    assert len(set(sessions)) == 1
    assert len(world.server.sessions) == 1
    await world.end()


@pytest.mark.parametrize("when", [0.0, 0.5, 1.0])
async def test_all_askers_cancelled_while_attaching(when):
    """When everybody who asked has left, the client session is detached in its time like any other."""
    world = World(open_seconds=1.0)
    one = world.find("foreign")
    requests = [asyncio.create_task(world.call(one)) for _ in range(3)]
    await settle()
    await asyncio.sleep(when)
    for request in requests:
        request.cancel()
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await asyncio.sleep(1.0)
    await settle()
    world.check()
    assert not one.busy
    await world.wait(DETACH)
    assert one.lease is None
    assert len(world.server.live) == 1
    await world.end()


@pytest.mark.parametrize("sharing", Sharing)
async def test_initialize_cancelled_while_attaching(sharing):
    """Nobody will ever know the id, so nothing stays attached, and a session of its own is closed soon."""
    world = World(sharing, open_seconds=1.0)
    request = asyncio.create_task(world.initialize())
    await asyncio.sleep(0.5)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.sleep(1.0)
    await settle()
    world.check()
    assert len(world.binder.directory) == 0
    assert not any(map(audience_of, world.server.sessions))
    assert world.stand.pool.books.count_states()["leased"] == 0
    await world.wait(LINGER)
    owned = sharing in (Sharing.ISOLATED, Sharing.FRESH)
    assert len(world.server.live) == (0 if owned else 1)
    await world.end()


async def test_one_asker_cancelled_while_attaching():
    """The others are served by the same attempt."""
    world = World(open_seconds=1.0)
    one = world.find("foreign")
    first, second = (asyncio.create_task(world.call(one)) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    await second
    assert asyncio.get_running_loop().time() == 1.0
    assert len(world.server.sessions) == 1
    await world.end()


async def test_cancelled_at_any_step():
    """Whenever a request is cancelled, the client session is left in order and goes on working."""
    for steps in range(15):
        world = World()
        one = world.find("foreign")
        request = asyncio.create_task(world.call(one))
        for _ in range(steps):
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await settle()
        world.check()
        assert one.in_flight == 0
        assert not one.busy
        await world.call(one)
        assert len(world.server.sessions) == 1
        await world.stand.close_and_check()


async def test_attaching_that_fails_is_told_to_all_and_forgotten():
    """Everyone who asked is told; the next request tries anew."""
    world = World(open_seconds=1.0)
    one = world.find("foreign")
    world.server.open_error = UpstreamError("no")
    results = await asyncio.gather(*(world.call(one) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    assert not one.busy
    world.check()
    world.server.open_error = None
    await world.call(one)
    await world.end()


async def test_attaching_has_a_deadline():
    """A client that needs a session while none is free is told within ``--acquire-timeout``."""
    world = World(max_sessions=1)
    one = await world.start()
    visit = await world.enter(one)
    with pytest.raises(AcquireTimeout):
        await world.start()
    assert asyncio.get_running_loop().time() == 10.0
    visit.end()
    await world.end()


async def test_a_waiting_client_gets_the_session_that_another_leaves():
    """At the limit the next client waits for one that leaves, and inherits its session."""
    world = World(max_sessions=1)
    one = await world.start()
    mine = await world.call(one)
    waiting = asyncio.create_task(world.start())
    await asyncio.sleep(3.0)
    world.delete(one)
    two = await waiting
    assert two.home.session is mine
    await world.end()


async def test_after_the_end_of_the_pool():
    """A client that comes after the shutdown has begun is told so."""
    world = World()
    one = await world.start()
    await world.stand.pool.close()
    with pytest.raises(Draining):
        await world.call(one)
    with pytest.raises(Draining):
        await world.start()
    assert not one.busy


async def test_requests_of_a_returning_client_in_a_pause_attach_once():
    """Requests that wait through a pause for the client's own session take it once between them."""
    world = World()
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    world.stand.pool.pause()
    requests = [asyncio.create_task(world.enter(one)) for _ in range(3)]
    await asyncio.sleep(5.0)
    assert one.lease is None
    world.stand.pool.resume()
    visits = await asyncio.gather(*requests)
    assert {visit.session for visit in visits} == {mine}
    assert one.home.leases == 1
    for visit in visits:
        visit.end()
    assert one.home.leases == 0
    await world.end()


async def test_an_attached_client_does_not_notice_a_pause():
    """Who holds a session goes on using it."""
    world = World()
    one = await world.start()
    world.stand.pool.pause()
    await world.call(one)
    assert asyncio.get_running_loop().time() == 0.0
    world.stand.pool.resume()
    await world.end()


async def test_a_pause_does_not_double_the_deadline():
    """Waiting for the end of a pause and then for a session has one deadline."""
    world = World(max_sessions=1)
    one = world.find("foreign")
    world.stand.pool.pause()
    request = asyncio.create_task(world.call(one))
    await asyncio.sleep(6.0)
    world.stand.pool.resume()
    holder = await world.borrow(YOU)
    with pytest.raises(AcquireTimeout):
        await request
    assert asyncio.get_running_loop().time() == 10.0
    holder.end()
    await world.end()


async def test_cancelled_in_a_pause():
    """A request that leaves during a pause leaves nothing behind."""
    world = World()
    one = await world.start()
    world.delete(one)
    world.stand.pool.pause()
    request = asyncio.create_task(world.call(one))
    await settle()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    world.stand.pool.resume()
    await settle()
    assert not one.busy
    assert one.lease is None
    await world.end()


# == streams =======================================================================================


async def test_a_stream_attaches_by_itself():
    """A client that opens a GET stream hears its session, though it has sent no request since."""
    world = World()
    one = await world.start()
    world.delete(one)
    await world.open_stream(one)
    assert one.lease is not None
    assert one.lease.slot is one.home
    assert one.farewell is Farewell.NONE
    world.close_stream(one)
    await world.end()


async def test_a_stream_that_cannot_attach():
    """A stream is open though no session could be had; the next request tries again."""
    world = World()
    one = world.find("foreign")
    world.server.open_error = UpstreamError("no")
    await world.open_stream(one)
    assert one.lease is None
    world.server.open_error = None
    await world.call(one)
    assert one.lease is not None
    await world.hang_up(one)
    assert one.lease is None
    await world.end()


async def test_a_stream_that_closes_while_attaching():
    """Nothing stays attached for a stream that is gone already."""
    world = World(open_seconds=1.0)
    one = world.find("foreign")
    await world.open_stream(one)
    world.close_stream(one)
    await asyncio.sleep(1.0)
    await settle()
    world.check()
    await world.wait(GRACE)
    assert one.lease is None
    await world.end()


async def test_a_visit_ends_once():
    """However often it is ended, and by whom: the client session and the lease are given back once."""
    world = World()
    one = await world.start()
    second = await world.enter(one)
    with contextlib.suppress(ZeroDivisionError), await world.enter(one) as first:
        assert one.in_flight == 2
        raise ZeroDivisionError
    first.end()
    assert one.in_flight == 1
    second.end()
    assert not one.busy
    with await world.borrow() as third, await world.borrow() as fourth:
        third.end()
        third.end()
        assert world.stand.pool.books.count_states()["leased"] == 2
        assert fourth.session is third.session
    await world.end()
