"""Going on while the store cannot be asked: by the word of the others, and no longer than that holds."""

import asyncio

import pytest
from cluster_world import World

from mcp_session_proxy.cluster.lease import LeaseAnswer, left_by
from mcp_session_proxy.cluster.outlasting import Outlasting
from mcp_session_proxy.store.engine import StoreFailure
from mcp_session_proxy.store.membership import Membership
from mcp_session_proxy.store.memory import MemoryEngine

pytestmark = pytest.mark.looptime

ALONE = LeaseAnswer(store=False)
GONE = LeaseAnswer(store=True)


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        ([], None),
        ([ALONE], None),
        ([ALONE, LeaseAnswer(store=True, left_seconds=3.0)], 3.0),
        ([LeaseAnswer(store=True, left_seconds=3.0), LeaseAnswer(store=True, left_seconds=2.0)], 2.0),
        ([LeaseAnswer(store=True, left_seconds=3.0), GONE], 0.0),
        ([LeaseAnswer(store=False, left_seconds=3.0)], None),
    ],
    ids=["nobody", "unknown", "known", "shortest", "gone", "not-reached"],
)
def test_what_is_left_of_a_lease(answers: list[LeaseAnswer], left: float | None) -> None:
    """The least that anybody says who has reached the store; unknown where nobody has."""
    assert left_by((str(number), said) for number, said in enumerate(answers)) == left


async def outlasting(left: float | None, *, answer_seconds: float = 0.0) -> tuple[Membership, Outlasting]:
    """A member whose lease lasts so long, by the others, who take their time to say so."""
    now = asyncio.get_running_loop().time
    membership = Membership(MemoryEngine(), "a", card=lambda: b"", now=now)

    async def say() -> float | None:
        await asyncio.sleep(answer_seconds)
        return left

    return membership, Outlasting(membership, say)


@pytest.mark.parametrize(("left", "sure_seconds"), [(None, 2.0), (60.0, 2.0), (0.3, 0.3)])
async def test_it_is_sure_no_longer_than_its_lease(left: float | None, sure_seconds: float) -> None:
    """Whoever reaches the store may take what it owns as soon as that has run out."""
    membership, asking = await outlasting(left)
    assert await asking.is_alive()
    assert membership.sure_until == pytest.approx(membership.now() + sure_seconds)


async def test_the_time_of_the_question_counts() -> None:
    """What was left when it asked is not left any more when it hears of it."""
    membership, asking = await outlasting(0.8, answer_seconds=0.5)
    began = membership.now()
    assert await asking.is_alive()
    assert membership.sure_until == pytest.approx(began + 0.8)


async def test_a_lease_that_has_run_out() -> None:
    """It is not sure of anything."""
    membership, asking = await outlasting(0.0)
    assert not await asking.is_alive()
    assert not membership.is_sure


async def test_a_lease_that_had_run_out_before() -> None:
    """It is alive again, and what it owned may be another's: only the store can say."""
    membership, asking = await outlasting(4.0)
    await membership.beat()
    await membership._engine.leave("a")
    assert not await membership.beat()
    assert await asking.is_alive()
    assert not membership.is_sure


async def test_it_is_not_less_sure_than_by_its_beat() -> None:
    """The store has answered meanwhile."""
    membership, asking = await outlasting(None)
    await membership.beat()
    before = membership.sure_until
    assert await asking.is_alive()
    assert membership.sure_until == before


async def test_all_who_ask_share_one_question() -> None:
    """However many requests come at once."""
    asked = 0

    async def say() -> float | None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return None

    membership, _ = await outlasting(None)
    asking = Outlasting(membership, say)
    assert all(await asyncio.gather(*(asking.is_alive() for _ in range(20))))
    assert asked == 1


async def test_nobody_waits_for_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what it is sent, and says nothing: whatever has an owner is answered as ever, all the time."""
    world = World()
    a, b = await world.join("a", "b")
    await a.ask("one")
    await b.ask("one")

    async def hang(*_: object) -> None:
        await asyncio.sleep(1.0)
        raise StoreFailure("no answer within 1 s")

    for verb in ("beat", "claim", "members", "news"):
        monkeypatch.setattr(world.store, verb, hang)
    now = asyncio.get_running_loop().time
    until, longest = now() + 20.0, 0.0
    while now() < until:
        for member in (a, b):
            began = now()
            assert await member.ask("one") == "a"
            longest = max(longest, now() - began)
        await asyncio.sleep(0.05)
    assert longest < 0.01
    world.close()


@pytest.mark.parametrize("lease_seconds", [2.0, 5.0])
@pytest.mark.parametrize("since_beat", [0.0, 0.3, 0.7, 0.99])
async def test_nobody_waits_for_a_store_that_stands_still(lease_seconds: float, since_beat: float) -> None:
    """Whichever moment it stops to answer, owners have heard from the others before they are no longer sure,
    also where a lease is hardly longer than the store is waited for.
    """
    world, now = World(), asyncio.get_running_loop().time
    (a,) = await world.join("a", lease_seconds=lease_seconds)
    await asyncio.sleep(a.membership.beat_seconds / 2)  # they do not beat together
    (b,) = await world.join("b", lease_seconds=lease_seconds)
    for member, shard in ((a, "one"), (b, "two")):
        assert await member.ask(shard) == member.name
    await asyncio.sleep(3 + since_beat * a.membership.beat_seconds)
    world.store.stands_still = True
    began, longest = now(), 0.0
    while now() - began < 6 * lease_seconds:
        for member, shard in ((a, "one"), (b, "two")):
            asked = now()
            assert await member.ask(shard) == member.name
            longest = max(longest, now() - asked)
        await asyncio.sleep(0.02)
    assert longest < 0.01
    world.close()
