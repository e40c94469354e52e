"""A store that has forgotten who owns what: it came back empty, or without its last writes."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster_world import PLACE, Member, World
from messages import call
from proxy_bench import Bench
from several_bench import cluster_of, open_several, written

from mcp_session_proxy import events
from mcp_session_proxy.cluster import questions
from mcp_session_proxy.cluster.card import Card
from mcp_session_proxy.cluster.lease import LeaseAnswer
from mcp_session_proxy.cluster.outcomes import PeerBroke, PeerUnreachable
from mcp_session_proxy.cluster.shards import HeldShard
from mcp_session_proxy.errors import MemberUnreachable
from mcp_session_proxy.store.engine import Claimed, Fenced

ME, YOU = {"Authorization": "Bearer me"}, {"Authorization": "Bearer you"}
# Longer than any member doubts its store.
CERTAIN_SECONDS = 12.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def forgotten(world: World, *names: str) -> list[Member]:
    """Members of these names; the first one serves the caller ``one``, which the store has forgotten."""
    members = await world.join(*names)
    await members[0].ask("one")
    world.store.forget()
    return members


async def claim_one(member: Member) -> None:
    """Has a member claim the caller ``one`` at the store, without asking who serves it."""
    await member.membership.beat()
    await member.membership.claim("one", 60.0)


def has_noticed(member: Member) -> bool:
    return member.membership.doubts_store


# -- ordinary times --------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_store_without_fault_is_believed(world: World) -> None:
    """A caller that nobody knows costs one question to the store, and none to the others."""
    members = await world.join("a", "b", "c")
    for number in range(30):
        await members[number % 3].ask(f"fresh {number}")
        await asyncio.sleep(1.0)
    assert world.questions == []
    assert not any(map(has_noticed, members))


@pytest.mark.looptime
async def test_it_is_believed_again(world: World) -> None:
    """Once all have had a lease's time to claim again what they own."""
    _, b = await forgotten(world, "a", "b")
    await b.ask("fresh")
    assert has_noticed(b)
    await asyncio.sleep(CERTAIN_SECONDS)
    world.questions.clear()
    await b.ask("later")
    assert (has_noticed(b), world.questions) == (False, [])


# -- whoever serves it is found --------------------------------------------------------------------------


@pytest.mark.looptime
async def test_an_owner_that_the_store_has_forgotten(world: World) -> None:
    """A member that has never heard of the caller finds its owner among the others, and robs nobody."""
    a, b, c = await forgotten(world, "a", "b", "c")
    assert [await c.ask("one"), await b.ask("one")] == ["a", "a"]
    assert (a.contents.let_go_of, b.shards.held, c.shards.held) == ([], {}, {})


@pytest.mark.looptime
async def test_an_owner_that_has_no_card_any_more(world: World) -> None:
    """Whose card was there when the store forgot it is reached as before, also if others beat first."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    assert await b.ask("one") == "a"
    a.stop()
    a.alive = True  # busy: it answers, and beats late
    world.store.forget()
    await b.membership.beat()
    await b.members.look()
    assert await b.ask("one") == "a"


@pytest.mark.looptime
async def test_it_looks_before_it_beats(world: World) -> None:
    """A store that lists everybody but whoever asks has forgotten somebody."""
    _, b = await forgotten(world, "a", "b")
    await b.members.look()
    assert has_noticed(b)
    assert await b.ask("one") == "a"


@pytest.mark.looptime
async def test_it_turns_out_while_it_is_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim has come to a store that was emptied: it is given back, and the others are asked."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    claim = world.store.claim

    async def late(member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        if not has_noticed(b):
            world.store.forget()
            await b.membership.beat()
        return await claim(member, shard, ttl_seconds, min_fence)

    monkeypatch.setattr(world.store, "claim", late)
    assert await b.ask("one") == "a"
    await asyncio.sleep(2.0)
    assert (list(a.shards.held), a.contents.let_go_of) == (["one"], [])
    assert await b.ask("one") == "a"


@pytest.mark.looptime
async def test_its_owner_claims_it_again_meanwhile(world: World) -> None:
    """Another member has the claim, does not serve it and gives it back: that is waited for."""
    a, b = await forgotten(world, "a", "b")
    await claim_one(b)
    claiming = asyncio.create_task(a.shards.find("one"))
    await asyncio.sleep(0.05)
    await b.membership.release("one")
    assert await claiming is a.shards.held["one"]
    assert a.contents.let_go_of == []


@pytest.mark.looptime
async def test_whoever_serves_it_keeps_it(world: World) -> None:
    """One that has begun anew with a caller is not robbed; what its former owner has goes to it."""
    a, b = await forgotten(world, "a", "b")
    a.contents.there["one"] = {"u1"}
    await claim_one(b)
    b.shards.held["one"] = HeldShard("one", 1)
    assert await a.shards.find("one") == "b"
    await asyncio.sleep(2.0)
    assert (list(a.shards.held), list(b.shards.held)) == ([], ["one"])
    assert b.contents.there["one"] == {"u1"}


@pytest.mark.looptime
@pytest.mark.parametrize("asks", ["claim", "look"])
async def test_a_beat_that_has_not_been_heard_of(
    world: World, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """It has made the member alive again at a store that was emptied, and says so after other answers."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    beat = world.store.beat

    async def slow(member: str, *rest: Any) -> bool:
        known = await beat(member, *rest)
        await asyncio.sleep(0.1)
        return known

    world.store.forget()
    monkeypatch.setattr(world.store, "beat", slow)
    beating = asyncio.create_task(b.membership.beat())
    await asyncio.sleep(0.05)
    if asks == "look":
        await b.members.look()
        assert len(b.members) == 1
    assert await b.ask("one") == "a"
    assert not await beating


@pytest.mark.looptime
async def test_a_store_that_has_failed_may_be_another_one(world: World) -> None:
    """What answers after that may lack the newest claims, though it knows the members."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    world.store.away_for.add("b")
    await asyncio.sleep(1.5)
    world.store.away_for.clear()
    del world.store._shards["one"]
    assert await b.ask("one") == "a"


@pytest.mark.looptime
async def test_two_who_want_the_same_new_caller(world: World) -> None:
    """Nobody serves it, as both say: the store decides."""
    a, b = await world.join("a", "b")
    world.store.forget()
    first, second = await asyncio.gather(a.ask("new"), b.ask("new"))
    assert first == second
    assert len(a.shards.held) + len(b.shards.held) == 1


@pytest.mark.looptime
async def test_nobody_asks_in_a_circle(world: World) -> None:
    """All doubt the store, and all want one caller: each question is answered without another."""
    members = await world.join("a", "b", "c")
    world.store.forget()
    for member in members:
        await member.membership.beat()
    asked = len(world.store.asked)
    said = await questions.answer(members[0].shards, None, "new")
    assert (said.owns, said.owner, len(world.store.asked)) == (False, None, asked)
    assert len({await member.ask("new") for member in members}) == 1


@pytest.mark.looptime
async def test_what_was_served_without_a_fence(world: World) -> None:
    """In an outage, two have served a caller: the one that never claimed it hands over to the other."""
    a, b = await forgotten(world, "a", "b")
    await b.membership.beat()
    b.shards.held["one"] = HeldShard("one", 0)
    b.contents.there["one"] = {"u2"}
    assert await b.shards.find("one") == "a"
    await asyncio.sleep(2.0)
    assert (list(a.shards.held), list(b.shards.held)) == (["one"], [])
    assert "u2" in a.contents.there["one"]


# -- what was owned is claimed again ---------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_write_finds_it_out(world: World) -> None:
    """Nobody has taken it: it stays, under a higher fence, and is written again."""
    a, _ = await forgotten(world, "a", "b")
    assert not await a.membership.write("one", {PLACE: b"x"}, 60.0)
    await asyncio.sleep(0.1)
    assert (list(a.shards.held), a.shards.held["one"].fence) == (["one"], 2)
    assert (a.contents.noted, a.contents.let_go_of, a.membership.fenced) == (["one"], [], 0)
    assert await a.membership.write("one", {PLACE: b"x"}, 60.0)


@pytest.mark.looptime
async def test_a_write_that_crosses_a_claim(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was sent under the former fence, and refused because of the new one, which is this member's own."""
    a, _ = await world.join("a", "b")
    await a.ask("one")
    write = world.store.write

    async def late(member: str, shard: str, *rest: Any) -> Fenced:
        world.store._shards[shard].fence += 1
        return await write(member, shard, *rest)

    monkeypatch.setattr(world.store, "write", late)
    assert not await a.membership.write("one", {PLACE: b"x"}, 60.0)
    assert (list(a.shards.held), a.contents.let_go_of, a.membership.fenced) == (["one"], [], 0)


@pytest.mark.looptime
async def test_many_are_claimed_again(world: World) -> None:
    """With the first beat, all of them."""
    a, b = await world.join("a", "b")
    for number in range(100):
        await a.ask(str(number))
    world.store.forget()
    await asyncio.sleep(1.5)
    assert {stored.owner for stored in await world.store.shards()} == {"a"}
    assert len(await world.store.shards()) == 100
    assert {await b.ask(str(number)) for number in range(100)} == {"a"}
    assert world.questions == [("b", str(number)) for number in range(100)]


@pytest.mark.looptime
async def test_a_fence_never_comes_twice(world: World) -> None:
    """The store has lost a claim, and whoever had it has lost the shard: its calls under way have ids of that
    fence still. Neither it nor anybody else gets the same again.
    """
    a, b = await world.join("a", "b")
    await a.ask("one")
    await a.ask("two")
    for shard in ("one", "two"):
        for _ in range(3):
            await a.membership.release(shard)
            await a.membership.claim(shard, 60.0)
        a.shards.held[shard].fence = 7
    assert a.membership.fences.last("one") == 7
    for shard in ("one", "two"):
        a.shards.lost(shard)
    world.store.forget()
    await a.ask("one")
    await b.ask("two")
    assert a.shards.held["one"].fence > 7
    assert b.shards.held["two"].fence > 7


# -- members that are dead -------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_the_dead_are_not_waited_for(world: World) -> None:
    """The owner went together with what the store knew: whoever comes is served at once, elsewhere."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    assert await b.ask("one") == "a"
    a.stop()
    world.store.forget()
    await b.membership.beat()
    await b.members.look()
    assert len(b.members) == 1  # it may live
    began = now()
    assert await b.ask("one") == "b"
    assert now() - began < 0.5
    assert len(b.members) == 0  # nobody listens there


@pytest.mark.looptime
async def test_one_that_cannot_be_reached_may_live(world: World) -> None:
    """It is not robbed before the end of the lease that it had, and not waited for after it."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    assert await b.ask("one") == "a"
    a.stop()
    world.cut["b", "a"] = PeerUnreachable()
    world.store.forget()
    await b.membership.beat()
    with pytest.raises(MemberUnreachable):
        await b.ask("one")
    await asyncio.sleep(CERTAIN_SECONDS)
    assert len(b.members) == 0
    assert [event.member for event in b.told.events if isinstance(event, events.MemberLeft)] == ["a"]
    assert await b.ask("one") == "b"


# -- what is told to those who are cut off from it -------------------------------------------------------


@pytest.mark.looptime
async def test_an_empty_store_says_nothing_of_leases(world: World) -> None:
    """A member that does not reach it yet hears that nobody knows, and not that its lease has run out."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    world.store.away_for.add("a")
    world.store.forget()
    said = await questions.answer(b.shards, "a", None)
    assert (said.store, said.left_seconds) == (False, None)
    await asyncio.sleep(4.5)
    assert await a.ask("one") == "a"
    assert a.contents.let_go_of == []


# -- whole proxies ---------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    """Delete all that members have written down."""
    with sqlite3.connect(path / "state.db", timeout=60.0) as database:
        for table in ("members", "shards", "records"):
            database.execute(f"DELETE FROM {table}")
    database.close()


@pytest.mark.slow
async def test_counts_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each member, also at one that has never heard of the caller; and all is written again. One of the
    others does not answer, and is not waited for without end.
    """
    async with open_several(tmp_path / "state") as several:
        await several.start(3)
        one, two, three = several.benches
        for number in (1, 2):
            assert await counted(one, ME) == number
        await written(one)

        peers, silent = cluster_of(two).peers, cluster_of(three).shards.membership.member
        ask_lease = peers.ask_lease

        async def ask(card: Card, member: str | None, shard: str | None) -> LeaseAnswer:
            if card.member == silent:
                raise PeerBroke("no answer in time")
            answer: LeaseAnswer = await ask_lease(card, member, shard)
            return answer

        monkeypatch.setattr(peers, "ask_lease", ask)
        empty(tmp_path / "state")
        for number, bench in enumerate((two, one, three), 3):
            assert await counted(bench, ME) == number
        assert len(several.server.posts("initialize")) == 1
        assert await counted(two, YOU) == 1
        assert [len(cluster_of(bench).shards.held) for bench in several.benches] == [1, 1, 0]


async def counted(bench: Bench, headers: dict[str, str]) -> int:
    """What this caller's counter says after one more call."""
    answer = await bench.post(call(), headers=headers)
    assert answer.status == 200, answer.body
    return int(answer.json["result"]["count"])
