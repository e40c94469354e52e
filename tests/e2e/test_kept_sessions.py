"""A real client of a real server does not notice that the proxy between them is stopped or killed."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Desk
from .launch import unused_port
from .sdk import call, connected

pytestmark = pytest.mark.e2e


async def test_a_client_counts_on(own_desk: Callable[..., Desk], tmp_path: Path) -> None:
    """Over SIGTERM and kill -9, each several times: no count is lost, and no session is opened anew."""
    listen = f"127.0.0.1:{unused_port()}"
    at = own_desk("mcp-1.30", "--state-dir", str(tmp_path / "state"), "--listen", listen)
    restarts = [at.proxy.program.terminate, at.proxy.program.kill] * 3
    async with connected(at.proxy.url, at.caller.token) as client:
        assert await call(client, "increment") == "1"
        for expected, end in enumerate(restarts, 2):
            # What is written is written by then: a kill leaves no time for anything.
            await asyncio.sleep(0.5)
            await asyncio.to_thread(end)
            await asyncio.to_thread(at.proxy.start)
            assert await call(client, "increment") == str(expected)
        assert (await at.stats())["sessions"]["opened"] == 1
    assert 'restored_sessions_total{outcome="resumed"}' in at.proxy.metrics()
