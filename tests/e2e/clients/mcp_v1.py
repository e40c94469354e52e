"""The official Python SDK, 1.x. Usage: mcp_v1.py URL TOKEN PLAN, as run.py describes."""

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl


async def elicited(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """The user says: Ada."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    """The model says: hello."""
    content = types.TextContent(type="text", text="hello")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def roots(context: Any) -> types.ListRootsResult:
    """The client has one root."""
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/data")])  # type: ignore[arg-type]


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One connection from handshake to close."""
    told: dict[str, Any] = {"answers": [], "progress": [], "logs": [], "updated": []}

    async def logged(params: types.LoggingMessageNotificationParams) -> None:
        told["logs"].append(params.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told["progress"].append(progress)

    updates = asyncio.Event()

    async def message(note: Any) -> None:
        if isinstance(note, types.ServerNotification) and isinstance(
            note.root, types.ResourceUpdatedNotification
        ):
            told["updated"].append(str(note.root.params.uri))
            updates.set()

    headers = {"Authorization": f"Bearer {token}"}
    full = plan.get("full", False)
    handlers: dict[str, Any] = {"logging_callback": logged, "message_handler": message}
    if full:
        handlers |= {
            "elicitation_callback": elicited,
            "sampling_callback": sampled,
            "list_roots_callback": roots,
        }
    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write, **handlers) as session,
    ):
        told["protocol"] = (await session.initialize()).protocolVersion
        told["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        if full:
            await session.subscribe_resource(AnyUrl("counter://shared"))
        for name, arguments in plan["calls"]:
            result = await session.call_tool(name, arguments, progress_callback=progressed)
            told["answers"].append("".join(getattr(part, "text", "") for part in result.content))
        if full:
            await asyncio.wait_for(updates.wait(), 10)
            told["resource"] = (await session.read_resource(AnyUrl("counter://shared"))).contents[0].mimeType
            told["prompt"] = (await session.get_prompt("greet", {"name": "Bo"})).messages[0].content.text  # type: ignore[union-attr]
    return told


async def main() -> None:
    """Open the planned number of connections, one after the other."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
