"""Members that are not like the others: with another clock, other settings, a card of another version."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from counting import CountingClient, CountingServer
from key_value_server import needs_one
from processes import on_store, open_store
from programs import Program, running
from proxy_bench import until
from several_bench import Several, cluster_of, open_several

from mcp_session_proxy import events
from mcp_session_proxy.cluster.card import read_card, write_card

ME = {"Authorization": "Bearer me"}
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: run `make envs`")


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with open_several(tmp_path / "state") as opened:
        yield opened


async def test_other_settings_are_told(several: Several) -> None:
    """Who tells callers apart in another way than the others is told of, and nobody is refused for it."""
    await several.start(1)
    await several.start(1, credential_header=["X-Me"])
    assert len(several.told_of(events.MembersDiffer)) >= 1
    assert await several.count(headers=ME) == 1


async def test_a_card_of_a_later_version(several: Several) -> None:
    """What it says more is passed over: the two forward to each other as ever."""
    one, other = await several.start(2)
    for bench in (one, other):
        membership = cluster_of(bench).shards.membership
        plain = membership._card

        def later(plain: Any = plain) -> bytes:
            card = json.loads(plain())
            return json.dumps({**card, "v": 7, "colour": "blue"}).encode()

        membership._card = later
        await membership.beat()
    for bench in (one, other):
        await cluster_of(bench).members.look()
        assert [card.v for card in cluster_of(bench).members] == [7]
    assert [await several.count(headers=ME) for _ in range(4)] == [1, 2, 3, 4]


async def test_a_member_that_was_seen_while_it_started(several: Several) -> None:
    """It is alive before it has addresses: once it has them, what is its own is sent there at once."""
    starting, one = await several.start(2)
    assert await several.count(headers=ME) == 1
    membership = cluster_of(starting).shards.membership
    plain = membership._card
    card = read_card(plain())
    assert card is not None
    membership._card = lambda: write_card(msgspec.structs.replace(card, addresses=[]))
    await membership.beat()
    await cluster_of(one).members.look()
    assert [card.addresses for card in cluster_of(one).members] == [[]]
    assert await cluster_of(one).members.anyone() is None
    membership._card = plain
    await membership.beat()
    assert await several.count(headers=ME) == 2


@pytest.mark.slow
async def test_a_card_that_is_another_members(several: Several) -> None:
    """One that names another member than it is stored for is nobody's: nothing is sent where it says."""
    one, other = await several.start(2)
    membership = cluster_of(other).shards.membership
    card = read_card(membership._card())
    assert card is not None
    forged = write_card(msgspec.structs.replace(card, member=cluster_of(one).shards.membership.member))
    membership._card = lambda: forged
    await membership.beat()
    await cluster_of(one).members.look()
    assert len(cluster_of(one).members) == 0


# -- clocks ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def with_clocks(folder: Path, upstream: str, *offsets: str) -> AsyncIterator[list[Program]]:
    """Members of one cluster whose clocks differ so."""
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(folder / "store"))
        programs = []
        for offset in offsets:
            home = folder / f"clock{offset}"
            home.mkdir()
            clock: dict[str, Any] = {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            options = ("--listen", "127.0.0.1:0", "--admin-listen", "off", *on_store(folder, store.url, "2s"))
            programs.append(await stack.enter_async_context(running(home, upstream, *options, **clock)))
        yield programs


async def count_at(programs: list[Program], times: int) -> CountingClient:
    """A caller without a session, at each of them in turn."""
    client = CountingClient("sessionless", 1, {"peer-unreachable"})
    urls = [(await program.ready())["endpoint"] for program in programs]
    async with aiohttp.ClientSession() as http:
        for number in range(times):
            await client.count(http, urls[number % len(urls)])
    return client


@pytest.mark.e2e
@needs_one
@needs_faketime
async def test_clocks_that_differ_a_little(tmp_path: Path) -> None:
    """A few seconds are no matter: leases are told by the store's clock, and what is signed may be as old."""
    async with CountingServer() as server, with_clocks(tmp_path, server.url, "-10s", "+10s") as programs:
        client = await count_at(programs, 6)
    assert (client.seen, client.trouble, client.unknown) == (6, [], [])
    assert len(server.posts("initialize")) == 1


@pytest.mark.e2e
@needs_one
@needs_faketime
async def test_clocks_that_differ(tmp_path: Path) -> None:
    """What is sent on is refused, and told; its clients are told that nothing was done, and whoever comes to
    the owner is served.
    """
    async with CountingServer() as server, with_clocks(tmp_path, server.url, "-1m", "+1m") as programs:
        client = await count_at(programs, 6)
        told = await programs[0].hears("cluster.peer_not_trusted")
        await until(lambda: server.executed)
    assert (client.seen, client.trouble, client.unknown) == (3, [], [])
    assert client.told == {"peer-unreachable": 3}
    assert told["problem"] == "too-new"
    assert server.twice == {}
