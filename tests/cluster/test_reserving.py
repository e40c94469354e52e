"""How many of the sessions of all a member may have."""

from typing import Any

import pytest
from cluster_world import World
from fakes import Recorder

from mcp_session_proxy.cluster.reserving import Reservation, wanted_of
from mcp_session_proxy.sessions.policy import Limits
from mcp_session_proxy.sessions.pool import Pool

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    ("members", "needed", "wanted"), [(1, 0, 100), (2, 0, 50), (2, 70, 78), (2, 95, 100), (4, 3, 25)]
)
def test_each_has_its_part_and_what_it_needs(members: int, needed: int, wanted: int) -> None:
    """And nobody more than all may have."""
    assert wanted_of(100, members, needed) == wanted


@pytest.mark.parametrize(
    ("most", "members", "needed", "wanted"),
    [(3, 3, 0, 1), (3, 3, 1, 1), (3, 3, 2, 2), (2, 3, 0, 0), (2, 3, 1, 1)],
)
def test_few_are_left_to_the_others(most: int, members: int, needed: int, wanted: int) -> None:
    """Where there are few in all, nobody keeps what the others would wait for."""
    assert wanted_of(most, members, needed) == wanted


async def test_all_together_have_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that needs more gets it from what nobody else has reserved; what there is is not taken away."""
    world = World()
    a, b = await world.join("a", "b")
    made: list[Any] = []
    for member in (a, b):
        pool = Pool(connect=lambda *_: None, rules=Limits(max_sessions=100), observe=Recorder())  # type: ignore[arg-type]
        reservation = Reservation(pool.rules, pool=pool, membership=member.membership, members=member.members)
        made.append((pool, reservation))
    (pool_a, of_a), (pool_b, of_b) = made
    await of_a.renew()
    pool_b.books.counted = 80
    await of_b.renew()
    assert (pool_a.rules.reserved, pool_b.rules.reserved) == (50, 50)
    await of_a.renew()
    assert pool_a.rules.places == 50
    assert pool_b.rules.most == 96  # so many it may take over; four places are for trials
    of_b.rules = Limits(max_sessions=20)
    assert pool_b.rules.places == 18
    world.close()
