"""The pool's books, driven by the policy without any clock or task: whatever happens, they agree."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from session_fakes import check_books, check_empty, key

from mcp_session_proxy.sessions import policy
from mcp_session_proxy.sessions.books import Books, Slot, Usage
from mcp_session_proxy.sessions.policy import Limits, Open
from mcp_session_proxy.sessions.state import SessionState
from mcp_session_proxy.upstream.life import IllegalTransition

KEYS = st.builds(key, st.sampled_from("pq"), st.sampled_from([None, "x"]))
USAGES = st.sampled_from(list(Usage))
LIMITS = st.builds(
    Limits,
    max_sessions=st.integers(1, 5),
    max_sessions_per_principal=st.integers(1, 4),
    open_concurrency=st.integers(1, 2),
    min_idle=st.integers(0, 2),
)


class Demand:
    """Somebody who waits for a session, or has got one."""

    def __init__(self, bucket, usage):
        self.bucket = bucket
        self.usage = usage
        self.slot = None


class BooksMachine(RuleBasedStateMachine):
    """A pool without tasks: it does what the policy says, at once."""

    demands = Bundle("demands")

    @initialize(limits=LIMITS)
    def begin(self, limits):
        self.books: Books[Any] = Books()
        self.limits = limits
        self.now = 0.0
        self.waiting = {}
        self.held = {}
        self.names = 0

    # -- what the outside does -----------------------------------------------------------------------

    @rule(target=demands, session_key=KEYS, usage=USAGES)
    def demand(self, session_key, usage):
        """Somebody wants a session."""
        bucket = self.books.bucket(session_key)
        demand = Demand(bucket, usage)
        slot = bucket.candidate(usage)
        if slot is not None:
            self.grant(demand, slot)
        else:
            self.waiting[demand] = None
            bucket.waiters[demand] = usage
            self.serve_everyone()
        self.prewarm(bucket, usage)
        return demand

    @rule(demand=consumes(demands))
    def leave(self, demand):
        """Somebody does not want to wait any more, or gives a session back."""
        self.now += 1.0
        if demand in self.waiting:
            self.unqueue(demand)
            self.books.forget_if_empty(demand.bucket)
        elif (slot := self.held.pop(demand, None)) is not None:
            self.books.give_back(slot, demand.usage, self.now)
            if slot.usable and slot.leases == 0 and (demand.usage is Usage.ONCE or slot.aside):
                self.books.retire(slot)
        self.serve_everyone()

    @rule(demand=consumes(demands))
    def decline(self, demand):
        """Somebody gives a never-used session back as it was."""
        if demand.usage not in (Usage.OWNED, Usage.ONCE) or demand not in self.held:
            return
        self.now += 1.0
        slot = self.held.pop(demand)
        self.books.untake(slot, self.now)
        if slot.usable and slot.aside:
            self.books.retire(slot)
        self.serve_everyone()

    @rule(demand=demands)
    def take_again(self, demand):
        """A client comes back to its own session, whoever else has it now."""
        slot = demand.slot
        if slot is None or demand.usage is Usage.ONCE:
            return
        if demand not in self.waiting and demand not in self.held and slot.usable:
            self.grant(demand, slot)

    @rule(choice=st.integers(0, 9), succeeds=st.booleans())
    def handshake_ends(self, choice, succeeds):
        """A handshake succeeds, or fails for everybody who waits for it."""
        slot = self.pick(choice, SessionState.OPENING)
        if slot is None:
            return
        self.now += 1.0
        bucket = self.books.bucket(slot.key)
        if succeeds:
            self.books.opened(slot, self.now)
            self.serve(bucket)
        else:
            for waiter in list(bucket.waiters):
                self.unqueue(waiter)
            self.books.open_failed(slot)
            self.books.forget_if_empty(bucket)
        self.serve_everyone()

    @rule(choice=st.integers(0, 9), state=st.sampled_from(list(SessionState)))
    def lost_or_too_old(self, choice, state):
        """A session is retired, in whatever state it is."""
        slot = self.pick(choice, state)
        if slot is not None:
            self.books.retire(slot)
            self.serve_everyone()

    @rule(choice=st.integers(0, 9))
    def worn_out(self, choice):
        """A session in use is to be given to nobody new."""
        slot = self.pick(choice, SessionState.LEASED)
        if slot is not None and slot.aside is None:
            self.books.set_aside(slot, "lifetime")
            self.serve_everyone()

    @rule(choice=st.integers(0, 9))
    def goodbye_ends(self, choice):
        """The server has let a session go."""
        closing = list(self.books.closing)
        if closing:
            self.books.gone(closing[choice % len(closing)])

    # -- what the pool does --------------------------------------------------------------------------

    def pick(self, choice, state):
        slots = [slot for bucket in self.books.buckets.values() for slot in bucket.slots]
        slots = [slot for slot in slots if slot.state is state]
        return slots[choice % len(slots)] if slots else None

    def grant(self, demand, slot):
        assert slot.key == demand.bucket.key
        fresh = not slot.used
        self.books.take(slot, demand.usage)
        again = demand.slot is slot
        if demand.usage in (Usage.OWNED, Usage.ONCE) and not again:
            assert fresh
        demand.slot = self.held[demand] = slot

    def unqueue(self, demand):
        self.waiting.pop(demand)
        demand.bucket.waiters.pop(demand)

    def serve(self, bucket):
        for waiter in list(bucket.waiters):
            slot = bucket.candidate(waiter.usage)
            if slot is not None:
                self.unqueue(waiter)
                self.grant(waiter, slot)
        while bucket.waiters and policy.openings_wanted(bucket) > 0:
            step = policy.decide(next(iter(bucket.waiters.values())), bucket, self.books, self.limits)
            if not isinstance(step, Open):
                break
            self.open(bucket, step)

    def serve_everyone(self):
        for bucket in {waiter.bucket: None for waiter in self.waiting}:
            self.serve(bucket)

    def open(self, bucket, step):
        if step.evict is not None:
            assert step.evict.state is SessionState.IDLE
            self.books.retire(step.evict)
        self.names += 1
        self.books.add(Slot(f"u{self.names}", bucket.key))

    def prewarm(self, bucket, usage):
        if usage is Usage.ONCE:
            while policy.wants_prewarming(bucket, self.books, self.limits):
                self.open(bucket, Open(None))

    # -- what must always hold -----------------------------------------------------------------------

    @invariant()
    def books_agree(self):
        """Counts, collections and states agree, limits hold, nobody waits who could be served."""
        check_books(self.books, self.limits)
        assert not any(bucket.empty for bucket in self.books.buckets.values())

    @invariant()
    def leases_agree(self):
        """Every lease is recorded, and nothing else is."""
        for bucket in self.books.buckets.values():
            for slot in bucket.slots:
                holders = [demand for demand, held in self.held.items() if held is slot]
                assert slot.leases == len(holders)
                exclusive = [demand for demand in holders if demand.usage is Usage.EXCLUSIVE]
                assert slot.aside or slot.exclusive == len(exclusive)

    def teardown(self):
        """When everything is retired, nothing is left."""
        for waiter in list(self.waiting):
            self.unqueue(waiter)
            self.books.forget_if_empty(waiter.bucket)
        for slot in list(self.books.slots()):
            if slot.state is not SessionState.CLOSING:
                self.books.retire(slot)
        for slot in list(self.books.closing):
            self.books.gone(slot)
        check_empty(self.books)


TestBooks = pytest.mark.slow(BooksMachine.TestCase)
TestBooks.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


# -- single facts ----------------------------------------------------------------------------------


@pytest.fixture
def books():
    return Books()


def add_open(books, session_key=None, now=0.0):
    slot = Slot("u", session_key or key())
    books.add(slot)
    books.opened(slot, now)
    return slot


def test_a_place_is_taken_from_the_first_moment(books):
    """A session counts from the beginning of its handshake, and is usable after it."""
    slot = Slot("u", key())
    books.add(slot)
    assert books.counted == books.counted_of("p") == 1
    assert not slot.usable
    assert books.bucket(key()).candidate(Usage.COMMON) is None
    books.opened(slot, 0.0)
    assert slot.usable
    assert books.bucket(key()).candidate(Usage.COMMON) is slot


def test_leases_of_a_retired_session_are_void(books):
    """Giving back a session that left the pool changes nothing."""
    slot = add_open(books)
    books.take(slot, Usage.EXCLUSIVE)
    books.retire(slot)
    books.give_back(slot, Usage.EXCLUSIVE, 1.0)
    books.untake(slot, 1.0)
    assert slot.state is SessionState.CLOSING
    books.gone(slot)
    books.give_back(slot, Usage.EXCLUSIVE, 1.0)
    check_empty(books)


def test_declined_sessions_are_as_good_as_new(books):
    """A never-used session that was granted in vain is a never-used session."""
    slot = add_open(books)
    books.take(slot, Usage.OWNED)
    books.untake(slot, 1.0)
    assert books.bucket(key()).candidate(Usage.ONCE) is slot
    check_books(books, Limits())


def test_a_bucket_that_was_replaced_is_not_forgotten_for_another(books):
    """Forgetting a bucket that nobody needs any more leaves alone the one that took its place."""
    old = books.bucket(key())
    books.forget_if_empty(old)
    slot = add_open(books)
    books.forget_if_empty(old)
    assert books.bucket(key()).slots == {slot: None}


def test_impossible_events_are_bugs(books):
    """Nothing happens to a session that cannot happen in its state."""
    slot = Slot("u", key())
    books.add(slot)
    with pytest.raises(IllegalTransition):
        books.take(slot, Usage.COMMON)
    books.open_failed(slot)
    with pytest.raises(IllegalTransition):
        books.opened(slot, 0.0)


def test_longest_idle(books):
    """The longest idle session of a principal is known, and the order of all."""
    first, second = add_open(books, key("p"), 1.0), add_open(books, key("q"), 2.0)
    assert books.longest_idle("q") is second
    assert books.longest_idle("nobody") is None
    books.take(first, Usage.COMMON)
    assert books.longest_idle("p") is None
    books.give_back(first, Usage.COMMON, 3.0)
    assert books.idle_slots() == [second, first]


def use(books, slot, times, now):
    for _ in range(times):
        books.take(slot, Usage.COMMON)
        books.give_back(slot, Usage.COMMON, now)


def test_who_has_the_most_goes_first(books):
    """Its longest idle session, however long others' have been idle; one in use goes never."""
    other = add_open(books, key("other"), 1.0)
    many = [add_open(books, key("many"), now) for now in (2.0, 3.0, 4.0)]
    assert books.first_to_go() is many[0]
    for slot in many:
        books.take(slot, Usage.COMMON)
    assert books.first_to_go() is other
    books.take(other, Usage.COMMON)
    assert books.first_to_go() is None


def test_among_equals_what_was_hardly_used_goes_first(books):
    """Callers that somebody makes up, each with a session of one call, do not push out who works."""
    working = add_open(books, key("working"), 1.0)
    use(books, working, 5, 1.0)
    for number in range(3):
        use(books, add_open(books, key(f"made up {number}"), 2.0), 1, 2.0 + number)
    assert books.first_to_go().key.principal == "made up 0"


def test_an_opening_on_trial_takes_no_place(books):
    """It counts once the server has accepted it, and leaves nothing if it has not."""
    accepted, refused = Slot("a", key("a"), on_trial=True), Slot("r", key("r"), on_trial=True)
    books.add(accepted)
    books.add(refused)
    assert (books.counted, books.trials, books.strangers) == (0, 2, 2)
    books.opened(accepted, 1.0)
    books.open_failed(refused)
    assert (books.counted, books.trials, books.strangers) == (1, 0, 0)
    assert books.has_open("a")
    assert not books.has_open("r")


def test_counts_of_nobody(books):
    """A principal without sessions has none, and asking leaves no trace."""
    assert books.counted_of("nobody") == 0
    check_empty(books)
