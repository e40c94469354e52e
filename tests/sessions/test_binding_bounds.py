"""Clients that come and go without end: what is kept of them has bounds."""

import pytest
from binding_world import AGE, CLAIM, World

from mcp_session_proxy import events

pytestmark = pytest.mark.looptime


async def test_client_sessions_are_bounded_in_number():
    """The least recently used client session is forgotten, detached and told of; its session lives on."""
    world = World(max_clients=2)
    clients = [await world.start() for _ in range(3)]
    assert world.forgotten == clients[:1]
    assert clients[0].lease is None
    (expired,) = world.told(events.ClientSessionExpired)
    assert expired.reason == "room"
    assert (await world.start()).home is clients[0].home
    await world.end()


@pytest.mark.parametrize("how", ["request", "stream"])
async def test_the_end_of_use_counts(how):
    """Not the one whose long request or stream has just ended is forgotten first."""
    world = World(max_clients=2)
    one, two = await world.start(), await world.start()
    if how == "request":
        visit = await world.enter(one)
    else:
        await world.open_stream(one)
    await world.wait(1)
    world.find(two.id)
    await world.wait(1)
    if how == "request":
        visit.end()
    else:
        world.close_stream(one)
    await world.start()
    assert world.forgotten == [two]
    await world.end()


async def test_client_sessions_are_bounded_in_age():
    """A client session that was not used for ``--client-session-timeout`` is forgotten."""
    world = World()
    one = await world.start()
    await world.wait(AGE + 1000)
    assert world.forgotten == [one]
    assert world.find(one.id).record.adopted
    await world.end()


@pytest.mark.slow
async def test_clients_that_never_come_back_leave_nothing():
    """Thousands of throwaway client sessions hold no more than a handful of sessions."""
    world = World()
    for _ in range(500):
        await world.initialize()
        await world.wait(1)
    assert len(world.server.live) <= CLAIM + 1
    await world.end()


async def test_sessions_do_not_outnumber_the_callers_at_one_time():
    """Many clients one after the other need one session, whichever way they leave."""
    world = World()
    for number in range(60):
        client = await world.start()
        await world.open_stream(client)
        await world.call(client)
        if number % 2:
            world.delete(client)
            world.close_stream(client)
        else:
            await world.hang_up(client)
    assert len(world.server.sessions) == 1
    await world.end()
