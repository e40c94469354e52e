"""What follows from what the others say, for one that does not reach the store, or not believe it."""

import asyncio

import pytest
from cluster_world import World

from mcp_session_proxy.cluster import questions
from mcp_session_proxy.cluster.lease import LeaseAnswer, Served, owner_by, served_by
from mcp_session_proxy.store.engine import Claimed, StoreFailure

ALONE = LeaseAnswer(store=False)
SERVES_UNDER_3 = LeaseAnswer(store=False, owns=True, fence=3)


@pytest.mark.parametrize(
    ("answers", "owner"),
    [
        ([], None),
        ([("b", ALONE)], None),
        ([("b", ALONE), ("c", LeaseAnswer(store=False, owns=True, fence=3))], "c"),
        ([("b", LeaseAnswer(store=True, owner="d")), ("c", ALONE)], "d"),
        ([("b", LeaseAnswer(store=True, owner="a"))], None),
        ([("b", LeaseAnswer(store=True, owner="d")), ("c", LeaseAnswer(store=False, owns=True))], "c"),
        (
            [
                ("b", LeaseAnswer(store=False, owns=True, fence=3)),
                ("c", LeaseAnswer(store=False, owns=True, fence=4)),
            ],
            "c",
        ),
    ],
    ids=["nobody", "unknown", "served", "stored", "asker", "served-before-stored", "higher-fence"],
)
def test_the_owner_by_the_others(answers: list[tuple[str, LeaseAnswer]], owner: str | None) -> None:
    """Whoever serves a caller counts first, then whom the store names; the one who asks knows of itself."""
    assert owner_by(answers, "a") == owner


@pytest.mark.parametrize(
    ("answers", "served"),
    [
        ([], Served(None, 0)),
        ([("b", LeaseAnswer(store=False, fence=3))], Served(None, 3)),
        ([("b", LeaseAnswer(store=False, fence=9)), ("c", SERVES_UNDER_3)], Served("c", 3)),
        ([("b", LeaseAnswer(store=False, owns=True, fence=4)), ("c", SERVES_UNDER_3)], Served("b", 4)),
        ([("b", LeaseAnswer(store=True, owner="d"))], Served(None, 0)),
    ],
    ids=["nobody", "has-lost-it", "serves-it", "higher-fence", "by-the-store"],
)
def test_who_serves_a_caller(answers: list[tuple[str, LeaseAnswer]], served: Served) -> None:
    """Its own word counts, and not the store's, which may have forgotten; and whoever has lost it says under
    which fence it has had it.
    """
    assert served_by(answers) == served


@pytest.mark.looptime
async def test_a_store_that_keeps_everybody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told what this member serves before it gives up."""
    world = World()
    (a,) = await world.join("a")
    await a.ask("s")
    a.membership.sure_until = a.membership.now()

    async def hang(*_: object) -> Claimed:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(a.membership, "claim", hang)
    async with asyncio.timeout(0.9):
        said = await questions.answer(a.shards, "b", "s")
    assert (said.store, said.owns) == (False, True)
    world.close()


@pytest.mark.looptime
async def test_what_is_known_without_the_store() -> None:
    """The store is not asked by who serves a caller for certain, nor by who has not reached it last: where it
    is away, each member is asked by all others for each new caller.
    """
    world = World()
    a, _ = await world.join("a", "b")
    await a.ask("s")
    world.store.asked.clear()
    said = await questions.answer(a.shards, "b", "s")
    assert (said.owns, said.fence, world.store.asked) == (True, 1, [])
    world.store.away_for.add("a")
    with pytest.raises(StoreFailure):
        await a.membership.beat()
    world.store.away_for.clear()
    assert await questions.answer(a.shards, "b", "t") == ALONE
    assert world.store.asked == []
    await a.membership.beat()
    assert (await questions.answer(a.shards, "b", "t")).owner == "a"
    world.close()


@pytest.mark.looptime
async def test_a_member_whose_lease_has_ended() -> None:
    """It is known still: what it sends on is believed. Who never was a member is not."""
    world = World()
    a, b = await world.join("a", "b")
    b.stop()
    await asyncio.sleep(6.0)
    await a.members.look()
    assert len(a.members) == 0
    assert await a.members.knows("b")
    assert not await a.members.knows("c")
    world.close()
