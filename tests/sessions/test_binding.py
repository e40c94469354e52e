"""Which upstream session a request gets: the sharing modes' rules, client sessions that come and go.

Each test reads as a transcript: who asks, how much time passes, which session it was.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import REFUSED, FakeServer, Stand, run_story, settle

from mcp_session_proxy import events
from mcp_session_proxy.errors import (
    AcquireTimeout,
    Draining,
    UnknownSession,
    UpstreamError,
    UpstreamUnreachable,
)
from mcp_session_proxy.sessions.binding import Binder, Rules
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.directory import Directory
from mcp_session_proxy.sessions.identity import ANONYMOUS, Principal, Profile
from mcp_session_proxy.sessions.minting import mint_id
from mcp_session_proxy.sessions.modes import Anonymous, Sharing
from mcp_session_proxy.sessions.modes import UnknownSession as UnknownSessionRule
from mcp_session_proxy.upstream.transport import NOBODY, Caller

pytestmark = pytest.mark.looptime

ME, YOU = (Principal(digest=name * 8, anonymous=False) for name in ("me", "you"))
ALPHA, BETA, NONE = (
    Profile(digest=name, client_name=name, params=b"{}") for name in ("alpha", "beta", "sessionless")
)
CAPABLE = Profile(digest="capable", client_name="capable", params=b"{}", capable=True)
DETACH, GRACE, CLAIM, LINGER, IDLE, AGE = 60.0, 8.0, 5.0, 30.0, 1800.0, 86400.0


class World:
    """A binder in front of a fake server, and clients that use it."""

    def __init__(
        self,
        sharing=Sharing.HANDOVER,
        *,
        anonymous=Anonymous.POOL,
        unknown=UnknownSessionRule.ADOPT,
        detach_after=DETACH,
        open_seconds=0.0,
        sessionless=NONE,
        max_clients=1000,
        **limits,
    ):
        self.server = FakeServer(open_seconds=open_seconds)
        self.stand = Stand(self.server, idle_timeout_seconds=IDLE, linger_seconds=LINGER, **limits)
        self.told = self.stand.told
        self.forgotten = []
        self.clients = []
        self.binder = Binder(
            pool=self.stand.pool,
            rules=Rules(
                sharing=sharing,
                anonymous=anonymous,
                unknown_session=unknown,
                acquire_timeout_seconds=10.0,
                reconnect_grace_seconds=GRACE,
                detach_after_seconds=detach_after,
            ),
            sessionless=sessionless,
            directory=lambda on_forget: Directory(
                max_sessions=max_clients,
                max_sessions_per_principal=max_clients,
                timeout_seconds=AGE,
                on_forget=on_forget,
            ),
            observe=self.stand.events.append,
        )
        self.binder.on_forget = self.forgotten.append

    async def initialize(self, profile=ALPHA, *, principal=ME, affinity=None, brought=None):
        """A client sends ``initialize`` and gets a client session."""
        client, visit = await self.binder.initialize(principal, profile, affinity, brought, NOBODY)
        if client not in self.clients:
            self.clients.append(client)
        visit.end()
        self.check()
        return client

    async def start(self, profile=ALPHA, **options):
        """A client that also sends ``notifications/initialized``: it keeps its id."""
        client = await self.initialize(profile, **options)
        return self.find(client.id, client.principal)

    def find(self, identifier, principal=ME):
        """A request arrives that names this id."""
        client = self.binder.find(principal, identifier)
        if client not in self.clients:
            self.clients.append(client)
        self.check()
        return client

    async def enter(self, client):
        """A request of this client session is sent to the server."""
        visit = await self.binder.enter(self.find(client.id, client.principal), NOBODY)
        visit.session.requests += 1
        self.check()
        return visit

    async def call(self, client):
        """A request of this client session, answered; gives the upstream session that it went to."""
        visit = await self.enter(client)
        try:
            await asyncio.sleep(0)
        finally:
            visit.end()
        self.check()
        return visit.session

    async def borrow(self, principal=ME, affinity=None, client=None):
        """A request without a session, or routed by an affinity key, is sent to the server."""
        visit = await self.binder.borrow(principal, affinity, client, NOBODY)
        visit.session.requests += 1
        self.check()
        return visit

    async def ask(self, principal=ME, affinity=None, client=None):
        """The same, answered; gives the upstream session that it went to."""
        visit = await self.borrow(principal, affinity, client)
        await asyncio.sleep(0)
        visit.end()
        await settle()
        self.check()
        return visit.session

    def delete(self, client):
        """The client sends DELETE."""
        self.binder.absorb_delete(self.find(client.id, client.principal))
        self.check()

    async def open_stream(self, client):
        """The client opens a GET stream."""
        self.binder.stream_opened(self.find(client.id, client.principal), NOBODY)
        await settle()
        self.check()

    def close_stream(self, client):
        """The client's GET stream ends."""
        self.binder.stream_closed(client)
        self.check()

    async def hang_up(self, client):
        """The client's GET stream ends, and it does not come back."""
        self.close_stream(client)
        await self.wait(GRACE)

    def connect(self, client):
        """A connection has carried requests of this client session."""
        client.connections += 1
        client.keeps_connections = True

    def disconnect(self, client, *, by_client=True):
        """One of its connections is closed."""
        self.binder.connection_closed(client, by_client=by_client)
        self.check()

    def queues(self):
        """Those whose clients may come back, by how long they are waited for."""
        presence = self.binder._presence
        return presence._unclaimed, presence._cut_off, presence._quiet

    async def wait(self, seconds, most_steps=200):
        """Time passes, with maintenance every second, or less often when it is long."""
        steps = max(1, min(most_steps, int(seconds)))
        for _ in range(steps):
            await asyncio.sleep(seconds / steps)
            self.stand.pool.maintain()
            self.binder.maintain()
            await settle(5)
            self.check()

    def lose(self, session):
        """The server has forgotten a session for good."""
        session.lose(beyond_help=True)

    def check(self):
        """What must hold at any time."""
        self.stand.check()
        binder = self.binder
        for client in self.clients:
            assert min(client.in_flight, client.streams) >= 0
            queues = [queue for queue in self.queues() if client in queue]
            waits = client.lease is not None and not client.busy
            assert len(queues) == (1 if waits else 0), "attached for ever, or detached while in use"
        for queue in self.queues():
            used = [client.last_used for client in queue]
            assert used == sorted(used)
        for session in binder._guests:
            assert binder.clients_of(session)
            assert not any(client.forgotten for client in binder.clients_of(session))
        for slot in self.stand.books.slots():
            attached = [client for client in self.clients if client.lease and client.lease.slot is slot]
            assert slot.leases >= len(attached) or not slot.usable

    async def end(self):
        """Everybody stays away: in the end nothing is left of anybody."""
        await self.wait(DETACH + IDLE + 2 * AGE, 40)
        assert len(self.binder.directory) == 0
        assert not list(self.binder._guests)
        assert not list(self.binder._presence)
        assert not self.binder._tasks
        assert not self.server.live
        self.stand.check_empty()
        assert set(self.forgotten) >= {client for client in self.clients if client.claimed}


# == handover ======================================================================================


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


# == isolated ======================================================================================


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


# == DELETE ========================================================================================


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


# == ids ===========================================================================================


async def test_foreign_ids_are_adopted():
    """An id that is not ours names a conversation: the same id, the same session."""
    world = World()
    one = world.find("from-before-the-restart")
    assert one.adopted
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
    assert stolen.adopted
    assert await world.call(stolen) is not await world.call(one)
    await world.end()


async def test_initialize_with_a_foreign_id():
    """A platform's own id on ``initialize`` is the client session's id; it does not change."""
    world = World()
    one = await world.initialize(brought="platform-1")
    assert one.id == "platform-1"
    assert one.adopted
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
    assert not two.adopted
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
    assert not one.adopted
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
    assert one not in world.binder.clients_of(visit.session)
    await world.end()


async def test_ids_of_ours_that_are_forgotten():
    """An id of ours is adopted after a restart; where its client had declared capabilities, it is 404."""
    world = World()
    one = await world.start(CAPABLE)
    assert world.find(mint_id(capable=False)).adopted
    for forgotten in (mint_id(capable=True), one.id):
        if forgotten == one.id:
            world.binder.directory.forget(one, "room")
        with pytest.raises(UnknownSession):
            world.find(forgotten)
    assert len(world.binder.directory) == 1
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
    world.binder.directory.forget(one, "age")
    assert world.find(one.id, YOU) is two
    await world.end()


async def test_no_profile_is_kept_of_what_is_forgotten():
    """The profile is remembered as long as its client session, and no longer."""
    world = World()
    one = await world.start(CAPABLE)
    world.binder.directory.forget(one, "age")
    with pytest.raises(UnknownSession):
        world.find(one.id, YOU)
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


# == affinity ======================================================================================


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
    assert visit.session.key.profile == BETA.digest
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


# == sessions that are gone ========================================================================


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
    world.lose(old)
    new = await world.call(one)
    assert new is not old
    assert new.restored_from == [journal]
    assert new.journal.requests() == journal.requests()
    assert one in world.binder.clients_of(new)
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
        world.lose(session)
    await world.end()


async def test_a_used_session_is_not_told_what_another_was():
    """A client that gets a session with a history of its own leaves that as it is."""
    world = World()
    one, two = await world.start(), await world.start()
    old, other = await world.call(one), await world.call(two)
    remember(old)
    world.lose(old)
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
    world.lose(old)
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
    world.lose(old)
    world.server.restore_gate = asyncio.get_running_loop().create_future()
    world.server.restore_gate.set_exception(REFUSED)
    with pytest.raises(UpstreamUnreachable):
        await world.call(one)
    world.check()
    await settle()
    failed = world.server.last
    assert failed.closed
    assert not world.binder.clients_of(failed)
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
    world.lose(old)
    new = await world.call(one)
    assert new is not old
    assert one.lease.slot.session is new
    world.close_stream(one)
    await world.end()


async def test_condemned_by_its_visitor():
    """A session that a request found dead is given to nobody any more."""
    world = World()
    visit = await world.borrow()
    visit.condemn()
    visit.condemn()
    visit.end()
    assert await world.ask() is not visit.session
    assert visit.session.closed_for == "lost"
    await world.end()


# == attaching =====================================================================================


async def test_two_requests_of_a_returning_client_attach_once():
    """Requests that arrive together after the session is gone get one new session between them."""
    world = World(open_seconds=1.0)
    one = await world.start()
    old = await world.call(one)
    world.lose(old)
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
    assert not world.binder._guests
    assert world.stand.pool.count_states()["leased"] == 0
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
    assert not one.deleted
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


# == who hears a session ===========================================================================


async def test_clients_of_a_session():
    """The client sessions that would come back to a session hear what it says; borrowers do as well."""
    world = World()
    one, two = await world.start(), await world.start()
    assert set(world.binder.clients_of(one.home.session)) == {one}
    conversation = await world.ask(affinity="a", client=two)
    assert set(world.binder.clients_of(conversation)) == {two}
    world.delete(one)
    three = await world.start()
    assert set(world.binder.clients_of(one.home.session)) == {one, three}
    await world.end()


async def test_a_client_hears_its_present_session_only():
    """A client that got a new session does not hear the old one any more."""
    world = World()
    one = await world.start()
    old = await world.call(one)
    world.lose(old)
    new = await world.call(one)
    assert set(world.binder.clients_of(new)) == {one}
    assert not world.binder.clients_of(old)
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
        assert not world.binder.clients_of(visit.session)
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
        assert visit.session.credentials is caller
        visit.end()
    one, visit = await world.binder.initialize(ME, ALPHA, None, None, old)
    visit.end()
    visit = await world.binder.enter(one, old)
    other = await world.binder.enter(one, new)
    assert (visit.caller, other.caller) == (old, new)
    assert visit.session.credentials is new
    visit.end()
    other.end()
    await world.end()


# == bounds ========================================================================================


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
    assert world.find(one.id).adopted
    await world.end()


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


# == whatever else may happen ======================================================================

STEPS = st.one_of(
    st.tuples(st.just("initialize"), st.sampled_from([ALPHA, BETA]), st.sampled_from([None, "a", "foreign"])),
    st.tuples(
        st.sampled_from(
            [
                "notify",
                "request",
                "affinity",
                "answer",
                "leave",
                "listen",
                "hang_up",
                "connect",
                "disconnect",
                "cut",
                "delete",
                "lose",
            ]
        ),
        st.integers(0, 7),
    ),
    st.tuples(st.just("ask"), st.sampled_from([ME, YOU, ANONYMOUS])),
    st.tuples(st.sampled_from(["restart", "pause", "resume", "reconnect"])),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.25, 1.0, 6.0, 61.0, 2000.0])),
)


class Story:
    """Plays a list of steps on a world."""

    def __init__(self, world):
        self.world = world
        self.tasks = set()
        self.visits = []
        self.streams = []
        self.connections = []

    @staticmethod
    def choose(things, number):
        things = list(things)
        return things[number % len(things)] if things else None

    def spawn(self, work):
        self.tasks.add(asyncio.ensure_future(work))

    async def collect(self):
        await settle(5)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            if task.cancelled() or task.exception() is not None:
                continue
            visit = task.result()
            if isinstance(visit, tuple):
                if visit[0] not in self.world.clients:
                    self.world.clients.append(visit[0])
                visit[1].end()
            else:
                visit.session.requests += 1
                self.visits.append(visit)

    def initialize(self, profile, named):
        affinity, brought = (None, named) if named == "foreign" else (named, None)
        self.spawn(self.world.binder.initialize(ME, profile, affinity, brought, NOBODY))

    def client(self, number):
        found = self.choose([one for one in self.world.clients if not one.forgotten], number)
        return None if found is None else self.world.find(found.id, found.principal)

    def notify(self, number):
        self.client(number)

    def request(self, number):
        if (client := self.client(number)) is not None:
            self.spawn(self.world.binder.enter(client, NOBODY))

    def affinity(self, number):
        if (client := self.client(number)) is not None:
            self.spawn(self.world.binder.borrow(client.principal, "a", client, NOBODY))

    def ask(self, principal):
        self.spawn(self.world.binder.borrow(principal, None, None, NOBODY))

    def answer(self, number):
        if (visit := self.choose(self.visits, number)) is not None:
            self.visits.remove(visit)
            visit.end()

    def leave(self, number):
        if (task := self.choose(self.tasks, number)) is not None:
            task.cancel()

    def listen(self, number):
        if (client := self.client(number)) is not None:
            self.streams.append(client)
            self.world.binder.stream_opened(client, NOBODY)

    def hang_up(self, number):
        if (client := self.choose(self.streams, number)) is not None:
            self.streams.remove(client)
            self.world.binder.stream_closed(client)

    def connect(self, number):
        if (client := self.client(number)) is not None:
            self.connections.append(client)
            self.world.connect(client)

    def disconnect(self, number, by_client=True):
        if (client := self.choose(self.connections, number)) is not None:
            self.connections.remove(client)
            self.world.disconnect(client, by_client=by_client)

    def cut(self, number):
        self.disconnect(number, by_client=False)

    def delete(self, number):
        if (client := self.client(number)) is not None:
            self.world.delete(client)

    def lose(self, number):
        if (session := self.choose(self.world.server.sessions[-6:], number)) is not None:
            session.lose(beyond_help=number % 2 == 0)

    def restart(self):
        for session in list(self.world.server.sessions):
            session.lose(beyond_help=True)

    def pause(self):
        self.world.stand.pool.pause()

    def resume(self):
        self.world.stand.pool.resume()

    def reconnect(self):
        self.world.stand.pool.reconnect()

    async def time(self, seconds):
        await self.world.wait(seconds, 10)

    async def play(self, steps):
        for name, *arguments in steps:
            result = getattr(self, name)(*arguments)
            if result is not None:
                await result
            await self.collect()
            self.world.check()

    async def stop(self):
        """All clients leave, whatever they were doing."""
        self.resume()
        while self.tasks:
            await self.world.wait(11.0, 4)
            await self.collect()
        for visit in self.visits:
            visit.end()
        for client in self.streams:
            self.world.binder.stream_closed(client)


@given(
    steps=st.lists(STEPS, max_size=30),
    sharing=st.sampled_from(list(Sharing)),
    options=st.fixed_dictionaries(
        {
            "anonymous": st.sampled_from(list(Anonymous)),
            "open_seconds": st.sampled_from([0.0, 0.5]),
            "max_clients": st.sampled_from([2, 100]),
            "max_sessions": st.sampled_from([1, 3, 100]),
            "min_idle": st.integers(0, 1),
            "max_requests": st.sampled_from([0, 2]),
        }
    ),
)
@settings(max_examples=200, deadline=None)
def test_any_sequence_leaves_nothing_behind(steps, sharing, options):
    """Whatever clients do in whatever order, nothing stays attached, and in the end nothing is left."""

    async def play():
        world = World(sharing, **options)
        story = Story(world)
        await story.play(steps)
        await story.stop()
        await world.end()

    run_story(play())


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
