"""Several replicas of a stateful server behind one proxy: spread, killed, come back."""

import asyncio

import aiohttp
import pytest

from .launch import Fleet, Proxy, Server, get
from .wire import Caller, eventually

pytestmark = pytest.mark.e2e

PRINCIPALS = 8


def open_pair(owned: Fleet) -> tuple[list[Server], Proxy]:
    """Two servers, and a proxy before both of them that is ready for both."""
    servers = [owned.new_server("mcp-1.30") for _ in range(2)]
    proxy = owned.new_proxy(servers[0].url, "--replica", servers[1].url)
    return servers, proxy


def callers(http: aiohttp.ClientSession, proxy: Proxy) -> list[Caller]:
    """Callers that the proxy tells apart."""
    return [Caller(http, proxy.url) for _ in range(PRINCIPALS)]


async def counts(everyone: list[Caller]) -> list[int]:
    """Each caller's count after one more call."""
    replies = await asyncio.gather(*(caller.call("increment") for caller in everyone))
    return [int(reply.text) for reply in replies]


def opened(server: Server) -> int:
    """How many sessions a server has opened, as it says itself."""
    return int(get(f"{server.origin}/stats")[1].decode().split('"opened":')[1].split(",")[0])


async def is_ready(proxy: Proxy, replicas: int) -> bool:
    """Whether the proxy counts this many replicas as ready."""
    return bool(proxy.json("/readyz")["ready"] == replicas)


async def test_sessions_are_spread(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """Sessions of many callers are spread evenly, and each keeps its state where it is."""
    servers, proxy = open_pair(owned)
    everyone = callers(http, proxy)
    assert await counts(everyone) == [1] * PRINCIPALS
    assert await counts(everyone) == [2] * PRINCIPALS
    assert [opened(server) for server in servers] == [PRINCIPALS // 2] * 2
    assert proxy.json("/readyz") == {"status": "ready", "mode": "stateless", "ready": 2, "total": 2}


async def test_one_is_killed(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """A dead replica's sessions are re-opened on the other one; the rest keep their state; nobody notices."""
    servers, proxy = open_pair(owned)
    everyone = callers(http, proxy)
    await counts(everyone)
    servers[0].kill()
    await eventually(lambda: is_ready(proxy, 1))
    assert sorted(await counts(everyone)) == [1] * (PRINCIPALS // 2) + [2] * (PRINCIPALS // 2)
    assert opened(servers[1]) == PRINCIPALS
    assert proxy.json("/readyz")["total"] == 2


async def test_one_comes_back(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """New sessions go to a replica that has come back, until it has as many as the other one."""
    servers, proxy = open_pair(owned)
    servers[0].kill()
    await eventually(lambda: is_ready(proxy, 1))
    everyone = callers(http, proxy)
    first, second = everyone[: PRINCIPALS // 2], everyone[PRINCIPALS // 2 :]
    await counts(first)
    servers[0].start()
    await eventually(lambda: is_ready(proxy, 2))
    await counts(second)
    assert [opened(server) for server in servers] == [4, 4]
