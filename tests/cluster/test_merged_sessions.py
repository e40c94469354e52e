"""A store has lost what it had acknowledged, and two proxies have served one caller since."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from messages import INITIALIZE, call
from proxy_bench import Bench, until
from several_bench import Several, cluster_of, open_several, written

ME = {"Authorization": "Bearer me"}


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with open_several(tmp_path / "state") as opened:
        yield opened


async def count(bench: Bench, session: str) -> int:
    answer = await bench.post(call(), session=session, headers=ME)
    return int(answer.json["result"]["count"])


async def test_a_client_goes_on_at_the_owner(several: Several) -> None:
    """The sessions of the one that is not the owner any more go to the owner, their clients' ids included."""
    one, other = await several.start(2)
    sessions = [(await one.post(INITIALIZE, headers=ME)).headers["Mcp-Session-Id"] for _ in range(2)]
    assert [await count(one, session) for session in sessions] == [1, 1]
    await written(one)
    with contextlib.closing(sqlite3.connect(several.path / "state.db")) as db:
        db.execute("DELETE FROM shards")
        db.execute("DELETE FROM records")
        db.commit()
    assert await count(other, sessions[0]) == 1
    (shard,) = cluster_of(one).shards.held
    await cluster_of(one).shards.find(shard)  # as one does every now and then
    books = other.proxy.core.pool.books
    await until(lambda: sum(slot.usable for slot in books.slots()) == 3)
    assert await count(one, sessions[1]) == 2
    assert await count(other, sessions[0]) == 2
    assert not cluster_of(one).shards.held
    assert len(several.server.posts("initialize")) == 3
