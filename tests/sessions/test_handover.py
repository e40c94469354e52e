"""The sharing mode ``handover``: when a client has left, and who gets its session."""

import asyncio

import pytest
from binding_world import ALPHA, BETA, CLAIM, DETACH, GRACE, YOU, World

pytestmark = pytest.mark.looptime


@pytest.mark.slow
async def test_handover_after_delete():
    """The next client gets the session that the last one left by DELETE, state included."""
    world = World()
    sessions = set()
    for _ in range(300):
        client = await world.start()
        sessions.add(await world.call(client))
        world.delete(client)
    assert len(sessions) == len(world.server.sessions) == 1
    await world.end()


async def test_handover_serves_one_attached_client_at_a_time():
    """A client that is still attached keeps its session to itself: the next one gets another."""
    world = World()
    one, two = await world.start(), await world.start()
    assert await world.call(one) is not await world.call(two)
    await world.end()


async def test_handover_when_the_stream_stays_closed():
    """A client whose GET stream closed has left when it does not come back for a moment."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    used = await world.call(one)
    await world.hang_up(one)
    two = await world.start()
    assert await world.call(two) is used
    await world.end()


async def test_a_cut_stream_is_no_goodbye():
    """A client whose GET stream was cut for a moment keeps its session: another one gets another."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    used = await world.call(one)
    world.close_stream(one)
    await world.wait(GRACE - 1)
    two = await world.start()
    assert await world.call(two) is not used
    await world.open_stream(one)
    await world.wait(2 * DETACH)
    assert one.lease is not None
    world.close_stream(one)
    await world.end()


@pytest.mark.parametrize("sign_of_life", ["request", "notification", "stream"])
async def test_a_sign_of_life_after_the_stream_was_cut(sign_of_life):
    """Whatever the client sends after its stream was cut begins the grace anew."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    world.close_stream(one)
    await world.wait(GRACE - 1)
    if sign_of_life == "request":
        await world.call(one)
    elif sign_of_life == "notification":
        world.find(one.id)
    else:
        await world.open_stream(one)
        world.close_stream(one)
    await world.wait(GRACE - 1)
    assert one.lease is not None
    await world.wait(1)
    assert one.lease is None
    await world.end()


async def test_handover_when_all_connections_are_closed():
    """A client that closes its connections after its last answer has left, at once."""
    world = World()
    used = set()
    for _ in range(30):
        client = await world.start()
        world.connect(client)
        world.connect(client)
        used.add(await world.call(client))
        world.disconnect(client)
        assert client.lease is not None, "one connection is still open"
        world.disconnect(client)
    assert len(used) == len(world.server.sessions) == 1
    await world.end()


async def test_handover_when_stream_and_connections_are_closed():
    """The same for a client that had a GET stream: in whatever order they are closed, it has left."""
    world = World()
    for stream_first in (True, False):
        client = await world.start()
        for _ in range(2):
            world.connect(client)
        await world.open_stream(client)
        await world.call(client)
        if stream_first:
            world.disconnect(client, by_client=False)
            world.close_stream(client)
            world.disconnect(client)
        else:
            world.disconnect(client)
            world.disconnect(client, by_client=False)
            world.close_stream(client)
        assert client.lease is None
    assert len(world.server.sessions) == 1
    await world.end()


async def test_a_closing_of_ours_is_no_goodbye():
    """A connection that we closed, or that carried one request only, says nothing."""
    world = World()
    one = await world.start()
    world.connect(one)
    world.disconnect(one, by_client=False)
    await world.wait(DETACH - 1)
    assert one.lease is not None
    await world.end()


async def test_an_idle_connection_that_is_closed_is_no_goodbye():
    """HTTP clients close idle connections after some seconds, and open another one when they need it."""
    world = World()
    one = await world.start()
    world.connect(one)
    await world.wait(4)
    world.disconnect(one)
    assert one.lease is not None
    await world.end()


async def test_a_request_after_the_goodbye():
    """A client that goes on after it closed a connection has not left by that."""
    world = World()
    one = await world.start()
    for _ in range(2):
        world.connect(one)
    world.disconnect(one)
    await world.call(one)
    world.disconnect(one, by_client=False)
    assert one.lease is not None
    await world.end()


async def test_a_stream_that_is_cut_long_after_connections_were_closed():
    """What was closed a while ago does not make a goodbye of a stream that is cut now."""
    world = World()
    one = await world.start()
    for _ in range(2):
        world.connect(one)
    await world.open_stream(one)
    world.disconnect(one)
    await world.wait(DETACH)
    world.disconnect(one, by_client=False)
    world.close_stream(one)
    assert one.lease is not None
    await world.wait(GRACE)
    assert one.lease is None
    await world.end()


async def test_a_connection_lost_in_mid_request_is_no_goodbye():
    """A client that is cut off while it waits for an answer may come back for it."""
    world = World()
    one = await world.start()
    world.connect(one)
    visit = await world.enter(one)
    world.disconnect(one)
    visit.end()
    assert one.lease is not None
    await world.end()


async def test_the_connections_of_a_client_that_never_sent_its_id_back():
    """It is waited for as any other that may send it: in a moment, on another connection."""
    world = World()
    one = await world.initialize()
    world.connect(one)
    world.disconnect(one)
    assert one.lease is not None
    await world.wait(CLAIM)
    assert one.lease is None
    await world.end()


async def test_no_handover_while_the_stream_is_open():
    """A client that listens is attached, however long it is silent."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    used = await world.call(one)
    await world.wait(10 * DETACH)
    two = await world.start()
    assert await world.call(two) is not used
    world.close_stream(one)
    await world.end()


async def test_the_newest_of_two_streams_holds():
    """A client is attached until the last of its GET streams has closed."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    await world.open_stream(one)
    world.close_stream(one)
    await world.wait(10 * DETACH)
    assert one.lease is not None
    await world.hang_up(one)
    assert one.lease is None
    await world.end()


async def test_a_dropped_stream_leaves_a_request_attached():
    """A client whose GET stream closed stays attached until its request is answered."""
    world = World()
    one = await world.start()
    await world.open_stream(one)
    visit = await world.enter(one)
    world.close_stream(one)
    two = await world.start()
    assert await world.call(two) is not visit.session
    await world.wait(2 * GRACE)
    visit.end()
    await world.wait(GRACE)
    assert one.lease is None
    await world.end()


async def test_handover_after_silence():
    """A client that never opened a GET stream is attached until ``--detach-after`` of silence."""
    world = World()
    one = await world.start()
    used = await world.call(one)
    await world.wait(DETACH - 1)
    assert one.lease is not None
    await world.wait(1)
    assert one.lease is None
    two = await world.start()
    assert await world.call(two) is used
    await world.end()


@pytest.mark.parametrize("sign_of_life", ["request", "notification"])
async def test_silence_begins_with_the_last_sign_of_life(sign_of_life):
    """Each request, and anything else that names the id, begins the silence anew."""
    world = World()
    one = await world.start()
    await world.wait(DETACH - 1)
    if sign_of_life == "request":
        await world.call(one)
    else:
        world.find(one.id)
    await world.wait(DETACH - 1)
    assert one.lease is not None
    await world.wait(1)
    assert one.lease is None
    await world.end()


async def test_a_chatty_client_does_not_keep_others_attached():
    """Clients behind one that keeps sending notifications are detached in their own time."""
    world = World()
    chatty, silent = await world.start(), await world.start()
    for _ in range(int(DETACH)):
        await world.wait(1)
        world.find(chatty.id)
    assert chatty.lease is not None
    assert silent.lease is None
    await world.end()


async def test_a_long_request_is_no_silence():
    """A client with a request in flight is attached, however long that takes."""
    world = World()
    one = await world.start()
    visit = await world.enter(one)
    await world.wait(10 * DETACH)
    assert one.lease is not None
    visit.end()
    await world.wait(DETACH)
    assert one.lease is None
    await world.end()


async def test_a_long_request_elsewhere_is_no_silence():
    """Nor is a client silent whose request was routed to another session by an affinity key."""
    world = World()
    one = await world.start()
    visit = await world.borrow(affinity="conversation", client=one)
    await world.wait(10 * DETACH)
    assert one.lease is not None
    visit.end()
    await world.wait(DETACH)
    assert one.lease is None
    await world.end()


async def test_unclaimed_client_sessions_detach_early():
    """A client that never sends its id back does not keep its session: others get it moments later."""
    world = World()
    forgetful = await world.initialize()
    await world.wait(CLAIM - 1)
    assert forgetful.lease is not None
    await world.wait(1)
    assert forgetful.lease is None
    await world.start()
    assert len(world.server.sessions) == 1
    await world.end()


async def test_a_claimed_client_session_stays_attached():
    """One sign that a client keeps its id is enough to keep its session for ``--detach-after``."""
    world = World()
    one = await world.initialize()
    await world.wait(0.5)
    world.find(one.id)  # notifications/initialized
    await world.wait(DETACH - 1)
    assert one.lease is not None
    await world.end()


async def test_claiming_late():
    """A client that sends its id back after the claim window finds its session again."""
    world = World()
    one = await world.initialize()
    home = one.home
    await world.wait(2 * CLAIM)
    assert await world.call(one) is home.session
    await world.wait(DETACH - 1)
    assert one.lease is not None
    await world.end()


async def test_detaching_at_once():
    """With ``--detach-after 0`` a client is detached as soon as it has nothing in flight."""
    world = World(detach_after=0.0)
    one = await world.start()
    visit = await world.enter(one)
    await world.wait(1)
    assert one.lease is not None
    visit.end()
    await world.wait(1)
    assert one.lease is None
    await world.end()


async def test_back_to_its_own_session():
    """A client that comes back finds its own session, not the one that was used last."""
    world = World()
    one, two = await world.start(), await world.start()
    mine, other = await world.call(one), await world.call(two)
    world.delete(one)
    await world.wait(1)
    world.delete(two)
    assert await world.call(one) is mine
    assert await world.call(two) is other
    await world.end()


async def test_back_to_its_own_session_though_another_has_it():
    """State is never lost to a hand-over: a client that comes back shares its session with who has it now."""
    world = World()
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    two = await world.start()
    assert await world.call(two) is mine
    assert await world.call(one) is mine
    assert await world.call(two) is mine
    three = await world.start()
    assert await world.call(three) is not mine
    await world.end()


async def test_a_session_that_two_came_to_share_is_handed_over_when_both_have_left():
    """A shared session is free for the next client when none of those who share it is attached."""
    world = World()
    one = await world.start()
    mine = await world.call(one)
    world.delete(one)
    two = await world.start()
    back = await world.enter(one)
    world.delete(two)
    assert (await world.start()).home.session is not mine
    back.end()
    assert (await world.start()).home.session is mine
    await world.end()


async def test_the_most_recently_used_session_is_handed_over():
    """Of several sessions without a client the next client gets the one used last."""
    world = World()
    clients = [await world.start() for _ in range(3)]
    for client in (clients[2], clients[0], clients[1]):
        world.delete(client)
        await world.wait(1)
    assert (await world.start()).home is clients[1].home
    assert (await world.start()).home is clients[0].home
    await world.end()


@pytest.mark.parametrize("other", [{"principal": YOU}, {"profile": BETA}, {"affinity": "elsewhere"}])
async def test_handover_within_the_same_key_only(other):
    """Another principal, profile or conversation never inherits a session."""
    world = World()
    one = await world.start()
    used = await world.call(one)
    world.delete(one)
    assert (await world.start(**other)).home.session is not used
    await world.end()


async def test_requests_without_a_session_share_one():
    """Concurrent requests without a session go to one upstream session of their principal."""
    world = World()
    visits = await asyncio.gather(*(world.borrow() for _ in range(10)))
    stranger = await world.borrow(YOU)
    assert len({visit.session for visit in visits}) == 1
    assert stranger.session is not visits[0].session
    for visit in (*visits, stranger):
        visit.end()
    assert await world.ask() is visits[0].session
    await world.end()


async def test_requests_without_a_session_use_the_most_recent_unattached_one():
    """They join a session that a client has left, never one that a client has."""
    world = World(sessionless=ALPHA)
    one, two = await world.start(), await world.start()
    world.delete(one)
    assert await world.ask() is one.home.session
    visit = await world.borrow()
    assert visit.session is one.home.session
    world.delete(two)
    assert await world.ask() is two.home.session
    visit.end()
    await world.end()
