"""Strands' MCP client, without a model. Usage: strands_agents.py URL TOKEN PLAN."""

from typing import Any

from mcp.client.streamable_http import streamablehttp_client
from plan import run
from strands.tools.mcp import MCPClient


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client, which runs a loop of its own in a thread."""
    headers = {"Authorization": f"Bearer {token}"}
    with MCPClient(lambda: streamablehttp_client(url, headers=headers)) as client:
        client.list_tools_sync()
        answers = [client.call_tool_sync("1", name, given) for name, given in plan["calls"]]
    return {"answers": [answer["content"][0]["text"] for answer in answers]}


run(connection)
