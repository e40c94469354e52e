"""A proxy on a store that several machines can reach: it goes on there, and says what keeps it from that."""

import secrets
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from http_server import HttpServer
from key_value_server import KeyValueServer, needs_one, running
from messages import INITIALIZE, call
from proxy_bench import Bench, until
from restart_bench import Successors

from mcp_session_proxy import events
from mcp_session_proxy.assembly import stores
from mcp_session_proxy.assembly.sockets import CannotStart

pytestmark = [needs_one, pytest.mark.slow]

ME = {"Authorization": "Bearer me-and-nobody-else"}
OLD, NEW = "a1" * 32, "b2" * 32
Proxies = Successors[Bench]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyValueServer]:
    with running(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
async def proxies(server: HttpServer, store: KeyValueServer) -> AsyncIterator[Proxies]:
    """One proxy after another, all of one cluster, before the same server."""
    cluster = f"t{secrets.token_hex(4)}"
    members = Proxies(
        partial(Bench, server), store=store.url, cluster=cluster, cluster_key=OLD, drain_timeout="1s"
    )
    async with members:
        yield members


async def count(bench: Bench, **options: Any) -> int:
    """What the server's counter of this session says after one more call."""
    answer = await bench.post(call(), **options)
    assert answer.status == 200, answer.body
    return int(answer.json["result"]["count"])


async def written(bench: Bench) -> None:
    """Everything is in the store."""
    state = bench.proxy._state
    assert state is not None
    await until(lambda: not state.ledger.pending and not state.ledger._turn.locked())


async def test_a_client_goes_on(proxies: Proxies, server: HttpServer) -> None:
    """With its id, in its session, as with a directory; so do callers without either."""
    bench = await proxies.start()
    session = await bench.initialize(headers=ME)
    assert await count(bench, session=session, headers=ME) == 1
    assert await count(bench) == 1
    bench = await proxies.start()
    assert await count(bench, session=session, headers=ME) == 2
    assert await count(bench) == 2
    assert (len(server.posts("initialize")), server.deleted) == (2, [])


async def test_keys_are_changed(proxies: Proxies, server: HttpServer) -> None:
    """The new one is added, then it seals, then the old one goes: nobody's session is lost on the way."""
    session = None
    for number, keys in enumerate([OLD, f"{OLD} {NEW}", f"{NEW} {OLD}", NEW], 1):
        bench = await proxies.start(cluster_key=keys)
        session = session or await bench.initialize(headers=ME)
        assert await count(bench, session=session, headers=ME) == number
    assert len(server.posts("initialize")) == 1


async def test_another_key(proxies: Proxies) -> None:
    """It opens nothing there, and says so before anybody is served."""
    await count(await proxies.start())
    with pytest.raises(CannotStart, match="was sealed with another key"):
        await proxies.start(cluster_key=NEW)


async def test_who_tells_callers_apart_in_another_way_is_by_itself(proxies: Proxies) -> None:
    """Under the same name: it must not take one caller for another."""
    bench = await proxies.start()
    assert await count(bench, headers=ME) == 1
    bench = await proxies.start(credential_header=["X-Tenant"])
    assert await count(bench, headers=ME) == 1
    bench = await proxies.start()
    assert await count(bench, headers=ME) == 2


async def test_nothing_can_be_read_there(proxies: Proxies, server: HttpServer, store: KeyValueServer) -> None:
    """Neither credentials nor ids nor names nor what is said, in keys or in values."""
    bench = await proxies.start(affinity_header="X-Talk")
    headers = {**ME, "X-Talk": "our-conversation"}
    params = {**INITIALIZE["params"], "clientInfo": {"name": "a-client-of-ours", "version": "1"}}
    answer = await bench.post({**INITIALIZE, "params": params}, headers=headers)
    session = answer.headers["Mcp-Session-Id"]
    await count(bench, session=session, headers=headers)
    await count(bench, headers=headers)
    await written(bench)
    await bench.proxy._state.membership.beat()  # type: ignore[union-attr]
    everything = repr(store.dump()).encode()
    assert b"session/u" in everything
    for secret in [
        "me-and-nobody-else",
        "our-conversation",
        "a-client-of-ours",
        session,
        bench.url,
        server.url,
        "tools/call",
        "clientInfo",
        "pid",
        *server.sessions,
    ]:
        assert secret.encode() not in everything, secret


async def test_nothing_is_left(proxies: Proxies, store: KeyValueServer) -> None:
    """When sessions have ended, nothing of their callers is in the store; nor of the last proxy."""

    def kinds() -> set[bytes]:
        return {key.partition(b"}:")[2].partition(b":")[0] for key in set(store.dump()) - before}

    before = set(store.dump())
    bench = await proxies.start(idle_timeout="100ms")
    await count(bench, headers=ME)
    await until(lambda: b"o" in kinds())
    await until(lambda: not {b"o", b"s", b"until"} & kinds())
    await proxies.stop()
    assert not kinds()


async def test_a_store_that_is_not_there(
    proxies: Proxies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy waits for it for a while, and then says so, without the password."""
    monkeypatch.setattr(stores, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(CannotStart) as refused:
        await proxies.start(store=f"unix://proxy:hidden@{tmp_path}/none.sock")
    assert "--store: unix://" in str(refused.value)
    assert "starts when its store answers" in str(refused.value)
    assert "hidden" not in str(refused.value)


async def test_the_store_goes_and_comes(proxies: Proxies, tmp_path: Path) -> None:
    """Clients notice nothing, operators do; what was to be written is written then."""
    other = {"Authorization": "Bearer other"}
    with running(tmp_path) as store:
        bench = await proxies.start(store=store.url)
        session = await bench.initialize(headers=ME)
        assert await count(bench, session=session, headers=ME) == 1
        await written(bench)
        store.pause()
        assert await count(bench, session=session, headers=ME) == 2
        theirs = await bench.initialize(headers=other)
        assert await count(bench, session=theirs, headers=other) == 1
        await until(lambda: any(isinstance(event, events.StoreFailed) for event in proxies.told))
        store.resume()
        await until(lambda: any(isinstance(event, events.StoreRecovered) for event in proxies.told))
        await written(bench)
        bench = await proxies.start(store=store.url)
        assert await count(bench, session=session, headers=ME) == 3
        assert await count(bench, session=theirs, headers=other) == 2
        await proxies.stop()
