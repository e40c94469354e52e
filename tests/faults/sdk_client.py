"""The official Python SDK, 1.x or 2.x, whichever is installed, before a server whose answers break.

    python sdk_client.py URL TOKEN KEY...

Opens a connection for each key, calls `execute` under it, and prints a JSON object: what each call came to,
"result" or the name of the exception that the SDK raised, or "hung".
"""

import asyncio
import json
import sys
from typing import Any

SECONDS = 30.0


async def call_v1(url: str, token: str, key: str) -> None:
    """mcp 1.x."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        check(await session.call_tool("execute", {"key": key}))


async def call_v2(url: str, token: str, key: str) -> None:
    """mcp 2.x, which chooses the era by itself."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30)) as http,
        Client(streamable_http_client(url, http_client=http), mode="auto", cache=None) as client,
    ):
        check(await client.call_tool("execute", {"key": key}))


def check(result: Any) -> None:
    """It ran for the first time."""
    assert result.content[0].text == "1", result


def name_of(error: BaseException) -> str:
    """The innermost exception's name."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def main() -> None:
    """One call after the other."""
    import mcp

    call = call_v2 if hasattr(mcp, "Client") else call_v1
    url, token, *keys = sys.argv[1:]
    told = {}
    for key in keys:
        try:
            async with asyncio.timeout(SECONDS):
                await call(url, token, key)
            told[key] = "result"
        except TimeoutError:
            told[key] = "hung"
        except Exception as error:
            told[key] = name_of(error)
    print(json.dumps(told))


asyncio.run(main())
