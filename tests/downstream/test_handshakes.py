"""Whose TLS handshake comes next."""

import asyncio
import itertools

import pytest

from mcp_session_proxy.downstream.handshakes import Handshakes
from mcp_session_proxy.downstream.places import Place


class Scene:
    """Handshakes that begin and do not end by themselves, in the order in which they begin."""

    def __init__(self, most: int = 100) -> None:
        self.ended: list[Place] = []
        self.begun: list[Place] = []
        self.handshakes = Handshakes(max_under_way=lambda: most, end=self.ended.append)
        self.tasks: dict[Place, asyncio.Task[None]] = {}

    def come(self, network: str, count: int = 1) -> list[Place]:
        """So many want to shake hands."""
        places = [Place(0.0, network) for _ in range(count)]
        for place in places:
            self.tasks[place] = asyncio.create_task(self._begin(place))
        return places

    async def _begin(self, place: Place) -> None:
        await self.handshakes.begin(place)
        self.begun.append(place)

    async def all_begun(self) -> None:
        await asyncio.gather(*self.tasks.values())


async def test_each_network_in_turn() -> None:
    """Whoever comes behind a flood from elsewhere waits for one of it; of very many, the last is first."""
    at = Scene()
    flood = at.come("192.0.2.1", 100)
    first, second = at.come("198.51.100.7", 2)
    [third] = at.come("203.0.113.9")
    await at.all_begun()
    assert [at.begun.index(place) for place in (first, third, second)] == [1, 2, 4]
    assert [place for place in at.begun if place.network == "192.0.2.1"] == flood[:63:-1] + flood[:64]


async def test_a_few_in_each_turn_of_the_loop() -> None:
    """Between them, everybody else has a turn."""
    at = Scene()
    at.come("192.0.2.1", 50)
    counts = []
    while len(at.begun) < 50:
        await asyncio.sleep(0)
        counts.append(len(at.begun))
    assert max(after - before for before, after in itertools.pairwise(counts)) <= 2
    assert at.handshakes.under_way == 50


async def test_so_many_are_under_way() -> None:
    """Over the limit, those make room that began first where most come from, and others go on."""
    at = Scene(most=4)
    [honest] = at.come("198.51.100.7")
    flood = at.come("192.0.2.1", 20)
    await at.all_begun()
    assert at.ended == flood[:17]
    assert honest not in at.ended
    assert at.handshakes.under_way == 4


async def test_who_is_over_makes_room() -> None:
    """Nobody is ended for who comes later, and over is over once."""
    at = Scene(most=2)
    for _ in range(5):
        for place in at.come("192.0.2.1", 2):
            await at.tasks[place]
            at.handshakes.over(place)
            at.handshakes.over(place)
    assert at.ended == []
    assert at.handshakes.under_way == 0


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_who_leaves_is_forgotten(steps: int) -> None:
    """At whatever moment it leaves, before its turn or in it, the others have theirs."""
    at = Scene()
    leaving = at.come("192.0.2.1", 3)
    stays = at.come("198.51.100.7", 3)
    for _ in range(steps):
        await asyncio.sleep(0)
    for place in leaving:
        at.tasks[place].cancel()
    await asyncio.gather(*at.tasks.values(), return_exceptions=True)
    assert [place for place in at.begun if place in stays] == stays
    for place in at.begun:
        at.handshakes.over(place)
    assert at.handshakes.under_way == at.handshakes.waiting == 0
    assert at.handshakes._waiting == at.handshakes._under_way == {}
