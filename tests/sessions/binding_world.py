"""A binder in front of a fake server, and clients that use it.

Tests with it read as transcripts: who asks, how much time passes, which session it was.
"""

import asyncio

from session_fakes import SessionMaker, Stand, settle

from mcp_session_proxy import events
from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.attachment import ATTACHED, Attachment
from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.binding import Binder, Rules
from mcp_session_proxy.sessions.directory import Directory, DirectoryRules
from mcp_session_proxy.sessions.identity import Principal, Profile, read_profile
from mcp_session_proxy.sessions.modes import Anonymous, Sharing, UnknownSessionRule
from mcp_session_proxy.sessions.record import Contact
from mcp_session_proxy.upstream.transport import NOBODY

ME, YOU = (Principal(digest=name * 8, anonymous=False) for name in ("me", "you"))
ALPHA, BETA, NONE = (
    Profile(digest=name, client_name=name, params=b"{}") for name in ("alpha", "beta", "sessionless")
)
CAPABLE = read_profile(
    b'{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"capable"}}'
)
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
        self.server = SessionMaker(open_seconds=open_seconds)
        self.stand = Stand(self.server, idle_timeout_seconds=IDLE, linger_seconds=LINGER, **limits)
        self.told = self.stand.told
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
            directory=Directory(
                DirectoryRules(
                    max_sessions=max_clients,
                    max_sessions_per_principal=max_clients,
                    timeout_seconds=AGE,
                )
            ),
            observe=self.stand.events.append,
        )

    @property
    def forgotten(self):
        """The client sessions that are no more, as the events tell, in this order."""
        by_tag = {client.tag: client for client in self.clients}
        tags = [event.client for event in self.told(events.ClientSessionExpired)]
        return [by_tag[tag] for tag in tags if tag in by_tag]

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
        visit.session.record.requests += 1
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
        visit.session.record.requests += 1
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
        return list(self.binder.attachments._presence.queues())

    async def wait(self, seconds, most_steps=200):
        """Time passes, with maintenance every second, or less often when it is long."""
        steps = max(1, min(most_steps, int(seconds)))
        for _ in range(steps):
            await asyncio.sleep(seconds / steps)
            upkeep.maintain(self.stand.pool)
            self.binder.maintain()
            await settle(5)
            self.check()

    async def lose(self, session):
        """The server has forgotten a session for good."""
        session.lose(beyond_help=True)
        await settle()

    def check(self):
        """What must hold at any time."""
        self.stand.check()
        for client in self.clients:
            assert min(client.in_flight, client.streams) >= 0
            queues = [queue for queue in self.queues() if client in queue]
            assert (client.lease is not None) == (client.state in ATTACHED)
            assert client.attaching is not None or client.state is not Attachment.ATTACHING
            waits = client.lease is not None and not client.busy
            assert waits == (client.state is Attachment.AWAITED)
            assert len(queues) == (1 if waits else 0), "attached for ever, or detached while in use"
        for queue in self.queues():
            used = [client.record.last_used for client in queue]
            assert used == sorted(used)
        for session in self.server.sessions:
            assert not any(client.forgotten for client in audience_of(session))
        for slot in self.stand.books.slots():
            attached = [client for client in self.clients if client.lease and client.lease.slot is slot]
            assert slot.leases >= len(attached) or not slot.usable

    async def end(self):
        """Everybody stays away: in the end nothing is left of anybody."""
        await self.wait(DETACH + IDLE + 2 * AGE, 40)
        assert len(self.binder.directory) == 0
        assert not any(map(audience_of, self.server.sessions))
        assert not list(self.binder.attachments._presence)
        assert not self.binder._tasks
        assert not self.server.live
        self.stand.check_empty()
        known = {one for one in self.clients if one.record.contact is not Contact.UNCLAIMED}
        assert set(self.forgotten) >= known
