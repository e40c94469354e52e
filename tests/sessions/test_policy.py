"""The decisions about who gets which upstream session."""

from typing import Any

import pytest
from session_fakes import key

from mcp_session_proxy.errors import TooManyWaiters
from mcp_session_proxy.sessions import policy
from mcp_session_proxy.sessions.books import Books, Slot, Usage
from mcp_session_proxy.sessions.modes import Sharing
from mcp_session_proxy.sessions.policy import WAIT, Assign, Limits, Open


class Desk:
    """Books in which each session is a name."""

    def __init__(self):
        self.books: Books[Any] = Books()
        self.now = 0.0

    def opening(self, name, session_key=None):
        slot = Slot(name, session_key or key())
        self.books.add(slot)
        return slot

    def unused(self, name, session_key=None):
        slot = self.opening(name, session_key)
        self.now += 1
        self.books.opened(slot, self.now)
        return slot

    def leased(self, name, usage=Usage.EXCLUSIVE, session_key=None):
        slot = self.unused(name, session_key)
        self.books.take(slot, usage)
        return slot

    def idle(self, name, usage=Usage.EXCLUSIVE, session_key=None):
        slot = self.leased(name, usage, session_key)
        self.now += 1
        self.books.give_back(slot, usage, self.now)
        return slot

    def bucket(self, session_key=None):
        return self.books.bucket(session_key or key())

    def decide(self, usage, session_key=None, **limits):
        return policy.decide(usage, self.bucket(session_key), self.books, Limits(**limits))


@pytest.fixture
def desk():
    return Desk()


# -- which usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sharing", "adopted", "usage"),
    [
        (Sharing.HANDOVER, False, Usage.EXCLUSIVE),
        (Sharing.HANDOVER, True, Usage.COMMON),
        (Sharing.ISOLATED, False, Usage.OWNED),
        (Sharing.ISOLATED, True, Usage.COMMON),
        (Sharing.FRESH, False, Usage.OWNED),
        (Sharing.FRESH, True, Usage.COMMON),
        (Sharing.SHARED, False, Usage.JOINT),
        (Sharing.SHARED, True, Usage.JOINT),
    ],
)
def test_usage_of_a_client_session(sharing, adopted, usage):
    """Each mode's rule for client sessions; one under an id the client brought is found by that id."""
    assert policy.usage_of_client(sharing, adopted=adopted) is usage


@pytest.mark.parametrize(
    ("sharing", "affinity", "usage"),
    [
        (Sharing.HANDOVER, False, Usage.COMMON),
        (Sharing.HANDOVER, True, Usage.COMMON),
        (Sharing.ISOLATED, False, Usage.COMMON),
        (Sharing.ISOLATED, True, Usage.COMMON),
        (Sharing.FRESH, False, Usage.ONCE),
        (Sharing.FRESH, True, Usage.COMMON),
        (Sharing.SHARED, False, Usage.JOINT),
        (Sharing.SHARED, True, Usage.JOINT),
    ],
)
def test_usage_without_a_client_session(sharing, affinity, usage):
    """Each mode's rule for requests without a session, with and without an affinity key."""
    assert policy.usage_without_client(sharing, affinity=affinity) is usage


# -- assign, open or wait --------------------------------------------------------------------------


@pytest.mark.parametrize("usage", Usage)
def test_nothing_there_is_opened(desk, usage):
    """The first demand of a key opens a session."""
    assert desk.decide(usage) == Open(None)


@pytest.mark.parametrize("usage", Usage)
def test_unused_sessions_do_for_everyone(desk, usage):
    """A session that nobody has used yet serves any usage."""
    slot = desk.unused("a")
    assert desk.decide(usage) == Assign(slot)


@pytest.mark.parametrize(
    ("holder", "wanted", "shares"),
    [
        (Usage.EXCLUSIVE, Usage.EXCLUSIVE, False),
        (Usage.EXCLUSIVE, Usage.COMMON, False),
        (Usage.COMMON, Usage.COMMON, True),
        (Usage.COMMON, Usage.EXCLUSIVE, True),
        (Usage.JOINT, Usage.JOINT, True),
        (Usage.OWNED, Usage.EXCLUSIVE, False),
        (Usage.OWNED, Usage.COMMON, False),
        (Usage.OWNED, Usage.JOINT, False),
        (Usage.OWNED, Usage.OWNED, False),
        (Usage.ONCE, Usage.COMMON, False),
        (Usage.ONCE, Usage.ONCE, False),
        (Usage.COMMON, Usage.OWNED, False),
        (Usage.COMMON, Usage.ONCE, False),
    ],
)
def test_who_may_join_a_leased_session(desk, holder, wanted, shares):
    """A session in use is joined by those who share it, and by nobody else."""
    slot = desk.leased("a", holder)
    assert desk.decide(wanted) == (Assign(slot) if shares else Open(None))


@pytest.mark.parametrize("usage", [Usage.EXCLUSIVE, Usage.COMMON])
def test_released_sessions_are_handed_over(desk, usage):
    """A session that its client has left goes to the next one, state included."""
    slot = desk.idle("a", Usage.EXCLUSIVE)
    assert desk.decide(usage) == Assign(slot)


@pytest.mark.parametrize("usage", [Usage.OWNED, Usage.ONCE])
def test_used_sessions_are_not_fresh(desk, usage):
    """Whoever asks for a never-used session does not get a used one."""
    desk.idle("a")
    assert desk.decide(usage) == Open(None)


@pytest.mark.parametrize("usage", Usage)
def test_owned_sessions_are_nobody_elses(desk, usage):
    """A session that belongs to a client for life is given to nobody else, even when it is idle."""
    desk.idle("a", Usage.OWNED)
    assert desk.decide(usage) == Open(None)


def test_checkout_is_lifo(desk):
    """The session that was used last is used next, so that the others age."""
    first, second = desk.leased("a"), desk.leased("b")
    desk.books.give_back(second, Usage.EXCLUSIVE, 10.0)
    desk.books.give_back(first, Usage.EXCLUSIVE, 11.0)
    assert desk.decide(Usage.EXCLUSIVE) == Assign(first)
    desk.books.take(first, Usage.EXCLUSIVE)
    assert desk.decide(Usage.EXCLUSIVE) == Assign(second)


def test_checkout_is_lifo_by_the_end_of_use(desk):
    """It is the end of its last use that counts, for sessions that requests share as well."""
    shared, other = desk.leased("a", Usage.COMMON), desk.leased("b")
    desk.books.give_back(other, Usage.EXCLUSIVE, 10.0)
    assert desk.decide(Usage.COMMON) == Assign(other)
    desk.books.give_back(shared, Usage.COMMON, 11.0)
    assert desk.decide(Usage.COMMON) == Assign(shared)


def test_used_sessions_are_preferred_to_unused_ones(desk):
    """Hand-over prefers the session that has state."""
    used = desk.idle("a")
    desk.unused("b")
    assert desk.decide(Usage.EXCLUSIVE) == Assign(used)


def test_sessions_of_another_key_are_out_of_reach(desk):
    """Only sessions of the very same key are assigned: principal, affinity and profile all count."""
    for other in (key("q"), key(affinity="x"), key(profile="y")):
        desk.idle("a", session_key=other)
    assert desk.decide(Usage.COMMON) == Open(None)


def test_growth_is_one_at_a_time(desk):
    """While one session of the key is being opened, no second one is."""
    desk.opening("a")
    assert desk.decide(Usage.EXCLUSIVE) == WAIT
    assert desk.decide(Usage.EXCLUSIVE, key("q")) == Open(None)


def test_growth_as_configured(desk):
    """``--open-concurrency`` allows more at a time."""
    desk.opening("a")
    assert desk.decide(Usage.EXCLUSIVE, open_concurrency=2) == Open(None)
    desk.opening("b")
    assert desk.decide(Usage.EXCLUSIVE, open_concurrency=2) == WAIT


# -- room ------------------------------------------------------------------------------------------


def test_at_the_principals_limit_its_own_longest_idle_goes(desk):
    """At the principal's limit its own longest idle session makes room, though others idle longer."""
    desk.idle("stranger", session_key=key("q"))
    longest = desk.idle("a", session_key=key(affinity="1"))
    desk.idle("b", session_key=key(affinity="2"))
    step = desk.decide(Usage.COMMON, key(affinity="3"), max_sessions_per_principal=2)
    assert step == Open(longest)


def test_at_the_global_limit_the_longest_idle_of_all_goes(desk):
    """At the global limit the longest idle session makes room, whoever it belongs to."""
    longest = desk.idle("stranger", session_key=key("q"))
    desk.idle("a", session_key=key(affinity="1"))
    assert desk.decide(Usage.COMMON, key(affinity="3"), max_sessions=2) == Open(longest)


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_principal"])
def test_leased_and_opening_sessions_never_make_room(desk, limit):
    """What is in use or on its way is not given up: the demand waits."""
    desk.leased("a", session_key=key(affinity="1"))
    desk.opening("b", key(affinity="2"))
    assert desk.decide(Usage.COMMON, key(affinity="3"), **{limit: 2}) == WAIT


def test_a_full_principal_waits_though_there_is_room(desk):
    """A principal at its limit waits, however much room is left for others."""
    desk.leased("a", session_key=key(affinity="1"))
    assert desk.decide(Usage.COMMON, max_sessions=10, max_sessions_per_principal=1) == WAIT
    assert desk.decide(Usage.COMMON, key("q"), max_sessions=10, max_sessions_per_principal=1) == Open(None)


def test_closing_sessions_take_no_room(desk):
    """A session that is saying goodbye is not counted."""
    desk.books.retire(desk.leased("a"))
    assert desk.decide(Usage.COMMON, max_sessions=1) == Open(None)


# -- how many to open ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usages", "wanted"),
    [
        ([], 0),
        ([Usage.COMMON] * 5, 1),
        ([Usage.JOINT] * 5, 1),
        ([Usage.EXCLUSIVE] * 3, 3),
        ([Usage.OWNED, Usage.ONCE], 2),
        ([Usage.COMMON, Usage.EXCLUSIVE, Usage.COMMON], 2),
    ],
)
def test_openings_wanted(desk, usages, wanted):
    """Those who share need one session between them, the others one each; what is on its way counts."""
    bucket = desk.bucket()
    for usage in usages:
        bucket.waiters[object()] = usage
    assert policy.openings_wanted(bucket) == wanted
    desk.opening("a")
    assert policy.openings_wanted(bucket) == max(0, wanted - 1)


@pytest.mark.parametrize("waiting", [0, 1])
def test_the_queue_has_room(waiting):
    """A demand behind fewer than ``--max-waiters`` others may wait."""
    policy.check_queue(waiting, Limits(max_waiters=2), 0.0, known=True)


@pytest.mark.parametrize("waiting", [2, 3])
def test_the_queue_is_bounded(waiting):
    """A demand behind ``--max-waiters`` others is refused, with a hint when to come back."""
    with pytest.raises(TooManyWaiters) as caught:
        policy.check_queue(waiting, Limits(max_waiters=2), 4.2, known=True)
    assert caught.value.http_status == 503
    assert caught.value.headers()["Retry-After"] == "5"


@pytest.mark.parametrize(("held", "hint"), [(0.0, 1), (0.01, 1), (1.5, 2), (29.5, 30), (30.0, 30), (1e9, 30)])
def test_when_to_come_back(held, hint):
    """The hint is about the time that sessions are held, at least one second and at most thirty."""
    assert policy.retry_after_seconds(held) == hint


# -- pre-warming -----------------------------------------------------------------------------------


def test_prewarming_up_to_min_idle(desk):
    """Unused sessions stand ready up to ``--min-idle``, those on their way included."""
    desk.leased("busy", Usage.ONCE)
    limits = Limits(min_idle=2, open_concurrency=2)
    assert policy.wants_prewarming(desk.bucket(), desk.books, limits)
    desk.unused("a")
    assert policy.wants_prewarming(desk.bucket(), desk.books, limits)
    desk.opening("b")
    assert not policy.wants_prewarming(desk.bucket(), desk.books, limits)


def test_no_prewarming_by_default(desk):
    """Without ``--min-idle`` nothing is opened in advance."""
    assert not policy.wants_prewarming(desk.bucket(), desk.books, Limits())


def test_prewarming_is_one_at_a_time(desk):
    """Pre-warming obeys ``--open-concurrency``."""
    desk.opening("a")
    assert not policy.wants_prewarming(desk.bucket(), desk.books, Limits(min_idle=5))


@pytest.mark.parametrize(
    "limits", [Limits(min_idle=1, max_sessions=1), Limits(min_idle=1, max_sessions_per_principal=1)]
)
def test_prewarming_never_costs_a_living_session(desk, limits):
    """At a limit nothing is evicted for a session that nobody has asked for."""
    desk.idle("a", session_key=key(affinity="1"))
    assert not policy.wants_prewarming(desk.bucket(), desk.books, limits)


# -- wear ------------------------------------------------------------------------------------------


def test_sessions_do_not_wear_by_default():
    """Without a lifetime or a number of requests a session serves for ever."""
    assert policy.wear(1e9, 10**9, 0.5, Limits()) is None


@pytest.mark.parametrize(("requests", "reason"), [(2, None), (3, "requests"), (4, "requests")])
def test_sessions_wear_by_requests(requests, reason):
    """A session has served for long enough after its number of requests."""
    assert policy.wear(1e9, requests, 0.5, Limits(max_requests=3)) == reason


@pytest.mark.parametrize(
    ("age", "jitter", "reason"),
    [(99.9, 0.0, None), (100.0, 0.0, "lifetime"), (89.9, 1.0, None), (90.0, 1.0, "lifetime")],
)
def test_sessions_wear_by_age(age, jitter, reason):
    """A session's lifetime ends in its last tenth, each at a moment of its own."""
    assert policy.wear(age, 0, jitter, Limits(max_lifetime_seconds=100.0)) == reason


# -- age -------------------------------------------------------------------------------------------

AGE = Limits(idle_timeout_seconds=100.0, linger_seconds=10.0)


def test_idle_sessions_expire(desk):
    """An idle session is closed after ``--idle-timeout``, to the second."""
    slot = desk.idle("a")
    assert policy.expiry(slot, slot.idle_since + 99.9, AGE) is None
    assert policy.expiry(slot, slot.idle_since + 100.0, AGE) == "idle"


def test_abandoned_sessions_linger(desk):
    """A session whose owner said goodbye is closed after ``--linger``."""
    slot = desk.idle("a", Usage.OWNED)
    slot.lingering_since = slot.idle_since
    assert policy.expiry(slot, slot.idle_since + 9.9, AGE) is None
    assert policy.expiry(slot, slot.idle_since + 10.0, AGE) == "linger"


def test_linger_begins_with_the_goodbye(desk):
    """A goodbye to a session that was idle for long does not close it at once."""
    slot = desk.idle("a", Usage.OWNED)
    slot.lingering_since = slot.idle_since + 50.0
    assert policy.expiry(slot, slot.idle_since + 59.9, AGE) is None
    assert policy.expiry(slot, slot.idle_since + 60.0, AGE) == "linger"


def test_linger_begins_anew_after_use(desk):
    """A session that is used after the goodbye lingers from its last use on."""
    slot = desk.idle("a", Usage.OWNED)
    slot.lingering_since = slot.idle_since - 8.0
    assert policy.expiry(slot, slot.idle_since + 9.9, AGE) is None
    assert policy.expiry(slot, slot.idle_since + 10.0, AGE) == "linger"


def test_lingering_never_outlasts_the_idle_timeout(desk):
    """A ``--linger`` over ``--idle-timeout`` does not keep a session longer."""
    slot = desk.idle("a", Usage.OWNED)
    slot.lingering_since = slot.idle_since
    limits = Limits(idle_timeout_seconds=5.0, linger_seconds=10.0)
    assert policy.expiry(slot, slot.idle_since + 5.0, limits) == "idle"
