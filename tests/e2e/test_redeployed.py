"""A real server that comes back with other tools."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from mcp import types

from .conftest import Desk
from .sdk import connected

pytestmark = pytest.mark.e2e


async def test_new_tools_of_a_server_that_was_deployed_anew(own_desk: Callable[..., Desk]) -> None:
    """A client that never noticed the server's restart hears that the tools have changed, and lists them."""
    changed = asyncio.Event()

    async def hear(message: Any) -> None:
        if isinstance(getattr(message, "root", None), types.ToolListChangedNotification):
            changed.set()

    async def tools() -> set[str]:
        return {tool.name for tool in (await client.list_tools()).tools} & {"stays", "goes", "comes"}

    at = own_desk("redeployed")
    async with connected(at.proxy.url, at.caller.token, message_handler=hear) as client:
        assert await tools() == {"stays", "goes"}
        await asyncio.to_thread(at.server.kill)
        (at.server.home / "tools.txt").write_text("stays comes")
        await asyncio.to_thread(at.server.start)
        async with asyncio.timeout(30):
            await changed.wait()
        assert await tools() == {"stays", "comes"}
