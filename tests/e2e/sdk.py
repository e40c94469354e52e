"""The official Python SDK's client, 1.30, inside the tests: for tests that do something to it on the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client


@asynccontextmanager
async def connected(
    url: str, token: str | None = None, *, auth: httpx.Auth | None = None, **callbacks: Any
) -> AsyncIterator[ClientSession]:
    """A client after its handshake. ``auth`` signs its requests; ``callbacks`` are ``ClientSession``'s."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(
            headers=headers, auth=auth, trust_env=False, timeout=httpx.Timeout(30, read=None)
        ) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write, **callbacks) as session,
    ):
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: object) -> str:
    """The text of a tool's answer."""
    result = await session.call_tool(tool, arguments)
    (part,) = result.content
    assert isinstance(part, types.TextContent)
    assert not result.isError, part.text
    return part.text
