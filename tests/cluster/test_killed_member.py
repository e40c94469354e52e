"""Two processes on one state directory, of which one is killed amid what the other one sends on to it."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from http_server import HttpServer
from messages import call
from programs import running
from proxy_bench import Answer

pytestmark = pytest.mark.e2e

HEADERS = {"Authorization": "Bearer me", "Accept": "application/json, text/event-stream"}


async def count(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.post(url, json=call(), headers=HEADERS) as response:
        answer = await Answer.read(response)
    return answer.json["result"]["count"] if answer.status == 200 else answer.body


async def has_written(http: aiohttp.ClientSession, admin: str) -> bool:
    """Whether nothing of its sessions waits to be stored: what does would be lost with it."""
    async with http.get(f"{admin}/metrics") as response:
        return "mcp_session_proxy_store_pending_records 0.0" in (await response.text()).splitlines()


async def test_what_it_had_not_read(tmp_path: Path) -> None:
    """It stands still, and is killed then: what lies unread on the connections to it is answered by the
    other one, in the same session, each once.
    """
    listening = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
    options = ("--state-dir", str(tmp_path / "state"), *listening)
    async with HttpServer() as server, AsyncExitStack() as stack, aiohttp.ClientSession() as http:
        one = await stack.enter_async_context(running(tmp_path, server.url, *options))
        announced = await one.ready()
        owner = str(announced["endpoint"])
        other = await stack.enter_async_context(running(tmp_path, server.url, *options))
        way = str((await other.ready())["endpoint"])
        assert [await count(http, url) for url in (owner, way, way)] == [1, 2, 3]
        while not await has_written(http, str(announced["admin"])):
            await asyncio.sleep(0.01)
        one.process.send_signal(signal.SIGSTOP)
        calls = [asyncio.create_task(count(http, way)) for _ in range(5)]
        await asyncio.sleep(0.3)  # nobody tells when they have been sent; earlier ones are answered as well
        one.process.kill()
        assert sorted([await each for each in calls]) == [4, 5, 6, 7, 8]
        assert len(server.posts("tools/call")) == 8
        assert len(server.posts("initialize")) == 1
