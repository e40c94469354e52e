"""The pool's books: which upstream sessions exist, per session key and per principal. Pure.

The mutable state of the pool is two things: here are its slots, one per upstream session, and in
``waiting.Queue`` are those who want one. Every method is synchronous and leaves the books consistent, so no
``await`` can stand between taking a session and recording its owner.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, Generic, TypeVar

import msgspec

from ..upstream.life import ELSEWHERE
from .holdings import Holdings
from .identity import SessionKey
from .state import COUNTED, USABLE, SessionEvent, SessionState, advance

S = TypeVar("S")


class Usage(Enum):
    """How a lease uses its session."""

    EXCLUSIVE = "exclusive"  # one attached client session at a time; takes over an unattached session
    COMMON = "common"  # together with other requests that have no client session
    JOINT = "joint"  # together with everybody of the same key
    OWNED = "owned"  # a never-used session, which belongs to the holder for life
    ONCE = "once"  # a never-used session, closed afterwards


# Usages that want a session which nobody has used before, nor uses beside them or after them.
NEVER_SHARED: Final = (Usage.OWNED, Usage.ONCE)


class Slot(msgspec.Struct, Generic[S], eq=False):
    """One upstream session and how it is used now. ``idle_since`` holds while ``state`` is idle."""

    session: S
    key: SessionKey
    state: SessionState = SessionState.OPENING
    leases: int = 0
    exclusive: int = 0  # leases of attached client sessions
    reserved: bool = False  # belongs to one holder for life
    used: bool = False
    lingering_since: float | None = None  # when its owner said goodbye
    idle_since: float = 0.0
    born: float = 0.0
    jitter: float = 0.0  # from 0 to 1, its own: spreads the ends of lifetimes
    aside: str | None = None  # why it is retired once nobody holds it
    takes: int = 0  # how often it was leased
    stranger: bool = False  # opening for a principal that has no session yet
    on_trial: bool = False  # opening beyond the limit: takes a place only once the server has accepted it

    @property
    def usable(self) -> bool:
        """Whether requests can be sent."""
        return self.state in USABLE

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process goes on with the session."""
        return self.aside == ELSEWHERE


class Bucket(msgspec.Struct, Generic[S], eq=False):
    """Everything of one session key. Dictionaries serve as ordered sets, newest last."""

    key: SessionKey
    slots: dict[Slot[S], None] = msgspec.field(default_factory=dict)
    unused: dict[Slot[S], None] = msgspec.field(default_factory=dict)  # open, never leased
    free: dict[Slot[S], None] = msgspec.field(default_factory=dict)  # used, not attached, not reserved
    joint: dict[Slot[S], None] = msgspec.field(default_factory=dict)  # used, not reserved
    opening: int = 0
    # How each who waits would use a session, the newest last. Who they are, the queue knows (``waiting``).
    waiters: dict[object, Usage] = msgspec.field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing of this key is left."""
        return not (self.slots or self.waiters)

    def candidate(self, usage: Usage) -> Slot[S] | None:
        """The session that this usage would get now: the most recently used one that it may have."""
        if usage in NEVER_SHARED:
            return _last(self.unused)
        # A used one first: it has the state that a hand-over is about, and some can have none but a
        # never-used one. Of several the one that was used last, so that the others age and are closed.
        return _last(self.joint if usage is Usage.JOINT else self.free) or _last(self.unused)


class _Share(msgspec.Struct):
    """What one principal has."""

    open: int = 0  # sessions whose handshake has succeeded
    idle: dict[object, None] = msgspec.field(default_factory=dict)
    slots: dict[object, None] = msgspec.field(default_factory=dict)


def _last(ordered: dict[Slot[S], None]) -> Slot[S] | None:
    return next(reversed(ordered), None)


def _put_last(ordered: dict[Slot[S], None], slot: Slot[S]) -> None:
    ordered.pop(slot, None)
    ordered[slot] = None


class Books(Generic[S]):
    """All slots, by key, by principal, and by idleness (longest idle first).

    ``now`` is in seconds by the event loop's clock. What cannot happen in a slot's state raises
    IllegalTransition, so callers look at the state first.
    """

    __slots__ = ("_holdings", "_idle", "_shares", "buckets", "closing", "counted", "strangers", "trials")

    def __init__(self) -> None:
        self.buckets: dict[SessionKey, Bucket[S]] = {}
        self.counted = 0
        self.strangers = 0  # openings for principals that have no session yet
        self.trials = 0  # openings beyond the limit, which are not counted
        self._holdings = Holdings()
        self.closing: dict[Slot[S], None] = {}
        self._idle: dict[Slot[S], None] = {}
        self._shares: dict[str, _Share] = {}

    # -- questions ---------------------------------------------------------------------------

    def slots(self) -> Iterator[Slot[S]]:
        """All slots that are not closed."""
        for bucket in self.buckets.values():
            yield from bucket.slots
        yield from self.closing

    def slots_of(self, principal: str) -> list[Slot[S]]:
        """The slots of one principal that are not being closed."""
        share = self._shares.get(principal)
        # As with ``longest_idle``.
        return [] if share is None else list(share.slots)  # type: ignore[arg-type]

    def count_states(self) -> Mapping[str, int]:
        """How many sessions are in each state."""
        counts = {state.value: 0 for state in SessionState if state is not SessionState.CLOSED}
        for slot in self.slots():
            counts[slot.state.value] += 1
        return counts

    def idle_slots(self) -> list[Slot[S]]:
        """The idle slots, longest idle first."""
        return list(self._idle)

    def counted_of(self, principal: str) -> int:
        """How many places this principal takes."""
        return self._holdings[principal]

    def has_open(self, principal: str) -> bool:
        """Whether a session of this principal stands."""
        share = self._shares.get(principal)
        return share is not None and share.open > 0

    def is_opening(self, principal: str) -> bool:
        """Whether a handshake for this principal is under way."""
        share = self._shares.get(principal)
        return share is not None and self._holdings[principal] > share.open

    def longest_idle(self, principal: str) -> Slot[S] | None:
        """The session that a principal gives up first for another one of its own."""
        share = self._shares.get(principal)
        # The values were put there by `_now_idle`, which takes slots only.
        return None if share is None else next(iter(share.idle), None)  # type: ignore[return-value]

    def first_to_go(self) -> Slot[S] | None:
        """The idle session that goes first for somebody else's.

        It is one of the principal that has the most sessions. Among equals, one that was used only once, as
        those of callers that somebody makes up are; then the one that was idle for longest.
        """
        # Whoever has the most may have nothing idle, and what is held is never taken: then the next one pays.
        payers = (p for p in self._holdings.heaviest_first() if self._shares[p].idle)
        most = next((self._holdings[principal] for principal in payers), 0)
        first: Slot[S] | None = None
        for slot in self._idle:
            if self._holdings[slot.key.principal] == most:
                if slot.takes <= 1:
                    return slot
                first = first or slot
        return first

    # -- changes -----------------------------------------------------------------------------

    def bucket(self, key: SessionKey) -> Bucket[S]:
        """The bucket of this key, made when there is none."""
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = Bucket(key)
        return bucket

    def add(self, slot: Slot[S]) -> None:
        """Record a session whose handshake begins now."""
        bucket = self.bucket(slot.key)
        bucket.slots[slot] = None
        bucket.opening += 1
        principal = slot.key.principal
        # Kept with the slot, because what is added here must be taken off at the end of the handshake, and
        # by then the principal may have another session.
        slot.stranger = not self.has_open(principal)
        self.strangers += slot.stranger
        self.trials += slot.on_trial
        # On trial it takes none of the pool's places yet, but one of its principal's: else a caller could
        # pass its own limit by trying many at once.
        self.counted += not slot.on_trial
        self._holdings.add(principal)
        self._shares.setdefault(principal, _Share()).slots[slot] = None

    def opened(self, slot: Slot[S], now: float) -> None:
        """Its handshake succeeded: it is idle, and nobody has used it."""
        slot.state = advance(slot.state, SessionEvent.OPENED)
        self._end_opening(slot)
        self._shares[slot.key.principal].open += 1
        bucket = self.bucket(slot.key)
        bucket.opening -= 1
        bucket.unused[slot] = None
        self._now_idle(slot, now)

    def open_failed(self, slot: Slot[S]) -> None:
        """Its handshake failed: nothing is left of it, and no goodbye is said."""
        # Before the state moves on, for the state says what there is to take off.
        self._uncount(slot)
        slot.state = advance(slot.state, SessionEvent.OPEN_FAILED)
        self.bucket(slot.key).opening -= 1
        self._drop(slot)

    def take(self, slot: Slot[S], usage: Usage) -> None:
        """Record one more lease."""
        bucket = self.buckets[slot.key]
        if slot.leases == 0:
            slot.state = advance(slot.state, SessionEvent.TAKEN)
            self._not_idle(slot)
            if not slot.used:
                slot.used = True
                del bucket.unused[slot]
        slot.leases += 1
        slot.takes += 1
        # For life, which outlasts the lease: its owner comes back to it by its ``home``, and nobody else
        # finds it in any of the collections.
        if usage in NEVER_SHARED:
            slot.reserved = True
        if slot.reserved:
            return
        _put_last(bucket.joint, slot)
        if usage is Usage.EXCLUSIVE:
            slot.exclusive += 1
        if slot.exclusive:
            bucket.free.pop(slot, None)
        else:
            _put_last(bucket.free, slot)

    def give_back(self, slot: Slot[S], usage: Usage, now: float) -> None:
        """Record one lease less; does nothing for a session that has left the pool meanwhile."""
        if not slot.usable:
            return
        slot.leases -= 1
        if not slot.reserved:
            if usage is Usage.EXCLUSIVE:
                slot.exclusive -= 1
            # Free is what no client session is attached to; requests without one may be under way on it.
            if slot.exclusive == 0:
                _put_last(self.buckets[slot.key].free, slot)
        if slot.leases == 0:
            slot.state = advance(slot.state, SessionEvent.RELEASED)
            self._now_idle(slot, now)

    def untake(self, slot: Slot[S], now: float) -> None:
        """Undo the only lease of a session that nobody has used after all: it is as good as new."""
        if not slot.usable:
            return
        slot.leases -= 1
        slot.reserved = slot.used = False
        slot.state = advance(slot.state, SessionEvent.RELEASED)
        self.bucket(slot.key).unused[slot] = None
        self._now_idle(slot, now)

    def set_aside(self, slot: Slot[S], reason: str) -> None:
        """Give a session to nobody new: it is to be retired when its last lease comes back."""
        bucket = self.bucket(slot.key)
        for collection in (bucket.unused, bucket.free, bucket.joint):
            collection.pop(slot, None)
        # So that it is in no collection either when its leases come back.
        slot.reserved = True
        slot.aside = reason

    def retire(self, slot: Slot[S]) -> None:
        """Take a session out of the pool: nobody gets it any more, and its place is free."""
        bucket = self.bucket(slot.key)
        if slot.state is SessionState.OPENING:
            bucket.opening -= 1
        self._uncount(slot)
        if slot.state is SessionState.IDLE:
            self._not_idle(slot)
        slot.state = advance(slot.state, SessionEvent.RETIRED)
        for collection in (bucket.unused, bucket.free, bucket.joint):
            collection.pop(slot, None)
        self._drop(slot)
        # Its place is free already, since a goodbye may take long. Here it stays to be seen and waited for.
        self.closing[slot] = None

    def gone(self, slot: Slot[S]) -> None:
        """Its goodbye is over."""
        slot.state = advance(slot.state, SessionEvent.GONE)
        self.closing.pop(slot, None)

    def forget_if_empty(self, bucket: Bucket[S]) -> None:
        """Keys must not pile up: a bucket without sessions and waiters is removed.

        Whoever holds on to a bucket that was removed may find another one in its place by now.
        """
        if bucket.empty and self.buckets.get(bucket.key) is bucket:
            del self.buckets[bucket.key]

    # -- inside ------------------------------------------------------------------------------

    def _now_idle(self, slot: Slot[S], now: float) -> None:
        slot.idle_since = now
        self._idle[slot] = None
        self._shares[slot.key.principal].idle[slot] = None

    def _not_idle(self, slot: Slot[S]) -> None:
        del self._idle[slot]
        del self._shares[slot.key.principal].idle[slot]

    def _uncount(self, slot: Slot[S]) -> None:
        if slot.state not in COUNTED:
            return
        if slot.state is SessionState.OPENING:
            self._end_opening(slot)
        else:
            self._shares[slot.key.principal].open -= 1
        self.counted -= 1
        self._holdings.remove(slot.key.principal)

    def _end_opening(self, slot: Slot[S]) -> None:
        """The handshake is over, one way or another; from here on the session is counted."""
        self.strangers -= slot.stranger
        self.trials -= slot.on_trial
        # Also after a failure: `_uncount` takes off what every other session has had from the beginning.
        self.counted += slot.on_trial
        slot.stranger = slot.on_trial = False

    def _drop(self, slot: Slot[S]) -> None:
        bucket = self.bucket(slot.key)
        bucket.slots.pop(slot, None)
        self._shares[slot.key.principal].slots.pop(slot, None)
        self.forget_if_empty(bucket)
        # Principals must not pile up either: anybody can make up credentials.
        if not self._holdings[slot.key.principal]:
            del self._shares[slot.key.principal]
