"""The pool of upstream sessions: carries out what ``policy`` decides.

Acquire, wait, release, open, retire. Each handshake and each goodbye runs in a task of the pool's
own, so that nothing here depends on the life of the client's request that asked for it.

The state is in ``books`` (the sessions) and in ``waiting`` (those who want one). Waiting is first come, first
served, per session key and among the keys that wait for room; a released session goes to the first waiter
directly, so that nobody can overtake.
"""

import asyncio
import random
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from .. import events
from ..aio import Tasks
from ..errors import Draining, Fault, InternalError, OneSessionOnly, ProxyError, TooManyWaiters
from ..events import Observer
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import policy, sole
from .books import NEVER_SHARED, Books, Bucket, Slot, Usage
from .identity import Profile, SessionKey
from .opening import Opening
from .policy import Limits, Open
from .state import SessionState
from .waiting import Queue, Waiter

# Usages that go on where somebody else has left off.
_CARRIED_ON: Final = (Usage.EXCLUSIVE, Usage.JOINT)
# How long handshakes that are under way may take when the pool is closed.
_OPENING_SECONDS: Final = 3.0


class Lease(msgspec.Struct, eq=False):
    """The right to use one upstream session: held, then released or retired, exactly once."""

    _pool: "Pool | None"
    slot: Slot[UpstreamSession]
    usage: Usage
    since: float
    waited_seconds: float = 0.0

    def release(self) -> None:
        """Give the session back; a second call does nothing."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.take_back(self)

    def decline(self) -> None:
        """Give the session back without having used it: one that nobody ever used is as good as new."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.take_back(self, unused=True)

    def retire(self, reason: str) -> None:
        """Give the session back as one that nobody may use again."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.retire(self.slot, reason)  # not released before: the next waiter would get it


class Pool:
    """Upstream sessions, by session key. ``connect`` makes a session object that is not open yet.

    ``rules`` may be replaced at any time; ``upkeep`` brings the pool under them.
    """

    def __init__(
        self,
        *,
        connect: Callable[[SessionKey, Profile], UpstreamSession],
        rules: Limits,
        observe: Observer,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.books: Books[UpstreamSession] = Books()
        self.queue = Queue()
        self.rules = rules
        # Told of each handshake that has succeeded: whose it was, with whose request, and what it opened.
        self.on_opened: list[Callable[[str, Caller, UpstreamSession], None]] = []
        # Told of each that has failed: whose it was.
        self.on_failed: list[Callable[[str], None]] = []
        # Told of each session that begins to be of use here, and of each that is none any more.
        self.on_added: list[Callable[[Slot[UpstreamSession]], None]] = []
        self.on_removed: list[Callable[[Slot[UpstreamSession]], None]] = []
        self._connect = connect
        self._observe = observe
        self._random = random
        self._now = asyncio.get_running_loop().time
        self._tasks = Tasks()

    def __repr__(self) -> str:
        states = " ".join(f"{state}={count}" for state, count in self.books.count_states().items())
        return f"<Pool {states} waiters={len(self.queue)}>"

    # -- leases ------------------------------------------------------------------------------

    async def acquire(
        self, key: SessionKey, profile: Profile, usage: Usage, caller: Caller, deadline: float
    ) -> Lease:
        """A lease on a session of this key: one that is free now, or one that becomes so, or a new one.

        ``deadline`` is absolute, by the loop's clock. While a handshake of this key is under way, it does not
        count: then the handshake's own time is added to it, once. Cancelling leaves nothing behind.

        Raises:
            AcquireTimeout: no session became free in time.
            TooManyWaiters: too many wait already.
            Draining: the pool is closed.
            UpstreamError: the server could not be reached or refused the handshake.
        """
        if (free := self.take_free(key, profile, usage, caller)) is not None:
            return free
        queue = self.queue
        if queue.closed:
            raise self._refusal(key, Draining("The proxy is shutting down."))
        bucket = self.books.bucket(key)
        demand = queue.want(key, profile, caller)
        try:
            # A server that refuses every second session is not asked for one again and again: each attempt
            # would be a handshake that fails, and a failure that is told.
            if key.principal in queue.with_sole_session and not queue.paused:
                only = self._sole(key, profile, usage)
                if only is not None:
                    self._take(only, usage)
                    return Lease(self, only, usage, self._now())
            # Whoever can have a session opened at once waits behind nobody.
            step = policy.decide(usage, bucket, self.books, self.rules)
            if queue.paused or not isinstance(step, Open):
                self._check_queue(key)
            seconds = self.rules.handshake_timeout_seconds
            return await self._wait(Waiter(bucket, usage, demand, caller, deadline, seconds))
        finally:
            # Callers can make up keys without end: nothing of one outlives a demand that came to nothing.
            self._forget_if_empty(bucket)

    def take_free(self, key: SessionKey, profile: Profile, usage: Usage, caller: Caller) -> Lease | None:
        """A lease on a session of this key that is free now; None where there is none, or nobody gets any.

        What is free is wanted by nobody who waits, for a release serves those in its own step. So to take it
        at once overtakes nobody (asyncpg #1247).
        """
        queue, bucket = self.queue, self.books.buckets.get(key)
        if bucket is None or queue.closed or queue.paused or (slot := bucket.candidate(usage)) is None:
            return None
        was_unused = not slot.used
        self._take(slot, usage)
        if was_unused and usage in self.rules.prewarmed:  # another one is to stand ready
            queue.want(key, profile, caller)
            self._prewarm(bucket)
        return Lease(self, slot, usage, self._now())

    async def _wait(self, waiter: Waiter) -> Lease:
        """Wait in the queue.

        The lease may be granted in the same step in which the waiter is cancelled or its time runs out. Then
        nobody learns of it but from the future, so a session that is found there goes to the next one.
        """
        started = self._now()
        self.queue.add(waiter)
        # It joins the queue before that is served, or it would be served out of its turn.
        self._serve(waiter.bucket)
        try:
            async with asyncio.timeout_at(waiter.due) as waiter.timer:
                slot = await waiter.granted
        except BaseException as error:
            # However it ends, cancellation being the usual way, nothing of it stays in the queue, and no
            # session with it (asyncpg #467, psycopg #503).
            self.queue.remove(waiter)
            if (granted := waiter.slot) is not None:
                Lease(self, granted, waiter.usage, self._now()).decline()
            failure = self.queue.reason(waiter) if isinstance(error, TimeoutError) else error
            if isinstance(failure, ProxyError):
                self._refusal(waiter.bucket.key, failure, self._now() - started)
            if failure is error:
                raise
            raise failure from None
        lease = Lease(self, slot, waiter.usage, self._now())
        lease.waited_seconds = lease.since - started
        return lease

    def _check_queue(self, key: SessionKey) -> None:
        try:
            known = self.books.has_open(key.principal)
            policy.check_queue(len(self.queue), self.rules, self.queue.typical_hold_seconds, known=known)
        except TooManyWaiters as error:
            raise self._refusal(key, error) from None

    def _refusal(self, key: SessionKey, error: ProxyError, waited_seconds: float = 0.0) -> ProxyError:
        """The same error, told to the observer, unless the caller is to blame."""
        if error.fault is not Fault.CLIENT:
            self._observe(
                events.LeaseFailed(
                    principal=key.principal_tag, reason=error.reason, waited_seconds=waited_seconds
                )
            )
        return error

    def _take(self, slot: Slot[UpstreamSession], usage: Usage) -> None:
        """Record a lease that is granted in this step."""
        if slot.used and usage in _CARRIED_ON:
            self._observe(events.SessionReused(session=slot.session.tag, principal=slot.key.principal_tag))
        self.books.take(slot, usage)

    def reclaim(self, slot: Slot[UpstreamSession], usage: Usage) -> Lease | None:
        """A lease on this very session, for the client session that used it before; None if it is gone."""
        if not slot.usable:
            return None
        # Others may have it by now, and then two meet on it: that costs less than a client that comes back
        # and finds its state gone.
        self.books.take(slot, usage)
        return Lease(self, slot, usage, self._now())

    def take_back(self, lease: Lease, *, unused: bool = False) -> None:
        """End a lease; only the lease itself calls this."""
        now, slot, usage = self._now(), lease.slot, lease.usage
        # Only on these it is sure to have been alone; on any other somebody may have joined meanwhile.
        if unused and usage in NEVER_SHARED:
            self.books.untake(slot, now)
        else:
            self.books.give_back(slot, usage, now)
        if not unused:
            # One that was declined says nothing of how long sessions are held.
            self.queue.note_hold(now - lease.since)
            if usage is Usage.ONCE and slot.usable:
                self.retire(slot, "once")
        if slot.aside is not None and slot.leases == 0:
            self.retire(slot, slot.aside)
        elif self.queue.waiters:
            # Not its own key first: who waits for room elsewhere, and longer, must not be passed over.
            self.serve_everyone()

    # -- waiters -----------------------------------------------------------------------------

    def _serve(self, bucket: Bucket[UpstreamSession]) -> None:
        """Give what there is to the waiters of one key, first come first served; then grow.

        A lease is recorded and its waiter woken in one step without an ``await``, so no two can have one
        session and none is lost between the two. A waiter that was cancelled is still in the queue until its
        task runs: it is passed over. Those who come behind one that can have nothing may still be served, for
        they may want to use a session in another way.
        """
        if self.queue.paused:
            return
        granted = set()
        for waiter in self.queue.of(bucket):
            if waiter.granted.done():
                self.queue.remove(waiter)
                continue
            slot = bucket.candidate(waiter.usage)
            if slot is not None:
                self._take(slot, waiter.usage)
                self.queue.grant(waiter, slot)
                granted.add(waiter.usage)
        while bucket.waiters and policy.openings_wanted(bucket) > 0:
            waiting = list(self.queue.of(bucket))
            # What there is suits none of those that still wait, so anyone's usage will do.
            step = policy.decide(waiting[0].usage, bucket, self.books, self.rules)
            if not isinstance(step, Open):
                break
            # The openings under way are for those who have waited longest: this one is for the next.
            needy = next(islice(waiting, bucket.opening, None), waiting[0])
            self._open(bucket, step, "demand", needy.caller)
        # Last, for a session in advance must not take the room of one that somebody waits for.
        if not granted.isdisjoint(self.rules.prewarmed):
            self._prewarm(bucket)

    def serve_everyone(self) -> None:
        """Somewhere room was made: let each key with waiters look again, longest waiting first."""
        for bucket in self.queue.buckets():
            self._serve(bucket)

    def _forget_if_empty(self, bucket: Bucket[UpstreamSession]) -> None:
        self.books.forget_if_empty(bucket)
        if bucket.key not in self.books.buckets:
            self.queue.demands.pop(bucket.key, None)

    # -- opening -----------------------------------------------------------------------------

    def _open(
        self, bucket: Bucket[UpstreamSession], step: Open[UpstreamSession], why: str, caller: Caller
    ) -> None:
        if step.evict is not None:
            # Not `retire`: that would offer the place to whoever waits longest, and it is given away here.
            self._take_out(step.evict, "evicted")
        demand = self.queue.demands[bucket.key]
        session = self._connect(bucket.key, demand.profile)
        slot = Slot(session, bucket.key, born=self._now(), jitter=self._random(), on_trial=step.on_trial)
        # Counted from here on: after the handshake, many could pass the limit together (anyio #1170).
        self.books.add(slot)
        session.watch(lambda how: self._lost(slot, how))
        self.queue.count_handshake(bucket, demand, 1)
        # In a task of the pool's: one that was begun in a request's task would die with it
        # (mcp-context-forge #3737).
        self._tasks.spawn(self._handshake(Opening(slot, bucket, demand, caller, why)), f"open {session.tag}")

    async def _handshake(self, opening: Opening) -> None:
        """Open a session, in a task of its own, and see to what follows, whatever comes of it.

        The request that the session was wanted for may have gone long before, so nothing is raised here.
        Those who wait for the key when the handshake ends are told. They share its outcome, good or bad,
        instead of trying one after the other what has just failed.
        """
        started = self._now()
        try:
            await opening.shake_hands(self.books, self.queue)
        except ProxyError as error:
            self._opening_failed(opening, error)
        except asyncio.CancelledError:
            self._opening_failed(opening, Draining("The proxy is shutting down."))
            raise
        except Exception as error:
            self._observe(events.Crashed(where="open", error=repr(error)))
            self._opening_failed(opening, InternalError("The proxy failed to open a session."))
        else:
            opening.demand.last_error = None
            self._opened(opening, self._now() - started)
        finally:
            # Last, so that nobody's time is up in the very moment in which the session is there.
            self.queue.count_handshake(opening.bucket, opening.demand, -1)

    def _opened(self, opening: Opening, seconds: float) -> None:
        slot, bucket = opening.slot, opening.bucket
        if slot.state is not SessionState.OPENING:  # retired meanwhile
            return
        if slot.on_trial and self.books.counted >= self.rules.places:
            # The server has accepted a newcomer beyond the limit: somebody makes room, or it cannot stay.
            first = self.books.first_to_go()
            self._take_out(slot if first is None else first, "evicted")
            if first is None:
                return
        self.books.opened(slot, self._now())
        for told in self.on_opened:
            told(slot.key.principal, opening.caller, slot.session)
        for noted in self.on_added:
            noted(slot)
        self._observe(
            events.SessionOpened(
                session=slot.session.tag, principal=slot.key.principal_tag, why=opening.why, seconds=seconds
            )
        )
        # First those who have waited for this handshake. Were all served in their order, who waits longer
        # for room would have this very session evicted, idle as it is in this step.
        self._serve(bucket)
        self.serve_everyone()
        # Handshakes of a key go one after the other, so each in advance sees to the next.
        if opening.why == "prewarm":
            self._prewarm(bucket)

    def adopt(
        self,
        session: UpstreamSession,
        key: SessionKey,
        profile: Profile,
        *,
        reserved: bool,
        idle_since: float,
    ) -> Slot[UpstreamSession] | None:
        """Take over an open session that somebody has used before; None if there is no room for it.

        ``reserved``: it belongs to one holder for life, who will ``reclaim`` it. Of several, the one that has
        been idle for longest comes first.
        """
        books = self.books
        full = books.counted_of(key.principal) >= self.rules.max_sessions_per_principal
        if full or books.counted >= self.rules.most:
            return None
        self.queue.want(key, profile, session.record.credentials)
        slot = Slot(session, key, born=session.born, jitter=self._random())
        books.add(slot)
        session.watch(lambda how: self._lost(slot, how))
        books.opened(slot, idle_since)
        usage = Usage.OWNED if reserved else Usage.COMMON
        books.take(slot, usage)
        books.give_back(slot, usage, idle_since)
        return slot

    def _opening_failed(self, opening: Opening, error: ProxyError) -> None:
        slot, bucket, demand = opening.slot, opening.bucket, opening.demand
        slot.session.abandon()
        if slot.state is not SessionState.OPENING:  # retired meanwhile
            return
        demand.last_error = None  # it is told here; whoever comes later has other reasons
        self.books.open_failed(slot)
        for told in self.on_failed:
            told(slot.key.principal)
        shared = False
        if sole.refuses_another(error):
            error = OneSessionOnly(
                "The MCP server can have one session only, and somebody has it. With --sharing shared it "
                "serves every client of the same caller that can do at least what the server was told of."
            )
            for waiter in self.queue.of(bucket):
                only = self._sole(bucket.key, demand.profile, waiter.usage)
                if only is not None and not waiter.granted.done():
                    self.queue.with_sole_session.add(bucket.key.principal)
                    self._take(only, waiter.usage)
                    self.queue.grant(waiter, only)
            shared = not bucket.waiters
        if not shared:
            # Whom the server refuses says nothing of the server: somebody without a token who tries every
            # ten seconds must wake no operator.
            kind = events.SessionRefused if error.fault is Fault.CLIENT else events.SessionOpenFailed
            self._observe(
                kind(
                    principal=slot.key.principal_tag,
                    why=opening.why,
                    error=error.reason,
                    detail=error.message,
                )
            )
        # Everyone who waited for this opening shares its outcome; whoever comes later tries anew.
        self.queue.fail(self.queue.of(bucket), error)
        self._forget_if_empty(bucket)
        self.serve_everyone()

    def _sole(self, key: SessionKey, profile: Profile, usage: Usage) -> Slot[UpstreamSession] | None:
        """The principal's session at a server that can have one only, where this use can share it."""
        demands = self.queue.demands
        return sole.find_shareable(
            self.books.slots(), key.principal, profile, usage, lambda other: demands[other].profile
        )

    def _prewarm(self, bucket: Bucket[UpstreamSession]) -> None:
        if self.queue.closed or self.queue.paused:
            return
        demand = self.queue.demands.get(bucket.key)
        while demand is not None and policy.wants_prewarming(bucket, self.books, self.rules):
            self._open(bucket, Open(None), "prewarm", demand.credentials)

    # -- retiring ----------------------------------------------------------------------------

    def retire(self, slot: Slot[UpstreamSession], reason: str) -> None:
        """Close a session for good; whoever waits for room gets its place."""
        if slot.state in (SessionState.CLOSING, SessionState.CLOSED):
            return
        self._take_out(slot, reason)
        if self.queue.waiters:
            self.serve_everyone()

    def _take_out(self, slot: Slot[UpstreamSession], reason: str) -> None:
        bucket = self.books.bucket(slot.key)
        self.books.retire(slot)
        self.queue.with_sole_session.discard(slot.key.principal)  # there may be room for another one now
        self._forget_if_empty(bucket)
        for noted in self.on_removed:
            noted(slot)
        self._tasks.spawn(self._goodbye(slot, reason), f"close {slot.session.tag}")

    async def _goodbye(self, slot: Slot[UpstreamSession], reason: str) -> None:
        try:
            await slot.session.close(reason)
        except Exception as error:
            self._observe(events.Crashed(where="close", error=repr(error)))
        finally:
            self.books.gone(slot)

    def _lost(self, slot: Slot[UpstreamSession], how: str) -> None:
        """The server forgot a session, as it turned out between requests.

        One that nobody holds is not worth re-opening. One that is held is re-opened now, so that the next
        request finds a living session.
        """
        if slot.state is SessionState.LEASED:
            self._tasks.spawn(self._revive(slot, how), f"revive {slot.session.tag}")
        elif slot.state not in (SessionState.CLOSING, SessionState.CLOSED):
            self._observe(
                events.SessionLost(session=slot.session.tag, principal=slot.key.principal_tag, how=how)
            )
            self.retire(slot, "lost")

    async def _revive(self, slot: Slot[UpstreamSession], how: str) -> None:
        """Re-open a session. Where that fails, its holders get another one, with its journal, next time."""
        session = slot.session
        try:
            await session.revive(session.incarnation, how, session.record.credentials)
        except ProxyError:
            self.retire(slot, "lost")

    # -- pauses and the end ------------------------------------------------------------------

    def pause(self) -> None:
        """Give sessions to nobody until ``resume``; who holds one keeps it, who asks for one waits."""
        self.queue.paused = True

    def resume(self) -> None:
        """End a pause. Who has waited through it is served before anybody who comes after this."""
        if self.queue.paused:
            self.queue.resume()
            self.serve_everyone()

    async def resumed(self, key: SessionKey, deadline: float) -> None:
        """Wait until there is no pause, for a client that needs nothing but its own session.

        Raises:
            AcquireTimeout: it lasted over the deadline.
            TooManyWaiters: too many wait already.
        """
        if not self.queue.paused:
            return
        self._check_queue(key)
        started = self._now()
        try:
            await self.queue.resumed(deadline)
        except ProxyError as error:
            raise self._refusal(key, error, self._now() - started) from None

    async def close(
        self, reason: str = "shutdown", spared: frozenset[Slot[UpstreamSession]] = frozenset()
    ) -> None:
        """Refuse new demands, fail the waiters, say goodbye to every session. Idempotent.

        Those that are ``spared`` are let go of without a word, for somebody who will go on with them.
        """
        self.queue.closed = True
        self.queue.fail(list(self.queue.waiters), Draining("The proxy is shutting down."))
        # A shutdown does not wait for an operator: who waited through a pause is told now.
        self.resume()
        for slot in spared:
            slot.session.abandon()
        # Goodbyes are said while handshakes come to their ends: the two take the longer time, not the sum.
        opening = [slot for slot in self.books.slots() if slot.state is SessionState.OPENING]
        for slot in list(self.books.slots()):
            if slot.state is not SessionState.OPENING and slot not in spared:
                self.retire(slot, reason)
        if opening:
            # Cut short, a handshake may leave a session behind whose id nobody has learnt.
            await asyncio.wait(self._tasks, timeout=_OPENING_SECONDS)
        for slot in list(self.books.slots()):
            if slot.state is SessionState.OPENING:
                slot.session.abandon()
            if slot not in spared:
                self.retire(slot, reason)
        await self._tasks.ended()
