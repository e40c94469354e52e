"""Real upstream sessions that stood at their server before the pool knew of them, in place of fake ones."""

import asyncio

import fakes
import session_fakes
from messages import INITIALIZE_PARAMS

from mcp_session_proxy.errors import SessionLost
from mcp_session_proxy.upstream.record import KnownSession, SessionRules
from mcp_session_proxy.upstream.session import UpstreamSession


class AdoptedSession(UpstreamSession):
    """One of them, with what the tests want to know of a session beside."""

    def __init__(self, server, session_key, number):
        server.wire.sessions.append(f"s{number}")
        super().__init__(
            fleet=server.fleet,
            initialize_params=INITIALIZE_PARAMS,
            client_name="t",
            principal=session_key.principal,
            principal_tag=session_key.principal_tag,
            router=fakes.FakeRouter(),
            observe=fakes.Recorder(),
            rules=SessionRules(keepalive_seconds=1e9),
            known=KnownSession(
                server="http://fake",
                session_id=f"s{number}",
                version="2025-11-25",
                initialize_result=b'{"protocolVersion":"2025-11-25","capabilities":{}}',
            ),
        )
        self.server = server
        self.closed_for = None
        self.beyond_help = False
        self.restored_from = []
        self.goodbye = None  # none is held up

    @property
    def journal(self):
        """What its client told the server."""
        return self.record.journal

    async def open(self, caller):
        await asyncio.sleep(self.server.open_seconds)
        if self.server.open_error is not None:
            raise self.server.open_error
        await super().open(caller)
        self.server.appeared(self)

    async def close(self, reason):
        if not self.closed:
            self.closed_for = reason
        await super().close(reason)
        self.server.live.discard(self)

    async def restore(self, journal):
        self.restored_from.append(journal)
        if self.server.restore_gate is not None:
            await self.server.restore_gate
        await super().restore(journal)

    def lose(self, *, beyond_help=False):
        """The server has forgotten it, and it turns out between requests."""
        self.beyond_help = beyond_help
        self.lost(self.incarnation, "test")

    async def revive(self, lost, how, caller):
        if self.beyond_help:
            raise SessionLost("beyond help")
        await super().revive(lost, how, caller)


class AdoptedSessionMaker(session_fakes.SessionMaker):
    """Makes them. ``wire`` is the server that they are at."""

    def __init__(self, **options):
        super().__init__(**options)
        self.wire = fakes.FakeServer()
        self.fleet = fakes.FakeFleet(self.wire)

    def connect(self, session_key, profile):
        session = AdoptedSession(self, session_key, next(self._numbers))
        self.sessions.append(session)
        return session
