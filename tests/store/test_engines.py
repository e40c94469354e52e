"""What every engine promises: one suite, each engine."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from engine_world import KINDS, HandClock, open_engine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mcp_session_proxy.store.engine import ClaimOutcome, Engine, Fenced, RecordPlace

TTL = 5.0
KEPT = 60.0
A, B = "a" * 16, "b" * 16
ONE, TWO = RecordPlace("session", "u1"), RecordPlace("client", "c1")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[Engine]:
    async with open_engine(request.param, tmp_path, clock) as opened:
        yield opened


async def test_only_who_is_alive_can_claim(engine: Engine, clock: HandClock) -> None:
    """Without a lease there is no claim, nor with one that has run out."""
    assert (await engine.claim(A, "s", KEPT)).outcome is ClaimOutcome.NO_LEASE
    assert not await engine.beat(A, b"card", TTL, 0)
    assert await engine.beat(A, b"card", TTL, 0)
    assert (await engine.claim(A, "s", KEPT))[:3] == (ClaimOutcome.TAKEN, A, 1)
    assert (await engine.claim(A, "s", KEPT))[:3] == (ClaimOutcome.MINE, A, 1)
    clock.seconds += TTL
    assert (await engine.claim(A, "s", KEPT)).outcome is ClaimOutcome.NO_LEASE
    assert not await engine.beat(A, b"card", TTL, 0)


async def test_a_living_owner_keeps_its_shard(engine: Engine, clock: HandClock) -> None:
    """Others are told who it is and for how long; once its lease has run out, one of them has it."""
    await engine.beat(A, b"", TTL, 0)
    await engine.claim(A, "s", KEPT)
    clock.seconds += 1
    await engine.beat(B, b"", TTL, 0)
    assert (await engine.claim(B, "s", KEPT))[:4] == (ClaimOutcome.OWNED, A, 1, TTL - 1)
    clock.seconds += TTL - 1
    assert (await engine.claim(B, "s", KEPT))[:3] == (ClaimOutcome.TAKEN, B, 2)
    await engine.beat(A, b"", TTL, 0)
    assert (await engine.claim(A, "s", KEPT))[:3] == (ClaimOutcome.OWNED, B, 2)


async def test_only_the_owner_writes(engine: Engine) -> None:
    """A write under another fence, or of somebody else, changes nothing, and tells who could have written."""
    await engine.beat(A, b"", TTL, 0)
    assert await engine.write(A, "s", 0, {ONE: b"1"}, KEPT) == (False, None, 0)
    await engine.claim(A, "s", KEPT)
    assert await engine.write(A, "s", 1, {ONE: b"1", TWO: b"2"}, KEPT) == (True, A, 1)
    assert await engine.write(B, "s", 1, {ONE: b"B"}, KEPT) == (False, A, 1)
    assert await engine.write(A, "s", 2, {ONE: b"B"}, KEPT) == (False, A, 1)
    assert await engine.load("s") == {ONE: b"1", TWO: b"2"}
    await engine.write(A, "s", 1, {ONE: None, TWO: b"3"}, KEPT)
    assert await engine.load("s") == {TWO: b"3"}
    assert await engine.load("another") == {}


async def test_a_shard_is_released(engine: Engine) -> None:
    """To nobody, or to a member that is alive; the records stay, and the former owner can write no more."""
    for member in (A, B):
        await engine.beat(member, b"", TTL, 0)
    await engine.claim(A, "s", KEPT)
    await engine.write(A, "s", 1, {ONE: b"1"}, KEPT)
    assert await engine.release(A, "s", 1, "nobody") == (False, A, 1)
    assert await engine.release(A, "s", 1, B) == (True, B, 2)
    assert await engine.write(A, "s", 1, {ONE: b"A"}, KEPT) == (False, B, 2)
    assert await engine.release(A, "s", 1) == (False, B, 2)
    assert await engine.release(B, "s", 2) == (True, None, 3)
    assert (await engine.claim(A, "s", KEPT))[:3] == (ClaimOutcome.TAKEN, A, 4)
    assert await engine.load("s") == {ONE: b"1"}


async def test_a_fence_is_over_all_that_are_known(engine: Engine) -> None:
    """Whoever has owned the shard before a store came back empty says under which fence that was."""
    await engine.beat(A, b"", TTL, 0)
    assert (await engine.claim(A, "s", KEPT, 7)).fence == 8


async def test_what_is_taken_comes_with_its_records(engine: Engine) -> None:
    """Whoever goes on with a shard need not ask for them; whoever has it already has them."""
    await engine.beat(A, b"", TTL, 0)
    assert (await engine.claim(A, "s", KEPT)).records == {}
    await engine.write(A, "s", 1, {ONE: b"1"}, KEPT)
    assert (await engine.claim(A, "s", KEPT)).records == {}
    await engine.beat(B, b"", TTL, 0)
    assert (await engine.claim(B, "s", KEPT)).records == {}
    await engine.release(A, "s", 1)
    assert (await engine.claim(B, "s", KEPT)).records == {ONE: b"1"}


async def test_who_leaves_owns_nothing(engine: Engine) -> None:
    """Its shards are free at once, with their records."""
    await engine.beat(A, b"", TTL, 0)
    await engine.claim(A, "s", KEPT)
    await engine.write(A, "s", 1, {ONE: b"1"}, KEPT)
    await engine.leave(A)
    assert await engine.members() == []
    await engine.beat(B, b"", TTL, 0)
    assert (await engine.claim(B, "s", KEPT))[:3] == (ClaimOutcome.TAKEN, B, 2)


async def test_the_dead_are_buried(engine: Engine) -> None:
    """By whoever knows, if the card is still the one that was judged."""
    await engine.beat(A, b"old", TTL, 0)
    await engine.claim(A, "s", KEPT)
    await engine.beat(B, b"", TTL, 0)
    assert not await engine.bury(A, b"another")
    assert await engine.bury(A, b"old")
    assert not await engine.bury(A, b"old")
    assert [member.member for member in await engine.members()] == [B]
    assert (await engine.claim(B, "s", KEPT)).outcome is ClaimOutcome.TAKEN


async def test_cards_tell_of_the_living(engine: Engine, clock: HandClock) -> None:
    """The newest card counts, and how long its lease lasts."""
    await engine.beat(A, b"one", TTL, 0)
    clock.seconds += 2
    await engine.beat(B, b"two", TTL, 0)
    assert await engine.members() == [(A, b"one", TTL - 2), (B, b"two", TTL)]
    await engine.beat(A, b"three", TTL, 0)
    clock.seconds += TTL - 1
    assert await engine.members() == [(A, b"three", 1.0), (B, b"two", 1.0)]


async def test_what_is_new_of_the_members(engine: Engine, clock: HandClock) -> None:
    """It is told when somebody comes, goes, dies or has another card, and not with each beat."""
    seen = {await engine.news()}

    async def is_new() -> bool:
        news = await engine.news()
        was_seen = news in seen
        seen.add(news)
        return not was_seen

    await engine.beat(A, b"one", TTL, 0)
    assert await is_new()
    await engine.beat(B, b"one", TTL, 0)
    assert await is_new()
    await engine.beat(A, b"one", TTL, 3)
    assert not await is_new()
    await engine.beat(A, b"two", TTL, 3)
    assert await is_new()
    clock.seconds += TTL - 1
    await engine.beat(A, b"two", TTL, 3)
    assert not await is_new()
    clock.seconds += 2
    await engine.beat(A, b"two", TTL, 3)
    assert await is_new()
    await engine.beat(B, b"one", TTL, 0)
    before = await engine.news()
    assert await engine.bury(B, b"one")
    assert await engine.news() != before


async def test_sessions_are_reserved(engine: Engine, clock: HandClock) -> None:
    """All living members together have at most what there may be; the dead have nothing."""
    await engine.beat(A, b"", TTL, 0)
    await engine.beat(B, b"", TTL, 0)
    assert await engine.reserve(A, 8, 10) == 8
    assert await engine.reserve(B, 8, 10) == 2
    assert await engine.reserve(A, 4, 10) == 4
    assert await engine.reserve(B, 8, 10) == 6
    clock.seconds += TTL
    await engine.beat(A, b"", TTL, 4)
    assert await engine.reserve(A, 20, 10) == 10


async def test_what_nobody_wants_is_forgotten(engine: Engine, clock: HandClock) -> None:
    """Records end with their shard: not while it has a living owner, but when its time is over after that."""
    await engine.beat(A, b"", TTL, 0)
    for shard in ("s", "claimed"):
        await engine.claim(A, shard, 1.0)
    await engine.write(A, "s", 1, {ONE: b"1"}, KEPT)
    clock.seconds += 4
    await engine.beat(A, b"", TTL, 0)
    assert await engine.shards() == [("claimed", A, 1), ("s", A, 1)]
    await engine.leave(A)
    await engine.beat(B, b"", TTL, 0)
    assert await engine.shards() == [("s", None, 1)]
    clock.seconds += KEPT
    await engine.beat(B, b"", TTL, 0)
    assert (await engine.shards(), await engine.load("s")) == ([], {})


# -- any order ---------------------------------------------------------------------------------------

MEMBERS = st.sampled_from(["m1", "m2", "m3"])
SHARDS = st.sampled_from(["s1", "s2"])
ENTRIES = st.sampled_from([ONE, TWO, RecordPlace("client", "c2")])
FENCES = st.integers(min_value=-2, max_value=1)


class Cluster(RuleBasedStateMachine):
    """Members that beat, fall silent, claim, write and let go in any order, at all engines at once."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = HandClock()
        self.engines = [self.runner.run(self.open(kind)) for kind in KINDS]
        self.fences: dict[str, int] = {}
        self.number = 0
        self.lives: Counter[str] = Counter()

    async def open(self, kind: str) -> Engine:
        return await self.world.enter_async_context(open_engine(kind, Path(self.folder.name), self.clock))

    def teardown(self) -> None:
        self.runner.run(self.world.aclose())
        self.runner.close()
        self.folder.cleanup()

    def name(self, member: str) -> str:
        """A member that has left does not come back: its process has another name the next time."""
        return f"{member}.{self.lives[member]}"

    def all(self, verb: str, *args: Any) -> Any:
        """What all engines answer, which is the same."""

        async def ask() -> list[Any]:
            answers = [await getattr(engine, verb)(*args) for engine in self.engines]
            living = [each.member for each in await self.engines[0].members()]
            # Who is gone may be named as the last owner, or not.
            return [
                answer._replace(owner=answer.owner if answer.owner in living else None)
                if isinstance(answer, Fenced)
                else answer
                for answer in answers
            ]

        first, *others = self.runner.run(ask())
        for other in others:
            assert other == first, (verb, args)
        return first

    def owner(self, shard: str) -> tuple[str | None, int]:
        found = {each.shard: each for each in self.all("shards")}
        return (found[shard].owner, found[shard].fence) if shard in found else (None, 0)

    @rule(member=MEMBERS, seconds=st.sampled_from([1.0, 5.0]))
    def beat(self, member: str, seconds: float) -> None:
        self.all("beat", self.name(member), b"card", seconds, 1)

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule(member=MEMBERS, shard=SHARDS)
    def claim(self, member: str, shard: str) -> None:
        owner, _ = self.owner(shard)
        claimed = self.all("claim", self.name(member), shard, 20.0)
        assert owner in (None, self.name(member)) or claimed.outcome in (
            ClaimOutcome.OWNED,
            ClaimOutcome.NO_LEASE,
        )

    @rule(member=MEMBERS, shard=SHARDS, place=ENTRIES, off=FENCES, drop=st.booleans())
    def write(self, member: str, shard: str, place: RecordPlace, off: int, drop: bool) -> None:
        before = self.all("load", shard)
        _, fence = self.owner(shard)
        self.number += 1
        value = None if drop else b"%d" % self.number
        written = self.all("write", self.name(member), shard, fence + off, {place: value}, 20.0)
        assert not written.done or (off == 0 and written.owner in (None, self.name(member)))
        if not written.done:
            assert self.all("load", shard) == before

    @rule(member=MEMBERS, shard=SHARDS, off=FENCES, to=st.none() | MEMBERS)
    def release(self, member: str, shard: str, off: int, to: str | None) -> None:
        _, fence = self.owner(shard)
        self.all("release", self.name(member), shard, fence + off, to and self.name(to))

    @rule(member=MEMBERS)
    def leave(self, member: str) -> None:
        self.all("leave", self.name(member))
        self.lives[member] += 1

    @rule(member=MEMBERS, card=st.sampled_from([b"card", b"other"]))
    def bury(self, member: str, card: bytes) -> None:
        self.all("bury", self.name(member), card)

    @rule(member=MEMBERS, wanted=st.integers(0, 9))
    def reserve(self, member: str, wanted: int) -> None:
        self.all("reserve", self.name(member), wanted, 8)

    @invariant()
    def only_the_living_own_and_fences_grow(self) -> None:
        living = {each.member for each in self.all("members")}
        there = {}
        for each in self.all("shards"):
            assert each.owner is None or each.owner in living
            assert each.fence >= self.fences.get(each.shard, 0)
            there[each.shard] = each.fence
            self.all("load", each.shard)
        self.fences = there


@pytest.mark.slow
def test_members_in_any_order() -> None:
    """Whatever happens in whatever order: all engines say the same, one living owner at most, no fence goes
    back, and nothing of a stale owner is written.
    """
    run_state_machine_as_test(
        Cluster, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
