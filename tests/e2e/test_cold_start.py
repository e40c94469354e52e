"""A real server whose handshake takes longer than requests may wait for a session."""

import asyncio

import aiohttp
import pytest

from .launch import Fleet
from .modern_wire import ModernCaller
from .wire import Caller, eventually

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("era", ["session", "sessionless", "modern"])
async def test_a_server_that_starts_slowly(era: str, owned: Fleet, http: aiohttp.ClientSession) -> None:
    """A handshake that takes longer than the queue may is waited for, and the first call works."""
    server = owned.new_server("cold")
    proxy = owned.new_proxy(server.url, "--acquire-timeout", "300ms")
    caller = Caller(http, proxy.url)

    async def use() -> str:
        if era == "modern":
            return (await ModernCaller(http, proxy.url, capabilities={}).call_modern("increment")).text
        session = await caller.open() if era == "session" else None
        return (await caller.call("increment", session=session)).text

    async def asked() -> bool:
        async with http.get(f"{server.origin}/requests") as response:
            return any(request["method"] == "initialize" for request in await response.json())

    async with asyncio.TaskGroup() as tasks:
        using = tasks.create_task(use())
        await eventually(asked)
        await asyncio.sleep(0.6)  # longer than anybody would wait in the queue
        assert not using.done()
        (server.home / "warm").touch()
    assert using.result() == "1"
