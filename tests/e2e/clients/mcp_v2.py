"""The official Python SDK, 2.x. Usage: mcp_v2.py URL TOKEN PLAN, as run.py describes.

The plan's `mode` is that of the SDK: the era, `auto`, or the one revision that the client may speak.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from plan import run, text_of
from sdk_answers import ANSWERS

MODERN = "2026-07-28"
WATCHED = "counter://shared"


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client, from its first request to its last."""
    told: dict[str, Any] = {"answers": [], "progress": [], "logs": [], "updated": []}

    async def logged(params: Any) -> None:
        told["logs"].append(params.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told["progress"].append(progress)

    updates: asyncio.Queue[str] = asyncio.Queue()

    async def message(note: Any) -> None:
        if isinstance(note, types.ResourceUpdatedNotification):
            updates.put_nowait(str(note.params.uri))

    full = plan.get("full", False)
    handlers: dict[str, Any] = {"logging_callback": logged, "message_handler": message, "log_level": "info"}
    if full or plan.get("answers"):
        handlers |= ANSWERS
    async with AsyncExitStack() as stack:
        headers, timeout = {"Authorization": f"Bearer {token}"}, httpx2.Timeout(30, read=300)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
        transport = streamable_http_client(url, http_client=http)
        client = await stack.enter_async_context(Client(transport, mode=plan["mode"], cache=None, **handlers))
        told["protocol"] = client.protocol_version
        told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        changes = None
        if full and client.protocol_version >= MODERN:
            changes = await stack.enter_async_context(client.listen(resource_subscriptions=[WATCHED]))
        elif full:
            await client.subscribe_resource(WATCHED)
        for name, arguments in plan["calls"]:
            result = await client.call_tool(name, arguments, progress_callback=progressed)
            told["answers"].append(text_of(result))
        if full:
            async with asyncio.timeout(10):
                change = await updates.get() if changes is None else str((await anext(changes)).uri)
            told["updated"].append(change)
            told["resource"] = (await client.read_resource(WATCHED)).contents[0].mime_type
            told["prompt"] = (await client.get_prompt("greet", {"name": "Bo"})).messages[0].content.text
    return told


run(connection)
