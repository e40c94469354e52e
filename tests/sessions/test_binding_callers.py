"""Conversations that are routed by an affinity key, and callers without credentials."""

import pytest
from binding_world import ALPHA, BETA, ME, YOU, World

from mcp_session_proxy.sessions.identity import ANONYMOUS
from mcp_session_proxy.sessions.modes import Anonymous, Sharing
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime


async def test_affinity_beats_the_session_id():
    """A request with an affinity key goes to that conversation's session, whatever its session id says."""
    world = World()
    one, two = await world.start(), await world.start()
    session = await world.ask(affinity="conversation", client=one)
    assert await world.ask(affinity="conversation", client=two) is session
    assert session not in {one.home.session, two.home.session}
    assert await world.ask(affinity="another", client=one) is not session
    assert await world.call(one) is one.home.session
    await world.end()


@pytest.mark.parametrize("sharing", Sharing)
async def test_conversations_keep_their_session(sharing):
    """In every mode a conversation without session ids has one session, and nobody else has it."""
    world = World(sharing, sessionless=ALPHA)
    session = await world.ask(affinity="a")
    assert await world.ask(affinity="a") is session
    assert await world.ask(affinity="b") is not session
    assert await world.ask(YOU, affinity="a") is not session
    assert await world.ask() is not session
    assert (await world.start()).home.session is not session
    await world.end()


async def test_two_profiles_of_a_conversation():
    """A session serves the profile that it was initialised with: other capabilities, another session."""
    world = World()
    one, two = await world.start(ALPHA), await world.start(BETA)
    assert await world.ask(affinity="a", client=one) is not await world.ask(affinity="a", client=two)
    await world.end()


async def test_a_profile_of_the_request_itself():
    """A request that brings its own profile gets a session of that profile."""
    world = World()
    visit = await world.binder.borrow(ME, None, None, NOBODY, BETA)
    (session,) = world.server.sessions
    assert session.key.profile == BETA.digest
    assert visit.session is session
    visit.end()
    await world.end()


# == anonymous callers =============================================================================


async def test_anonymous_callers_are_one_party():
    """By default callers without credentials share like one principal."""
    world = World()
    assert await world.ask(ANONYMOUS) is await world.ask(ANONYMOUS)
    one = await world.start(principal=ANONYMOUS)
    mine = await world.call(one)
    world.delete(one)
    assert (await world.start(principal=ANONYMOUS)).home.session is mine
    await world.end()


@pytest.mark.parametrize("sharing", Sharing)
async def test_anonymous_callers_may_be_isolated(sharing):
    """Under ``--anonymous isolate`` anonymous callers never meet, in any mode."""
    world = World(sharing, anonymous=Anonymous.ISOLATE, sessionless=ALPHA)
    one = await world.start(principal=ANONYMOUS)
    mine = await world.call(one)
    two = await world.start(principal=ANONYMOUS)
    asked = [await world.ask(ANONYMOUS) for _ in range(3)]
    world.delete(one)
    three = await world.start(principal=ANONYMOUS)
    assert len({mine, two.home.session, three.home.session, *asked}) == 6
    assert await world.call(one) is mine
    await world.end()


async def test_isolation_is_for_the_unknown_only():
    """A conversation handle or a credential makes an anonymous caller's requests belong together."""
    world = World(anonymous=Anonymous.ISOLATE)
    assert await world.ask(ANONYMOUS, affinity="a") is await world.ask(ANONYMOUS, affinity="a")
    assert await world.ask(ME) is await world.ask(ME)
    adopted = world.find("foreign", ANONYMOUS)
    assert await world.call(adopted) is await world.call(adopted)
    await world.end()
