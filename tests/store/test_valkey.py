"""A store on the network that goes, comes, fails over, is slow, full, or will not have us."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from engine_world import HandClock, key_value_server, valkey_engine
from key_value_server import ANY, KeyValueServer, needs_one, running, unused_port, watched

from mcp_session_proxy.store.address import StoreAddress
from mcp_session_proxy.store.engine import ClaimOutcome, RecordPlace, StoreFailure, StoreRefused
from mcp_session_proxy.store.sealing import KEY_BYTES, Keys
from mcp_session_proxy.store.valkey import ValkeyEngine

pytestmark = [needs_one, pytest.mark.slow]

ONE = RecordPlace("session", "u1")
KEPT = 60.0
SLOW = 20.0  # more than a busy machine needs


@pytest.fixture
def shared() -> KeyValueServer:
    """The server that all tests of this process have."""
    assert ANY is not None
    return key_value_server(ANY)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[KeyValueServer]:
    """A server that a test may do with as it likes."""
    with running(tmp_path) as server:
        yield server


@asynccontextmanager
async def at(url: str, timeout_seconds: float = SLOW) -> AsyncIterator[ValkeyEngine]:
    engine = ValkeyEngine(StoreAddress.parse(url), "test", timeout_seconds=timeout_seconds)
    try:
        yield engine
    finally:
        await engine.close()


async def own_a_shard(engine: ValkeyEngine, member: str = "m") -> int:
    await engine.beat(member, b"card", 60.0, 0)
    return (await engine.claim(member, "s", KEPT)).fence


async def test_a_store_that_comes_back_empty(own: KeyValueServer) -> None:
    """It knows neither members nor scripts; a former owner writes nothing before it has claimed anew."""
    async with at(own.url) as engine:
        fence = await own_a_shard(engine)
        assert (await engine.write("m", "s", fence, {ONE: b"1"}, KEPT)).done
        own.stop()
        with pytest.raises(StoreFailure):
            await engine.beat("m", b"card", 60.0, 0)
        own.start()
        assert not await engine.beat("m", b"card", 60.0, 0)
        assert await engine.write("m", "s", fence, {ONE: b"2"}, KEPT) == (False, None, 0)
        assert (await engine.claim("m", "s", KEPT, fence)).fence > fence
        assert await engine.load("s") == {}


async def test_a_claim_that_was_lost(own: KeyValueServer) -> None:
    """A failover has lost the newest writes: a member that is known, but not by its last claim, is told so
    once, and not of what it has let go of itself.
    """
    async with at(own.url) as engine:
        await own_a_shard(engine)
        assert await engine.beat("m", b"card", 60.0, 0)
        own.ask("DEL", f"{engine._prefix}o:s")
        assert not await engine.beat("m", b"card", 60.0, 0)
        assert await engine.beat("m", b"card", 60.0, 0)
        claimed = await engine.claim("m", "s", KEPT, 1)
        assert await engine.beat("m", b"card", 60.0, 0)
        assert (await engine.release("m", "s", claimed.fence)).done
        own.ask("DEL", f"{engine._prefix}o:s")
        assert await engine.beat("m", b"card", 60.0, 0)


async def test_what_members_have_in_common_comes_back(own: KeyValueServer) -> None:
    """Whoever beats first brings it to a store that came back empty: callers stay who they are."""
    async with at(own.url) as engine:
        assert await engine.agree(b"first") == b"first"
        assert await engine.agree(b"second") == b"first"
        own.stop()
        own.start()
        await engine.beat("m", b"card", 60.0, 0)
        assert await engine.agree(b"third") == b"first"
        assert await engine.agree(b"changed", b"first") == b"changed"
        assert await engine.agree(b"fourth") == b"changed"


async def test_a_slow_store(own: KeyValueServer) -> None:
    """Whoever asks waits no longer than the time-out, whatever is asked at the same time."""
    async with at(own.url, 0.2) as engine:
        async with at(own.url) as patient:
            await own_a_shard(patient)
        own.pause()
        answers = await asyncio.gather(
            *(engine.claim("m", "s", KEPT) for _ in range(5)), engine.load("s"), return_exceptions=True
        )
        assert {str(answer) for answer in answers} == {f"{own.url}: no answer within 0.2 s"}
        own.resume()
    async with at(own.url) as engine:
        assert (await engine.claim("m", "s", KEPT)).outcome is ClaimOutcome.MINE


async def test_nothing_old_comes_after_something_new(own: KeyValueServer) -> None:
    """A write that nobody answered in time is made before the next one, or not at all."""
    async with at(own.url) as engine:
        fence = await own_a_shard(engine)
        async with at(own.url, 0.1) as hasty:
            own.pause()
            for number in range(3):
                with pytest.raises(StoreFailure):
                    await hasty.write("m", "s", fence, {ONE: b"%d" % number}, KEPT)
            own.resume()
            last = asyncio.create_task(engine.write("m", "s", fence, {ONE: b"new"}, KEPT))
            assert (await last).done
        assert await engine.load("s") == {ONE: b"new"}


async def test_who_gives_up_leaves_nothing_behind(shared: KeyValueServer) -> None:
    """The answer to what somebody did not wait for is not taken for that to another question."""
    engine = valkey_engine(shared)
    fence = await own_a_shard(engine)
    for _ in range(20):
        asking = asyncio.create_task(engine.load("s"))
        await asyncio.sleep(0)
        asking.cancel()
        assert (await engine.claim("m", "s", KEPT)).fence == fence
    await engine.close()


async def test_who_asks_at_once_is_sent_together(
    shared: KeyValueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is sent at once, and all who come meanwhile after it: each gets its own answer."""
    async with at(shared.url) as engine:
        await engine.beat("m", b"", 60.0, 0)
        await engine.claim("m", "first", KEPT)  # the connection is there, and the script is known
        sent: list[int] = []
        send = engine._asking._send

        async def count(commands: Any) -> Any:
            sent.append(len(commands))
            return await send(commands)

        monkeypatch.setattr(engine._asking, "_send", count)
        names = [f"together-{n}" for n in range(20)]
        claimed = await asyncio.gather(*(engine.claim("m", name, KEPT) for name in names))
        assert {each.outcome for each in claimed} == {ClaimOutcome.TAKEN}
        assert sent == [1, 19]
        await engine.write("m", names[3], 1, {ONE: b"3"}, KEPT)
        loaded = await asyncio.gather(*(engine.load(name) for name in names))
        assert loaded == [{ONE: b"3"} if n == 3 else {} for n in range(20)]


async def test_who_gives_up_is_not_sent(shared: KeyValueServer) -> None:
    """What waits for others is not asked any more when nobody wants to know it; the others are answered."""
    async with at(shared.url) as engine:
        await engine.beat("m", b"", 60.0, 0)
        claims = [asyncio.create_task(engine.claim("m", f"given-up-{n}", KEPT)) for n in range(3)]
        await asyncio.sleep(0)
        claims[1].cancel()
        assert (await claims[0]).owner == (await claims[2]).owner == "m"
        names = {stored.shard for stored in await engine.shards()}
        assert {"given-up-0", "given-up-2"} <= names
        assert "given-up-1" not in names


async def test_a_store_without_memory(own: KeyValueServer) -> None:
    """It says so, and changes nothing; when there is room again, all goes on."""
    async with at(own.url) as engine:
        fence = await own_a_shard(engine)
        await engine.write("m", "s", fence, {ONE: b"1"}, KEPT)
        own.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFailure, match="no memory left"):
            await engine.write("m", "s", fence, {ONE: b"2"}, KEPT)
        own.ask("CONFIG", "SET", "maxmemory", "0")
        assert await engine.load("s") == {ONE: b"1"}
        assert (await engine.write("m", "s", fence, {ONE: b"3"}, KEPT)).done


async def test_users(own: KeyValueServer) -> None:
    """A wrong password or a user without rights is told as such; the documented rights are enough."""
    rights = ("~msp:*", "+@read", "+@write", "+@scripting", "+@connection", "+time")
    own.ask("ACL", "SETUSER", "proxy", "on", ">correct-horse", *rights)
    own.ask("ACL", "SETUSER", "poor", "on", ">correct-horse", "~other:*", "+@connection")
    with pytest.raises(StoreRefused, match="refuses the user or the password") as wrong:
        async with at(own.url.replace("unix://", "unix://proxy:wrong-horse@")) as engine:
            await engine.members()
    with pytest.raises(StoreRefused, match="may not do what is needed") as poor:
        async with at(own.url.replace("unix://", "unix://poor:correct-horse@")) as engine:
            await engine.members()
    assert "horse" not in f"{wrong.value} {poor.value}"
    async with at(own.url.replace("unix://", "unix://proxy:correct-horse@")) as engine:
        fence = await own_a_shard(engine)
        await engine.agree(b"common")
        await engine.write("m", "s", fence, {ONE: b"1"}, KEPT)
        await engine.events.append("p", [(1, b"a")], 10, KEPT)
        assert await engine.events.after("p", 0) == [(1, b"a")]
        assert (await engine.load("s"), await engine.reserve("m", 3, 8)) == ({ONE: b"1"}, 3)
        assert len(await engine.shards()) == len(await engine.members()) == 1
        assert (await engine.release("m", "s", fence)).done
        assert await engine.bury("m", b"card")
        await engine.leave("m")


async def test_a_password_that_is_wanted(own: KeyValueServer) -> None:
    """Where none was given, that is what is said."""
    own.ask("CONFIG", "SET", "requirepass", "x")
    with pytest.raises(StoreRefused, match="refuses the user or the password"):
        async with at(own.url) as engine:
            await engine.members()


async def test_tls(tmp_path: Path) -> None:
    """The certificate is checked: by whom, and for which name. What is wrong is said."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("127.0.0.1")
    port = unused_port()
    options: dict[str, Any] = {
        "tls_port": port,
        "tls_cert_file": cert,
        "tls_key_file": key,
        "tls_ca_cert_file": authority.file,
    }
    with running(tmp_path, **options, tls_auth_clients="no"):
        good = f"valkeys://127.0.0.1:{port}?ssl_ca_certs="
        async with at(good + str(authority.file)) as engine:
            assert await engine.members() == []
        for url in (good + str(other.file), f"rediss://127.0.0.1:{port}"):
            with pytest.raises(StoreFailure, match="CERTIFICATE_VERIFY_FAILED"):
                async with at(url) as engine:
                    await engine.members()
        with pytest.raises(StoreFailure, match="Hostname mismatch"):
            async with at(good.replace("127.0.0.1", "localhost") + str(authority.file)) as engine:
                await engine.members()
        with pytest.raises(StoreFailure, match="No such file"):
            async with at(good + "/none.pem") as engine:
                await engine.members()


async def test_a_primary_that_was_demoted(tmp_path: Path) -> None:
    """A replica takes no writes: that is said, and a new connection is made until it is a primary again."""
    with running(tmp_path, port=unused_port()) as server:
        async with at(f"redis://127.0.0.1:{server.port}") as engine:
            fence = await own_a_shard(engine)
            server.ask("REPLICAOF", "127.0.0.1", unused_port())
            with pytest.raises(StoreFailure, match=r"for it is a replica|MASTERDOWN|Link with MASTER"):
                await engine.write("m", "s", fence, {ONE: b"1"}, KEPT)
            server.ask("REPLICAOF", "NO", "ONE")
            assert (await engine.write("m", "s", fence, {ONE: b"1"}, KEPT)).done


async def test_sentinels_say_where_the_primary_is(tmp_path: Path) -> None:
    """Those that are away are passed over; after a failover, the next question goes to the new primary."""
    with watched(tmp_path) as (one, two, watch):
        url = f"sentinel://127.0.0.1:{unused_port()},127.0.0.1:{watch.port}/main"
        async with at(url) as engine:
            await engine.beat("m", b"card", 60.0, 0)
            assert one.ask("KEYS", "*")
            assert not two.ask("KEYS", "*")
            # As Sentinels do it, but at once.
            watch.ask("SENTINEL", "REMOVE", "main")
            watch.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", two.port, 1)
            one.stop()
            assert not await engine.beat("m", b"card", 60.0, 0)
            assert two.ask("KEYS", "*")
        with pytest.raises(StoreFailure, match="knows no server by this name"):
            async with at(url.replace("main", "other")) as engine:
                await engine.members()


async def test_cards_that_nobody_sealed(shared: KeyValueServer) -> None:
    """Who can write to the store cannot say where a member is reached. Only who was seen is buried."""
    engine = valkey_engine(shared)
    engine.keys = Keys(b"k" * KEY_BYTES)
    for member in ("one", "two", "three"):
        await engine.beat(member, b"unix:/run/%s" % member.encode(), 60.0, 0)
    cards = f"{engine._prefix}cards"
    assert b"unix:" not in b"".join(shared.ask("HVALS", cards))
    shared.ask("HSET", cards, "one", "unix:/run/mine")
    shared.ask("HSET", cards, "two", shared.ask("HGET", cards, "three"))
    assert [(each.member, each.card) for each in await engine.members()] == [("three", b"unix:/run/three")]
    assert not await engine.bury("three", b"unix:/run/another")
    assert await engine.bury("three", b"unix:/run/three")
    await engine.close()


async def test_many_shards_whose_time_is_over(shared: KeyValueServer) -> None:
    """A beat looks at some of them, so that it is quick; in the end, those without an owner have gone."""
    clock = HandClock()
    engine = valkey_engine(shared, clock)
    await engine.beat("gone", b"", 5.0, 0)
    await engine.beat("here", b"", 9.0, 0)
    for number in range(130):
        await engine.claim("gone", f"g{number}", 1.0)
        await engine.claim("here", f"h{number}", 1.0)
    clock.seconds += 6.0
    for _ in range(60):
        await engine.beat("here", b"", 9.0, 0)
    shards = await engine.shards()
    assert (len(shards), {shard.owner for shard in shards}) == (130, {"here"})
    await engine.close()
