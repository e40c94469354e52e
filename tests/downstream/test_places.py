"""Who has a place among all connections, and who makes room for one more."""

import asyncio

import pytest

from mcp_session_proxy.downstream.places import Place, Places, network_of
from mcp_session_proxy.errors import TooManyConnections


class Room:
    """Places, and who was ended."""

    def __init__(self, most: int) -> None:
        self.places = Places(max_connections=most, first_request_seconds=1000)
        self.ended: list[Place] = []

    def enter(self, host: str = "192.0.2.1") -> Place | None:
        """A new connection."""
        place = self.places.take((host, 1))
        if place is not None:
            place.end = lambda: self.ended.append(place)
        return place

    def ask(
        self,
        principal: str,
        *,
        idle: bool,
        host: str = "192.0.2.1",
        known: bool = True,
        follows: bool = False,
    ) -> Place:
        """A connection that asks for something, and has it, or waits for it."""
        place = self.enter(host)
        assert place is not None
        place.owner = lambda: principal if known else None
        place.can_go = lambda: idle
        place.follows = lambda: follows
        self.places.ask(place)
        try:
            self.places.belong(place, principal)
        except TooManyConnections:
            self.places.leave(place)  # as whoever has it sees to
            raise
        return place


async def test_one_caller_leaves_room_for_others() -> None:
    """A caller whose connections are all in use gets three quarters; others come in, and it does not."""
    room = Room(8)
    for _ in range(6):
        room.ask("greedy", idle=False)
    with pytest.raises(TooManyConnections, match="6 connections of this caller"):
        room.ask("greedy", idle=False)
    assert room.ask("other", idle=False)
    assert room.ask("another", idle=False)
    assert room.ended == []


async def test_own_idle_connections_make_room() -> None:
    """A caller with as many connections as it may have goes on with new ones instead of idle ones."""
    room = Room(4)
    first = room.ask("a", idle=True)
    for _ in range(3):
        room.ask("a", idle=False)
    assert room.ended == [first]
    assert len(room.places) == 3


async def test_idle_ones_are_found_behind_those_in_use() -> None:
    """However many are in use, those that are not are found in a few looks."""
    room = Room(400)
    for _ in range(299):
        room.ask("a", idle=False)
    idle = room.ask("a", idle=True)
    for _ in range(300 // 64 + 1):
        try:
            room.ask("a", idle=False)
        except TooManyConnections:
            continue
        break
    assert room.ended == [idle]


async def test_streams_of_several_callers_leave_room_for_others() -> None:
    """Who has most beyond an equal share gives up streams, also where several have all connections."""
    room = Room(40)
    streams = {
        name: [room.ask(name, idle=False, follows=True) for _ in range(count)]
        for name, count in (("ada", 26), ("bob", 14))
    }
    newcomers = [room.ask(f"caller {number}", idle=False, follows=True) for number in range(12)]
    assert not set(room.ended) & set(newcomers)
    left = {
        name: len([place for place in those if place not in room.ended]) for name, those in streams.items()
    }
    assert left["ada"] == left["bob"] == pytest.approx(14, abs=1)
    assert len(room.places) <= 40


async def test_nobody_gives_up_an_equal_share() -> None:
    """What is worked on stays, and so do streams of callers who have no more than others."""
    room = Room(12)
    working = [room.ask("ada", idle=False) for _ in range(6)]
    for name in ("bob", "cyd", "dee"):
        for _ in range(2):
            room.ask(name, idle=False, follows=True)
    assert room.enter() is None
    assert room.ended == []
    assert len(working) == 6


async def test_a_connection_of_several_callers_counts_once() -> None:
    """Behind a front proxy a connection is that caller's who has used it last."""
    room = Room(4)
    shared = room.ask("a", idle=True)
    for principal in ("b", "c", "a", "b"):
        room.places.belong(shared, principal)
    assert {name: len(own) for name, own in room.places._own.items()} == {"b": 1}
    room.places.leave(shared)
    assert room.places._own == {}
    assert len(room.places) == 0


async def test_who_waits_pays_by_where_most_come_from() -> None:
    """A flood from one address does not push out who comes from another and has not spoken yet."""
    room = Room(4)
    honest = room.enter("198.51.100.7")
    flood = [room.enter("192.0.2.1") for _ in range(30)]
    assert room.ended == flood[:27]
    assert honest not in room.ended


@pytest.mark.parametrize("begun", [True, False], ids=["a first byte was heard", "silent"])
async def test_a_slow_one_does_not_pay_for_a_crowd(begun: bool) -> None:
    """However long it stands still: as long as most of those who wait come from one other address."""
    room = Room(8)
    slow = room.enter("198.51.100.7")
    assert slow is not None
    slow.since -= 60
    if begun:
        room.places.begin(slow)
    flood = [room.enter("192.0.2.1") for _ in range(30)]
    assert room.ended == flood[:23]


async def test_a_slow_one_pays_for_many_others() -> None:
    """Where they come from everywhere, who could have spoken by now makes room for those who come."""
    room = Room(8)
    slow = room.enter("198.51.100.7")
    assert slow is not None
    slow.since -= 60
    for number in range(8):
        room.enter(f"192.0.2.{number % 4}")
    assert room.ended == [slow]


async def test_strangers_pay_by_where_most_come_from() -> None:
    """The same of strangers that have asked for something and stay."""
    room = Room(8)
    honest = room.ask("honest", idle=True, host="198.51.100.7", known=False)
    for number in range(30):
        room.ask(f"made up {number}", idle=True, known=False)
    assert honest not in room.ended
    assert len(room.places) <= 8


async def test_nobody_is_looked_for_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all connections are in use, a flood of new ones costs a look at all of them now and then."""
    room, looks = Room(100), 0
    for number in range(75):
        room.ask(f"caller {number}", idle=False)

    def look(_: int) -> list[Place]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(room.places, "_idle", look)
    monkeypatch.setattr("mcp_session_proxy.downstream.places._REST_SECONDS", 100)
    for _ in range(1000):
        room.enter()
    assert looks == 1
    assert len(room.places) == 100


async def test_a_place_that_was_never_asked_on_is_free_again() -> None:
    """Whatever a connection has done, nothing is left of it."""
    room = Room(4)
    for begin in (False, True):
        place = room.enter()
        assert place is not None
        if begin:
            room.places.begin(place)
        room.places.leave(place)
        room.places.leave(place)
    assert len(room.places) == room.places.waiting == 0
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:0:1:ffff::1", 5, 0, 0), "2001:db8:0:1::"),
        (("fe80::1%eth0", 5, 0, 3), "fe80::"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("no:address", 5), "no:address"),
        ("", ""),
        (None, ""),
        ((), ""),
    ],
)
def test_networks(peer: object, network: str) -> None:
    """Who has an IPv6 address has a whole network of them."""
    assert network_of(peer) == network
