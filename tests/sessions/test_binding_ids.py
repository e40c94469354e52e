"""What becomes of the ids that clients bring: known, foreign, another's, forgotten."""

import pytest
from binding_world import ALPHA, BETA, CAPABLE, DETACH, LINGER, ME, YOU, World

from mcp_session_proxy import events
from mcp_session_proxy.errors import UnknownSession, UpstreamError
from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.minting import mint_id
from mcp_session_proxy.sessions.modes import Sharing, UnknownSessionRule

pytestmark = pytest.mark.looptime


async def test_foreign_ids_are_adopted():
    """An id that is not ours names a conversation: the same id, the same session."""
    world = World()
    one = world.find("from-before-the-restart")
    assert one.record.adopted
    session = await world.call(one)
    assert world.find("from-before-the-restart") is one
    assert await world.call(one) is session
    assert await world.call(world.find("another")) is not session
    assert await world.ask() is not session
    (first, _) = world.told(events.ClientSessionCreated)
    assert first.origin == "adopted"
    await world.end()


async def test_an_adopted_id_stays_a_conversation_of_its_own():
    """A session under an adopted id is not handed over to anybody else."""
    world = World(sessionless=ALPHA)
    session = await world.call(world.find("foreign"))
    await world.wait(2 * DETACH)
    assert (await world.start()).home.session is not session
    assert await world.call(world.find("foreign")) is session
    await world.end()


async def test_the_same_foreign_id_of_two_principals():
    """An id is a name within a principal."""
    world = World()
    mine, yours = world.find("foreign", ME), world.find("foreign", YOU)
    assert mine is not yours
    assert await world.call(mine) is not await world.call(yours)
    await world.end()


async def test_an_id_of_ours_in_the_hands_of_another():
    """Somebody else's id leads to a session of one's own, never to theirs."""
    world = World()
    one = await world.start()
    stolen = world.find(one.id, YOU)
    assert stolen.record.adopted
    assert await world.call(stolen) is not await world.call(one)
    await world.end()


async def test_initialize_with_a_foreign_id():
    """A platform's own id on ``initialize`` is the client session's id; it does not change."""
    world = World()
    one = await world.initialize(brought="platform-1")
    assert one.id == "platform-1"
    assert one.record.adopted
    session = await world.call(one)
    again = await world.initialize(brought="platform-1")
    assert world.find("platform-1") is again is one
    assert await world.call(again) is session
    other = await world.initialize(BETA, brought="platform-1")
    assert world.find("platform-1") is other
    assert await world.call(other) is not session
    assert one.forgotten
    await world.end()


@pytest.mark.parametrize("sharing", Sharing)
async def test_initialize_with_an_id_of_ours(sharing):
    """A client that initialises anew with its former id is the same client: it goes on with its session."""
    world = World(sharing)
    one = await world.start()
    session = await world.call(one)
    world.delete(one)
    await world.wait(LINGER - 1)
    assert await world.initialize(brought=one.id) is one
    await world.wait(2 * DETACH)
    assert await world.call(one) is session
    assert len(world.binder.directory) == 1
    await world.end()


async def test_initialize_with_an_id_of_ours_and_another_profile():
    """To a server it is another client: it gets a new session, and its former one is over."""
    world = World()
    one = await world.start()
    session = await world.call(one)
    two = await world.start(BETA, brought=one.id)
    assert two.id != one.id
    assert not two.record.adopted
    assert await world.call(two) is not session
    assert one.forgotten
    three = await world.start()
    assert await world.call(three) is session
    await world.end()


async def test_initialize_with_another_profile_that_fails():
    """What a client has is over when it has something else, and not before."""
    world = World()
    one = await world.start()
    world.server.open_error = UpstreamError("no")
    with pytest.raises(UpstreamError, match="no"):
        await world.initialize(BETA, brought=one.id)
    assert world.find(one.id) is one
    await world.end()


async def test_initialize_with_a_stolen_id():
    """The id of another principal's client session gives nothing of it, and takes nothing from it."""
    world = World()
    one = await world.start()
    mine = await world.call(one)
    thief = await world.start(principal=YOU, brought=one.id)
    assert thief.id != one.id
    assert await world.call(thief) is not mine
    assert await world.call(one) is mine
    await world.end()


async def test_initialize_with_a_forgotten_id_of_ours():
    """It is no platform's own: its client gets a new one."""
    world = World()
    identifier = mint_id(capable=False)
    one = await world.start(brought=identifier)
    assert not one.record.adopted
    assert one.id != identifier
    await world.end()


async def test_initialize_anew_while_a_request_is_in_flight():
    """A platform that initialises again under the same id does not break what it has in flight."""
    world = World()
    one = await world.initialize(brought="platform-1")
    visit = await world.enter(one)
    await world.initialize(BETA, brought="platform-1")
    assert not visit.session.closed
    visit.end()
    assert one.lease is None
    assert one not in audience_of(visit.session)
    await world.end()


async def test_ids_of_ours_that_are_forgotten():
    """An id of ours is adopted after a restart, with the profile that it carries; 404 if its client could
    be asked in ways that are not known any more.
    """
    world = World()
    one = await world.start(CAPABLE)
    assert world.find(mint_id(capable=False)).record.adopted
    with pytest.raises(UnknownSession):
        world.find(mint_id(capable=True))
    world.binder.forget(one, "room")
    again = world.find(one.id)
    assert again.record.adopted
    assert again.profile == CAPABLE
    await world.call(again)
    await world.end()


async def test_a_profile_that_nobody_could_have_sent():
    """What a forged id carries is read like an ``initialize``: what is none is 404."""
    world = World()
    for profile in (b"[]", b"{}", b'{"protocolVersion":""}', b"not json"):
        with pytest.raises(UnknownSession):
            world.find(mint_id(capable=True, profile=profile))
    assert len(world.binder.directory) == 0
    await world.end()


@pytest.mark.parametrize("brought", [None, "platform-1"])
async def test_an_id_that_comes_with_another_credential_keeps_its_profile(brought):
    """After a token was renewed, say: no state and no session, but what the server may ask its client."""
    world = World()
    one = await world.start(CAPABLE, brought=brought)
    mine = await world.call(one)
    two = world.find(one.id, YOU)
    assert two.profile is CAPABLE
    assert (two.key.principal, two.key.profile) == (YOU.digest, CAPABLE.digest)
    assert await world.call(two) is not mine
    assert world.find(one.id) is one
    assert await world.call(one) is mine
    world.binder.forget(one, "age")
    assert world.find(one.id, YOU) is two
    await world.end()


async def test_no_profile_is_kept_of_what_is_forgotten():
    """The profile is remembered as long as its client session, and no longer; then the id alone has it."""
    world = World()
    one = await world.start(CAPABLE)
    world.binder.forget(one, "age")
    assert world.binder.directory.find_profile(one.id) is None
    assert world.find(one.id, YOU).profile == CAPABLE
    world.binder.forget(world.find(one.id, YOU), "age")
    assert not world.binder.directory._newest
    await world.end()


async def test_foreign_ids_may_be_rejected():
    """Under ``--unknown-session reject`` a foreign id is answered 404, and ``initialize`` mints one."""
    world = World(unknown=UnknownSessionRule.REJECT)
    with pytest.raises(UnknownSession) as caught:
        world.find("foreign")
    assert caught.value.http_status == 404
    one = await world.start(brought="foreign")
    assert one.id != "foreign"
    with pytest.raises(UnknownSession):
        world.find(one.id, YOU)
    assert len(world.binder.directory) == 1
    await world.end()


async def test_an_id_is_known_with_the_answer_that_carries_it():
    """An id works from the moment its client can know it, and there is no id for a failed ``initialize``."""
    world = World()
    world.server.open_error = UpstreamError("no")
    with pytest.raises(UpstreamError, match="no"):
        await world.initialize()
    assert len(world.binder.directory) == 0
    assert not world.told(events.ClientSessionCreated)
    await world.end()
