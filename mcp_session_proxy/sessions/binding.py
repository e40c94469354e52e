"""Joins callers to upstream sessions: client sessions attach and detach, other requests borrow.

The rules of sharing are in ``policy``; here they meet the clock and the directory. A *visit* is one
request's use of an upstream session, from entry to end.
"""

import asyncio
from collections.abc import Callable
from typing import Self

import msgspec

from .. import events
from ..aio import Tasks
from ..errors import ProxyError, UnknownSession
from ..events import Observer
from ..upstream.life import Life
from ..upstream.session import UpstreamSession
from ..upstream.transport import NOBODY, Caller
from . import audience, minting, policy, presence
from .adoption import Adoption
from .attaching import Attachments, usable_lease
from .books import Slot, Usage
from .client import ClientSession, Farewell, new_tag
from .directory import Departure, Directory
from .identity import Principal, Profile, SessionKey, affinity_of_id, read_profile
from .modes import Anonymous, Sharing, UnknownSessionRule
from .pool import Lease, Pool
from .presence import Patience
from .record import ClientRecord, Contact


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose."""

    sharing: Sharing = Sharing.HANDOVER
    anonymous: Anonymous = Anonymous.POOL
    unknown_session: UnknownSessionRule = UnknownSessionRule.ADOPT
    acquire_timeout_seconds: float = 10.0
    reconnect_grace_seconds: float = 5.0
    detach_after_seconds: float = 60.0

    @property
    def patience(self) -> Patience:
        """How long silent clients are waited for."""
        return Patience(self.reconnect_grace_seconds, self.detach_after_seconds)


class Visit:
    """One request's use of an upstream session. It is a context manager; without a block, call ``end``.

    It may be ended early, or twice: the lease goes back, and the client session is told, exactly once.
    ``caller`` has the headers of this very request; other requests, with other headers, may be under way on
    the same session. ``borrowed`` is a lease for this request alone. Without one, the request uses the lease
    of its client session, which outlives the visit.
    """

    __slots__ = ("_binder", "_borrowed", "_slot", "_visitor", "caller", "client", "session", "waited_seconds")

    def __init__(
        self,
        binder: "Binder",
        slot: Slot[UpstreamSession],
        client: ClientSession | None,
        caller: Caller,
        *,
        borrowed: Lease | None = None,
        waited_seconds: float | None = None,
    ) -> None:
        self._binder = binder
        self._slot = slot
        self._borrowed = borrowed
        # ``_visitor`` is None from the end on, so that the client session is told once.
        self._visitor = self.client = client
        self.caller = caller
        self.session = slot.session
        # For what the session sends by itself; the caller's other headers are this request's alone.
        self.session.record.credentials = caller.credentials
        self.waited_seconds = waited_seconds

    def __enter__(self) -> Self:
        return self

    @property
    def patience_seconds(self) -> float:
        """How long this request may wait for a server that takes no connections."""
        return self._binder.patience_seconds

    @property
    def key(self) -> SessionKey:
        """Of the session that it has come to."""
        return self._slot.key

    def end(self, *_: object) -> None:
        """The request is over. A second call does nothing."""
        if self._borrowed is not None:
            self._borrowed.release()
        if (visitor := self._visitor) is not None:
            self._visitor = None
            self._binder.leave(visitor)

    __exit__ = end

    def retire(self) -> None:
        """The session turned out to be dead and could not be re-opened: nobody may get it again."""
        self._binder.pool.retire(self._slot, "lost")


class Binder:
    """Finds the upstream session for each request. ``rules`` may be replaced at any time.

    ``sessionless`` is the profile of requests that name no client session. ``profile_of`` is for
    ``Adoption``.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        rules: Rules,
        sessionless: Profile,
        directory: Directory,
        observe: Observer,
        profile_of: Callable[[bytes], Profile] = read_profile,
    ) -> None:
        self.pool = pool
        self.directory = directory
        self.attachments = Attachments(pool=pool, patience=rules.patience)
        self.adoption = Adoption(
            directory=directory,
            sessionless=sessionless,
            profile_of=profile_of,
            rule=rules.unknown_session,
        )
        # Told of a client session that has begun.
        self.on_arrival: list[Callable[[ClientSession], None]] = []
        # Told of one that is no more.
        self.on_departure: list[Callable[[ClientSession], None]] = []
        self._rules = rules
        self._sessionless = sessionless
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._tasks = Tasks()

    @property
    def rules(self) -> Rules:
        """What the operator chose, now."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules
        self.attachments.patience = rules.patience
        self.adoption.rule = rules.unknown_session

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
        """The client session for an ``initialize``, and a visit to its upstream session.

        ``brought_id`` is an id that the client sent along. Under its own former id it goes on with its client
        session, if to a server it is the same client as before; else it gets a new one, and the former is
        over. By a platform's own id the client session is known from now on.
        """
        known = None if brought_id is None else self.find_known(principal, brought_id)
        adopted_id = None
        if brought_id is not None and self.adoption.takes_over(brought_id, known):
            adopted_id = brought_id
            # A platform's own id names a conversation, unless the request names one itself.
            affinity = affinity or affinity_of_id(brought_id)
        key = SessionKey(principal.digest, affinity, profile.digest)
        if known is not None and known.key == key:
            self.attachments.withdraw_goodbye(known)
            # To a server it is the same client as before, so it keeps its id and its session.
            return known, await self.enter(known, caller)
        sharing = self._sharing_for(principal, affinity)
        adopted = adopted_id is not None
        client = self._begin(
            adopted_id or minting.mint_id(capable=profile.capable, profile=profile.params),
            principal,
            key,
            profile,
            policy.usage_of_client(sharing, adopted=adopted, roots=profile.roots),
            adopted=adopted,
        )
        try:
            visit = await self.enter(client, caller)
        except BaseException:
            client.farewell = Farewell.FORGOTTEN  # nobody will ever learn its id
            self._close(client)
            raise
        if known is not None:
            # What a client has is over when it has something else: a failure leaves all as it was.
            self.forget(known, "replaced")
        # Known only now: an id works from the moment on at which its client can know it.
        self._remember(client)
        return client, visit

    def _begin(
        self,
        identifier: str,
        principal: Principal,
        key: SessionKey,
        profile: Profile,
        usage: Usage,
        *,
        adopted: bool,
    ) -> ClientSession:
        now = self._now()
        return ClientSession(
            ClientRecord(
                id=identifier,
                tag=new_tag(),
                principal=principal,
                key=key,
                profile=profile,
                usage=usage,
                adopted=adopted,
                created=now,
                last_used=now,
                contact=Contact.CLAIMED if adopted else Contact.UNCLAIMED,
            )
        )

    def _sharing_for(self, principal: Principal, affinity: str | None) -> Sharing:
        """The sharing mode for this caller: ``--anonymous isolate`` changes it for the unknown."""
        rules = self._rules
        if rules.anonymous is Anonymous.ISOLATE and principal.anonymous and affinity is None:
            return Sharing.FRESH
        return rules.sharing

    def find_known(self, principal: Principal, identifier: str) -> ClientSession | None:
        """The client session under this id, if there is one, which shows a sign of life by that.

        For what must not make one; else see ``find``.
        """
        client = self.directory.find(principal, identifier, self._now())
        if client is not None:
            if client.record.contact is Contact.UNCLAIMED:
                client.record.contact = Contact.CLAIMED
            # Who speaks has not hung up. A DELETE it may have meant: clients call on after theirs, and then
            # hold a session for each call only, until they begin anew.
            if client.farewell is Farewell.HUNG_UP:
                client.farewell = Farewell.NONE
            self.attachments.note_life(client)
        return client

    def find(self, principal: Principal, identifier: str) -> ClientSession:
        """The client session under this id, which is adopted if the principal has none under it.

        Raises:
            UnknownSession: the id is not adopted; see ``Adoption.profile_for``.
        """
        client = self.find_known(principal, identifier)
        if client is not None:
            return client
        profile = self.adoption.profile_for(identifier)
        if profile is None:
            raise UnknownSession("Session not found. Send initialize to get a new one.")
        client = self._begin(
            identifier,
            principal,
            SessionKey(principal.digest, affinity_of_id(identifier), profile.digest),
            profile,
            policy.usage_of_client(self.rules.sharing, adopted=True),
            adopted=True,
        )
        self._remember(client)
        return client

    def _remember(self, client: ClientSession) -> None:
        self._close_departed(self.directory.add(client))
        for told in self.on_arrival:
            told(client)
        self._observe(
            events.ClientSessionCreated(
                client=client.tag,
                session="-" if client.home is None else client.home.session.tag,
                principal=client.principal.tag,
                origin="adopted" if client.record.adopted else "minted",
                client_name=client.profile.client_name,
            )
        )

    def readmit(
        self, client: ClientSession, home: Slot[UpstreamSession] | None, *, attached: bool, orderly: bool
    ) -> None:
        """Go on with a client session from before a restart, whose ``home`` is here again, if it is.

        ``attached``: it held that. ``orderly``: the process before was not killed. To come from the least to
        the most recently used.
        """
        self._close_departed(self.directory.add(client))
        if home is not None and not client.forgotten:
            client.home = home
            audience.join(home.session, client)
            if attached:
                self.attachments.resume(client, orderly=orderly)

    def absorb_delete(self, client: ClientSession) -> None:
        """The client says goodbye. Its upstream session stays, and so does the id."""
        client.farewell = Farewell.DELETED
        self.attachments.let_linger(client)
        self._observe(events.DeleteAbsorbed(client=client.tag, principal=client.principal.tag))
        self.attachments.look_at(client)

    def stream_opened(self, client: ClientSession, caller: Caller) -> None:
        """A GET stream of this client session is open: it is attached, so that it hears the server."""
        client.streams += 1
        client.record.contact = Contact.STREAMED
        self.attachments.withdraw_goodbye(client)
        self.attachments.note_opening(client)
        lease = usable_lease(client)
        if lease is None:
            # Beside the stream, which is open at once: no session now is no reason to refuse it.
            self._tasks.spawn(self._attach_quietly(client, caller), f"attach {client.tag}")
        elif lease.slot.session.life is Life.ASLEEP:
            # What the server says is to be heard, though nothing is asked.
            self._tasks.spawn(_wake_quietly(lease.slot.session, caller), f"wake {client.tag}")

    async def _attach_quietly(self, client: ClientSession, caller: Caller) -> None:
        """Attach without a request; when that fails now, the next request tries again."""
        try:
            with await self.enter(client, caller) as visit:
                await _wake_quietly(visit.session, caller)
        except ProxyError:
            return

    def stream_closed(self, client: ClientSession) -> None:
        """A GET stream of this client session is closed."""
        client.streams -= 1
        # The end of a long stream is a sign of life, too: who has just had one must not be forgotten first.
        self.directory.touch(client, self._now())
        self.attachments.look_at(client)

    def connection_closed(self, client: ClientSession, *, by_client: bool) -> None:
        """A connection that carried this client session is closed.

        ``by_client``: it was the client that closed it, between two requests.
        """
        client.connections -= 1
        if by_client:
            presence.note_hanging_up(client, self._now())
        self.attachments.look_after_goodbye(client)

    # -- visits ------------------------------------------------------------------------------

    async def enter(self, client: ClientSession, caller: Caller) -> Visit:
        """A visit of a client session to its upstream session, which it attaches to.

        The request counts as in flight before there is a session for it: a client that waits for one is not
        silent, and must neither be detached nor forgotten for that. Once it is attached, a visit is a count
        and a look at the state, and needs nothing of the pool.

        Raises:
            OverloadError, UpstreamError: as ``Pool.acquire``.
        """
        self._begin_request(client)
        lease = usable_lease(client)
        if lease is not None:
            return Visit(self, lease.slot, client, caller)
        started = self._now()
        try:
            deadline = started + self._rules.acquire_timeout_seconds
            lease = await self.attachments.attach(client, caller, deadline)
        except BaseException:
            client.in_flight -= 1
            self.attachments.look_at(client)
            raise
        return Visit(self, lease.slot, client, caller, waited_seconds=self._now() - started)

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
        answers what the server asks. ``profile`` is that of a modern request. The lease is for this request
        alone, so a client session neither attaches by it nor leaves its own session for it.
        """
        sharing = self._sharing_for(principal, affinity)
        usage = policy.usage_without_client(sharing, affinity=affinity is not None)
        if profile is None:
            profile = self._sessionless if client is None else client.profile
        key = SessionKey(principal.digest, affinity, profile.digest)
        deadline = self._now() + self._rules.acquire_timeout_seconds
        lease = await self.pool.acquire(key, profile, usage, caller, deadline)
        visit = Visit(self, lease.slot, client, caller, borrowed=lease, waited_seconds=lease.waited_seconds)
        if client is not None:
            self._begin_request(client)
            audience.join(visit.session, client)
            for told in self.attachments.on_attached:
                told(client, visit.session)
        return visit

    def sessionless_key(self, principal: Principal, affinity: str | None) -> SessionKey:
        """The key of what ``borrow`` gives to this caller for a request without a client session."""
        return SessionKey(principal.digest, affinity, self._sessionless.digest)

    def _begin_request(self, client: ClientSession) -> None:
        client.in_flight += 1
        client.record.requests += 1
        self.attachments.note_opening(client)

    def leave(self, client: ClientSession) -> None:
        """The end of a client session's visit; only ``Visit.end`` calls this."""
        client.in_flight -= 1
        self.directory.touch(client, self._now())
        self.attachments.look_at(client)

    # -- the end of a client session ---------------------------------------------------------------

    def maintain(self) -> None:
        """Detach the silent, forget the old. Called regularly."""
        self.attachments.maintain()
        self._close_departed(self.directory.expire(self._now()))

    def let_go(self, client: ClientSession) -> None:
        """Another process goes on with this client session: its streams end here, and its id is unknown."""
        self.directory.remove(client, "elsewhere")
        client.farewell = Farewell.ELSEWHERE
        client.part()
        self._close(client)

    def forget(self, client: ClientSession, reason: str) -> None:
        """Nobody can come back for this client session from now on; its id means nothing."""
        self._close_departed(self.directory.remove(client, reason))

    def _close_departed(self, departures: list[Departure]) -> None:
        for client, reason in departures:
            self._close(client)
            for told in self.on_departure:
                told(client)
            self._observe(
                events.ClientSessionExpired(client=client.tag, principal=client.principal.tag, reason=reason)
            )

    def _close(self, client: ClientSession) -> None:
        """Nobody can come back for this client session. What is still in flight detaches at its end."""
        self.attachments.look_at(client)
        audience.leave_all(client)
        client.close()

    def end_streams(self) -> None:
        """End all clients' streams gracefully (the proxy is shutting down)."""
        for client in self.directory:
            if client.mailbox is not None:
                client.mailbox.part()


def hold(binder: Binder, tag: str) -> Visit | None:
    """A visit to the session of this tag, for what goes on there without a request, if it is here."""
    for slot in binder.pool.books.slots():
        if slot.session.tag == tag and (lease := binder.pool.reclaim(slot, Usage.COMMON)) is not None:
            return Visit(binder, slot, None, NOBODY, borrowed=lease)
    return None


async def _wake_quietly(session: UpstreamSession, caller: Caller) -> None:
    """Go on with a session that is asleep, if it is; when that fails now, the next request tries again."""
    if session.life is not Life.ASLEEP:
        return
    try:
        await session.wake(caller)
    except ProxyError:
        return
