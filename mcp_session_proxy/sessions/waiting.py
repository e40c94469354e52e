"""Who wants a session of the pool, and who waits for one.

What ``books`` is for sessions, the queue is for those who want them: the other half of the pool's mutable
state. Its methods are synchronous, and leave it consistent. Who waits is woken by a future that is given
the session itself, in the very step in which the books record the lease: ``asyncio.Queue``,
``asyncio.Condition`` and ``asyncio.wait_for`` all leave a gap between waking and owning, in which a
cancellation loses the session or a newcomer overtakes.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from ..aio import Signal
from ..errors import AcquireTimeout, ProxyError
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import policy
from .books import Bucket, Slot, Usage
from .identity import Profile, SessionKey

# What the newest lease counts for in the average: one long call must not turn everybody away for long.
_HOLD_WEIGHT: Final = 0.1


class Demand:
    """What is needed to open sessions of one key: its profile and the newest caller's credentials.

    ``handshakes`` counts those under way; one that waits to try again does not count. ``last_error`` is what
    the newest of them has failed with, while it is tried again.
    """

    __slots__ = ("credentials", "handshakes", "last_error", "profile")

    def __init__(self, profile: Profile, credentials: Caller) -> None:
        self.profile = profile
        self.credentials = credentials
        self.handshakes = 0
        self.last_error: ProxyError | None = None


class Waiter:
    """Somebody who waits for a session of one bucket, until ``deadline`` by the loop's clock.

    A handshake of that key may take ``handshake_seconds``. ``granted`` is given the session, leased already,
    or what went wrong for everybody of the key.
    """

    __slots__ = ("bucket", "caller", "deadline", "demand", "granted", "handshake_seconds", "timer", "usage")

    def __init__(
        self,
        bucket: Bucket[UpstreamSession],
        usage: Usage,
        demand: Demand,
        caller: Caller,
        deadline: float,
        handshake_seconds: float,
    ) -> None:
        self.bucket = bucket
        self.usage = usage
        self.demand = demand
        self.caller = caller
        self.deadline = deadline
        self.handshake_seconds = handshake_seconds
        self.granted: asyncio.Future[Slot[UpstreamSession]] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.Timeout | None = None

    @property
    def slot(self) -> Slot[UpstreamSession] | None:
        """The session that was granted, if one was, even if the waiter was cancelled in the same step."""
        granted = self.granted
        failed = not granted.done() or granted.cancelled() or granted.exception() is not None
        return None if failed else granted.result()

    @property
    def due(self) -> float:
        """Until when it waits as things stand.

        What a handshake takes is not the waiter's fault, so while one is under way its own time is added,
        once, however many there are.
        """
        return self.deadline + (self.handshake_seconds if self.demand.handshakes else 0.0)


class Queue:
    """Everybody who waits, longest waiting first, and what is wanted by key."""

    def __init__(self) -> None:
        self.closed = False  # nobody may come any more
        self.demands: dict[SessionKey, Demand] = {}
        self.waiters: dict[Waiter, None] = {}
        # Principals that have a session at a server that wants no other.
        self.with_sole_session: set[str] = set()
        self.held_up = 0  # wait for a session that is theirs already, until a pause is over
        self.typical_hold_seconds = 0.0
        self.paused = False  # by an operator: nobody is given a session
        self._resumed = Signal()

    def __len__(self) -> int:
        return len(self.waiters) + self.held_up

    def want(self, key: SessionKey, profile: Profile, caller: Caller) -> Demand:
        """Note what opening a session of this key takes."""
        demand = self.demands.get(key)
        if demand is None:
            demand = self.demands[key] = Demand(profile, caller.credentials)
        # The newest: tokens expire, and the one that the first caller had may be over.
        demand.credentials = caller.credentials
        return demand

    # -- waiting -----------------------------------------------------------------------------

    def of(self, bucket: Bucket[UpstreamSession]) -> Iterator[Waiter]:
        """Those who wait for one key, longest waiting first; they may be removed meanwhile."""
        for waiter in list(bucket.waiters):
            assert isinstance(waiter, Waiter)  # the books know only how each would use a session
            yield waiter

    def buckets(self) -> Iterable[Bucket[UpstreamSession]]:
        """The keys that somebody waits for, each once, in the order of their first waiters."""
        return {waiter.bucket: None for waiter in self.waiters}

    def add(self, waiter: Waiter) -> None:
        """Somebody begins to wait, behind everybody else."""
        self.waiters[waiter] = None
        waiter.bucket.waiters[waiter] = waiter.usage

    def remove(self, waiter: Waiter) -> None:
        """Somebody has got a session, has failed, or has left. A second call does nothing."""
        self.waiters.pop(waiter, None)
        waiter.bucket.waiters.pop(waiter, None)

    def grant(self, waiter: Waiter, slot: Slot[UpstreamSession]) -> None:
        """Somebody's waiting is over, and this is the session, which the books have as leased already."""
        self.remove(waiter)
        waiter.granted.set_result(slot)

    def fail(self, waiters: Iterable[Waiter], error: ProxyError) -> None:
        """End the waiting of some with an error."""
        for waiter in waiters:
            self.remove(waiter)
            # It may have been cancelled in this very step, or be told already.
            if not waiter.granted.done():
                waiter.granted.set_exception(error)

    def last_deadline(self, bucket: Bucket[UpstreamSession]) -> float:
        """Until when the most patient of one key waits; 0 where nobody does."""
        return max((waiter.deadline for waiter in self.of(bucket)), default=0.0)

    def count_handshake(self, bucket: Bucket[UpstreamSession], demand: Demand, change: int) -> None:
        """A handshake begins (1) or is over (-1), which changes how long others wait."""
        demand.handshakes += change
        for waiter in self.of(bucket):
            # One that has gone off cannot be set anew (RuntimeError), and its waiter is on its way out.
            if waiter.timer is not None and not waiter.timer.expired():
                waiter.timer.reschedule(waiter.due)

    # -- how long it takes -------------------------------------------------------------------

    def note_hold(self, seconds: float) -> None:
        """A lease was held for so long: whoever is turned away is told when to come back."""
        self.typical_hold_seconds += _HOLD_WEIGHT * (seconds - self.typical_hold_seconds)

    def reason(self, waiter: Waiter) -> ProxyError:
        """Why somebody whose time is up has got nothing."""
        # Whatever went wrong before the pause, it is the pause that keeps it from being tried again.
        if self.paused:
            return _paused()
        # What kept the sessions from opening says more than that time ran out.
        granted = waiter.granted
        told = granted.exception() if granted.done() and not granted.cancelled() else None
        if isinstance(told, ProxyError):
            return told
        if waiter.demand.last_error is not None:
            return waiter.demand.last_error
        return AcquireTimeout(
            "Others were first, and the MCP server takes long to open each session. "
            "Try again, or raise --open-concurrency."
            if waiter.demand.handshakes
            else "No MCP session became free in time. "
            "Try again, or raise --max-sessions or --acquire-timeout.",
            retry_after_seconds=policy.retry_after_seconds(self.typical_hold_seconds),
        )

    # -- an operator's pause -----------------------------------------------------------------

    def resume(self) -> None:
        """End a pause."""
        self.paused = False
        self._resumed.give()

    async def resumed(self, deadline: float) -> None:
        """Wait until there is no pause. Raises AcquireTimeout: it lasted over the deadline."""
        self.held_up += 1
        try:
            async with asyncio.timeout_at(deadline):
                # The next pause may have begun before this one's waiters have run.
                while self.paused:
                    await self._resumed.wait()
        except TimeoutError:
            raise _paused() from None
        finally:
            self.held_up -= 1


def _paused() -> AcquireTimeout:
    return AcquireTimeout("The proxy is paused by its operator. Try again later.")
