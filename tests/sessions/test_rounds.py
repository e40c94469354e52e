"""Which sessions are looked at, when nobody tells what has changed."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

from mcp_session_proxy.sessions.rounds import Rounds


class Hall:
    """Sessions and client sessions, as far as rounds look at them, and a clock."""

    def __init__(self, count: int) -> None:
        self.seconds = 100.0
        self.all = [SimpleNamespace(name=n, leases=0, idle_since=0.0) for n in range(count)]
        self.used: list[Any] = []
        books = SimpleNamespace(slots=lambda: iter(self.all))
        directory = SimpleNamespace(newest_used_first=lambda: iter(self.used))
        self.rounds = Rounds(cast(Any, books), cast(Any, directory), lambda: self.seconds)

    def look(self) -> list[int]:
        self.seconds += 1
        return [cast(Any, slot).name for slot in self.rounds.slots()]


def test_each_has_its_turn() -> None:
    """Of a hundred that are idle ten are looked at at a time, and after ten times all were."""
    hall = Hall(100)
    looks = [hall.look() for _ in range(10)]
    assert {len(look) for look in looks} == {10}
    assert sorted(itertools.chain(*looks)) == list(range(100))


def test_what_is_used_is_looked_at_each_time() -> None:
    """So is what was given back since."""
    hall = Hall(100)
    hall.all[77].leases = 1
    assert 77 in hall.look()
    assert 77 in hall.look()
    hall.all[77].leases, hall.all[77].idle_since = 0, hall.seconds
    assert 77 in hall.look()
    assert 77 not in hall.look()


def test_clients_that_were_used() -> None:
    """Every ten seconds those that were used since, the newest first."""
    hall = Hall(0)
    clients = [SimpleNamespace(record=SimpleNamespace(last_used=used)) for used in (105.0, 101.0, 99.0)]
    hall.used = clients
    hall.seconds = 105.0
    assert list(hall.rounds.clients()) == []
    hall.seconds = 111.0
    assert list(hall.rounds.clients()) == clients[:2]
    hall.seconds = 122.0
    assert list(hall.rounds.clients()) == []
