"""A server whose handshakes and goodbyes the tests control, and what must always hold in the pool."""

import asyncio
from collections import Counter
from itertools import count
from types import SimpleNamespace
from typing import Any

import looptime
import pytest

from mcp_session_proxy.errors import Draining, SessionLost, UpstreamUnreachable
from mcp_session_proxy.sessions import policy
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.identity import Profile, SessionKey
from mcp_session_proxy.sessions.policy import Limits, Open
from mcp_session_proxy.sessions.pool import Pool
from mcp_session_proxy.sessions.state import SessionState
from mcp_session_proxy.upstream.journal import Journal
from mcp_session_proxy.upstream.life import Life
from mcp_session_proxy.upstream.transport import NOBODY

PROFILE = Profile(digest="profile", client_name="client", params=b"{}")
ALL_USAGES = tuple(Usage)
SHARING_USAGES = (Usage.COMMON, Usage.JOINT)
REFUSED = UpstreamUnreachable("connection refused")


def key(principal="p", affinity=None, profile="profile"):
    """A session key."""
    return SessionKey(principal, affinity, profile)


def run_story(work):
    """Run a coroutine on a new event loop in virtual time (for Hypothesis, which runs many)."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(work)


async def settle(rounds=50):
    """Let everything happen that can happen now, without letting time pass."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeSession:
    """One upstream session, with the life of the real one as far as the pool can see it."""

    def __init__(self, server, session_key, number):
        self.server = server
        self.key = session_key
        self.tag = f"u{number}"
        self.closed = False
        self.life = Life.OPEN
        self.closed_for = None
        self.abandoned = False
        self.opened_by = None
        self.attempts = 0
        self.ticks = []
        self.beyond_help = False  # the server opens no other one in its place
        self.revived = []  # how each loss showed
        self.incarnation = object()
        self.caller = NOBODY  # of the handshake
        self.journal = Journal()
        self.record = SimpleNamespace(credentials=NOBODY, journal=self.journal, requests=0)
        self.audience = {}
        self.restored_from = []
        self._gate: Any = None  # the future of an opening that the test ends
        self._opening = None
        self.goodbye = None

    def __repr__(self):
        return f"<{self.tag}>"

    @property
    def requests(self):
        """How many requests it has served."""
        return self.record.requests

    @property
    def is_opening(self):
        """Whether a handshake is under way now."""
        return self._opening is not None

    @property
    def is_undecided(self):
        """Whether its handshake waits for the test to say how it ends."""
        return self._gate is not None and not self._gate.done()

    async def open(self, caller):
        self.attempts += 1
        self.caller = caller
        self._opening = self.opened_by = asyncio.current_task()
        try:
            if self.server.by_hand:
                self._gate = asyncio.get_running_loop().create_future()
                await self._gate
            else:
                await asyncio.sleep(self.server.open_seconds)
                if self.server.open_error is not None:
                    raise self.server.open_error
        finally:
            self._opening = None
        if self.closed:
            raise Draining("closed while it was being opened")
        self.server.appeared(self)

    def finish_opening(self):
        """The server answers the handshake."""
        self._gate.set_result(None)

    def fail_opening(self, error=REFUSED):
        """The handshake goes wrong."""
        self._gate.set_exception(error)

    async def close(self, reason):
        if self.closed:
            return
        self.closed = True
        self.closed_for = reason
        if self.server.close_error is not None:
            self.server.live.discard(self)
            raise self.server.close_error
        if self.server.goodbyes_by_hand:
            self.goodbye = asyncio.get_running_loop().create_future()
            await self.goodbye
        self.server.live.discard(self)

    def abandon(self):
        self.abandoned = self.closed = True
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()

    def watch(self, on_lost):
        self._on_lost = on_lost

    def lose(self, *, beyond_help=False):
        """The server has forgotten it, and it turns out between requests."""
        self.beyond_help = beyond_help
        self._on_lost("test")

    async def revive(self, lost, how, caller):
        if self.beyond_help or self.closed:
            raise SessionLost("beyond help")
        assert lost is self.incarnation
        self.incarnation = object()
        self.revived.append(how)

    def tick(self, now):
        self.ticks.append(now)

    async def restore(self, journal):
        self.restored_from.append(journal)
        if self.server.restore_gate is not None:
            await self.server.restore_gate
        for method, params in journal.requests():
            self.journal.record(method, params)


class SessionMaker:
    """Makes the sessions. ``by_hand``: handshakes end when the test says so."""

    def __init__(self, *, by_hand=False, goodbyes_by_hand=False, open_seconds=0.0):
        self.by_hand = by_hand
        self.goodbyes_by_hand = goodbyes_by_hand
        self.open_seconds = open_seconds
        self.open_error = None
        self.close_error = None
        self.restore_gate = None
        self.sessions = []
        self.live = set()
        self._numbers = count(1)

    def connect(self, session_key, profile):
        session = FakeSession(self, session_key, next(self._numbers))
        self.sessions.append(session)
        return session

    def appeared(self, session):
        self.live.add(session)

    @property
    def opening(self):
        """The sessions whose handshake is under way, oldest first."""
        return [session for session in self.sessions if session.is_opening]

    @property
    def last(self):
        """The session that was begun last."""
        return self.sessions[-1]


class Stand:
    """A pool in front of a fake server, with everything it reported."""

    def __init__(self, server, **limits):
        self.server = server
        self.limits = Limits(**limits)
        self.events = []
        self.pool = Pool(connect=server.connect, rules=self.limits, observe=self._observe)
        self.books = self.pool.books

    def _observe(self, event):
        self.events.append(event)
        assert self.books.counted <= self.limits.max_sessions

    def told(self, kind):
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def acquire(self, session_key=None, usage=Usage.EXCLUSIVE, *, timeout=10.0, caller=NOBODY):
        """``Pool.acquire``, to be awaited."""
        deadline = asyncio.get_running_loop().time() + timeout
        return self.pool.acquire(session_key or key(), PROFILE, usage, caller, deadline)

    async def ask(self, session_key=None, usage=Usage.EXCLUSIVE, *, timeout=10.0, caller=NOBODY):
        """A task that acquires, once it got as far as it can."""
        task = asyncio.create_task(
            self.acquire(session_key, usage, timeout=timeout, caller=caller), name="request"
        )
        await settle()
        return task

    async def get(self, session_key=None, usage=Usage.EXCLUSIVE):
        """A lease, its session opened now if need be."""
        task = await self.ask(session_key, usage)
        if not task.done():
            self.server.last.finish_opening()
        return await task

    def check(self, *, at_rest=True):
        """What must hold at any time; ``at_rest``: when every task has got as far as it can."""
        check_books(self.books, self.limits, paused=self.pool.queue.paused)
        if at_rest:
            assert not any(bucket.empty for bucket in self.books.buckets.values())
        assert set(self.pool.queue.demands) == set(self.books.buckets)
        waiters = [waiter for bucket in self.books.buckets.values() for waiter in bucket.waiters]
        assert set(waiters) == set(self.pool.queue.waiters)

    async def close_and_check(self):
        """End the pool; nothing may be left, here or at the server."""
        for session in self.server.sessions:
            if session.goodbye is not None and not session.goodbye.done():
                session.goodbye.set_result(None)
        self.server.goodbyes_by_hand = False
        await self.pool.close()
        await settle()
        self.check_empty()
        assert not self.server.live

    def check_empty(self):
        """Nothing is left of anybody."""
        check_empty(self.books)
        assert not self.pool.queue.demands
        assert not self.pool.queue.waiters
        assert not self.pool._tasks


def check_books(books, limits, *, paused=False):
    """The books agree with themselves, the limits hold, and nobody waits who could be helped."""
    slots = [slot for bucket in books.buckets.values() for slot in bucket.slots]
    assert len(slots) == len(set(slots))
    trials = [slot for slot in slots if slot.on_trial]
    assert all(slot.state is SessionState.OPENING for slot in trials)
    assert books.trials == len(trials) <= limits.trials
    assert books.strangers == sum(slot.stranger for slot in slots)
    assert books.counted == len(slots) - len(trials) <= limits.places
    assert len(slots) <= limits.max_sessions
    assert set(slots).isdisjoint(books.closing)
    assert all(slot.state is SessionState.CLOSING for slot in books.closing)
    _check_principals(books, slots, limits)
    idle = books.idle_slots()
    assert set(idle) == {slot for slot in slots if slot.state is SessionState.IDLE}
    assert [slot.idle_since for slot in idle] == sorted(slot.idle_since for slot in idle)
    for slot in slots:
        _check_slot(slot)
    for bucket in books.buckets.values():
        _check_bucket(bucket)
        if not paused:
            _check_waiters(bucket, books, limits)


def _check_principals(books, slots, limits):
    counted = Counter(slot.key.principal for slot in slots)
    assert {name: books.counted_of(name) for name in books._shares} == counted
    for name, share in books._shares.items():
        assert counted[name] <= limits.max_sessions_per_principal
        assert list(share.idle) == [slot for slot in books.idle_slots() if slot.key.principal == name]


def _check_slot(slot):
    assert slot.state in (SessionState.OPENING, SessionState.IDLE, SessionState.LEASED)
    assert (slot.leases > 0) == (slot.state is SessionState.LEASED)
    assert slot.reserved or 0 <= slot.exclusive <= slot.leases
    assert slot.aside is None or slot.leases > 0
    assert not (slot.reserved and not slot.used)
    assert not (slot.leases and not slot.used)


def _check_bucket(bucket):
    assert all(slot.key == bucket.key for slot in bucket.slots)
    usable = {slot for slot in bucket.slots if slot.usable}
    assert bucket.opening == len(bucket.slots) - len(usable)
    assert set(bucket.unused) == {slot for slot in usable if not slot.used}
    shareable = {slot for slot in usable if slot.used and not slot.reserved}
    assert set(bucket.joint) == shareable
    assert set(bucket.free) == {slot for slot in shareable if slot.exclusive == 0}


def _check_waiters(bucket, books, limits):
    live = [waiter for waiter in bucket.waiters if not _has_left(waiter)]
    for waiter in live:
        assert bucket.candidate(waiter.usage) is None, "a session is there for somebody who waits"
    if len(live) == len(bucket.waiters) and policy.openings_wanted(bucket) > 0:
        step = policy.decide(live[0].usage, bucket, books, limits)
        assert not isinstance(step, Open), "a session could be opened for somebody who waits"


def _has_left(waiter):
    """Whether a waiter was cancelled, though its task does not know yet."""
    future = getattr(waiter, "future", None)
    return future is not None and future.cancelled()


def check_empty(books):
    """Nothing is left behind."""
    assert not list(books.slots())
    assert not books.buckets
    assert not books._shares
    assert not books._idle
    assert not books.closing
    assert books.counted == 0


# -- what tests of the pool say ---------------------------------------------------------------------

every_usage = pytest.mark.parametrize("usage", ALL_USAGES, ids=lambda usage: usage.value)


def by_hand(**limits):
    """A pool whose handshakes end when the test says so."""
    return Stand(SessionMaker(by_hand=True), **limits)


def prompt(open_seconds=0.0, **limits):
    """A pool whose server answers by itself."""
    return Stand(SessionMaker(open_seconds=open_seconds), **limits)


async def cancel(task):
    """Cancel a task and see it end that way."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def blocker(usage):
    """The usage of a lease that makes this usage wait."""
    return Usage.OWNED if usage is Usage.JOINT else Usage.EXCLUSIVE


def now():
    """The time on the loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
