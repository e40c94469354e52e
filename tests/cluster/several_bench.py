"""Several whole proxies on one state directory before one server, all in one process, over real sockets."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from http_server import HttpServer
from messages import INITIALIZE, call
from proxy_bench import Answer, Bench, until

from mcp_session_proxy import events


class Several:
    """Members of one cluster. ``post`` and ``initialize`` go to each in turn, as behind a balancer."""

    def __init__(self, server: HttpServer, path: Path) -> None:
        self.server = server
        self.path = path
        self.benches: list[Bench] = []
        self.told: list[events.Event] = []
        self._killed: list[Bench] = []
        self._turns: Iterator[int] = itertools.count()

    async def start(self, count: int = 3, **options: Any) -> list[Bench]:
        """So many more members, which know each other."""
        for _ in range(count):
            bench = Bench(self.server)
            await bench.__aenter__()
            self.benches.append(bench)
            await bench.start(**{"state_dir": str(self.path), "drain_timeout": "5s", **options})
            bench.watch(self.told.append)
        for bench in self.benches:
            await cluster_of(bench).members.look()
        return self.benches

    async def stop(self, bench: Bench) -> None:
        """SIGTERM: it parts, and ends."""
        self.benches.remove(bench)
        await bench.stop()

    async def kill(self, bench: Bench) -> None:
        """As after kill -9: it says nothing more, nobody listens, and the system has given up its lock."""
        cluster, store = cluster_of(bench), store_of(bench)
        cluster._tasks.cancel()
        cluster.shards.close()
        await cluster._tasks.ended()
        await cluster._listener.close()
        store._lock.close()
        store._lock = None
        self.benches.remove(bench)
        self._killed.append(bench)

    async def close(self) -> None:
        for bench in self.benches:
            await bench.http.close()
        for bench in self._killed:
            await bench.stop()
        for bench in self.benches:
            await bench.stop()

    @property
    def next(self) -> Bench:
        return self.benches[next(self._turns) % len(self.benches)]

    async def post(self, body: object, **options: Any) -> Answer:
        return await self.next.post(body, **options)

    async def initialize(self, **options: Any) -> str:
        answer = await self.post(INITIALIZE, **options)
        assert answer.status == 200, answer.body
        return answer.headers["Mcp-Session-Id"]

    async def count(self, **options: Any) -> int:
        """What the server's counter of this session says after one more call, at the next member."""
        answer = await self.post(call(), **options)
        assert answer.status == 200, answer.body
        return int(answer.json["result"]["count"])

    def owner(self) -> Bench:
        """The member that has shards; there is one."""
        (owner,) = [bench for bench in self.benches if cluster_of(bench).shards.held]
        return owner

    def others(self, owner: Bench) -> list[Bench]:
        return [bench for bench in self.benches if bench is not owner]

    def told_of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


def modern(identifier: int = 1, **params: Any) -> dict[str, Any]:
    """A call of a modern client that can be asked."""
    about = "io.modelcontextprotocol/"
    meta = {
        f"{about}protocolVersion": "2026-07-28",
        f"{about}clientCapabilities": {"elicitation": {"form": {}}},
        f"{about}clientInfo": {"name": "m", "version": "1"},
    }
    return call(identifier, name="count", _meta=meta, **params)


MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}


def cluster_of(bench: Bench) -> Any:
    state = bench.proxy._state
    assert state is not None
    return state.cluster


def store_of(bench: Bench) -> Any:
    state = bench.proxy._state
    assert state is not None
    return state._store


async def written(bench: Bench) -> None:
    """All that a member has to write is."""
    ledger = cluster_of(bench).ledger
    await until(lambda: not ledger.pending and not ledger._turn.locked())


@asynccontextmanager
async def open_several(path: Path, server: HttpServer | None = None) -> AsyncIterator[Several]:
    async with server or HttpServer() as server:
        several = Several(server, path)
        try:
            yield several
        finally:
            await asyncio.shield(several.close())
