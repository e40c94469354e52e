"""A client's DELETE is absorbed: what it means for its session, and that its id goes on working."""

import asyncio

import pytest
from binding_world import LINGER, World
from session_fakes import settle

from mcp_session_proxy import events
from mcp_session_proxy.sessions.modes import Sharing

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("sharing", Sharing)
async def test_delete_is_absorbed_and_the_id_goes_on_working(sharing):
    """After DELETE the same id reaches the same session, in every mode, again and again."""
    world = World(sharing)
    one = await world.start()
    mine = await world.call(one)
    for _ in range(3):
        world.delete(one)
        assert await world.call(one) is mine
    assert not mine.closed
    assert len(world.told(events.DeleteAbsorbed)) == 3
    await world.end()


@pytest.mark.parametrize("sharing", Sharing)
async def test_delete_while_a_call_is_in_flight(sharing):
    """The call is answered by its session; the client detaches when it is over, not before."""
    world = World(sharing)
    one = await world.start()
    visit = await world.enter(one)
    world.delete(one)
    await world.wait(2 * LINGER)
    assert one.lease is not None
    assert not visit.session.closed
    visit.end()
    assert one.lease is None
    assert not visit.session.closed
    await world.end()


async def test_a_deleted_client_detaches_after_each_request():
    """A client that said goodbye holds its session for its requests only."""
    world = World()
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    await world.call(one)
    assert one.lease is None
    assert (await world.start()).home.session is mine
    await world.end()


async def test_delete_while_attaching():
    """DELETE in the middle of attaching does no harm."""
    world = World(open_seconds=1.0)
    adopted = world.find("foreign")
    request = asyncio.create_task(world.call(adopted))
    await settle()
    world.delete(adopted)
    await request
    assert adopted.lease is None
    await world.end()


async def test_delete_of_an_id_that_has_no_session_yet():
    """DELETE as the first thing an adopted id does is absorbed as well."""
    world = World()
    world.delete(world.find("foreign"))
    assert not world.server.sessions
    await world.end()
