"""Two members have served one caller: what the one has that loses it goes to the owner."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cluster_world import PLACE, World

from mcp_session_proxy.cluster.merging import LeftRecords, read_records, write_records
from mcp_session_proxy.cluster.outcomes import PeerUnreachable
from mcp_session_proxy.store.engine import RecordPlace

pytestmark = pytest.mark.looptime
OTHER_PLACE = RecordPlace("session", "u2")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.close()


async def test_a_store_that_has_lost_writes(world: World) -> None:
    """A claim that was acknowledged is unknown after a failover: both have the caller, until the first one
    looks. Then the owner has the sessions of both, under a fence above either.
    """
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.contents.there["one"] = {"u1"}
    before = a.shards.held["one"].fence
    del world.store._shards["one"]
    assert await b.ask("one") == "b"
    b.contents.there["one"] = {"u2"}
    await asyncio.sleep(35)
    assert "one" not in a.shards.held
    assert b.contents.there["one"] == {"u1", "u2"}
    assert b.shards.held["one"].fence > before
    assert "one" in b.contents.noted
    assert await a.ask("one") == "b"


async def test_the_owner_has_it_all(world: World) -> None:
    """One that stood still has written what it has: nothing is handed over, and the fence stays."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.contents.there["one"] = {"u1"}
    await a.membership.write("one", {PLACE: b"x"}, 60.0)
    a.stop()
    assert await b.ask("one") == "b"
    fence = b.shards.held["one"].fence
    a.alive = True
    assert await a.ask("one") == "b"
    await asyncio.sleep(1)
    assert b.shards.held["one"].fence == fence
    assert b.contents.noted == []


async def test_it_was_served_without_the_store(world: World) -> None:
    """What was opened in an outage at one member goes to the one that was faster to claim the caller."""
    a, b = await world.join("a", "b")
    world.store.away_for |= {"a", "b"}
    world.cut["a", "b"] = world.cut["b", "a"] = PeerUnreachable()
    await asyncio.sleep(6)
    assert await a.ask("one") == "a"
    a.contents.there["one"] = {"u1"}
    world.store.away_for.discard("b")
    await b.membership.beat()
    assert await b.shards.find("one")  # who serves it cannot be asked
    world.cut.clear()
    world.store.away_for.clear()
    await asyncio.sleep(3)
    assert list(b.shards.held) == ["one"]
    assert "one" not in a.shards.held
    assert b.contents.there["one"] == {"u1"}


async def test_the_owner_cannot_be_reached(world: World) -> None:
    """It is tried again for a while, and then given up."""
    a, b = await world.join("a", "b")
    await a.ask("one")
    a.contents.there["one"] = {"u1"}
    del world.store._shards["one"]
    assert await b.ask("one") == "b"
    b.contents.there["one"] = {"u2"}
    world.cut["a", "b"] = PeerUnreachable()
    await asyncio.sleep(32)
    assert "one" not in a.shards.held
    world.cut.clear()
    await asyncio.sleep(5)
    assert b.contents.there["one"] == {"u1", "u2"}


def test_records_on_their_way() -> None:
    """They are read as they were written, and what is none is nothing."""
    left = LeftRecords("one", 3, [("session", "u1", b"\x00sealed")])
    assert read_records(write_records(left)) == left
    assert read_records(b"{}") is None
    assert read_records(b"") is None
