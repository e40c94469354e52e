"""The pool of upstream sessions: carries out what ``policy`` decides.

Acquire, wait, release, open, retire. Each handshake and each goodbye runs in a task of the pool's
own, so that nothing here depends on the life of the client's request that asked for it.

Waiting is first come, first served, per session key and among the keys that wait for room; a released
session goes to the first waiter directly: the lease is recorded in the same synchronous step that
wakes the waiter. That is why futures are used here: ``asyncio.Queue``, ``asyncio.Condition`` and
``asyncio.wait_for`` all leave a gap between waking and owning, in which a cancellation loses the
session or a newcomer overtakes.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from .. import events
from ..aio import Signal, Tasks
from ..backoff import Backoff
from ..errors import (
    AcquireTimeout,
    Draining,
    Fault,
    HandshakeRefused,
    InternalError,
    OneSessionOnly,
    ProxyError,
    TooManyWaiters,
    UpstreamRejected,
    UpstreamUnreachable,
)
from ..events import Observer
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import policy, sole
from .books import Books, Bucket, Slot, Usage
from .identity import Profile, SessionKey
from .policy import Limits, Open
from .state import SessionState

_RETRIES: Final = Backoff(0.05, 1.0)
# How long handshakes that are under way may take when the pool is closed.
_OPENING_SECONDS: Final = 3.0
_HOLD_WEIGHT: Final = 0.1


class Lease:
    """The right to use one upstream session: held, then released or retired, exactly once."""

    __slots__ = ("_pool", "since", "slot", "usage", "waited_seconds")

    def __init__(self, pool: "Pool", slot: Slot[UpstreamSession], usage: Usage, since: float) -> None:
        self._pool: Pool | None = pool
        self.since = since
        self.slot = slot
        self.usage = usage
        self.waited_seconds = 0.0

    def release(self) -> None:
        """Give the session back; a second call does nothing."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.take_back(self.slot, self.usage, self.since)

    def decline(self) -> None:
        """Give the session back without having used it."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.take_back_untouched(self.slot, self.usage)

    def retire(self, reason: str) -> None:
        """Give the session back as one that nobody may use again."""
        if (pool := self._pool) is not None:
            self._pool = None
            pool.retire(self.slot, reason)  # not released before: the next waiter would get it


class _Waiter:
    """Somebody who waits for a session of one bucket."""

    __slots__ = ("bucket", "caller", "deadline", "future", "timer", "usage")

    def __init__(
        self,
        bucket: Bucket[UpstreamSession],
        usage: Usage,
        caller: Caller,
        deadline: float,
        future: asyncio.Future[Lease],
    ) -> None:
        self.bucket = bucket
        self.usage = usage
        self.caller = caller
        self.deadline = deadline
        self.future = future
        self.timer: asyncio.Timeout | None = None


class _Demand:
    """What is needed to open sessions of one key: its profile and the newest caller's credentials.

    ``handshakes`` counts those under way; one that waits to try again does not count.
    """

    __slots__ = ("credentials", "handshakes", "last_error", "profile")

    def __init__(self, profile: Profile, credentials: Caller) -> None:
        self.profile = profile
        self.credentials = credentials
        self.handshakes = 0
        self.last_error: ProxyError | None = None


class Pool:
    """Upstream sessions, by session key. ``connect`` makes a session object that is not open yet.

    ``limits`` may be replaced at any time; ``maintain`` brings the pool under them.
    """

    def __init__(
        self,
        *,
        connect: Callable[[SessionKey, Profile], UpstreamSession],
        limits: Limits,
        observe: Observer,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._random = random
        self.books: Books[UpstreamSession] = Books()
        self._connect = connect
        self.limits = limits
        self._observe = observe
        self._waiters: dict[_Waiter, None] = {}
        self._crowded: set[str] = set()  # principals with a session at a server that wants no other
        self._demands: dict[SessionKey, _Demand] = {}
        self._tasks = Tasks()
        self._closed = False
        self._typical_hold_seconds = 0.0
        self._paused = False
        self._resumed = Signal()
        self._held_up = 0  # wait for their own session until a pause is over

    def __repr__(self) -> str:
        states = " ".join(f"{state}={count}" for state, count in self.count_states().items())
        return f"<Pool {states} waiters={self.waiting}>"

    @property
    def waiting(self) -> int:
        """How many wait for a session."""
        return len(self._waiters) + self._held_up

    def count_states(self) -> Mapping[str, int]:
        """How many sessions are in each state."""
        counts = {state.value: 0 for state in SessionState if state is not SessionState.CLOSED}
        for slot in self.books.slots():
            counts[slot.state.value] += 1
        return counts

    # -- leases ------------------------------------------------------------------------------

    def acquire_at_once(
        self, key: SessionKey, profile: Profile, usage: Usage, caller: Caller
    ) -> Lease | None:
        """A lease on a session of this key that is open and free now; else what opening one takes is noted.

        Raises:
            Draining: the pool is closed.
        """
        if self._closed:
            raise self._refusal(key, Draining("The proxy is shutting down."))
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = _Demand(profile, caller.credentials)
        demand.credentials = caller.credentials
        if self._paused:
            return None
        bucket = self.books.buckets.get(key)
        slot = None if bucket is None else bucket.candidate(usage)
        if slot is None or bucket is None:
            return None
        lease = self._grant(slot, usage)
        self._prewarm(bucket, usage)
        return lease

    async def acquire(
        self, key: SessionKey, profile: Profile, usage: Usage, caller: Caller, deadline: float
    ) -> Lease:
        """A lease on a session of this key, opened if need be.

        ``deadline`` is absolute, by the loop's clock. While a handshake of this key is under way, it does not
        count: then the handshake's own time is added to it, once. Cancelling leaves nothing behind.

        Raises:
            AcquireTimeout: no session became free in time.
            TooManyWaiters: too many wait already.
            Draining: the pool is closed.
            UpstreamError: the server could not be reached or refused the handshake.
        """
        lease = self.acquire_at_once(key, profile, usage, caller)
        if lease is not None:
            return lease
        if (
            key.principal in self._crowded
            and not self.paused
            and (only := self._sole(key.principal, profile, usage)) is not None
        ):
            self._forget_if_empty(self.books.bucket(key))
            return self._grant(only, usage)
        demand, bucket = self._demands[key], self.books.bucket(key)
        try:
            # Whoever can have a session opened at once waits behind nobody.
            step = policy.decide(usage, bucket, self.books, self.limits)
            if self.paused or not isinstance(step, Open):
                self._check_queue(key)
            return await self._wait(bucket, usage, caller, demand, deadline)
        finally:
            self._forget_if_empty(bucket)

    async def _wait(
        self,
        bucket: Bucket[UpstreamSession],
        usage: Usage,
        caller: Caller,
        demand: _Demand,
        deadline: float,
    ) -> Lease:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(bucket, usage, caller, deadline, loop.create_future())
        self._waiters[waiter] = None
        bucket.waiters[waiter] = None
        started = loop.time()
        self._serve(bucket)
        try:
            async with asyncio.timeout_at(self._due(waiter, demand)) as waiter.timer:
                lease = await waiter.future
        except BaseException as error:
            self._forget(waiter)
            # The lease may have been granted in the same step that cancelled us: give it to the next.
            if (granted := _result(waiter.future)) is not None:
                granted.decline()
            failure = self._failure(error, waiter, demand)
            if isinstance(failure, ProxyError):
                self._refusal(bucket.key, failure, loop.time() - started)
            if failure is error:
                raise
            raise failure from None
        lease.waited_seconds = loop.time() - started
        return lease

    def _due(self, waiter: _Waiter, demand: _Demand) -> float:
        """Until when a waiter waits as things stand."""
        longer = self.limits.handshake_timeout_seconds if demand.handshakes else 0.0
        return waiter.deadline + longer

    def _count_handshake(self, key: SessionKey, demand: _Demand, change: int) -> None:
        """A handshake begins (1) or is over (-1), which changes how long others wait."""
        demand.handshakes += change
        bucket = self.books.buckets.get(key)
        for waiter in () if bucket is None else bucket.waiters:
            assert isinstance(waiter, _Waiter)
            if waiter.timer is not None and not waiter.timer.expired():
                waiter.timer.reschedule(self._due(waiter, demand))

    def _check_queue(self, key: SessionKey) -> None:
        try:
            known = self.books.has_open(key.principal)
            policy.check_queue(self.waiting, self.limits, self._typical_hold_seconds, known=known)
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

    def _failure(self, error: BaseException, waiter: _Waiter, demand: _Demand) -> BaseException:
        if not isinstance(error, TimeoutError):
            return error
        if self.paused:
            return _paused()
        # What kept the sessions from opening says more than that time ran out.
        if (told := _error(waiter.future) or demand.last_error) is not None:
            return told
        if demand.handshakes:
            return AcquireTimeout(
                "Others were first, and the MCP server takes long to open each session. "
                "Try again, or raise --open-concurrency.",
                retry_after_seconds=policy.retry_after_seconds(self._typical_hold_seconds),
            )
        return AcquireTimeout(
            "No MCP session became free in time. Try again, or raise --max-sessions or --acquire-timeout.",
            retry_after_seconds=policy.retry_after_seconds(self._typical_hold_seconds),
        )

    def reclaim(self, slot: Slot[UpstreamSession], usage: Usage) -> Lease | None:
        """A lease on this very session, for the client session that used it before; None if it is gone."""
        if not slot.usable or self._closed:
            return None
        self.books.take(slot, usage)
        return Lease(self, slot, usage, _now())

    def take_back(self, slot: Slot[UpstreamSession], usage: Usage, since: float) -> None:
        """End a lease that began at ``since``; only ``Lease`` calls this."""
        now = _now()
        # How long leases are held, so that whoever is turned away can be told when to come back.
        self._typical_hold_seconds += _HOLD_WEIGHT * (now - since - self._typical_hold_seconds)
        self.books.give_back(slot, usage, now)
        self._look_after(slot, once=usage is Usage.ONCE)

    def take_back_untouched(self, slot: Slot[UpstreamSession], usage: Usage) -> None:
        """End a lease that was not made use of; only ``Lease`` calls this."""
        if usage is Usage.OWNED or usage is Usage.ONCE:
            self.books.untake(slot, _now())
        else:
            self.books.give_back(slot, usage, _now())
        self._look_after(slot, once=False)

    def _look_after(self, slot: Slot[UpstreamSession], *, once: bool) -> None:
        """Decide what becomes of a session that a lease has left."""
        if not slot.usable:
            return
        if once:
            self.retire(slot, "once")
        elif slot.aside is not None and slot.leases == 0:
            self.retire(slot, slot.aside)
        elif self._waiters:
            # Not its own key first: who waits for room elsewhere, and longer, must not be passed over.
            self._serve_everyone()

    def _grant(self, slot: Slot[UpstreamSession], usage: Usage) -> Lease:
        reused = slot.used and usage in (Usage.EXCLUSIVE, Usage.JOINT)
        self.books.take(slot, usage)
        if reused:
            self._observe(events.SessionReused(session=slot.session.tag, principal=slot.key.principal_tag))
        return Lease(self, slot, usage, _now())

    # -- waiters -----------------------------------------------------------------------------

    def _serve(self, bucket: Bucket[UpstreamSession]) -> None:
        """Give what there is to the waiters of one key, first come first served; then grow."""
        if self.paused:
            return
        granted = set()
        for waiter in list(bucket.waiters):
            assert isinstance(waiter, _Waiter)
            if waiter.future.done():
                self._forget(waiter)
                continue
            slot = bucket.candidate(waiter.usage)
            if slot is not None:
                self._forget(waiter)
                waiter.future.set_result(self._grant(slot, waiter.usage))
                granted.add(waiter.usage)
        while bucket.waiters and policy.openings_wanted(bucket) > 0:
            first = next(iter(bucket.waiters))
            step = policy.decide(first.usage, bucket, self.books, self.limits)
            if not isinstance(step, Open):
                break
            # The openings under way are for those who have waited longest: this one is for the next.
            needy = next(islice(bucket.waiters, bucket.opening, None), first)
            assert isinstance(needy, _Waiter)
            self._open(bucket, step, "demand", needy.caller)
        for usage in granted:
            self._prewarm(bucket, usage)

    def _serve_everyone(self) -> None:
        """Somewhere room was made: let each key with waiters look again, longest waiting first."""
        for bucket in {waiter.bucket: None for waiter in self._waiters}:
            self._serve(bucket)

    def _forget(self, waiter: _Waiter) -> None:
        self._waiters.pop(waiter, None)
        waiter.bucket.waiters.pop(waiter, None)

    def _forget_if_empty(self, bucket: Bucket[UpstreamSession]) -> None:
        self.books.forget_if_empty(bucket)
        if bucket.key not in self.books.buckets:
            self._demands.pop(bucket.key, None)

    # -- opening -----------------------------------------------------------------------------

    def _open(
        self, bucket: Bucket[UpstreamSession], step: Open[UpstreamSession], why: str, caller: Caller
    ) -> None:
        if step.evict is not None:
            self._take_out(step.evict, "evicted")
        demand = self._demands[bucket.key]
        slot = Slot(
            self._connect(bucket.key, demand.profile),
            bucket.key,
            born=_now(),
            jitter=self._random(),
            on_trial=step.on_trial,
        )
        self.books.add(slot)
        slot.session.watch(lambda *, beyond_help=False: self._lost(slot, beyond_help))
        self._count_handshake(slot.key, demand, 1)
        self._tasks.spawn(self._handshake(slot, demand, caller, why), f"open {slot.session.tag}")

    async def _handshake(
        self, slot: Slot[UpstreamSession], demand: _Demand, caller: Caller, why: str
    ) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await self._open_patiently(slot, demand, caller)
        except ProxyError as error:
            self._opening_failed(slot, why, error)
        except asyncio.CancelledError:
            self._opening_failed(slot, why, Draining("The proxy is shutting down."))
            raise
        except Exception as error:
            self._observe(events.Crashed(where="open", error=repr(error)))
            self._opening_failed(slot, why, InternalError("The proxy failed to open a session."))
        else:
            demand.last_error = None
            if slot.state is not SessionState.OPENING:  # retired meanwhile
                return
            if slot.on_trial and not self._make_room_for_accepted(slot):
                return
            self.books.opened(slot, loop.time())
            self._observe(
                events.SessionOpened(
                    session=slot.session.tag,
                    principal=slot.key.principal_tag,
                    why=why,
                    seconds=loop.time() - started,
                )
            )
            bucket = self.books.bucket(slot.key)
            self._serve(bucket)
            self._serve_everyone()
            if why == "prewarm":
                self._prewarm(bucket, Usage.ONCE)
        finally:
            # Last, so that nobody's time is up in the very moment in which the session is there.
            self._count_handshake(slot.key, demand, -1)

    def _make_room_for_accepted(self, slot: Slot[UpstreamSession]) -> bool:
        """The server has accepted a newcomer beyond the limit: somebody makes room, or it cannot stay."""
        if self.books.counted < self.limits.places:
            return True
        first = self.books.first_to_go()
        self._take_out(slot if first is None else first, "evicted")
        return first is not None

    async def _open_patiently(self, slot: Slot[UpstreamSession], demand: _Demand, caller: Caller) -> None:
        """Do the handshake; while the server refuses connections, try again as long as somebody waits."""
        pause_seconds = 0.0
        while True:
            if self._closed or slot.state is not SessionState.OPENING:
                raise Draining("The session was closed while it was being opened.")
            try:
                return await slot.session.open(caller)
            except (UpstreamUnreachable, UpstreamRejected, HandshakeRefused) as error:
                if not self._may_pass(error, slot):
                    raise
                demand.last_error = error
                deadlines = (w.deadline for w in self._waiters if w.bucket.key == slot.key)
                pause_seconds = _RETRIES.after(pause_seconds)
                if _now() + pause_seconds >= max(deadlines, default=0.0):
                    raise
            self._count_handshake(slot.key, demand, -1)
            try:
                await asyncio.sleep(pause_seconds)
            finally:
                self._count_handshake(slot.key, demand, 1)

    def _may_pass(self, error: ProxyError, slot: Slot[UpstreamSession]) -> bool:
        """Whether what failed a handshake may be over in a moment."""
        if isinstance(error, UpstreamUnreachable):
            return True
        # It has no room for a second session, but the first is not open yet: then that may serve all.
        return sole.refuses_another(error) and any(
            other.state is SessionState.OPENING and other.key.principal == slot.key.principal
            for other in self.books.slots()
            if other is not slot
        )

    def _opening_failed(self, slot: Slot[UpstreamSession], why: str, error: ProxyError) -> None:
        slot.session.abandon()
        if slot.state is not SessionState.OPENING:  # retired meanwhile
            return
        bucket, demand = self.books.bucket(slot.key), self._demands[slot.key]
        demand.last_error = None  # it is told here; whoever comes later has other reasons
        self.books.open_failed(slot)
        shared = False
        if sole.refuses_another(error):
            error = OneSessionOnly(
                "The MCP server can have one session only, and somebody has it. With --sharing shared it "
                "serves every client of the same caller that can do at least what the server was told of."
            )
            shared = self._let_share(bucket, demand.profile)
        if not shared:
            kind = events.SessionRefused if error.fault is Fault.CLIENT else events.SessionOpenFailed
            self._observe(
                kind(principal=slot.key.principal_tag, why=why, error=error.reason, detail=error.message)
            )
        # Everyone who waited for this opening shares its outcome; whoever comes later tries anew.
        for waiter in list(bucket.waiters):
            assert isinstance(waiter, _Waiter)
            self._forget(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(error)
        self._forget_if_empty(bucket)
        self._serve_everyone()

    def _let_share(self, bucket: Bucket[UpstreamSession], profile: Profile) -> bool:
        """Give the waiters of one key the only session of their server; gives whether all have got it."""
        for waiter in list(bucket.waiters):
            assert isinstance(waiter, _Waiter)
            only = self._sole(bucket.key.principal, profile, waiter.usage)
            if only is not None and not waiter.future.done():
                self._crowded.add(bucket.key.principal)
                self._forget(waiter)
                waiter.future.set_result(self._grant(only, waiter.usage))
        return not bucket.waiters

    def _sole(self, principal: str, profile: Profile, usage: Usage) -> Slot[UpstreamSession] | None:
        """The session of a server that can have one only, where this use by this client can share it."""
        if usage is not Usage.JOINT:
            return None
        for slot in self.books.slots():
            shared = slot.usable and not slot.reserved and slot.key.principal == principal
            if shared and sole.can_serve(self._demands[slot.key].profile, profile):
                return slot
        return None

    def _prewarm(self, bucket: Bucket[UpstreamSession], usage: Usage) -> None:
        if usage is not Usage.ONCE or self._closed or self.paused or bucket.key not in self._demands:
            return
        while policy.wants_prewarming(bucket, self.books, self.limits):
            self._open(bucket, Open(None), "prewarm", self._demands[bucket.key].credentials)

    # -- retiring ----------------------------------------------------------------------------

    def retire(self, slot: Slot[UpstreamSession], reason: str) -> None:
        """Close a session for good; whoever waits for room gets its place."""
        if slot.state in (SessionState.CLOSING, SessionState.CLOSED):
            return
        self._take_out(slot, reason)
        if self._waiters:
            self._serve_everyone()

    def _take_out(self, slot: Slot[UpstreamSession], reason: str) -> None:
        bucket = self.books.bucket(slot.key)
        self.books.retire(slot)
        self._crowded.discard(slot.key.principal)  # there may be room for another one now
        self._forget_if_empty(bucket)
        self._tasks.spawn(self._goodbye(slot, reason), f"close {slot.session.tag}")

    async def _goodbye(self, slot: Slot[UpstreamSession], reason: str) -> None:
        try:
            await slot.session.close(reason)
        except Exception as error:
            self._observe(events.Crashed(where="close", error=repr(error)))
        finally:
            self.books.gone(slot)

    def _lost(self, slot: Slot[UpstreamSession], beyond_help: bool) -> bool:
        """The server forgot a session. Gives whether it left the pool for that.

        One that nobody holds is not worth re-opening. One that is held re-opens itself, unless that has
        failed already; then its holders get another one, with its journal, when they come back.
        """
        if slot.state is SessionState.LEASED and not beyond_help:
            return False
        self.retire(slot, "lost")
        return True

    def maintain(self) -> None:
        """Close what has been idle for too long, keep the rest alive. Called regularly."""
        now = _now()
        for slot in list(self.books.slots()):
            if slot.usable:
                slot.session.tick(now)
        self._relieve(now)
        for slot in self.books.idle_slots():
            reason = policy.expiry(slot, now, self.limits) or policy.surplus(slot, self.books, self.limits)
            if reason is not None:
                self.retire(slot, reason)
        if self._waiters:
            self._serve_everyone()

    def _relieve(self, now: float) -> None:
        """Relieve sessions that have served for long enough, one old one at a time."""
        relieved = False
        for slot in list(self.books.slots()):
            if not slot.usable or slot.aside is not None:
                continue
            reason = policy.wear(now - slot.born, slot.session.requests, slot.jitter, self.limits)
            if reason == "lifetime" and relieved:
                continue
            if reason is not None:
                relieved = True
                self._relieve_one(slot, reason)

    def _relieve_one(self, slot: Slot[UpstreamSession], reason: str) -> None:
        if slot.leases == 0:
            self.retire(slot, reason)
        else:
            self.books.set_aside(slot, reason)

    # -- an operator's hand ------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether nobody is given a session for now."""
        return self._paused

    def pause(self) -> None:
        """Give sessions to nobody until ``resume``; who holds one keeps it, who asks for one waits."""
        self._paused = True

    def resume(self) -> None:
        """End a pause."""
        if self._paused:
            self._paused = False
            self._resumed.give()
            self._serve_everyone()

    async def resumed(self, key: SessionKey, deadline: float) -> None:
        """Wait until there is no pause, for a client that needs nothing but its own session.

        Raises:
            AcquireTimeout: it lasted over the deadline.
            TooManyWaiters: too many wait already.
        """
        if not self._paused:
            return
        self._check_queue(key)
        started = _now()
        self._held_up += 1
        try:
            async with asyncio.timeout_at(deadline):
                while self._paused:
                    await self._resumed.wait()
        except TimeoutError:
            waited_seconds = _now() - started
            raise self._refusal(key, _paused(), waited_seconds) from None
        finally:
            self._held_up -= 1

    def reconnect(self) -> int:
        """Relieve every session, so that whoever comes next gets a new one; gives how many there were."""
        slots = [slot for slot in self.books.slots() if slot.usable and slot.aside is None]
        for slot in slots:
            self._relieve_one(slot, "reconnect")
        return len(slots)

    def kill(self, tag: str) -> bool:
        """Close one session at once, whoever holds it; gives whether there was one of that name."""
        for slot in list(self.books.slots()):
            if slot.session.tag == tag and slot.state not in (SessionState.CLOSING, SessionState.CLOSED):
                self.retire(slot, "killed")
                return True
        return False

    async def close(self, reason: str = "shutdown") -> None:
        """Refuse new demands, fail the waiters, say goodbye to every session. Idempotent."""
        self._closed = True
        for waiter in list(self._waiters):
            self._forget(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(Draining("The proxy is shutting down."))
        self.resume()
        opening = [slot for slot in self.books.slots() if slot.state is SessionState.OPENING]
        for slot in list(self.books.slots()):
            if slot.state is not SessionState.OPENING:
                self.retire(slot, reason)
        if opening:
            # Cut short, a handshake may leave a session behind whose id nobody has learnt.
            await asyncio.wait(self._tasks, timeout=_OPENING_SECONDS)
        for slot in list(self.books.slots()):
            if slot.state is SessionState.OPENING:
                slot.session.abandon()
            self.retire(slot, reason)
        await self._tasks.ended()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _paused() -> AcquireTimeout:
    return AcquireTimeout("The proxy is paused by its operator. Try again later.")


def _error(future: asyncio.Future[Lease]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None


def _result(future: asyncio.Future[Lease]) -> Lease | None:
    if not future.done() or future.cancelled() or _error(future) is not None:
        return None
    return future.result()
