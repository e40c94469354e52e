"""Who gets which upstream session: the decisions, without carrying them out. Pure.

Every function looks at the books and the limits and says what to do; ``pool`` does it.
"""

import math
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from ..errors import TooManyWaiters
from .books import Books, Bucket, Slot, Usage
from .identity import Roots
from .modes import Sharing

S = TypeVar("S")

_LIFETIME_JITTER: Final = 0.1
_MAX_RETRY_AFTER_SECONDS: Final = 30
# Of the places for sessions, this many at most are kept to try handshakes in, one of so many.
_MAX_TRIALS: Final = 4
_PART_FOR_TRIALS: Final = 10
# Of all sessions, this part may be on its way to callers that the server has not accepted yet.
_PART_FOR_STRANGERS: Final = 4
# Of the queue, in hundredths, what is kept for callers that the server has accepted.
_QUEUE_FOR_KNOWN: Final = 25


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows. Times are in seconds.

    Of ``max_sessions`` in several processes together, this one may open those that are ``reserved`` for it.
    ``min_idle`` sessions that nobody has used stand ready once somebody has used one in a way that is among
    ``prewarmed``.
    """

    max_sessions: int = 1000
    reserved: int | None = None
    max_sessions_per_principal: int = 100
    max_waiters: int = 1000
    open_concurrency: int = 1
    min_idle: int = 0
    prewarmed: frozenset[Usage] = frozenset({Usage.ONCE})
    idle_timeout_seconds: float = 1800.0
    linger_seconds: float = 30.0
    max_lifetime_seconds: float = 0.0  # 0: no end
    max_requests: int = 0  # 0: no end
    handshake_timeout_seconds: float = 60.0

    @property
    def trials(self) -> int:
        """The places in which handshakes are tried for callers that the server has not accepted yet."""
        return min(_MAX_TRIALS, self.max_sessions // _PART_FOR_TRIALS)

    @property
    def most(self) -> int:
        """The places in which sessions can stay, be they opened here or taken over."""
        return self.max_sessions - self.trials

    @property
    def places(self) -> int:
        """The places for which sessions may be opened."""
        return self.most if self.reserved is None else min(self.reserved, self.most)


class Assign(msgspec.Struct, Generic[S], frozen=True):
    """Use this session now."""

    slot: Slot[S]


class Open(msgspec.Struct, Generic[S], frozen=True):
    """Open a new session, after giving up ``evict`` to make room.

    ``on_trial``: every place to stay is taken. The handshake is made in one of those that are kept for this,
    and whoever has to make room does so once the server has accepted the newcomer: anybody can make up
    credentials.
    """

    evict: Slot[S] | None
    on_trial: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Nothing can be done now: a release, an opening or a closing will change that."""


Step: TypeAlias = "Assign[S] | Open[S] | Wait"
WAIT = Wait()


def usage_of_client(sharing: Sharing, *, adopted: bool, roots: Roots = Roots.NONE) -> Usage:
    """How a client session uses its upstream session.

    A session under an id that the client brought is found by that id, so it needs no attachment. One whose
    server knows roots that no other client can replace is handed over to none.
    """
    if sharing is Sharing.SHARED:
        return Usage.JOINT
    if adopted:
        return Usage.COMMON
    handed_over = sharing is Sharing.HANDOVER and roots is not Roots.FIXED
    return Usage.EXCLUSIVE if handed_over else Usage.OWNED


def usage_without_client(sharing: Sharing, *, affinity: bool) -> Usage:
    """How a request without a client session, or one routed by an affinity key, uses a session."""
    if sharing is Sharing.FRESH and not affinity:
        return Usage.ONCE
    return Usage.JOINT if sharing is Sharing.SHARED else Usage.COMMON


def decide(usage: Usage, bucket: Bucket[S], books: Books[S], limits: Limits) -> "Step[S]":
    """What to do for the next demand of this bucket: use what is there, else open one more, else wait."""
    slot = bucket.candidate(usage)
    if slot is not None:
        return Assign(slot)
    # Few handshakes at a time: whatever is free first is given out, the new session or one that comes back,
    # so a burst of short calls does not leave a session behind for each.
    if bucket.opening >= limits.open_concurrency:
        return WAIT
    return room_for(bucket.key.principal, books, limits) or WAIT


def room_for(principal: str, books: Books[S], limits: Limits) -> Open[S] | None:
    """Whether this principal may open one more session now, and what must go for it."""
    # Its own limit first: who is at it makes room by itself, and no other principal pays.
    if books.counted_of(principal) >= limits.max_sessions_per_principal:
        own = books.longest_idle(principal)
        return None if own is None else Open(own)
    # Anybody can make up credentials. So handshakes for callers that the server has not accepted take a
    # part of the places only, however many such callers there are.
    known = books.has_open(principal)
    if not known and books.strangers >= max(_MAX_TRIALS, limits.max_sessions // _PART_FOR_STRANGERS):
        return None
    if books.counted < limits.places:
        return Open(None)
    anyone = books.first_to_go()
    if anyone is None:
        return None
    # A pool too small to keep places for trials makes room on trust.
    if known or not limits.trials:
        return Open(anyone)
    return Open(None, on_trial=True) if books.trials < limits.trials else None


def openings_wanted(bucket: Bucket[S]) -> int:
    """How many more sessions the waiters of this bucket need, beyond those being opened.

    Waiters that share need one session between them, the others one each.
    """
    alone = shared = 0
    for usage in bucket.waiters.values():
        if usage is Usage.COMMON or usage is Usage.JOINT:
            shared = 1
        else:
            alone += 1
    return max(0, alone + shared - bucket.opening)


def check_queue(waiting: int, limits: Limits, typical_hold_seconds: float, *, known: bool) -> None:
    """Refuse a demand that would wait behind too many others. ``known``: the server has accepted the caller.

    Raises:
        TooManyWaiters: ``--max-waiters`` wait already.
    """
    # Rounded up, so that newcomers have a place wherever there is any.
    limit = limits.max_waiters if known else -(-limits.max_waiters * (100 - _QUEUE_FOR_KNOWN) // 100)
    if waiting >= limit:
        raise TooManyWaiters(
            f"{waiting} requests already wait for an MCP session. Try again shortly.",
            retry_after_seconds=retry_after_seconds(typical_hold_seconds),
        )


def wants_prewarming(bucket: Bucket[S], books: Books[S], limits: Limits) -> bool:
    """Whether one more never-used session should stand ready; never at the cost of a living one."""
    if len(bucket.unused) + bucket.opening >= limits.min_idle:
        return False
    if bucket.opening >= limits.open_concurrency:
        return False
    step = room_for(bucket.key.principal, books, limits)
    return step is not None and step.evict is None and not step.on_trial


def wear(age_seconds: float, requests: int, jitter: float, limits: Limits) -> str | None:
    """Why a session has served for long enough, if it has.

    ``jitter``, from 0 to 1 and the session's own, spreads the ends of sessions that began together over the
    last tenth of their lifetime.
    """
    if limits.max_requests and requests >= limits.max_requests:
        return "requests"
    lifetime_seconds = limits.max_lifetime_seconds * (1 - _LIFETIME_JITTER * jitter)
    return "lifetime" if limits.max_lifetime_seconds and age_seconds >= lifetime_seconds else None


def retry_after_seconds(typical_hold_seconds: float) -> int:
    """How long somebody who got no session should wait: about as long as sessions are held."""
    return min(_MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(typical_hold_seconds)))


def surplus(slot: Slot[S], books: Books[S], limits: Limits) -> str | None:
    """Why an idle session is one too many, if it is: only a limit that was lowered makes it so."""
    too_many = books.counted > limits.most
    too_many_of_one = books.counted_of(slot.key.principal) > limits.max_sessions_per_principal
    return "evicted" if too_many or too_many_of_one else None


def expiry(slot: Slot[S], now: float, limits: Limits) -> str | None:
    """Why an idle session should be closed now, if it should."""
    idle_seconds = now - slot.idle_since
    if slot.lingering_since is not None:
        # From goodbye or last use, whichever came later: OpenAI's client calls once more after its DELETE.
        alone_seconds = min(idle_seconds, now - slot.lingering_since)
        if alone_seconds >= limits.linger_seconds:
            return "linger"
    return "idle" if idle_seconds >= limits.idle_timeout_seconds else None
