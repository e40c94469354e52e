"""The official Python SDK, 2.x, pinned to 2026-07-28. Usage: modern_mcp.py URL TOKEN PLAN.

The plan is as run.py describes: with `full` the client answers what it is asked, wants log messages, and
listens to a resource; with `answers` it does the first only.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

VERSION = "2026-07-28"
RESOURCE = "counter://shared"


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
    """One client, from its first request to its last."""
    told: dict[str, Any] = {"answers": [], "progress": [], "logs": [], "updated": []}

    async def logged(params: Any) -> None:
        told["logs"].append(params.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told["progress"].append(progress)

    full = plan.get("full", False)
    handlers: dict[str, Any] = {}
    if full or plan.get("answers"):
        handlers = {
            "elicitation_callback": elicited,
            "sampling_callback": sampled,
            "list_roots_callback": roots,
            "logging_callback": logged,
            "log_level": "info",
        }
    timeout = httpx2.Timeout(30, read=300)
    async with AsyncExitStack() as stack:
        headers = {"Authorization": f"Bearer {token}"}
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
        transport = streamable_http_client(url, http_client=http)
        client = await stack.enter_async_context(Client(transport, mode=VERSION, cache=None, **handlers))
        told["protocol"] = client.protocol_version
        told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        if full:
            changes = await stack.enter_async_context(client.listen(resource_subscriptions=[RESOURCE]))
        for name, arguments in plan["calls"]:
            result = await client.call_tool(name, arguments, progress_callback=progressed)
            told["answers"].append("".join(getattr(part, "text", "") for part in result.content))
        if full:
            event = await asyncio.wait_for(anext(changes), 10)
            told["updated"].append(str(event.uri))
            told["resource"] = (await client.read_resource(RESOURCE)).contents[0].mime_type
            told["prompt"] = (await client.get_prompt("greet", {"name": "Bo"})).messages[0].content.text
    return told


async def main() -> None:
    """Open the planned number of clients, one after the other."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
