"""Where requests go, and what becomes of them when members stop, die, part, or lose sight of each other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster_world import PLACE, REFUSE, World

from mcp_session_proxy import events
from mcp_session_proxy.cluster.outcomes import Misdirected, PeerBroke, PeerUnreachable
from mcp_session_proxy.errors import (
    Draining,
    MemberUnreachable,
    Misrouted,
    OutcomeUnknown,
    StoreUnavailable,
    TooManyWaiters,
)
from mcp_session_proxy.store.engine import Claimed, StoreFailure

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.close()


async def test_who_comes_first_has_it(world: World) -> None:
    """The others send on what comes to them, and know from then on where to."""
    a, b, c = await world.join("a", "b", "c")
    assert await a.ask("one") == "a"
    assert await b.ask("one") == "a"
    assert await c.ask("two") == "c"
    assert await a.ask("two") == "c"
    asked = len(world.store.asked)
    assert [await each.ask("one") for each in (a, b)] == ["a", "a"]
    assert await a.ask("two") == "c"
    assert len(world.store.asked) == asked


async def test_no_round_trip_for_what_is_known(world: World) -> None:
    """A thousand requests at the owner and a thousand elsewhere ask the store nothing but the beats."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await b.ask("one")
    world.store.asked.clear()
    for _ in range(1000):
        await a.ask("one")
        await b.ask("one")
    assert world.store.asked == []


async def test_many_at_once_ask_once(world: World) -> None:
    """All who ask for an unknown shard share one question."""
    (a,) = await world.join("a")
    world.store.asked.clear()
    await asyncio.gather(*(a.ask("one") for _ in range(50)))
    assert world.store.asked.count("claim") == 1


async def test_a_dead_owner_is_waited_for(world: World) -> None:
    """As long as its lease lasts, and no longer; then it goes on with the records."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.membership.write("one", {PLACE: b"x"}, 60.0)
    a.stop()
    began = asyncio.get_running_loop().time()
    assert await b.ask("one") == "b"
    waited = asyncio.get_running_loop().time() - began
    assert 3.0 <= waited <= 5.5
    assert b.contents.there["one"] == {"u1"}
    assert b.shards.held["one"].fence == 2


async def test_a_dead_owner_on_this_machine_is_buried(world: World) -> None:
    """Nobody waits for the lease of a process that is known to be gone."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.stop()
    world.gone.add("a")
    began = asyncio.get_running_loop().time()
    assert await b.ask("one") == "b"
    assert asyncio.get_running_loop().time() - began < 0.1
    assert any(isinstance(event, events.MemberBuried) for event in b.told.events)


async def test_patience_ends_before_the_lease(world: World) -> None:
    """Who cannot wait for so long is told so."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.stop()
    with pytest.raises(MemberUnreachable):
        await b.ask("one", patience=1.0)


async def test_not_everybody_may_wait(world: World) -> None:
    """Those who wait for a dead owner are bounded."""
    a, b = await world.join("a", "b", max_waiters=2)
    await a.ask("one")
    a.stop()
    answers = await asyncio.gather(*(b.ask("one") for _ in range(3)), return_exceptions=True)
    assert answers[:2] == ["b", "b"]
    assert isinstance(answers[2], TooManyWaiters)


async def test_a_living_owner_is_never_robbed(world: World) -> None:
    """It cannot be reached, and lives: its requests are refused, not served by another."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    world.cut["b", "a"] = PeerUnreachable()
    for _ in range(3):
        with pytest.raises(MemberUnreachable):
            await b.ask("one")
        await asyncio.sleep(5)
    assert world.served == ["a"]


@pytest.mark.parametrize("is_read", [True, False])
async def test_what_broke_is_not_repeated_but_for_reads(world: World, is_read: bool) -> None:
    """The owner dies amid a request: what changes nothing is done by the next one."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await b.ask("one")
    world.cut["b", "a"] = PeerBroke()
    a.stop()
    world.gone.add("a")
    if is_read:
        # The store is asked anew, and says that the dead one has it.
        asyncio.get_running_loop().call_later(0.01, world.cut.clear)
        world.cut["b", "a"] = PeerBroke()
        task = asyncio.create_task(b.ask("one", is_read=True))
        world.cut.clear()
        assert await task == "b"
    else:
        with pytest.raises(OutcomeUnknown):
            await b.ask("one")
        world.cut.clear()
        assert await b.ask("one") == "b"


@pytest.mark.slow
async def test_two_hops_at_most(world: World) -> None:
    """Members that send a request from one to the other do not do so for ever."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    world.cut["b", "a"] = Misdirected(None)
    with pytest.raises(Misrouted):
        await b.ask("one")


async def test_it_follows_whoever_knows_better(world: World) -> None:
    """A shard has moved: the former owner says where it is."""
    a, b, c = await world.join("a", "b", "c")
    await a.ask("one")
    assert await c.ask("one") == "a"
    assert await a.shards.release("one")
    assert await b.ask("one") == "b"
    world.hops.clear()
    assert await c.ask("one") == "b"
    assert world.hops == [("c", "a"), ("c", "b")]


async def test_whoever_stood_still_says_where_it_is(world: World) -> None:
    """It may be late when it runs again: the request is sent there all the same."""
    a, b, c = await world.join("a", "b", "c")
    await a.ask("one")
    assert await c.ask("one") == "a"
    assert await a.shards.release("one")
    assert await b.ask("one") == "b"
    assert await c.ask("one", patience=-1.0) == "b"


async def test_a_forwarded_request_is_not_forwarded_again(world: World) -> None:
    """Who gets one that is not its own says so."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    with pytest.raises(Misdirected) as error:
        await b.ask("one", hops=1)
    assert error.value.owner == "a"


async def test_a_member_that_parts(world: World) -> None:
    """What it has let go of goes to another; what is under way is served to its end, also for others."""
    a, b = await world.join("a", "b")
    gate = asyncio.Event()
    await a.ask("quiet")
    await a.ask("busy")

    async def work(name: str) -> None:
        await gate.wait()

    world.work = work
    under_way = asyncio.create_task(a.ask("busy"))
    await asyncio.sleep(0)
    a.shards.draining = True
    await a.membership.beat()
    assert await a.shards.release("quiet")
    assert not await a.shards.release("busy")
    gate.set()
    assert await a.ask("quiet") == "b"  # and by way of the one that parts
    assert await b.ask("busy") == "a"
    assert await under_way == "a"
    assert await a.shards.release("busy")
    assert await a.ask("busy") == "b"


async def test_who_comes_while_it_is_verified(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that parts has to ask the store whether a shard is still its own, for somebody who wants it:
    then it is not let go of under that request.
    """
    a, b = await world.join("a", "b")
    await a.ask("one")
    answered, begun, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()
    claim = world.store.claim

    async def slow(*args: Any) -> Claimed:
        await answered.wait()
        return await claim(*args)

    async def work(_: str) -> None:
        begun.set()
        await gate.wait()

    world.work = work
    a.membership.sure_until = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "claim", slow)
        asking = asyncio.create_task(a.ask("one"))
        await asyncio.sleep(0.01)
        releasing = asyncio.create_task(a.shards.release("one"))
        await asyncio.sleep(0.01)
        answered.set()
        await begun.wait()
        assert not await releasing
    assert "one" in a.shards.held
    gate.set()
    assert await asking == "a"
    assert await a.shards.release("one")
    assert await b.ask("one") == "b"


async def test_what_is_being_let_go_of_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that parts has much to write first: what comes for a caller meanwhile waits."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    written, flush = asyncio.Event(), a.contents.flush

    async def slow(shard: str) -> bool:
        await written.wait()
        return await flush(shard)

    monkeypatch.setattr(a.contents, "flush", slow)
    a.shards.draining = True
    releasing = asyncio.create_task(a.shards.release("one"))
    await asyncio.sleep(0.01)
    asking = [asyncio.create_task(each.ask("one")) for each in (a, b)]
    await asyncio.sleep(3)
    assert not any(task.done() for task in asking)
    written.set()
    assert await releasing
    assert [await task for task in asking] == ["b", "b"]


async def test_the_store_has_not_heard_that_it_was_let_go_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again as soon as somebody wants it, or with the next beat, and not only when the process
    that parts has finished all the rest.
    """
    a, b = await world.join("a", "b")
    for shard in ("one", "two"):
        await a.ask(shard)
    a.shards.draining = True
    with monkeypatch.context() as patch:

        async def away(*_: object) -> None:
            raise StoreFailure("away")

        patch.setattr(world.store, "release", away)
        for shard in ("one", "two"):
            with pytest.raises(StoreFailure):
                await a.shards.release(shard)
    assert await b.ask("one") == "b"
    await asyncio.sleep(1.5)
    assert not a.membership.owes
    assert await b.ask("two") == "b"


async def test_the_successor_parts_as_well(world: World) -> None:
    """Whoever is sent to one that takes nothing any more finds one that does."""
    a, b, _ = await world.join("a", "b", "c")
    a.shards.draining = b.shards.draining = True
    assert next(iter(a.members)).member == "b"
    assert await a.ask("one") == "c"


async def test_the_last_one_parts(world: World) -> None:
    """Nobody is there to take anything."""
    (a,) = await world.join("a")
    a.shards.draining = True
    with pytest.raises(Draining):
        await a.ask("one")


# -- being sure ------------------------------------------------------------------------------------------


async def test_who_stood_still_verifies(world: World) -> None:
    """One that was stopped for longer than its lease serves nothing that somebody has taken meanwhile."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.ask("two")
    a.stop()
    assert await b.ask("one") == "b"
    a.alive = True  # it runs again, and its clock says how late it is
    assert await a.ask("one") == "b"
    assert await a.ask("two") == "a"
    assert a.contents.let_go_of == ["one"]
    assert any(isinstance(event, events.ShardLost) for event in a.told.events)


async def test_a_lapsed_lease_is_told_by_the_beat(world: World) -> None:
    """All that was lost is let go of, also what nobody asks for; what was not is certain again."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.ask("two")
    world.store.away_for.add("a")
    await asyncio.sleep(6)
    assert await b.ask("one") == "b"
    world.store.away_for.clear()
    await asyncio.sleep(2)
    assert list(a.shards.held) == ["two"]
    assert a.membership.is_sure
    assert any(isinstance(event, events.LeaseLapsed) for event in a.told.events)


async def test_a_lapsed_lease_is_not_forgotten(world: World) -> None:
    """A request that comes before the beat has it alive again; what it owned is verified all the same."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.stop()
    assert await b.ask("one") == "b"
    a.alive = True
    assert await a.ask("two") == "a"  # asks the store, which says first that it is not alive
    assert not await a.membership.beat()
    assert not a.membership.is_sure


async def test_a_write_that_is_fenced(world: World) -> None:
    """Who has lost a shard learns of it with its first write at the latest."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await world.store.bury("a", a._card())
    assert await b.ask("one") == "b"
    assert not await a.membership.write("one", {PLACE: b"x"}, 60.0)
    assert "one" not in a.shards.held
    assert a.membership.fenced == 1


async def test_a_store_that_was_emptied(world: World) -> None:
    """Each goes on with what it has, under a higher fence, and writes all of it again."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await b.ask("two")
    world.store._leases.clear()
    world.store._shards.clear()
    await asyncio.sleep(2)
    assert (list(a.shards.held), list(b.shards.held)) == (["one"], ["two"])
    assert a.shards.held["one"].fence == 2
    assert a.contents.noted == ["one"]
    assert await b.ask("one") == "a"


# -- without the store -----------------------------------------------------------------------------------


async def test_without_the_store_it_goes_on(world: World) -> None:
    """Owners serve, what is known is forwarded, and what nobody has is served where it comes to."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    world.store.away_for |= {"a", "b"}
    await asyncio.sleep(30)
    assert await a.ask("one") == "a"
    assert await b.ask("one") == "a"
    assert await b.ask("new") == "b"
    assert await a.ask("new") == "b"
    assert b.shards.provisional == 1
    world.store.away_for.clear()
    await asyncio.sleep(3)
    assert b.shards.provisional == 0
    assert b.shards.held["new"].fence == 1
    assert await b.ask("one") == "a"


async def test_without_the_store_nobody_goes_on(world: World) -> None:
    """Where the operator wants that: once the lease has run out, all are refused."""
    a, b = await world.join("a", "b", outage=REFUSE)
    await a.ask("one")
    world.store.away_for |= {"a", "b"}
    assert await a.ask("one") == "a"
    await asyncio.sleep(10)
    for member, shard in ((a, "one"), (b, "new")):
        with pytest.raises(StoreUnavailable):
            await member.ask(shard)


async def test_the_others_say_that_it_is_gone(world: World) -> None:
    """One that alone does not reach the store asks them, lets go of everything, and forwards."""
    a, _ = await world.join("a", "b")
    await a.ask("one")
    world.store.away_for.add("a")
    await asyncio.sleep(6)
    assert await a.ask("one") in ("a", "b")
    assert a.contents.let_go_of == ["one"]


async def test_whoever_is_cut_from_the_store_asks_the_others(world: World) -> None:
    """It finds a caller that it does not know where the store says that it is, and what nobody has goes to
    one who can claim it: nothing is served beside what the store has of it.
    """
    a, b, c = await world.join("a", "b", "c")
    await c.ask("one")
    await a.ask("two")
    await a.membership.write("two", {PLACE: b"x"}, 60.0)
    assert await a.shards.release("two")
    world.store.away_for.add("a")
    assert await a.ask("one") == "c"
    assert await a.ask("two") in ("b", "c")
    assert a.shards.provisional == 0
    assert {"u1"} in (b.contents.there.get("two"), c.contents.there.get("two"))


async def test_the_owner_is_cut_from_the_store(world: World) -> None:
    """Once its lease is gone, another one goes on with what the store has; the former one sends on to it."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.membership.write("one", {PLACE: b"x"}, 60.0)
    world.store.away_for.add("a")
    assert await a.ask("one") == "a"
    await asyncio.sleep(6)
    assert await a.ask("one") == "b"
    assert b.contents.there["one"] == {"u1"}
    assert a.shards.provisional == 0


# -- letting go ------------------------------------------------------------------------------------------


async def test_a_shard_of_which_nothing_is_left(world: World) -> None:
    """Anybody can make up callers: nothing is remembered of one that has nothing."""
    (a,) = await world.join("a")
    await a.ask("one")
    assert world.store._shards
    await asyncio.sleep(30)
    assert not a.shards.held
    assert not world.store._shards


async def test_nobody_comes_for_it(world: World) -> None:
    """What a dead member has left is taken up by the living in the end: it has to end some day."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.membership.write("one", {PLACE: b"x"}, 3600.0)
    a.stop()
    await asyncio.sleep(150)
    assert b.contents.there["one"] == {"u1"}


async def test_not_everybody_looks_for_what_nobody_comes_for(world: World) -> None:
    """Whoever looks is told of all that there is: in a large cluster each looks less often, and still what a
    dead member has left is found.
    """
    a, *others = await world.join(*(f"m{number:02}" for number in range(20)))
    await asyncio.sleep(200)
    assert "shards" not in world.store.asked
    await a.ask("one")
    await a.membership.write("one", {PLACE: b"x"}, 3600.0)
    a.stop()
    await asyncio.sleep(320)
    assert [other.name for other in others if "one" in other.contents.there] != []
