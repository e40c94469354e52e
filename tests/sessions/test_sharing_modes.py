"""The other sharing modes, each by its rules: isolated, shared, fresh."""

import asyncio

import pytest
from binding_world import ALPHA, DETACH, LINGER, YOU, World
from session_fakes import settle

from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.modes import Sharing

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("every_beginning")]


async def test_isolated_sessions_belong_to_one_client():
    """A client has its session for life: nobody else gets it, before or after it has left."""
    world = World(Sharing.ISOLATED)
    one = await world.start()
    mine = await world.call(one)
    await world.wait(2 * DETACH)
    two = await world.start()
    assert two.home.session is not mine
    assert await world.ask() is not mine
    assert await world.call(one) is mine
    await world.end()


async def test_isolated_sessions_are_closed_after_delete_and_linger():
    """DELETE closes the session, but not before ``--linger``."""
    world = World(Sharing.ISOLATED)
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    await world.wait(LINGER - 1)
    assert not mine.closed
    await world.wait(1)
    assert mine.closed_for == "linger"
    await world.end()


async def test_isolated_sessions_serve_clients_that_go_on_after_delete():
    """A client that goes on using its id finds its state, and lingers anew with each request."""
    world = World(Sharing.ISOLATED)
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    for _ in range(3):
        await world.wait(LINGER - 1)
        assert await world.call(one) is mine
    await world.wait(LINGER)
    assert mine.closed
    assert await world.call(one) is not mine
    await world.end()


async def test_isolated_sessions_linger_from_the_delete_on():
    """A client that was silent for long and then sends DELETE has ``--linger`` as well."""
    world = World(Sharing.ISOLATED)
    one = await world.start()
    await world.wait(DETACH + 2 * LINGER)
    world.delete(one)
    await world.wait(LINGER - 1)
    assert not one.home.session.closed
    await world.wait(1)
    assert one.home.session.closed
    await world.end()


async def test_isolated_sessions_stay_when_the_client_listens_again():
    """A client that opens a stream after its DELETE has not left: nothing lingers any more."""
    world = World(Sharing.ISOLATED)
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    await world.open_stream(one)
    await world.wait(2 * LINGER)
    world.close_stream(one)
    await world.wait(2 * LINGER)
    assert await world.call(one) is mine
    await world.end()


async def test_isolated_requests_without_a_session_share_one():
    """They share one session per key, which is nobody's own."""
    world = World(Sharing.ISOLATED, sessionless=ALPHA)
    one = await world.start()
    visit = await world.borrow()
    assert await world.ask() is visit.session is not one.home.session
    visit.end()
    await world.end()


async def test_isolated_sessions_of_forgotten_clients_are_closed():
    """A session whose client session was forgotten can be found by nobody, so it is closed soon."""
    world = World(Sharing.ISOLATED, max_clients=1)
    one = await world.start()
    await world.start()
    assert one.forgotten
    await world.wait(LINGER)
    assert one.home.session.closed_for == "linger"
    await world.end()


# == shared ========================================================================================


async def test_shared_sessions_are_for_everybody():
    """One upstream session per key: client sessions and requests without one, at the same time."""
    world = World(Sharing.SHARED, sessionless=ALPHA)
    clients = [await world.start() for _ in range(4)]
    visits = await asyncio.gather(*(world.enter(client) for client in clients), world.borrow())
    assert len({visit.session for visit in visits}) == 1
    for visit in visits:
        visit.end()
    adopted = await world.initialize(affinity=None, brought=None)
    assert await world.call(adopted) is visits[0].session
    await world.end()


async def test_shared_sessions_are_not_for_other_principals():
    """Principals are never mixed, in this mode either."""
    world = World(Sharing.SHARED)
    mine, yours = await world.start(), await world.start(principal=YOU)
    assert await world.call(mine) is not await world.call(yours)
    await world.end()


async def test_shared_clients_that_arrive_at_once_share_one_handshake():
    """A crowd of first comers causes one handshake."""
    world = World(Sharing.SHARED, open_seconds=1.0)
    await asyncio.gather(*(world.start() for _ in range(10)))
    assert len(world.server.sessions) == 1
    await world.end()


# == fresh =========================================================================================


async def test_fresh_requests_get_a_session_of_their_own():
    """Each request without session and affinity key has a never-used session, closed afterwards."""
    world = World(Sharing.FRESH)
    visits = [await world.borrow() for _ in range(3)]
    assert len({visit.session for visit in visits}) == 3
    assert [visit.session.requests for visit in visits] == [1, 1, 1]
    for visit in visits:
        visit.end()
    await settle()
    assert not world.server.live
    assert await world.ask() not in {visit.session for visit in visits}
    await world.end()


async def test_fresh_requests_find_prewarmed_sessions():
    """With ``--min-idle`` a request need not wait for a handshake after the first one."""
    world = World(Sharing.FRESH, min_idle=2, open_seconds=1.0)
    await world.ask()
    await asyncio.sleep(10.0)
    began = asyncio.get_running_loop().time()
    first, second = await world.borrow(), await world.borrow()
    assert asyncio.get_running_loop().time() == began
    first.end()
    second.end()
    await world.end()


async def test_fresh_conversations_are_kept():
    """A request with an affinity key keeps its session."""
    world = World(Sharing.FRESH)
    assert await world.ask(affinity="a") is await world.ask(affinity="a")
    assert await world.ask(affinity="a") is not await world.ask(affinity="b")
    await world.end()


async def test_fresh_client_sessions_are_isolated():
    """Client sessions have a session of their own for life."""
    world = World(Sharing.FRESH)
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    assert (await world.start()).home.session is not mine
    assert await world.call(one) is mine
    await world.wait(LINGER)
    assert mine.closed
    await world.end()


async def test_usages_of_the_modes_in_practice():
    """The leases behind client sessions are of the usage that the mode asks for."""
    wanted = {
        Sharing.HANDOVER: Usage.EXCLUSIVE,
        Sharing.ISOLATED: Usage.OWNED,
        Sharing.SHARED: Usage.JOINT,
        Sharing.FRESH: Usage.OWNED,
    }
    for sharing, usage in wanted.items():
        world = World(sharing)
        one = await world.start()
        assert one.lease.usage is usage
        await world.stand.close_and_check()
