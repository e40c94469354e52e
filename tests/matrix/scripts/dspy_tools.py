"""DSPy's tools made of those of an MCP session, without a model. Usage: dspy_tools.py URL TOKEN PLAN."""

from typing import Any

import dspy
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from plan import run


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One session, whose tools DSPy calls."""
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        listed = (await session.list_tools()).tools
        tools = {tool.name: dspy.Tool.from_mcp_tool(session, tool) for tool in listed}
        return {"answers": [str(await tools[name].acall(**given)) for name, given in plan["calls"]]}


run(connection)
