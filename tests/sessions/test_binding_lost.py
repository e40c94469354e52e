"""Sessions that are gone: what their successors are told, and who has them until then."""

import asyncio

import pytest
from binding_world import DETACH, IDLE, World
from session_fakes import REFUSED, settle

from mcp_session_proxy.errors import UpstreamUnreachable
from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.modes import Sharing

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("every_beginning")]


def remember(session, uri="file:///a"):
    """The session's journal after a client has subscribed to a resource."""
    session.journal.record("resources/subscribe", b'{"uri":"%s"}' % uri.encode())
    return session.journal


@pytest.mark.parametrize("sharing", Sharing)
async def test_the_journal_is_restored(sharing):
    """A client that comes back after its session is gone gets a new one that is told what the old one was."""
    world = World(sharing)
    one = await world.start()
    old = await world.call(one)
    journal = remember(old)
    await world.lose(old)
    new = await world.call(one)
    assert new is not old
    assert new.restored_from == [journal]
    assert new.journal.requests() == journal.requests()
    assert one in audience_of(new)
    await world.end()


async def test_the_journal_survives_any_end():
    """The same after the session was closed for its age, and after a chain of losses."""
    world = World()
    one = await world.start()
    wanted = remember(await world.call(one)).requests()
    await world.wait(DETACH + IDLE + 100)
    assert not world.server.live
    for _ in range(3):
        session = await world.call(one)
        assert session.journal.requests() == wanted
        await world.lose(session)
    await world.end()


async def test_a_used_session_is_not_told_what_another_was():
    """A client that gets a session with a history of its own leaves that as it is."""
    world = World()
    one, two = await world.start(), await world.start()
    old, other = await world.call(one), await world.call(two)
    remember(old)
    await world.lose(old)
    world.delete(two)
    assert await world.call(one) is other
    assert other.restored_from == []
    await world.end()


async def test_nobody_uses_a_session_before_it_is_restored():
    """A second request of the client waits until the new session knows what the old one did."""
    world = World()
    one = await world.start()
    old = await world.call(one)
    remember(old)
    await world.lose(old)
    world.server.restore_gate = asyncio.get_running_loop().create_future()
    first = asyncio.create_task(world.call(one))
    await settle()
    second = asyncio.create_task(world.call(one))
    await settle()
    assert world.server.last.restored_from
    assert not first.done()
    assert not second.done()
    world.server.restore_gate.set_result(None)
    assert await first is await second is not old
    await world.end()


async def test_a_session_that_cannot_be_restored_is_given_to_nobody():
    """When the restoring fails the client is told, and the next request tries anew from the same journal."""
    world = World()
    one = await world.start()
    old = await world.call(one)
    journal = remember(old)
    await world.lose(old)
    world.server.restore_gate = asyncio.get_running_loop().create_future()
    world.server.restore_gate.set_exception(REFUSED)
    with pytest.raises(UpstreamUnreachable):
        await world.call(one)
    world.check()
    await settle()
    failed = world.server.last
    assert failed.closed
    assert not audience_of(failed)
    world.server.restore_gate = None
    new = await world.call(one)
    assert new is not failed
    assert new.restored_from == [journal]
    await world.end()


async def test_lost_under_an_attached_client():
    """A client whose session is gone gets another with its next request; nothing keeps the dead one."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    old = await world.call(one)
    await world.lose(old)
    new = await world.call(one)
    assert new is not old
    assert one.lease.slot.session is new
    world.close_stream(one)
    await world.end()


async def test_retired_by_its_visitor():
    """A session that a request found dead is given to nobody any more."""
    world = World()
    visit = await world.borrow()
    visit.retire()
    visit.retire()
    visit.end()
    assert await world.ask() is not visit.session
    assert visit.session.closed_for == "lost"
    await world.end()
