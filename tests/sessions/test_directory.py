"""The ids that clients hold: found, bounded in number, bounded in age."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_fakes import PROFILE, key

from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.client import ClientSession, new_tag
from mcp_session_proxy.sessions.directory import Directory, DirectoryRules
from mcp_session_proxy.sessions.identity import Principal
from mcp_session_proxy.sessions.minting import mint_id
from mcp_session_proxy.sessions.record import ClientRecord

P, Q = (Principal(digest=name, anonymous=False) for name in ("pppppppppp", "qqqqqqqqqq"))


def client(identifier="a", principal=P, *, now=0.0):
    return ClientSession(
        ClientRecord(
            id=identifier,
            tag=new_tag(),
            principal=principal,
            key=key(principal.digest),
            profile=PROFILE,
            usage=Usage.EXCLUSIVE,
            adopted=False,
            created=now,
            last_used=now,
        )
    )


class Watched(Directory):
    """A directory that notes who has gone from it, and why, by the id."""

    def __init__(self, **limits):
        super().__init__(DirectoryRules(**limits))
        self.gone = []

    def remove(self, client, reason):
        departures = super().remove(client, reason)
        self.gone += [(gone.id, reason) for gone, reason in departures]
        return departures


def make(max_sessions=100, per_principal=100, timeout=60.0):
    """A directory, and the list of those that it forgot and why."""
    directory = Watched(
        max_sessions=max_sessions, max_sessions_per_principal=per_principal, timeout_seconds=timeout
    )
    return directory, directory.gone


def check(directory):
    """Both indices hold the same client sessions, in the same order for each principal."""
    everyone = list(directory)
    assert len(directory) == len(everyone) == len(set(everyone))
    own = [one for principal in directory._principals.values() for one in principal]
    assert set(own) == set(everyone)
    assert len(own) == len(everyone)
    for digest, sessions in directory._principals.items():
        assert list(sessions) == [one for one in everyone if one.principal.digest == digest]
        assert sessions
    assert not any(one.forgotten for one in everyone)
    newest_first = list(directory.newest_first())
    assert set(newest_first) == set(everyone)
    created = [one.record.created for one in newest_first]
    assert created == sorted(created, reverse=True)


def test_who_has_the_most_pays_first():
    """At the limit for all, many client sessions of one caller do not push out the few of another."""
    directory, forgotten = make(max_sessions=10)
    directory.add(client("mine", Q))
    for number in range(50):
        directory.add(client(f"flood {number}", now=1.0 + number))
        check(directory)
    assert directory.find(Q, "mine", 100.0) is not None
    assert len(forgotten) == 41


# -- finding ---------------------------------------------------------------------------------------


def test_found_by_principal_and_id():
    """A client session is found under its id by the principal that holds it."""
    directory, _ = make()
    mine = client()
    directory.add(mine)
    assert directory.find(P, "a", 1.0) is mine
    assert directory.find(P, "b", 1.0) is None


def test_an_id_is_worthless_to_others():
    """Another principal finds nothing under a stolen id, and may hold the same id itself."""
    directory, forgotten = make()
    mine, theirs = client(), client(principal=Q)
    directory.add(mine)
    assert directory.find(Q, "a", 1.0) is None
    directory.add(theirs)
    assert directory.find(P, "a", 1.0) is mine
    assert directory.find(Q, "a", 1.0) is theirs
    assert forgotten == []


def test_finding_counts_as_use():
    """Looking a client session up makes it the most recently used one."""
    directory, _ = make()
    one, two = client("a"), client("b")
    directory.add(one)
    directory.add(two)
    directory.find(P, "a", 5.0)
    assert one.record.last_used == 5.0
    assert list(directory) == [two, one]
    check(directory)


def test_newest_first():
    """By when they came, however often they were used since."""
    directory, _ = make()
    one, two, three = (client(name, now=now) for now, name in enumerate("abc"))
    for each in (one, two, three):
        directory.add(each)
    directory.find(P, "a", 5.0)
    directory.remove(two, "age")
    assert list(directory.newest_first()) == [three, one]


def test_touching_counts_as_use():
    """The end of a request, too, makes a client session the most recently used one."""
    directory, _ = make()
    one, two = client("a"), client("b")
    directory.add(one)
    directory.add(two)
    directory.touch(one, 5.0)
    assert list(directory) == [two, one]
    check(directory)


def test_touching_what_is_not_there():
    """A client session that is not known yet, or not any more, is not remembered by a touch."""
    directory, _ = make()
    mine, namesake = client(), client()
    directory.touch(mine, 1.0)
    assert len(directory) == 0
    directory.add(namesake)
    directory.touch(mine, 2.0)
    assert list(directory) == [namesake]
    check(directory)


# -- bounds ----------------------------------------------------------------------------------------


def test_one_client_session_per_id():
    """A new client session under the same id replaces the former."""
    directory, forgotten = make()
    former, new = client(), client()
    directory.add(former)
    directory.add(new)
    assert directory.find(P, "a", 1.0) is new
    assert forgotten == [("a", "replaced")]
    assert former.forgotten
    assert not new.forgotten
    check(directory)


def test_bounded_per_principal():
    """At a principal's bound its own least recently used one goes, nobody else's."""
    directory, forgotten = make(per_principal=2)
    directory.add(client("stranger", Q))
    for name in "abc":
        directory.add(client(name))
    assert forgotten == [("a", "room")]
    check(directory)


def test_bounded_in_all():
    """At the global bound the least recently used one of all goes."""
    directory, forgotten = make(max_sessions=2)
    directory.add(client("a", Q))
    directory.add(client("b"))
    directory.add(client("c"))
    assert forgotten == [("a", "room")]
    assert len(directory) == 2
    check(directory)


def test_a_bound_of_one():
    """The last client session of a principal may have to go for its next."""
    directory, forgotten = make(per_principal=1)
    for name in "abc":
        directory.add(client(name))
    assert [one.id for one in directory] == ["c"]
    assert forgotten == [("a", "room"), ("b", "room")]
    check(directory)


@pytest.mark.parametrize("busy", ["in_flight", "streams"])
def test_busy_ones_are_spared(busy):
    """A client session with something open is not the one to go while an idle one is there."""
    directory, forgotten = make(per_principal=2)
    one = client("a")
    setattr(one, busy, 1)
    directory.add(one)
    directory.add(client("b"))
    directory.add(client("c"))
    assert forgotten == [("b", "room")]


def test_the_bound_holds_though_all_are_busy():
    """When all are busy the oldest goes: the bound is a bound."""
    directory, forgotten = make(per_principal=2)
    for name in "abc":
        one = client(name)
        one.in_flight = 1
        directory.add(one)
    assert forgotten == [("a", "room")]
    assert len(directory) == 2


# -- forgetting ------------------------------------------------------------------------------------


def test_forgetting():
    """A forgotten client session is told once, marked, and leaves nothing behind."""
    directory, forgotten = make()
    mine = client()
    directory.add(mine)
    directory.remove(mine, "age")
    directory.remove(mine, "age")
    assert forgotten == [("a", "age")]
    assert mine.forgotten
    assert directory.find(P, "a", 1.0) is None
    assert not directory._principals


def test_forgetting_a_former_holder_of_the_id():
    """Forgetting a client session that was replaced does not touch the one that replaced it."""
    directory, forgotten = make()
    former, new = client(), client()
    directory.add(former)
    directory.add(new)
    directory.remove(former, "age")
    assert directory.find(P, "a", 1.0) is new
    assert forgotten == [("a", "replaced")]


def test_expiry():
    """Client sessions are forgotten when they were not used for the timeout, to the second."""
    directory, forgotten = make(timeout=60.0)
    directory.add(client("a", now=0.0))
    directory.add(client("b", now=10.0))
    directory.expire(59.9)
    assert forgotten == []
    directory.expire(60.0)
    assert forgotten == [("a", "age")]
    directory.expire(1000.0)
    assert forgotten == [("a", "age"), ("b", "age")]
    assert len(directory) == 0


def test_one_in_use_does_not_expire():
    """A stream that is open for a day is use; age counts from its end."""
    directory, forgotten = make(timeout=60.0)
    one, two = client("a"), client("b")
    one.streams = 1
    directory.add(one)
    directory.add(two)
    directory.expire(60.0)
    assert forgotten == [("b", "age")]
    one.streams = 0
    directory.expire(119.9)
    assert len(directory) == 1
    directory.expire(120.0)
    assert len(directory) == 0


def test_a_long_request_does_not_keep_others():
    """The end of a long request counts as use without keeping those from expiring who were used before."""
    directory, forgotten = make(timeout=60.0)
    one, two = client("a", now=0.0), client("b", now=1.0)
    directory.add(one)
    directory.add(two)
    directory.touch(one, 50.0)  # its request, begun at 0, has ended
    directory.expire(61.0)
    assert forgotten == [("b", "age")]


# -- ids -------------------------------------------------------------------------------------------


def test_minted_ids():
    """Our ids are long, never the same, and visible ASCII."""
    ids = {mint_id(capable=False) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[\x21-\x7e]{24,}", one) for one in ids)


def test_client_sessions_do_not_show_their_id():
    """An id is a secret: it is shown nowhere."""
    mine = client(mint_id(capable=False))
    assert mine.id not in repr(mine)
    assert mine.tag not in mine.id


# -- any sequence ----------------------------------------------------------------------------------

STEPS = st.tuples(
    st.sampled_from(["add", "find", "busy", "idle", "forget", "expire"]),
    st.integers(0, 5),
    st.sampled_from([P, Q]),
)


@given(st.lists(STEPS, max_size=60))
def test_any_sequence_keeps_both_indices(steps):
    """Whatever happens, the bounds hold, both indices agree, and nothing is told twice."""
    directory, _ = make(max_sessions=6, per_principal=4, timeout=10.0)
    told = []
    now = 0.0
    for action, number, principal in steps:
        now += 1.0
        found = directory.find(principal, str(number), now) if action != "expire" else None
        if action == "add":
            told += directory.add(client(str(number), principal, now=now))
        elif action == "expire":
            now += 5.0
            told += directory.expire(now)
        elif found is not None and action == "forget":
            told += directory.remove(found, "age")
        elif found is not None:
            found.in_flight = 1 if action == "busy" else 0
        check(directory)
        assert len(directory) <= 6
        assert max(Counter(one.principal.digest for one in directory).values(), default=0) <= 4
        assert len(told) == len(set(told)) == len(directory.gone)
        assert all(one.forgotten for one, _ in told)
        assert all(now - one.record.last_used < 10.0 or one.busy or action != "expire" for one in directory)
