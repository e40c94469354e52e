"""The official Python SDK, 2.x. Usage: mcp_v2.py URL TOKEN PLAN, as run.py describes."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

WATCHED = "counter://shared"


async def elicited(context: Any, params: Any) -> types.ElicitResult:
    """The user says: Ada."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
    """The model says: hello."""
    content = types.TextContent(type="text", text="hello")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def roots(context: Any) -> types.ListRootsResult:
    """The client has one root."""
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/data")])  # type: ignore[arg-type]


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One connection from handshake to close."""
    told: dict[str, Any] = {"answers": [], "progress": [], "logs": [], "updated": []}

    async def logged(params: Any) -> None:
        told["logs"].append(params.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told["progress"].append(progress)

    updates = asyncio.Event()

    async def message(note: Any) -> None:
        if isinstance(note, types.ResourceUpdatedNotification):
            told["updated"].append(str(note.params.uri))
            updates.set()

    full = plan.get("full", False)
    handlers: dict[str, Any] = {"logging_callback": logged, "message_handler": message}
    if full:
        handlers |= {
            "elicitation_callback": elicited,
            "sampling_callback": sampled,
            "list_roots_callback": roots,
        }
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=plan["mode"], cache=None, log_level="info", **handlers) as client:
            told["protocol"] = client.protocol_version
            told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            async with AsyncExitStack() as stack:
                if full and client.protocol_version >= "2026-07-28":
                    listening = client.listen(resource_subscriptions=[WATCHED])
                    events = await stack.enter_async_context(listening)
                elif full:
                    events = None
                    await client.subscribe_resource(WATCHED)
                for name, arguments in plan["calls"]:
                    result = await client.call_tool(name, arguments, progress_callback=progressed)
                    told["answers"].append("".join(getattr(part, "text", "") for part in result.content))
                if full and events is not None:
                    told["updated"].append((await asyncio.wait_for(anext(aiter(events)), 10)).uri)
                elif full:
                    await asyncio.wait_for(updates.wait(), 10)
    return told


async def main() -> None:
    """Open the planned number of connections, one after the other."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
