"""Whose client sessions hear what an upstream session says, and with which headers they are served."""

import asyncio

import pytest
from binding_world import ALPHA, ME, World
from session_fakes import settle

from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.kept_stream import EventBudget
from mcp_session_proxy.sessions.mailbox import Mailbox
from mcp_session_proxy.upstream.transport import NOBODY, Caller

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("every_beginning")]


async def test_clients_of_a_session():
    """The client sessions that would come back to a session hear what it says; borrowers do as well."""
    world = World()
    one, two = await world.start(), await world.start()
    assert set(audience_of(one.home.session)) == {one}
    conversation = await world.ask(affinity="a", client=two)
    assert set(audience_of(conversation)) == {two}
    world.delete(one)
    three = await world.start()
    assert set(audience_of(one.home.session)) == {one, three}
    await world.end()


async def test_a_client_hears_its_present_session_only():
    """A client that got a new session does not hear the old one any more."""
    world = World()
    one = await world.start()
    old = await world.call(one)
    await world.lose(old)
    new = await world.call(one)
    assert set(audience_of(new)) == {one}
    assert not audience_of(old)
    await world.end()


async def test_a_client_that_is_forgotten_hears_nothing():
    """Nothing is kept for a client session that was forgotten, be it in the middle of its request."""
    world = World(max_clients=1, open_seconds=1.0)
    one = world.find("foreign")
    request = asyncio.create_task(world.binder.enter(one, NOBODY))
    borrow = asyncio.create_task(world.binder.borrow(ME, "a", one, NOBODY))
    await settle()
    world.find("another")
    assert world.forgotten == [one]
    visits = [await request, await borrow]
    for visit in visits:
        assert not audience_of(visit.session)
        visit.end()
    assert one.lease is None
    world.check()
    await world.end()


async def test_each_visit_has_a_caller_of_its_own():
    """Each request has its own headers; what the session sends by itself has the newest credentials."""
    world = World()
    old, new = (Caller(headers=(("authorization", name),)) for name in ("old", "new"))
    for caller in (old, new):
        visit = await world.binder.borrow(ME, None, None, caller)
        assert visit.caller is caller
        assert visit.session.record.credentials is caller
        visit.end()
    one, visit = await world.binder.initialize(ME, ALPHA, None, None, old)
    visit.end()
    visit = await world.binder.enter(one, old)
    other = await world.binder.enter(one, new)
    assert (visit.caller, other.caller) == (old, new)
    assert visit.session.record.credentials is new
    visit.end()
    other.end()
    await world.end()


@pytest.mark.parametrize("known", [True, False])
async def test_a_client_session_that_is_over_keeps_nothing(known):
    """Its streams end and its mailbox is let go, also where the ``initialize`` failed and nobody knew it."""
    world = World()
    mailboxes = []

    def keep(client, session):
        client.mailbox = client.mailbox or Mailbox(EventBudget(5))
        mailboxes.append(client.mailbox)

    world.binder.attachments.on_attached.append(keep)
    if known:
        one = await world.start()
        world.binder.forget(one, "room")
        assert one.mailbox is None
    else:

        def fail(*_):
            raise ZeroDivisionError

        world.binder.attachments.on_attached.append(fail)
        with pytest.raises(ZeroDivisionError):
            await world.initialize()
        world.binder.attachments.on_attached.clear()
    [mailbox] = mailboxes
    assert mailbox.standalone.closed
    await world.end()


async def test_the_streams_of_all_clients_end_at_a_shutdown():
    """Each is told so, whoever has any."""
    world = World()
    one, two = await world.start(), await world.start()
    one.mailbox = Mailbox(EventBudget(5))
    world.binder.end_streams()
    assert one.mailbox.standalone.closed
    assert two.mailbox is None
    await world.end()
