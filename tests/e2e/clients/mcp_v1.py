"""The official Python SDK, 1.x. Usage: mcp_v1.py URL TOKEN PLAN, as run.py describes."""

import asyncio
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from plan import run, text_of
from pydantic import AnyUrl
from sdk_answers import ANSWERS

WATCHED = AnyUrl("counter://shared")


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

    full = plan.get("full", False)
    handlers = {"logging_callback": logged, "message_handler": message, **(ANSWERS if full else {})}
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write, **handlers) as session,
    ):
        told["protocol"] = (await session.initialize()).protocolVersion
        told["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        if full:
            await session.subscribe_resource(WATCHED)
        for name, arguments in plan["calls"]:
            result = await session.call_tool(name, arguments, progress_callback=progressed)
            told["answers"].append(text_of(result))
        if full:
            await asyncio.wait_for(updates.wait(), 10)
            told["resource"] = (await session.read_resource(WATCHED)).contents[0].mimeType
            told["prompt"] = (await session.get_prompt("greet", {"name": "Bo"})).messages[0].content.text  # type: ignore[union-attr]
    return told


run(connection)
