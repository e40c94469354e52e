"""Joins callers to upstream sessions: client sessions attach and detach, other requests borrow.

The rules of sharing are in ``policy``; here they meet the clock and the directory. A *visit* is one
request's use of an upstream session, from entry to end.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from .. import events
from ..errors import ProxyError, UnknownSession, UpstreamTimeout
from ..events import Observer
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import policy
from .directory import ClientSession, Directory, mint_id
from .identity import Principal, Profile, SessionKey, affinity_of_id
from .modes import Anonymous, Sharing
from .modes import UnknownSession as UnknownSessionRule
from .pool import Lease, Pool

# A client that keeps its id sends it back within moments ("notifications/initialized"). One that
# does not never will, so what it was given need not be held for it.
_CLAIM_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator chose."""

    sharing: Sharing = Sharing.HANDOVER
    anonymous: Anonymous = Anonymous.POOL
    unknown_session: UnknownSessionRule = UnknownSessionRule.ADOPT
    acquire_timeout_seconds: float = 10.0
    detach_after_seconds: float = 60.0


class Visit:
    """One request's use of an upstream session. ``end`` it exactly once, however it went.

    ``caller`` holds the headers of that very request: others may be under way on the same session, with
    others. A client session's own lease outlives the visit; a borrowed one ends with it.
    """

    __slots__ = ("_binder", "_borrowed", "_slot", "caller", "client", "session", "waited_seconds")

    def __init__(
        self,
        binder: "Binder",
        lease: Lease,
        client: ClientSession | None,
        caller: Caller,
        *,
        borrowed: bool,
        waited_seconds: float | None,
    ) -> None:
        self._binder = binder
        self._slot = lease.slot
        self._borrowed = lease if borrowed else None
        self.client = client
        self.caller = caller
        self.session = _upstream(lease)
        self.session.credentials = caller.credentials
        self.waited_seconds = waited_seconds

    @property
    def patience_seconds(self) -> float:
        """How long this request may wait for a server that takes no connections."""
        return self._binder.patience_seconds

    def end(self) -> None:
        """The request is over."""
        if self._borrowed is not None:
            self._borrowed.release()
        if self.client is not None:
            self._binder.leave(self.client)

    def condemn(self) -> None:
        """The session turned out to be dead and could not be re-opened: nobody may get it again."""
        self._binder.pool.retire(self._slot, "lost")


def _upstream(lease: Lease) -> UpstreamSession:
    """The session behind a lease. The pool knows it by the little it needs; here it is what it is."""
    return cast(UpstreamSession, lease.slot.session)


def _usable_lease(client: ClientSession) -> Lease | None:
    """The lease that the client session holds, unless its session is gone."""
    return client.lease if client.lease is not None and client.lease.slot.usable else None


class Binder:
    """Finds the upstream session for each request. ``rules`` may be replaced at any time."""

    def __init__(
        self,
        *,
        pool: Pool,
        rules: Rules,
        sessionless: Profile,
        directory: Callable[[Callable[[ClientSession, str], None]], Directory],
        observe: Observer,
    ) -> None:
        self.pool = pool
        self.directory = directory(self._forgotten)
        self.on_forget: Callable[[ClientSession], None] | None = None
        # Told when a client session comes to another upstream session (the last) than it had.
        self.on_moved: Callable[[ClientSession, UpstreamSession, UpstreamSession], None] | None = None
        self.rules = rules
        self._sessionless = sessionless
        self._observe = observe
        self._guests: dict[UpstreamSession, dict[ClientSession, None]] = {}
        # Attached only because they were used lately, the longest ago first.
        self._quiet: dict[ClientSession, None] = {}
        self._unclaimed: dict[ClientSession, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def patience_seconds(self) -> float:
        """How long a request may wait for an upstream session."""
        return self.rules.acquire_timeout_seconds

    # -- client sessions ---------------------------------------------------------------------

    async def initialize(
        self,
        principal: Principal,
        profile: Profile,
        affinity: str | None,
        brought_id: str | None,
        caller: Caller,
    ) -> tuple[ClientSession, Visit]:
        """A new client session for an ``initialize``, and a visit to its upstream session.

        ``brought_id`` is an id that the client sent along (a platform's own): if it is not one of
        ours, the session is known by it.
        """
        now = asyncio.get_running_loop().time()
        adopted = self._is_foreign(principal, brought_id, now)
        if adopted and brought_id is not None:
            affinity = affinity or affinity_of_id(brought_id)
        client = ClientSession(
            identifier=brought_id if adopted and brought_id is not None else mint_id(),
            principal=principal,
            key=SessionKey(principal.digest, affinity, profile.digest),
            profile=profile,
            usage=policy.usage_of_client(self._sharing_for(principal, affinity), adopted=adopted),
            adopted=adopted,
            now=now,
        )
        try:
            visit = await self.enter(client, caller)
        except BaseException:
            client.forgotten = True  # nobody will ever learn its id
            self._part_with(client)
            raise
        self._remember(client)
        return client, visit

    def _sharing_for(self, principal: Principal, affinity: str | None) -> Sharing:
        """The sharing mode for this caller: ``--anonymous isolate`` changes it for the unknown."""
        unknown = principal.anonymous and affinity is None
        isolate = unknown and self.rules.anonymous is Anonymous.ISOLATE
        return Sharing.FRESH if isolate else self.rules.sharing

    def _is_foreign(self, principal: Principal, brought_id: str | None, now: float) -> bool:
        if brought_id is None or self.rules.unknown_session is UnknownSessionRule.REJECT:
            return False
        known = self._look_up(principal, brought_id, now)
        return known is None or known.adopted

    def _look_up(self, principal: Principal, identifier: str, now: float) -> ClientSession | None:
        """The client session under this id, which shows a sign of life."""
        client = self.directory.find(principal, identifier, now)
        if client is not None:
            client.claimed = True
            self._set_quiet(client)
        return client

    def find(self, principal: Principal, identifier: str) -> ClientSession:
        """The client session under this id; a foreign id is adopted.

        Raises:
            UnknownSession: the id is not ours, and the rules say to refuse.
        """
        now = asyncio.get_running_loop().time()
        client = self._look_up(principal, identifier, now)
        if client is not None:
            return client
        if self.rules.unknown_session is UnknownSessionRule.REJECT:
            raise UnknownSession("Session not found. Send initialize to get a new one.")
        affinity = affinity_of_id(identifier)
        client = ClientSession(
            identifier=identifier,
            principal=principal,
            key=self.sessionless_key(principal, affinity),
            profile=self._sessionless,
            usage=policy.usage_of_client(self.rules.sharing, adopted=True),
            adopted=True,
            now=now,
        )
        self._remember(client)
        return client

    def _remember(self, client: ClientSession) -> None:
        self.directory.add(client)
        self._observe(
            events.ClientSessionCreated(
                client=client.tag,
                session="-" if client.home is None else client.home.session.tag,
                principal=client.principal.tag,
                origin="adopted" if client.adopted else "minted",
                client_name=client.profile.client_name,
            )
        )

    def absorb_delete(self, client: ClientSession) -> None:
        """The client says goodbye. Its upstream session stays, and so does the id."""
        client.deleted = True
        self._let_linger(client)
        self._observe(events.DeleteAbsorbed(client=client.tag, principal=client.principal.tag))
        self._detach_if_over(client)

    @staticmethod
    def _let_linger(client: ClientSession) -> None:
        """The owner of a session of its own has said goodbye, or cannot come back."""
        if client.home is not None and client.home.reserved:
            client.home.lingering_since = asyncio.get_running_loop().time()

    def stream_opened(self, client: ClientSession, caller: Caller) -> None:
        """A GET stream of this client session is open: it is attached, so that it hears the server."""
        client.streams += 1
        client.had_stream = True
        client.deleted = False
        if client.home is not None:
            client.home.lingering_since = None
        self._set_quiet(client)
        if client.lease is None or not client.lease.slot.usable:
            task = asyncio.get_running_loop().create_task(self._attach_quietly(client, caller))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attach_quietly(self, client: ClientSession, caller: Caller) -> None:
        """Attach without a request; when that fails now, the next request tries again."""
        try:
            visit = await self.enter(client, caller)
        except ProxyError:
            return
        visit.end()

    def stream_closed(self, client: ClientSession) -> None:
        """A GET stream of this client session is closed."""
        client.streams -= 1
        self.directory.touch(client, asyncio.get_running_loop().time())
        self._detach_if_over(client)

    # -- visits ------------------------------------------------------------------------------

    async def enter(self, client: ClientSession, caller: Caller) -> Visit:
        """A visit of a client session to its upstream session, which it attaches to.

        Raises:
            OverloadError, UpstreamError: as ``Pool.acquire``.
        """
        client.in_flight += 1
        client.requests += 1
        self._set_quiet(client)
        lease, waited_seconds = _usable_lease(client), None
        if lease is None:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                lease = await self._attach(client, caller)
            except BaseException:
                client.in_flight -= 1
                self._detach_if_over(client)
                raise
            waited_seconds = loop.time() - started
        return Visit(self, lease, client, caller, borrowed=False, waited_seconds=waited_seconds)

    async def borrow(
        self,
        principal: Principal,
        affinity: str | None,
        client: ClientSession | None,
        caller: Caller,
        profile: Profile | None = None,
    ) -> Visit:
        """A visit that is routed by an affinity key, or by nothing but the principal.

        ``client`` is the client session that the request names, if any: its profile is used, and it
        answers what the server asks. ``profile`` is that of a modern request.
        """
        sharing = self._sharing_for(principal, affinity)
        usage = policy.usage_without_client(sharing, affinity=affinity is not None)
        if profile is None:
            profile = self._sessionless if client is None else client.profile
        key = SessionKey(principal.digest, affinity, profile.digest)
        lease = self.pool.acquire_at_once(key, profile, usage, caller)
        if lease is None:
            lease = await self.pool.acquire(key, profile, usage, caller, self._deadline())
        visit = Visit(self, lease, client, caller, borrowed=True, waited_seconds=lease.waited_seconds)
        if client is not None:
            client.in_flight += 1
            client.requests += 1
            self._set_quiet(client)
            self._welcome(visit.session, client)
        return visit

    def sessionless_key(self, principal: Principal, affinity: str | None) -> SessionKey:
        """The key of what ``borrow`` gives to this caller for a request without a client session."""
        return SessionKey(principal.digest, affinity, self._sessionless.digest)

    def leave(self, client: ClientSession) -> None:
        """The end of a client session's visit; only ``Visit.end`` calls this."""
        client.in_flight -= 1
        self.directory.touch(client, asyncio.get_running_loop().time())
        self._detach_if_over(client)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.rules.acquire_timeout_seconds

    # -- attachment --------------------------------------------------------------------------

    async def _attach(self, client: ClientSession, caller: Caller) -> Lease:
        """The client session's lease, taken anew if it has none. One attempt for all who ask at once."""
        deadline = self._deadline()
        while (lease := _usable_lease(client)) is None and self.pool.paused:
            await self.pool.resumed(client.key, deadline)
        if lease is not None:
            return lease
        if client.attaching is None:
            home = client.home
            if home is not None and (lease := self.pool.reclaim(home, client.usage)) is not None:
                client.lease = lease
                return lease
            work = self._take_session(client, caller, deadline)
            client.attaching = asyncio.get_running_loop().create_task(work, name=f"attach {client.tag}")
            client.attaching.add_done_callback(lambda task: self._attached(client, task))
        await asyncio.shield(client.attaching)
        assert client.lease is not None
        return client.lease

    async def _take_session(self, client: ClientSession, caller: Caller, deadline: float) -> None:
        lease = await self.pool.acquire(client.key, client.profile, client.usage, caller, deadline)
        session, former = _upstream(lease), client.home
        self._welcome(session, client)
        if former is not None:
            lost = cast(UpstreamSession, former.session)
            if session.requests == 0:
                await self._restore(lease, lost, client, deadline)
            self._unguest(lost, client)
            if self.on_moved is not None and lost is not session:
                self.on_moved(client, lost, session)
        client.lease, client.home = lease, lease.slot

    async def _restore(
        self, lease: Lease, lost: UpstreamSession, client: ClientSession, deadline: float
    ) -> None:
        """Bring a new session to where the lost one was. Nobody may use it before, or half restored."""
        session = _upstream(lease)
        try:
            async with asyncio.timeout_at(deadline):
                await session.restore(lost.journal)
        except BaseException as error:
            self._unguest(session, client)
            lease.retire("lost")
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("The MCP server did not take the session's state in time.") from None
            raise

    def _attached(self, client: ClientSession, task: asyncio.Task[None]) -> None:
        client.attaching = None
        if not task.cancelled():
            task.exception()  # whoever waits has got it
        if client.in_flight == 0:  # everyone who asked has left meanwhile
            self._detach_if_over(client)

    def _detach_if_over(self, client: ClientSession) -> None:
        """Detach when the client has left: it said so, or its stream closed, and nothing is in flight."""
        if client.busy:
            return
        if client.deleted or client.had_stream or client.forgotten:
            self._detach(client)
        else:
            self._set_quiet(client)

    def _detach(self, client: ClientSession) -> None:
        self._quiet.pop(client, None)
        self._unclaimed.pop(client, None)
        if (lease := client.lease) is not None:
            client.lease = None
            lease.release()
        if client.forgotten:
            self._let_linger(client)

    def _set_quiet(self, client: ClientSession) -> None:
        """Queue the client session for detachment after silence, or take it out of that queue."""
        self._quiet.pop(client, None)
        self._unclaimed.pop(client, None)
        if not client.busy and client.lease is not None:
            queue = self._quiet if client.claimed else self._unclaimed
            queue[client] = None

    def maintain(self) -> None:
        """Detach the silent, forget the old. Called regularly."""
        now = asyncio.get_running_loop().time()
        for queue, patience in (
            (self._quiet, self.rules.detach_after_seconds),
            (self._unclaimed, min(_CLAIM_SECONDS, self.rules.detach_after_seconds)),
        ):
            while (client := next(iter(queue), None)) is not None:
                if now - client.last_used < patience:
                    break
                self._detach(client)
        self.directory.expire(now)
        for session in [session for session in self._guests if session.closed]:
            del self._guests[session]

    # -- who is behind an upstream session -----------------------------------------------------

    def clients_of(self, session: UpstreamSession) -> Mapping[ClientSession, None]:
        """The client sessions that find this upstream session when they come back."""
        return self._guests.get(session, {})

    def _welcome(self, session: UpstreamSession, client: ClientSession) -> None:
        if not client.forgotten:
            self._guests.setdefault(session, {})[client] = None

    def _unguest(self, session: UpstreamSession, client: ClientSession) -> None:
        guests = self._guests.get(session)
        if guests is not None:
            guests.pop(client, None)
            if not guests:
                del self._guests[session]

    def _part_with(self, client: ClientSession) -> None:
        """Nobody can come back for this client session. What is still in flight detaches at its end."""
        self._detach_if_over(client)
        for session in [s for s, guests in self._guests.items() if client in guests]:
            self._unguest(session, client)

    def _forgotten(self, client: ClientSession, reason: str) -> None:
        self._part_with(client)
        if self.on_forget is not None:
            self.on_forget(client)
        self._observe(
            events.ClientSessionExpired(client=client.tag, principal=client.principal.tag, reason=reason)
        )
